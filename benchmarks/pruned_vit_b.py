"""What pruning costs and buys on a full-size backbone: ViT-B, random weights, 16x224x224, interleaved in one process.

    python benchmarks/pruned_vit_b.py --videos FILE... --keep 0.5 --threads 2 --rounds 12

Clips are windows of 16 frames, 4 apart, of the given video files (default: embedded clips), resized and cut to 224.
Exits with 1 if a target is missed: speed-up at least 0.9 of the ratio of multiply-accumulates; RLT's own work (score,
mask, gather) at most 2 % of the dense forward; STA's scoring at most 4 %; a ragged batch of four within 5 % of the sum
of its clips alone; no peak memory above dense, and those that drop before the first block below it (the others share
their first block with dense, to the byte).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from interleaved import speed, windows

from vpbench import plan
from vpbench.api import Clip, ClipBatch, Method, Pruner, Tokens, Trace
from vpbench.api.method import load_method
from vpbench.backbones.loading import load_backbone
from vpbench.backbones.videomae.network import VideoMAE
from vpbench.measure import machine, memory
from vpbench.tasks.recognition.session import Session, to_batch

METHODS = ("random", "rlt", "tdiff", "sta", "topk")
BEFORE = ("random", "rlt", "tdiff")


class Stopwatch(Pruner):
    """Runs another pruner and adds up the time it takes for itself."""

    def __init__(self, inner: Pruner) -> None:
        self.inner = inner
        self.ns = 0
        self.size_bias, self.size_pooling = inner.size_bias, inner.size_pooling

    def timed(self, call: Callable[..., object], *arguments: object) -> object:
        began = time.perf_counter_ns()
        out = call(*arguments)
        self.ns += time.perf_counter_ns() - began
        return out

    def video(self, batch: ClipBatch):  # type: ignore[no-untyped-def]
        return self.timed(self.inner.video, batch)

    def wants_received(self, layer: int) -> bool:
        return self.inner.wants_received(layer)

    def after_attention(self, layer: int, tokens: Tokens, trace: Trace):  # type: ignore[no-untyped-def]
        return self.timed(self.inner.after_attention, layer, tokens, trace)

    def after_block(self, layer: int, tokens: Tokens):  # type: ignore[no-untyped-def]
        return self.timed(self.inner.after_block, layer, tokens)


def gather_ns(model: VideoMAE, batch: ClipBatch, pruner: Pruner) -> int:
    """Time to collect the kept tubelets, all of it: to dense this is charged as embedding."""
    selection = pruner.video(batch)
    assert selection is not None
    began = time.perf_counter_ns()
    model.tubelets(batch.pixels, model.grid, selection)
    return time.perf_counter_ns() - began


def peak_job(setting: plan.Setting, method: Method, clip: Clip) -> Callable[[], object]:
    model = load_backbone(setting)
    pruner, batch = method.attach(model), to_batch([clip], "cpu")
    return lambda: model(batch, pruner)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, nargs="*", default=[])
    parser.add_argument("--keep", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--backbone", default="videomae_b")
    given = parser.parse_args()
    asked = plan.options({"method": ("dense",), "backbone": given.backbone, "weights": "random"})
    setting = plan.setting(asked.model_copy(update={"threads": given.threads}), given.threads)
    session = Session(setting)
    model = session.backbone
    clips = windows(given.videos, 16, 4) or session.clips_to_time()[:12]
    batches = [to_batch([clip], "cpu") for clip in clips]
    methods = {name: load_method(name)().at_keep(given.keep, model, clips) for name in given.methods.split(",")}
    pruners = {"dense": Pruner(), **{name: method.attach(model) for name, method in methods.items()}}
    found = machine.snapshot()
    facts = {"machine": found.device_name, "threads": given.threads, "load": found.load, "commit": found.git_commit}
    print(json.dumps(facts | {"clips": [clip.clip_id for clip in clips], "backbone": given.backbone}))
    with torch.inference_mode():
        failed = speed(model, pruners, batches, given.rounds, least=0.9)
        failed += own_work(model, pruners, batches)
        failed += ragged(model, pruners, clips)
    failed += peaks(setting, {"dense": load_method("dense")(), **methods}, clips[0])
    print("missed: " + "; ".join(failed) if failed else "all targets met")
    return 1 if failed else 0


def own_work(model: VideoMAE, pruners: dict[str, Pruner], batches: Sequence[ClipBatch]) -> list[str]:
    """Time that RLT and STA spend on themselves, as a share of the dense forward of the same clip."""
    missed = []
    for name, most in (("rlt", 0.02), ("sta", 0.04)):
        if name not in pruners:
            continue
        shares = []
        for batch in batches[:6]:
            watch = Stopwatch(pruners[name])
            began = time.perf_counter_ns()
            model(batch)
            dense = time.perf_counter_ns() - began
            model(batch, watch)
            shares.append((watch.ns + (gather_ns(model, batch, pruners[name]) if name == "rlt" else 0)) / dense)
        share = float(np.median(shares))
        print(f"{name}'s own work: {100 * share:.2f} % of the dense forward (at most {100 * most:g} %)")
        if share > most:
            missed.append(f"{name} spends {100 * share:.2f} % on itself")
    return missed


def ragged(model: VideoMAE, pruners: dict[str, Pruner], clips: Sequence[Clip]) -> list[str]:
    """A batch of four clips of different lengths against the four alone, in turn."""
    if "rlt" not in pruners:
        return []
    four = [clips[i] for i in np.linspace(0, len(clips) - 1, 4).round().astype(int)]
    together, alone = to_batch(four, "cpu"), [to_batch([clip], "cpu") for clip in four]
    pruner, ratios = pruners["rlt"], []
    lengths = model(together, pruner).counts[0].attention
    for _ in range(5):
        began = time.perf_counter_ns()
        model(together, pruner)
        middle = time.perf_counter_ns()
        for batch in alone:
            model(batch, pruner)
        ratios.append((middle - began) / (time.perf_counter_ns() - middle))
    print(f"ragged batch of {lengths} tokens: {np.median(ratios):.3f} of its clips alone (at most 1.05)")
    return [f"a ragged batch takes {np.median(ratios):.3f} of its clips"] if np.median(ratios) > 1.05 else []


def peaks(setting: plan.Setting, methods: dict[str, Method], clip: Clip) -> list[str]:
    """Peak resident memory of one forward, each in a process of its own."""
    found = {n: memory.measure_peak(peak_job, setting, method, clip, name=n).peak_mb for n, method in methods.items()}
    print("peak memory, MB: " + ", ".join(f"{name} {mb:.1f}" for name, mb in found.items()))
    most = {name: found["dense"] * (0.99 if name in BEFORE else 1.01) for name in found}
    return [f"{name} needs {mb:.1f} MB, dense {found['dense']:.1f}" for name, mb in found.items() if mb > most[name]]


if __name__ == "__main__":
    sys.exit(main())
