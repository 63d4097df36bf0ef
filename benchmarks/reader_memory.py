"""Read many videos in one process and print its memory along the way: a reader that leaks shows here."""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import psutil

from vpbench.data.video import open_reader
from vpbench.datasets.synthmotion import HERE


def main() -> None:
    """Print a line per hundred videos; the videos are copies, so that each is a file of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=2000)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--decoder", choices=("pyav", "decord"), default="pyav")
    parser.add_argument("--from", dest="folder", type=Path, default=HERE / "clips", help="folder of .mp4 files")
    options = parser.parse_args()
    sources, process = sorted(options.folder.glob("*.mp4")), psutil.Process()
    began = time.perf_counter()
    print(f"{'videos':>7}{'RSS MB':>9}{'children MB':>13}{'open files':>12}{'seconds':>9}")
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.videos + 1):
            if number % max(options.videos // 20, 1) == 0:
                children = sum(child.memory_info().rss for child in process.children(recursive=True)) / 1e6
                spent = time.perf_counter() - began
                rss = process.memory_info().rss / 1e6
                print(f"{number:>7}{rss:>9.1f}{children:>13.1f}{process.num_fds():>12}{spent:>9.1f}", flush=True)
            path = Path(shutil.copy(sources[number % len(sources)], Path(folder) / f"{number}.mp4"))
            with open_reader(path, options.decoder) as reader:
                last = len(reader) - 1
                reader.read([last * k // max(options.frames - 1, 1) for k in range(options.frames)])
            path.unlink()


if __name__ == "__main__":
    main()
