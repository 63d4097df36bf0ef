"""What RGTP buys on ViViT-B at its published settings: random weights, 32x224x224, interleaved in one process.

    python benchmarks/rgtp_full_size.py --videos FILE... --threads 2 --rounds 4 --batch 3

Clips are windows of the given video files, 32 frames, 2 apart; `--batch` of them run together, as views of a video do:
a pruned step of a single view has too few tokens to pay for reading the weights. Prints what is lost on the way from
fewer multiply-accumulates to less time; exits with 1 if the speed-up at `keep_0215` is below 0.8 of the ratio.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from interleaved import macs, print_losses, speed, windows

from vpbench import plan
from vpbench.api import Pruner, Tokens
from vpbench.backbones.loading import load_backbone
from vpbench.measure import machine
from vpbench.methods.rgtp import Rgtp
from vpbench.plan import presets
from vpbench.tasks.recognition.session import to_batch

SETTINGS = ("k400_keep_0215", "k400_keep_049")


def method(preset: str) -> Rgtp:
    """Return the method of a preset of configs/rgtp.toml."""
    asked = plan.options({**presets.find(f"rgtp/{preset}"), "weights": "random"})
    cells = plan.cells(asked, plan.setting(asked, 1))
    [cell] = [c for c in cells if c.method == "rgtp"]
    return Rgtp(**dict(cell.params))  # type: ignore[arg-type]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, nargs="+", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--batch", type=int, default=3)
    given = parser.parse_args()
    found = machine.snapshot()
    print(json.dumps({"machine": found.device_name, "threads": given.threads, "batch": given.batch, "load": found.load,
                      "commit": found.git_commit}))  # fmt: skip
    asked = plan.options({"method": ("dense",), "backbone": "vivit_b_k400", "weights": "random"})
    model = load_backbone(plan.setting(asked.model_copy(update={"threads": given.threads}), given.threads))
    clips = windows(given.videos, model.config.frames, model.config.stride)
    print(json.dumps({"backbone": "vivit_b_k400", "clips": [clip.clip_id for clip in clips]}))
    pruners = {"dense": Pruner(), **{name.removeprefix("k400_"): method(name).attach(model) for name in SETTINGS}}
    starts = range(0, len(clips) - given.batch + 1, given.batch)
    batches = [to_batch(clips[start : start + given.batch], "cpu") for start in starts]
    with torch.inference_mode():
        missed = speed(model, pruners, batches, given.rounds, least=0.8)
        dense, pruned = pruners["dense"], pruners["keep_0215"]
        ratio = macs(model, dense, batches[0]) / macs(model, pruned, batches[0])
        print("keep_0215: ", end="")
        owners = [(*model.modules(), pruner, Tokens) for pruner in (dense, pruned)]
        print_losses([lambda _: model(batches[0], dense), lambda _: model(batches[0], pruned)], owners, ratio, 3)
    failed = [line for line in missed if line.startswith("keep_0215")]
    print("missed: " + "; ".join(failed) if failed else "all targets met")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
