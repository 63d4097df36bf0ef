"""Recipes of token selection's training, as published and our own; every number of a run is here."""

from dataclasses import dataclass, replace

from vpbench.commands.train.recipe import ClipRecipe, cosine


@dataclass(frozen=True, kw_only=True)
class STTSRecipe(ClipRecipe):
    """How scorers are trained, and the backbone with them.

    Rates: the scorers' `lr` falls to `min_lr` along a cosine after a linear warm-up; the backbone's stands still at 0
    until `frozen_epochs`, then follows the same curve scaled to start from `backbone_lr`, or with `capped` is the
    scorers' rate but at most `backbone_lr`. `sigma`: of the noise on the scores; with `sigma_falls` it goes to 0
    linearly. `decay_vectors`: whether the scorers' vectors are decayed too.
    """

    backbone_lr: float
    min_lr: float = 0.0
    capped: bool = False
    frozen_epochs: float = 0.0
    warm_up_epochs: float = 0.0
    decay_vectors: bool = False
    sigma: float = 0.1
    sigma_falls: bool = False

    def scorer_rate(self, epoch: float) -> float:
        """Learning rate of the scorers at a fractional epoch."""
        if epoch < self.warm_up_epochs:
            return self.lr * epoch / self.warm_up_epochs
        return self.min_lr + (self.lr - self.min_lr) * cosine(epoch / self.epochs)

    def backbone_rate(self, epoch: float) -> float:
        """Learning rate of the backbone at a fractional epoch."""
        if self.backbone_lr == 0 or epoch < self.frozen_epochs:
            return 0.0
        if self.capped:
            return min(self.scorer_rate(epoch), self.backbone_lr)
        return self.scorer_rate(epoch) * self.backbone_lr / self.lr

    def noise(self, done: float) -> float:
        """Standard deviation of the noise on the scores when the share `done` of the steps is done."""
        return self.sigma * (1 - done) if self.sigma_falls else self.sigma


# as published: scorers first, the backbone at a tenth of their rate after epoch 3
_MVIT = STTSRecipe(
    epochs=20,
    batch=16,
    repeats=2,
    lr=1e-4,
    backbone_lr=1e-5,
    min_lr=1e-6,
    capped=True,
    frozen_epochs=3,
    decay_vectors=True,
    clip_norm=1.0,
    sigma=0.1,
    sigma_falls=True,
    label_smoothing=0.1,
    mixup=0.8,
    cutmix=1.0,
    crop=(0.08, 1.0),
    rand_augment=(4, 7.0, 0.5),
    erase=0.25,
    drop_path=0.2,
    dropout=0.5,
)
# as published, the scorers get a thousandth of the backbone's rate and stay close to where they began
_VIDEOSWIN_LITERAL = STTSRecipe(
    epochs=10,
    batch=64,
    accumulate=8,
    lr=3e-7,
    backbone_lr=3e-4,
    warm_up_epochs=0.8,
    sigma=0.05,
    crop=(0.08, 1.0),
    drop_path=0.2,
    dropout=0.5,
    bf16=True,
)
RECIPES = {
    "mvit": _MVIT,
    # the idea of MViT's recipe
    "videoswin": replace(_VIDEOSWIN_LITERAL, lr=3e-4, backbone_lr=3e-5, frozen_epochs=1.5),
    "videoswin_literal": _VIDEOSWIN_LITERAL,
    # the embedded clips and backbones: scorers alone, so that dense stays what it is
    "embedded": STTSRecipe(
        epochs=2, batch=32, lr=1e-3, backbone_lr=0, min_lr=1e-5, clip_norm=1.0, sigma_falls=True, bf16=True
    ),
}
