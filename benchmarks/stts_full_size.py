"""What STTS buys on full-size grid backbones: random weights, 224x224, interleaved in one process.

    python benchmarks/stts_full_size.py --videos FILE... --threads 2 --rounds 12

Clips are windows of the given video files as each backbone takes them (MViT 16 frames, 4 apart; VideoSwin 32, 2 apart).
Keeps 4 of 8 slices before block 0 of MViT-B, with and without windows of 12 x 12 before block 4, and 8 of 16 slices
before stage 0 of VideoSwin-B. Exits with 1 if a speed-up is below 0.85 of the ratio of multiply-accumulates.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from interleaved import speed, windows

from vpbench import plan
from vpbench.api import Pruner
from vpbench.backbones.loading import load_backbone
from vpbench.measure import machine
from vpbench.methods.stts import Stts
from vpbench.tasks.recognition.session import to_batch

SETTINGS = {
    "mvit_b_16x4": {"t4": Stts(time="0:4"), "t4 s12": Stts(time="0:4", space="4:12")},
    "videoswin_b": {"t8": Stts(time="0:8")},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, nargs="+", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--backbones", default=",".join(SETTINGS))
    given = parser.parse_args()
    found = machine.snapshot()
    print(json.dumps({"machine": found.device_name, "threads": given.threads, "load": found.load,
                      "commit": found.git_commit}))  # fmt: skip
    failed = []
    for name in given.backbones.split(","):
        asked = plan.options({"method": ("dense",), "backbone": name, "weights": "random"})
        model = load_backbone(plan.setting(asked.model_copy(update={"threads": given.threads}), given.threads))
        clips = windows(given.videos, model.config.frames, model.config.stride)
        print(json.dumps({"backbone": name, "clips": [clip.clip_id for clip in clips]}))
        pruners = {"dense": Pruner(), **{label: method.attach(model) for label, method in SETTINGS[name].items()}}
        with torch.inference_mode():
            failed += speed(model, pruners, [to_batch([clip], "cpu") for clip in clips], given.rounds, least=0.85)
    print("missed: " + "; ".join(failed) if failed else "all targets met")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
