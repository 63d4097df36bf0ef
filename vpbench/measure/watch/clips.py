"""Follow the tokens of one clip through a backbone: what became of each of them, and what the method rated them by."""

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from vpbench.api import Classifier, Clip, ClipBatch, GridBackbone, Output, Pruner
from vpbench.measure.watch.grid import GridWatch
from vpbench.measure.watch.sites import standing_in
from vpbench.measure.watch.stream import StreamWatch
from vpbench.rows.fates import Fate

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Watched(Generic[Answer]):
    """What came of a clip: the network's answer, the fate of its tokens, and what the method noted of them.

    `values`: by the method's own names, float32 `[slots, rows, columns]`; NaN for tokens that were not rated, or were
    no longer there.
    """

    output: Answer
    fate: Fate
    values: dict[str, NDArray[np.float32]]


def watched(backbone: Classifier, batch: ClipBatch, pruner: Pruner, *, values: bool = False) -> Watched[Output]:
    """Run a backbone on a batch of one clip and watch.

    values: also what the method notes about tokens. Raises UsageError where a method makes frames or tokens of which
    cannot be told where they come from.
    """
    if len(batch.ids) != 1:
        raise ValueError(f"one clip at a time can be watched, not {len(batch.ids)}")
    watch = GridWatch(backbone, batch) if isinstance(backbone, GridBackbone) else StreamWatch(backbone, batch)
    before = pruner.record
    pruner.record = {} if values else before
    try:
        with standing_in(pruner, watch.sites(values)), torch.inference_mode():
            output = backbone(batch, pruner)
    finally:
        pruner.record = before
    return Watched(output, watch.fate(), watch.values)


def as_seen(clip: Clip) -> NDArray[np.uint8]:
    """Return a clip's frames as pictures, uint8 `[T, H, W, 3]`, also where its pixels are floats."""
    return clip.pixels if clip.pixels.dtype == np.uint8 else clip.pixels.round().clip(0, 255).astype(np.uint8)
