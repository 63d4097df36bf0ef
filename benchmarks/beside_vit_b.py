"""Do MViT-B, VideoSwin-B and ViTDet-B (672) compute as fast as ViT-B? And how do they compare with another checkout?

    python benchmarks/beside_vit_b.py --threads 2 --rounds 6
    python benchmarks/beside_vit_b.py --threads 2 --rounds 6 --base DIR --only mvit,videoswin

Random weights and pixels, fp32, a clip or frame at a time; of ViTDet the transformer, without pyramid and head. `stts`
keeps 4 of 8 slices and windows of 12 x 12 in MViT-B, 8 of 16 slices in VideoSwin-B. All run in turns, in random order.
With `--base`, each network runs in both trees one after the other, in processes that wait for each other, and the
largest difference of their outputs is printed, relative to the largest output.

Besides, of each network here: what its linear layers, its attention and its convolutions take by themselves, replayed
without anything between them (operands of the same shapes and strides); what is left is spent on everything else. That
tells how much there is to gain. Exits with 1 if the GFLOP/s of dense MViT-B or VideoSwin-B are below 0.9 of ViT-B's, or
if, with `--base`, MViT-B pruned, VideoSwin-B pruned or ViTDet-B is less than 1.15 times as fast as there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

HERE = Path(__file__).resolve()
#: what runs -> backbone and STTS's selections
NETWORKS: dict[str, tuple[str, dict[str, str] | None]] = {
    "vit": ("videomae_b", None),
    "mvit": ("mvit_b_16x4", None),
    "mvit stts": ("mvit_b_16x4", {"time": "0:4", "space": "4:12"}),
    "videoswin": ("videoswin_b", None),
    "videoswin stts": ("videoswin_b", {"time": "0:8"}),
    "vitdet": ("vitdet_b_672", None),
}
#: where a tree has what is needed, the newest place first
BUILD = ("vpbench.backbones.loading", "vpbench.checkpoints")
DETECTOR = ("vpbench.backbones.vitdet.network", "vpbench.backbones.vitdet")
COSTS = ("vpbench.backbones.vitdet.costs", "vpbench.backbones.vitdet_macs")
SHARE, FASTER = 0.9, 1.15
BESIDE, BETTER = ("mvit", "videoswin"), ("mvit stts", "videoswin stts", "vitdet")
#: operators by what they are; in inference mode some come whole, and what they call is not seen
KINDS = {
    "linear": ("linear", "addmm", "mm"),
    "attention": (
        "scaled_dot_product_attention",
        "_scaled_dot_product_flash_attention_for_cpu",
        "matmul",
        "bmm",
        "baddbmm",
    ),
    "convolution": ("conv2d", "conv3d", "convolution"),
}


class Network:
    """One network of the tree that this process imports, and what it runs on."""

    def __init__(self, name: str) -> None:
        backbone, selections = NETWORKS[name]
        generator = torch.Generator().manual_seed(1)
        loading = first(BUILD)
        if backbone.startswith("vitdet"):
            self.model = loading.build_detector(backbone, "random", 0)
            self.pixels = torch.randint(0, 256, (1, 378, 672, 3), dtype=torch.uint8, generator=generator)
            self.forward: Callable[[], torch.Tensor] = self._frame
        else:
            self.model = loading.build(backbone, "random", 0)
            size = (1, self.model.config.frames, 224, 224, 3)
            pixels = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
            api, stts = import_module("vpbench.api"), import_module("vpbench.methods.stts")
            self.batch = api.ClipBatch(pixels, ("clip",))
            self.pruner = api.Pruner() if selections is None else stts.Stts(**selections).attach(self.model)
            self.forward = self._clip
        self.model.requires_grad_(False)

    def first_forward(self) -> tuple[torch.Tensor, int]:
        """Return the output, and the multiply-accumulates of a forward, the method's own included."""
        if self.forward == self._frame:
            return self.forward(), int(first(COSTS).frame_macs(self.model.config))
        out = self.model(self.batch, self.pruner)
        own = self.pruner.macs(tuple(each.attention[0] for each in out.counts))
        return out.logits, int(out.macs[0]) + int(own)

    def _clip(self) -> torch.Tensor:
        return self.model(self.batch, self.pruner).logits

    def _frame(self) -> torch.Tensor:
        return self.model.forward_frame(self.model.embed(self.pixels), first(DETECTOR).Segments()).output


def first(places: Sequence[str]) -> Any:
    """Import the first of these modules that there is."""
    for place in places[:-1]:
        try:
            return import_module(place)
        except ModuleNotFoundError:
            continue
    return import_module(places[-1])


class Products(TorchDispatchMode):
    """Notes the linear layers, attentions and convolutions of what runs under it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, list[tuple[Any, list[Any], dict[str, Any]]]] = {kind: [] for kind in KINDS}
        self._operands: dict[tuple[Any, ...], torch.Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for kind, names in KINDS.items():
            if func.overloadpacket.__name__ in names:
                given = {name: self._like(value) for name, value in (kwargs or {}).items()}
                self.calls[kind].append((func, [self._like(each) for each in args], given))
        return func(*args, **(kwargs or {}))

    def _like(self, given: Any) -> Any:
        """Return random numbers of this shape and these strides, the same for all that agree in both."""
        if not isinstance(given, torch.Tensor):
            return given
        key = (given.shape, given.stride())
        if key not in self._operands:
            reach = 1 + sum((size - 1) * stride for size, stride in zip(*key, strict=True))
            self._operands[key] = torch.randn(reach).as_strided(*key)
        return self._operands[key]

    def replayed(self, kind: str) -> int:
        """Return the nanoseconds that all calls of a kind take, one after the other."""
        began = time.perf_counter_ns()
        for func, args, kwargs in self.calls[kind]:
            func(*args, **kwargs)
        return time.perf_counter_ns() - began


def work() -> None:
    """Answer requests from standard input, a line each, until it ends: build, run, replay."""
    networks: dict[str, Network] = {}
    products: dict[str, Products] = {}
    answer: Any
    with torch.inference_mode():
        for line in sys.stdin:
            asked = json.loads(line)
            name = asked["name"]
            if asked["do"] == "build":
                torch.set_num_threads(asked["threads"])
                with torch.inference_mode(False):  # older trees cannot run what was made inside
                    networks[name] = Network(name)
                out, answer = networks[name].first_forward()
                torch.save(out, asked["out"])
            elif asked["do"] == "run":
                began = time.perf_counter_ns()
                networks[name].forward()
                answer = time.perf_counter_ns() - began
            else:
                if name not in products:
                    with Products() as products[name]:
                        networks[name].forward()
                    for kind in products[name].calls:
                        products[name].replayed(kind)
                answer = {kind: products[name].replayed(kind) for kind in products[name].calls}
            print(json.dumps(answer), flush=True)


class Tree:
    """A checkout, in a process of its own that waits until it is asked."""

    def __init__(self, folder: Path) -> None:
        environment = os.environ | {"PYTHONPATH": str(folder)}
        self._process = subprocess.Popen(
            [sys.executable, str(HERE), "--worker"], cwd=folder, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def ask(self, do: str, name: str, **more: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, "name": name, **more}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"a worker ended while it was asked to {do} {name}")
        return json.loads(answer)

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--base", type=Path, help="another checkout, to take turns with")
    parser.add_argument("--only", default=",".join(NETWORKS), help="networks, with commas between (default: all)")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work()
        return 0
    names = given.only.split(",")
    trees = {"here": Tree(HERE.parent.parent)} | ({} if given.base is None else {"base": Tree(given.base.resolve())})
    facts = import_module("vpbench.measure.machine").snapshot()
    print(json.dumps({"machine": facts.device_name, "threads": given.threads, "load": facts.load,
                      "commit": facts.git_commit}))  # fmt: skip
    macs, apart = built(trees, names, given.threads)
    wall = {tree: {name: np.zeros(given.rounds) for name in names} for tree in trees}
    alone: dict[str, dict[str, list[int]]] = {name: {kind: [] for kind in KINDS} for name in names}
    order = np.random.default_rng(0)
    for turn in range(given.rounds):
        for name in order.permutation(names):
            for tree in order.permutation(list(trees)):
                wall[tree][name][turn] = trees[tree].ask("run", name)
            for kind, took in trees["here"].ask("replay", name).items() if turn < 2 else ():
                alone[name][kind].append(took)
    for tree in trees.values():
        tree.end()
    return report(wall, alone, macs, apart)


def built(trees: dict[str, Tree], names: Sequence[str], threads: int) -> tuple[dict[str, int], dict[str, float]]:
    """Build all networks; returns their multiply-accumulates, and how far apart outputs of both trees are."""
    macs, apart = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            outputs = []
            for label, tree in trees.items():
                out = Path(folder) / label
                found = tree.ask("build", name, threads=threads, out=str(out))
                macs[name] = macs.get(name, found)
                outputs.append(torch.load(out, weights_only=True))
            apart[name] = float((outputs[0] - outputs[-1]).abs().max() / outputs[-1].abs().max())
    return macs, apart


def report(
    wall: dict[str, dict[str, np.ndarray]],
    alone: dict[str, dict[str, list[int]]],
    macs: dict[str, int],
    apart: dict[str, float],
) -> int:
    """Print a line for each network; returns the exit code."""
    missed, speedup = [], import_module("vpbench.rows.statistics.intervals").speedup
    heads = ("ms", "GMACs", "GFLOP/s", "of ViT-B's", *KINDS, "the rest", "faster than base", "outputs apart")
    print(f"{'':<16}" + "".join(f"{head:>{max(9, len(head) + 2)}}" for head in heads))
    for name, times in wall["here"].items():
        took, reached = np.median(times), 2 * macs[name] / times
        parts = [float(np.median(each)) / took for each in alone[name].values()]
        cells = [f"{took / 1e6:.0f}", f"{macs[name] / 1e9:.1f}", f"{np.median(reached):.0f}"]
        beside = float(np.median(reached / (2 * macs["vit"] / wall["here"]["vit"]))) if "vit" in macs else np.nan
        cells += [f"{beside:.2f}", *(f"{part:.1%}" for part in (*parts, 1 - sum(parts)))]
        if name in BESIDE and beside < SHARE:
            missed.append(f"{name} reaches {beside:.2f} of ViT-B's")
        if "base" in wall:
            gain = speedup(wall["base"][name], times, np.zeros(len(times), int))
            cells += [f"{gain.value:.2f} [{gain.lo:.2f}, {gain.hi:.2f}]", f"{apart[name]:.1e}"]
            if name in BETTER and gain.value < FASTER:
                missed.append(f"{name} is {gain.value:.2f} times as fast as at the base")
        print(f"{name:<16}" + "".join(f"{c:>{max(9, len(h) + 2)}}" for c, h in zip(cells, heads, strict=False)))
    print("missed: " + "; ".join(missed) if missed else "all targets met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
