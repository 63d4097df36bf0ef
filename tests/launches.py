"""Operators that a forward launches on a CUDA device, of every method; run this file to write them down anew."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import torch
from conftest import moving_clip
from helpers import construct
from pretend_cuda import OnCuda, Seen, build_guard, pretending, to_cuda
from tiny_backbones import MVIT, VIDEOSWIN
from torch import Tensor, nn

from vpbench import registry
from vpbench.api import Classifier, ClipBatch, Method, Pruner
from vpbench.api.method import load_method
from vpbench.backbones.videomae import VideoMAEConfig
from vpbench.backbones.vitdet import HeadConfig, ViTDetConfig
from vpbench.backbones.vitdet.network import Segments, ViTDet
from vpbench.backbones.vivit import ViViTConfig
from vpbench.errors import UsageError
from vpbench.registry import Sizes
from vpbench.tasks.recognition.session import to_batch

FILE = Path(__file__).with_suffix(".json")
#: clips of a forward: of more, there are no more operators (see `test_launches.py`)
CLIPS, KEEP = 8, 0.5
#: as deep as the published ones, and as narrow as can be: operators do not depend on widths
SIZES: dict[str, Sizes] = {
    "videomae": VideoMAEConfig(16, 12, 2, frames=16, height=12, width=12, tubelet=2, patch=4, classes=5),
    "vivit": ViViTConfig(16, 12, 2, frames=32, height=16, width=16, patch=4, classes=5),
    "mvit": replace(MVIT, depth=16),
    "videoswin": replace(VIDEOSWIN, depths=(2, 2, 18, 2), heads=(1, 2, 4, 8)),
}
#: segments that a detector follows, and frames of each
SEGMENTS, FRAMES = 2, 3
DETECTOR = ViTDetConfig(
    16, 12, 2, side=64, patch=8, window=5, positions=6, global_table=8,
    head=HeadConfig(4, 8, anchor_sizes=(8, 16, 24, 32, 48), pre_nms=100, post_nms=30, canonical_size=24,
                    canonical_level=3, fc_dim=16, score_threshold=0.2),
)  # fmt: skip
#: type of the weights, and of autocast
PRECISIONS: dict[str, tuple[torch.dtype, torch.dtype | None]] = {
    "fp32": (torch.float32, None),
    "bf16": (torch.bfloat16, None),
    "amp": (torch.float32, torch.bfloat16),
}
#: its gradient needs an autograd engine that knows the device; it reads labels, and its time is no claim
_ELSEWHERE = ("oracle",)


class Forward(NamedTuple):
    """One forward of a method on the pretended device."""

    method: str
    precision: str
    seen: Seen
    #: times that the method says it has to wait for the device
    waits: int
    #: whether it makes one token of several
    merges: bool
    #: logits, or boxes
    output: Tensor
    #: what the CPU makes of the same clips or frames
    expected: Callable[[], Tensor]


class Family:
    """A narrow backbone of one family with random weights, and clips."""

    def __init__(self, name: str, clips: int = CLIPS) -> None:
        torch.manual_seed(0)
        self.model = construct(SIZES[name]).eval().requires_grad_(False)
        self.clips = [moving_clip(number, self.model.config) for number in range(clips)]  # type: ignore[arg-type]
        self.batch = to_batch(self.clips, "cpu")
        #: methods that have left on the device what is the same in every forward
        self.warm: set[str] = set()
        self.known: dict[str, Method | None] = {}

    @cached_property
    def methods(self) -> list[str]:
        return ["dense", *(name for name in registry.names("methods") if name not in ("dense", *_ELSEWHERE))]

    def method(self, name: str) -> Method | None:
        """Return a method at the keep ratio, None where it is not for this backbone."""
        if name not in self.known:
            try:
                found = load_method(name)().at_keep(1.0 if name == "dense" else KEEP, self.model, self.clips[:2])
            except UsageError:
                found = None
            self.known[name] = found
        return self.known[name]

    def attached(self, name: str, model: Classifier) -> Pruner | None:
        method = self.method(name)
        pruner = None if method is None or method.supports(model) else method.attach(model)
        return None if pruner is None or model.refuses(pruner) else pruner

    def forwards(
        self, methods: Sequence[str] | None = None, precisions: Sequence[str] = tuple(PRECISIONS)
    ) -> Iterator[Forward]:
        """Run methods, by default all of them, in these precisions."""
        for precision in precisions:
            dtype, autocast = PRECISIONS[precision]
            host = copy.deepcopy(self.model).to(dtype)
            pruners = {name: self.attached(name, host) for name in methods or self.methods}
            device = copy.deepcopy(host)
            to_cuda(device)
            batch = replace(self.batch, pixels=OnCuda(self.batch.pixels))
            with pretending(autocast):
                device(replace(batch, pixels=OnCuda(self.batch.pixels[:1])))  # what is derived of weights, is kept
            for name, pruner in pruners.items():
                if pruner is not None:
                    yield self._forward(name, precision, device, batch, pruner)

    def _forward(self, name: str, precision: str, device: Classifier, batch: ClipBatch, pruner: Pruner) -> Forward:
        for each in vars(pruner).values():
            if isinstance(each, nn.Module):
                to_cuda(each)
        with pretending(PRECISIONS[precision][1]):
            if name not in self.warm:
                device(batch, pruner)
        self.warm.add(name)
        with pretending(PRECISIONS[precision][1]) as seen:
            logits = device(batch, pruner).logits

        def expected() -> Tensor:
            again = self.attached(name, self.model)
            assert again is not None
            with torch.no_grad():
                return self.model(self.batch, again).logits

        assert isinstance(logits, OnCuda)
        return Forward(name, precision, seen, pruner.waits, pruner.merges, logits.numbers, expected)


class Detector:
    """A narrow detector with random weights, and frames of moving noise."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = ViTDet(DETECTOR).eval().requires_grad_(False)
        head = self.model.roi_heads.box_predictor
        for each in (head.cls_score, self.model.proposal_generator.rpn_head.anchor_deltas):
            each.weight.data.mul_(20)  # boxes and scores that differ
        wide = torch.randint(0, 256, (SEGMENTS, 64, 64 + 8 * FRAMES, 3), dtype=torch.uint8)
        self.frames = [wide[:, :, 8 * t : 8 * t + 64].contiguous() for t in range(FRAMES)]

    def forwards(self) -> Iterator[Forward]:
        """Run the methods that take detectors in every precision; what is seen is of the last frame."""
        for precision, (dtype, autocast) in PRECISIONS.items():
            host = copy.deepcopy(self.model).to(dtype)
            device = copy.deepcopy(host)
            to_cuda(device)
            for name in ("dense", "eventful", "eventful_random", "rgtp", "rgtp_random"):
                with pretending(autocast):
                    *_, (seen, found) = self._walk(name, host, device, OnCuda)
                waits = device.waits + load_method(name)().attach(host).waits
                assert isinstance(found, OnCuda)
                yield Forward(name, precision, seen, waits, False, found.numbers, partial(self._expected, name))

    def regions(self, precision: str) -> Seen:
        """Return what the head's second stage launches for a frame of each segment."""
        dtype, autocast = PRECISIONS[precision]
        device = copy.deepcopy(self.model).to(dtype)
        to_cuda(device)
        with pretending(autocast):
            levels = device.pyramid(device(OnCuda(self.frames[0]), Segments())[0].output)
            proposals = device.propose(levels)
            with pretending(autocast) as seen:
                device.roi_heads(levels[: len(device.stages)], proposals, device.config.side)
        return seen

    def _walk(
        self, name: str, host: ViTDet, network: ViTDet, bring: Callable[[Tensor], Tensor]
    ) -> Iterator[tuple[Seen, Tensor]]:
        """Yield of each frame what is seen, and the boxes that are found."""
        pruner, segments = load_method(name)().attach(host), Segments()
        pruner.restart([(f"video{number}", 0) for number in range(SEGMENTS)])
        for frame in self.frames:
            with pretending() as seen:
                _, found = network(bring(frame), segments, pruner)
            yield seen, torch.cat([each.boxes for each in found])

    def _expected(self, name: str) -> Tensor:
        with torch.no_grad():
            *_, (_, found) = self._walk(name, self.model, self.model, lambda frame: frame)
        return found


def written(found: dict[str, dict[str, int]]) -> str:
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(each)}" for key, each in found.items())
    return f'{{\n "torch": "{torch_version()}",\n "clips": {CLIPS},\n "operators": {{\n{lines}\n }}\n}}\n'


def torch_version() -> str:
    return ".".join(torch.__version__.split(".")[:2])


def measure() -> dict[str, dict[str, int]]:
    """Return operators by `backbone/method` and precision."""
    torch.set_num_threads(1)
    found: dict[str, dict[str, int]] = {}
    for family in SIZES:
        for each in Family(family).forwards():
            found.setdefault(f"{family}/{each.method}", {})[each.precision] = each.seen.operators
    detector = Detector()
    for each in detector.forwards():
        found.setdefault(f"vitdet/{each.method}", {})[each.precision] = each.seen.operators
    found["vitdet/regions"] = {precision: detector.regions(precision).operators for precision in PRECISIONS}
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        build_guard(Path(folder))
    FILE.write_text(written(measure()), encoding="utf-8")
