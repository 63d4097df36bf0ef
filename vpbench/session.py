"""What the cells of one group share, loaded once: videos, backbone, and each cell's method attached to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from vpbench import checkpoints, registry
from vpbench.api import Backbone, Clip, ClipBatch, Dataset, FrameMethod, Method, Pruner, Video
from vpbench.errors import UsageError, VpbenchError
from vpbench.plan import Cell, Setting
from vpbench.video import DecodeError
from vpbench.views import centre_crop

N = TypeVar("N", bound=nn.Module)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Candidate:
    """A cell whose method has its parameters; `error` is set once something went wrong with it."""

    cell: Cell
    method: Method | FrameMethod
    status: str = field(default="ok", kw_only=True)
    error: str | None = field(default=None, kw_only=True)

    def fail(self, error: BaseException) -> None:
        """Remember why this cell has no result; it takes no further part."""
        memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
        self.status = "oom" if memory else "failed"
        self.error = f"{type(error).__name__}: {error}".splitlines()[0]


@dataclass
class Ready(Candidate):
    """A cell whose method is attached to a backbone that classifies clips."""

    method: Method
    pruner: Pruner


class Session:
    """The shared state of one group of cells."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.dataset = open_dataset(setting)
        self.videos = self.dataset.videos(setting.split)[: setting.limit]
        if not self.videos:
            raise UsageError(f"{setting.dataset} split {setting.split!r} holds no videos")
        self.backbone = load_backbone(setting)
        self.config = self.backbone.config
        if setting.weights != "random" and self.config.classes != len(self.dataset.classes):
            raise UsageError(
                f"weights {setting.weights} know {self.config.classes} classes, {setting.dataset} has "
                f"{len(self.dataset.classes)}; give weights that were trained on it"
            )
        #: cell id -> clip id -> tokens kept on average over the layers; random controls copy it
        self.kept: dict[str, dict[str, int]] = {}

    def ready(self, cell: Cell) -> Ready:
        """Set the method's parameters and attach it; raises UsageError where it cannot serve."""
        kind = registry.load_method(cell.method)
        if not self.backbone.plain and not kind.keeps_grid:
            raise UsageError(
                f"{cell.label} cannot run on {self.setting.backbone}: it would leave holes in its token grid"
            )
        method = kind(**dict(cell.params))
        if cell.keep is not None:
            method = at_keep(method, cell, self.backbone, self.calibration)
        if reason := method.supports(self.backbone):
            raise UsageError(f"{cell.label} cannot run on {self.setting.backbone}: {reason}")
        if cell.match is not None:
            pruner = method.attach_like(self.backbone, self.kept.setdefault(cell.match, {}))
        else:
            pruner = method.attach(self.backbone)
        if reason := self.backbone.refuses(pruner):
            raise UsageError(f"{cell.label} cannot run on {self.setting.backbone}: {reason}")
        return Ready(cell, method, pruner)

    @cached_property
    def calibration(self) -> Sequence[Clip]:
        """Clips that methods derive thresholds from; never evaluated, labels unused."""
        return [clip for video in self.dataset.calibration() for clip in self.clips(video)]

    def clips(self, video: Video) -> list[Clip]:
        """Decode the views of one video; raises DecodeError if it cannot be read or does not fit the backbone."""
        config = self.config
        found = list(self.dataset.clips(video, config.frames, config.stride, self.setting.decoder))
        for clip in found:
            if len(clip.pixels) != config.frames:
                raise DecodeError(f"{video.path}: {len(clip.pixels)} frames instead of {config.frames}")
        return [replace(clip, pixels=centre_crop(clip.pixels, config.height, config.width)) for clip in found]

    def batches(self, clips: Sequence[Clip]) -> Iterator[tuple[Sequence[Clip], ClipBatch]]:
        """Cut clips into batches on the device."""
        for start in range(0, len(clips), self.setting.batch):
            part = clips[start : start + self.setting.batch]
            yield part, to_batch(part, self.setting.device)


def at_keep(method: Method, cell: Cell, backbone: Backbone, calibration: Sequence[Clip]) -> Method:
    """Derive a method's parameters from the cell's keep ratio; raises UsageError if one of them was set as well."""
    derived = method.at_keep(cell.keep or 1.0, backbone, calibration)
    for name, value in cell.params:
        if getattr(derived, name) != value:
            raise UsageError(f"keep derives {cell.method}'s {name}; give --keep or --set {name}, not both")
    return derived


def open_dataset(setting: Setting) -> Dataset:
    """Open a dataset at its root."""
    return registry.load_dataset(setting.dataset)(None if setting.root is None else Path(setting.root))


def load_backbone(setting: Setting) -> Backbone:
    """Build the backbone with its weights on the device, and set the thread count."""
    backbone = checkpoints.build(setting.backbone, setting.weights, setting.seed)
    if setting.frames or setting.size:
        backbone.resize(setting.frames, setting.size, setting.positions)
    return use_device(backbone, setting)


def use_device(network: N, setting: Setting) -> N:
    """Put a network on the device, in its precision, and set the thread count; raises UsageError where it cannot."""
    torch.set_num_threads(setting.threads)
    torch.set_float32_matmul_precision("highest")
    try:
        return network.requires_grad_(False).to(device=setting.device, dtype=DTYPES[setting.dtype])
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {setting.device!r} cannot be used: {str(error).splitlines()[0]}") from error


def to_batch(clips: Sequence[Clip], device: str) -> ClipBatch:
    """Stack clips into one uint8 batch on the device."""
    pixels = torch.from_numpy(np.stack([clip.pixels for clip in clips])).to(device)
    return ClipBatch(pixels, tuple(clip.clip_id for clip in clips), tuple(clip.label for clip in clips))


def peak_job(setting: Setting, method: Method, counts: Mapping[str, int] | None, clips: Sequence[Clip]):  # type: ignore[no-untyped-def]
    """Build one configuration from nothing, for a process of its own; returns its forward without arguments."""
    backbone = load_backbone(setting)
    pruner = method.attach(backbone) if counts is None else method.attach_like(backbone, counts)
    batch = to_batch(clips, setting.device)
    return lambda: backbone(batch, pruner)


def explain(error: BaseException) -> str:
    """Say an error in one line: our own as they are, others with their type."""
    return str(error) if isinstance(error, VpbenchError) else f"{type(error).__name__}: {error}".splitlines()[0]
