"""What does a fine-tuning keep when it is killed? kill -9 of its processes at random moments, then the command again.

    python benchmarks/kill_finetune.py --kills 10 --between 6,14 --out FOLDER

The same fine-tuning runs once undisturbed. At the end both have to have the same weights, to the bit, and the same log.
A checkpoint is written every half second, so that many kills fall into the writing of one. Exits with 1 where anything
differs, or a checkpoint is of an earlier step than the one before it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from vpbench.datasets.synthmotion import HERE

RUN = "from vpbench.commands.train import loop; loop.SAVE_EVERY_S = 0.5; from vpbench import cli; cli.main()"
ARGUMENTS = (
    *("train", "finetune", "--backbone", "videomae_embedded", "--method", "rlt", "--set", "threshold=0.1"),
    *("--set", "mixup=0.8", "--set", "drop_path=0.1", "--set", "dropout=0.1", "--set", "ema=0.9"),
    *("--root", str(HERE / "clips"), "--split", "ci", "--batch", "4", "--threads", "1"),
)
_TIMES = ("seconds", "clips_per_s")


def started(out: Path, steps: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", RUN, *ARGUMENTS, "--steps", str(steps), "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)


def step_of(out: Path) -> int:
    """Return the step of the checkpoint, 0 without one."""
    file = out / "checkpoint.pt"
    return int(json.loads(torch.load(file, weights_only=True)["counts"])[0]) if file.exists() else 0


def finished(out: Path, steps: int) -> None:
    process = started(out, steps)
    _, said = process.communicate()
    if process.returncode:
        sys.exit(said.decode())


def log_of(out: Path) -> list[dict[str, object]]:
    [file] = out.glob("*.log.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in _TIMES} for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--between", default="6,14", help="seconds from a start to its kill, least and most")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    least, most = map(float, asked.between.split(","))
    draw, whole, parts = random.Random(asked.seed), asked.out / "whole", asked.out / "killed"
    finished(whole, asked.steps)
    wrong, before = [], 0
    for kill in range(asked.kills):
        process = started(parts, asked.steps)
        time.sleep(draw.uniform(least, most))
        ended = process.poll() is not None
        if not ended:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        step = step_of(parts)
        wrong += [f"back to step {step} at kill {kill + 1}"] if step < before else []
        torn = [path.name for path in parts.glob(".*.tmp")] if parts.exists() else []
        print(
            f"kill {kill + 1}: {'it had ended' if ended else f'at step {step}'}, {torn or 'nothing'} half written",
            flush=True,
        )
        before = step
    finished(parts, asked.steps)
    [first], [second] = whole.glob("*.safetensors"), parts.glob("*.safetensors")
    expected, found = load_file(first), load_file(second)
    wrong += [name for name in expected if not torch.equal(expected[name], found[name])]
    wrong += [] if log_of(whole) == log_of(parts) else ["the log"]
    said = f"differ: {', '.join(wrong)}" if wrong else "equal to the bit"
    print(f"{len(expected)} tensors after {asked.steps} steps: {said}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
