"""Methods on V-JEPA 2 ViT-L, random weights, 256 pixels, over two clips: tokens, GMACs, seconds and memory of a sweep.

    python benchmarks/vjepa2.py --frames 64 --out FOLDER

A clip is eight embedded ones, one after the other, since one of 64 frames at the checkpoint's stride of 4 takes 253.
Predictions alone: their clips and methods are those of a sweep, its times would take hours on two cores.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from vpbench.datasets.synthmotion import HERE, encode

METHODS = "random,rlt,tdiff,topk,tome,sta"


def write_clips(folder: Path, joined: int = 8) -> None:
    """Write two videos to see and two to calibrate on, each of `joined` embedded clips, as class folders."""
    sources = sorted((HERE / "clips").glob("*.mp4"))
    for number, group in enumerate(zip(*[iter(sources[: 4 * joined])] * joined, strict=True)):
        target = folder / ("val", "train")[number // 2] / f"class_{number % 2}" / f"{number}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(encode.encode(np.concatenate([encode.decode(each.read_bytes()) for each in group])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    clips = options.out / "clips"
    write_clips(clips)
    sweep = (
        f"sweep --backbone hf_vjepa2_l --weights random --dataset folder --root {clips} --split val --method {METHODS} "
        f"--keep 0.25,0.5 --frames {options.frames} --only predict --threads {options.threads} "
        f"--out {options.out / 'results'}"
    )
    print(f"vpbench {sweep}", flush=True)
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "vpbench", *sweep.split()], check=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"{(time.monotonic() - began) / 60:.1f} minutes; peak of resident memory {peak:.1f} GiB")


if __name__ == "__main__":
    main()
