"""Follow the tokens of a video's frames through a detector: which went on, what they were rated by, what was found."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vpbench.api import Detections, Pruner
from vpbench.backbones.vitdet.network import ViTDet
from vpbench.measure.watch.clips import Watched
from vpbench.measure.watch.sites import standing_in
from vpbench.rows.fates import DROPPED, Fate, Stage, whole
from vpbench.tasks.detection.follow import Follower, Look


def watched_frames(
    model: ViTDet, looks: Sequence[Look], pruner: Pruner, *, values: bool = False
) -> Watched[tuple[Detections, ...]]:
    """Show a detector the first frames of a segment, which are the slots of the fate, and watch.

    A token that does not go on is dropped, though what older frames knew of its place stays. values: also what the
    method notes about tokens; NaN in frames without.
    """
    kept: list[Tensor | None] = []
    found: list[Detections] = []
    notes: list[dict[str, Tensor]] = []

    def frame(asked: Callable[[Tensor], Tensor | None], embedded: Tensor) -> Tensor | None:
        kept.append(asked(embedded))
        return kept[-1]

    before, follower = pruner.record, Follower(model, pruner)
    try:
        with standing_in(pruner, {"frame": frame}), torch.inference_mode():
            follower.start(looks[:1])
            for look in looks:
                notes.append({})
                pruner.record = notes[-1] if values else before
                found.append(follower.step([look])[0].detections)
    finally:
        pruner.record = before
    return Watched(tuple(found), _fate(model, looks[0].video_id, kept), _values(model, notes))


def _fate(model: ViTDet, video_id: str, kept: Sequence[Tensor | None]) -> Fate:
    """Say what became of the tokens of all frames; kept: those that went on in each, None for all."""
    config = model.config
    fate = whole(video_id, (len(kept), config.grid, config.grid), (1, config.patch, config.patch))
    if all(each is None for each in kept):
        return fate
    token = fate.final.reshape(len(kept), -1).copy()
    for own, each in zip(token, kept, strict=True):
        if each is not None:
            own[np.setdiff1d(np.arange(config.tokens), each[0].cpu().numpy())] = DROPPED
    return replace(fate, stages=(Stage("block 0", token.ravel()),))


def _values(model: ViTDet, notes: Sequence[dict[str, Tensor]]) -> dict[str, NDArray[np.float32]]:
    """Collect what was noted about each token, frame by frame, under its name."""
    side, tokens = model.config.grid, model.config.tokens
    found: dict[str, NDArray[np.float32]] = {}
    for number, note in enumerate(notes):
        for name, value in note.items():
            if value.is_floating_point() and value.numel() == tokens:
                every = found.setdefault(name, np.full((len(notes), side, side), np.nan, np.float32))
                every[number] = value.float().cpu().numpy().reshape(side, side)
    return found


def as_seen(model: ViTDet, looks: Sequence[Look]) -> NDArray[np.uint8]:
    """Return frames as the detector's tokens tile them, uint8 `[frames, side, side, 3]`: black beyond their edges."""
    side = model.config.side
    seen = np.zeros((len(looks), side, side, 3), np.uint8)
    for picture, look in zip(seen, looks, strict=True):
        pixels = look.pixels.cpu().numpy()
        picture[: pixels.shape[0], : pixels.shape[1]] = pixels
    return seen
