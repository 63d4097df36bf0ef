"""How fast is one core at turning videos into views? Ours against plain loops of decord and torch, side by side.

    python benchmarks/preprocess.py --videos FILE... --rounds 20

The given videos are first encoded again as copies of Kinetics are: 10 s, 30 frames per second, 340x256, H.264. Each is
then cut into VideoMAE's 5 x 3 views by our reader (PyAV) and protocol, and by two plain loops over decord's VideoReader
with one thread: one resizes the frames of every view, as published loops do, the other those of a video once. All run
in one process on one core and are timed in CPU seconds, in interleaved rounds. Exits with 1 if ours is slower than
either loop, or if it gives other views than they do.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import decord
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vpbench.data import Video
from vpbench.data.protocols import catalog, shape
from vpbench.data.video import open_video
from vpbench.rows.statistics import intervals

FRAMES, STRIDE, SIDE = 16, 4, 224
SHAPE = shape.Shape(FRAMES, SIDE, SIDE, STRIDE)
PROTOCOL = catalog.find("videomae_5x3", seed=0)

Frames = NDArray[np.uint8]
#: views, CPU seconds until they were decoded, CPU seconds until they were cut
Result = tuple[list[Frames], float, float]


def as_kinetics(source: Path, target: Path) -> None:
    """Encode 300 frames, 340x256; a source that is shorter runs back and forth."""
    with av.open(str(source)) as container:
        frames = [frame.to_ndarray(format="rgb24", width=340, height=256) for frame in container.decode(video=0)]
    frames += frames[-2:0:-1]
    with av.open(str(target), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 340, 256, "yuv420p"
        for number in range(300):
            frame = av.VideoFrame.from_ndarray(frames[number % len(frames)], format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def ours(path: Path) -> Result:
    video, began = Video(path.stem, path, label=0), time.process_time()
    with open_video(video, "pyav") as reader:
        plan = PROTOCOL.plan(reader, video, SHAPE)
        frames = reader.read(plan.wanted)
    decoded = time.process_time()
    clips = PROTOCOL.crop(frames, plan, video, SHAPE)
    return [clip.pixels for clip in clips], decoded - began, time.process_time() - decoded


def plain(path: Path, views: Callable[[Frames], Iterator[Tensor]]) -> Result:
    began = time.process_time()
    reader = decord.VideoReader(str(path), num_threads=1)
    frames = reader.get_batch(list(range(0, len(reader), STRIDE))).asnumpy()
    del reader
    decoded = time.process_time()
    found = [view.numpy() for view in views(frames)]
    return found, decoded - began, time.process_time() - decoded


def resized(frames: Frames) -> Tensor:
    """Return uint8 `[F, h, w, 3]` with a short side of 224."""
    rows, cols = frames.shape[1:3]
    short = min(rows, cols)
    size = (SIDE * rows // short, SIDE * cols // short)
    floats = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    large = F.interpolate(floats, size=size, mode="bilinear", align_corners=False)
    return large.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def cropped(large: Tensor, number: int) -> Tensor:
    top, left = (int(number * (side - SIDE) / 2) for side in large.shape[1:3])
    return large[:, top : top + SIDE, left : left + SIDE].contiguous()


def starts(frames: Frames) -> list[int]:
    return [int(number * (len(frames) - FRAMES) / 4) for number in range(5)]


def per_view(frames: Frames) -> Iterator[Tensor]:
    for start in starts(frames):
        for number in range(3):
            yield cropped(resized(frames[start : start + FRAMES]), number)


def per_video(frames: Frames) -> Iterator[Tensor]:
    large = resized(frames)
    for start in starts(frames):
        for number in range(3):
            yield cropped(large[start : start + FRAMES], number)


VARIANTS: dict[str, Callable[[Path], Result]] = {
    "ours": ours,
    "plain, resized per view": lambda path: plain(path, per_view),
    "plain, resized per video": lambda path: plain(path, per_video),
}


def measured(paths: list[Path], rounds: int) -> dict[str, NDArray[np.float64]]:
    """CPU seconds of decoding and of preprocessing `[rounds, 2]`, all videos together, of each variant."""
    seconds = {name: np.zeros((rounds, 2)) for name in VARIANTS}
    order = np.random.default_rng(0)
    for number in range(rounds):
        for path in paths:
            for name in order.permutation(list(VARIANTS)):
                _, decoding, preprocessing = VARIANTS[name](path)
                seconds[name][number] += (decoding, preprocessing)
    return seconds


def different(paths: list[Path]) -> list[str]:
    """Say where our views are not those of the plain loops; runs each variant once, which warms it up."""
    wrong = []
    for path in paths:
        views = {name: np.stack(variant(path)[0]) for name, variant in VARIANTS.items()}
        wrong += [
            f"{path.name}: {name}: {(pixels != views['ours']).mean():.2%} of the values differ"
            for name, pixels in views.items()
            if not np.array_equal(pixels, views["ours"])
        ]
    return wrong


def report(seconds: dict[str, NDArray[np.float64]], videos: int) -> list[str]:
    """Print times per video and how much faster ours is; returns what it is slower than."""
    slower = []
    print(f"{'CPU ms per video':<28}{'decode':>8}{'preprocess':>12}{'total':>8}{'ours is faster by':>36}")
    for name, samples in seconds.items():
        decoding, preprocessing = np.median(samples, axis=0) / videos * 1e3
        line = f"{name:<28}{decoding:>8.1f}{preprocessing:>12.1f}{decoding + preprocessing:>8.1f}"
        if name != "ours":
            mine, rounds = seconds["ours"], np.zeros(len(samples), int)
            parts = zip([*samples.T, samples.sum(1)], [*mine.T, mine.sum(1)], strict=True)
            gains = [intervals.speedup(theirs, own, rounds) for theirs, own in parts]
            text = ", ".join(f"{gain.value:.2f} [{gain.lo:.2f}, {gain.hi:.2f}]" for gain in gains)
            line += f"   decode, preprocess, total: {text}"
            if gains[-1].value < 1:
                slower.append(f"slower than {name}: {gains[-1].value:.2f}")
        print(line)
    return slower


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, nargs="+", required=True)
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{source.stem}.mp4" for source in given.videos]
        for source, path in zip(given.videos, paths, strict=True):
            as_kinetics(source, path)
        complaints = different(paths)
        complaints += report(measured(paths, given.rounds), len(paths))
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
