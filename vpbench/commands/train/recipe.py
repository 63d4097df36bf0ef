"""The numbers of a training: those that all have, those of training on labelled clips, and how rates rise and fall."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Numbers that every training has; what a kind of training adds is in a class of its own.

    `lr`: the highest learning rate; `batch` items (clips, videos, frames) to a batch, `accumulate` batches to a step of
    the optimiser; `clip_norm`: of all gradients together, None for as they are; `bf16`: products under autocast.
    """

    lr: float
    batch: int
    accumulate: int = 1
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.05
    clip_norm: float | None = None
    bf16: bool = False
    seed: int = 0

    @property
    def clips(self) -> int:
        """Clips (frames, videos) of a step, of all processes."""
        return self.batch * self.accumulate


@dataclass(frozen=True, kw_only=True)
class ClipRecipe(Recipe):
    """What training on labelled clips adds: how clips are cut and changed, and what the network drops meanwhile.

    `repeats`: augmented copies of each clip in its batch. `spread`: frames are drawn one from each part of the whole
    video, instead of at the backbone's stride from anywhere on. `crop`: share of the frame's area, least and most;
    `flip`, `flip_rows`: whether half of the clips are mirrored, left to right and upside down; `rand_augment`
    (operations, magnitude of 10, its standard deviation); `erase`: the probability of a noisy rectangle. `mixup`,
    `cutmix`: the parameters of Beta distributions (0: off), of which each batch draws one. `drop_path`: of the last
    block's branches, rising from 0 at the first; `dropout`: before the classifier.
    """

    epochs: float
    repeats: int = 1
    spread: bool = False
    crop: tuple[float, float] | None = None
    flip: bool = True
    flip_rows: bool = False
    rand_augment: tuple[int, float, float] | None = None
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    label_smoothing: float = 0.0
    drop_path: float = 0.0
    dropout: float = 0.0

    @property
    def clips(self) -> int:
        """Clips of a step with all copies, of all processes."""
        return super().clips * self.repeats


def cosine(share: float) -> float:
    """Return how much of a rate is left when the share of its fall is over: from 1 to 0 along half a cosine."""
    return (1 + math.cos(math.pi * min(share, 1.0))) / 2
