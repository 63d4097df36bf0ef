"""Count multiply-accumulates of a detector's frames, dense and pruned, without weights and without data."""

from dataclasses import dataclass

import torch

from vpbench.api import Pruner
from vpbench.backbones.vitdet import ViTDetConfig
from vpbench.backbones.vitdet.costs import frame_macs, published_frame_macs
from vpbench.backbones.vitdet.network import Segments, ViTDet
from vpbench.errors import UsageError
from vpbench.plan import Cell, Setting
from vpbench.tasks.attach import attach
from vpbench.tasks.cost import foreseeing
from vpbench.tasks.detection.follow import layers_of
from vpbench.tasks.detection.predict import published_ran_macs, ran_macs
from vpbench.tasks.detection.session import config_of

#: share of dense frames where every `PERIOD`-th of a segment is one, in the segments of ImageNet VID's validation
DENSE_SHARE, PERIOD = 0.1266, 8
#: share, at least, of frames just before a dense one: each of the 555 segments of these 176126 frames has one less
LAST_SHARE = DENSE_SHARE - 555 / 176126
#: share of first frames of segments there, which are all that is dense without resets: what the published means of
#: Eventful Transformers (ICCV 2023) imply, about 652 segments; no number of segments was printed
FIRST_SHARE = 0.0037


@dataclass(frozen=True)
class FrameCount:
    """Multiply-accumulates of one frame: the transformer's and the method's, as they run here and in RGTP's way."""

    ours: float
    rgtp: float

    def mixed(self, other: "FrameCount", share: float) -> "FrameCount":
        """Return the mean of frames of which `share` are like this one and the rest like the other."""
        rest = 1 - share
        return FrameCount(share * self.ours + rest * other.ours, share * self.rgtp + rest * other.rgtp)


@dataclass(frozen=True)
class Counts:
    """What one cell's frames cost; `mean` of VID's validation frames is None where the share of dense ones is unknown.

    `kept`: tokens that go on in a pruned frame; None, like `pruned`, where no frame is. `last`: a pruned frame just
    before a dense one, which guides none; None like `pruned`, or where only a segment's first frame is dense.
    """

    label: str
    kept: int | None
    dense: FrameCount
    pruned: FrameCount | None
    last: FrameCount | None
    mean: FrameCount | None


def detector(setting: Setting) -> ViTDet:
    """Build the detector of a setting on the meta device: sizes without numbers."""
    with torch.device("meta"):
        return ViTDet(config_of(setting)).eval().requires_grad_(False)


def counts(model: ViTDet, cell: Cell) -> Counts:
    """Count one cell; raises UsageError where the method cannot run on the detector."""
    config, pruner = model.config, attach(cell, model, (), {}).pruner
    runs = pruner.acts_at("run_block")
    if runs:
        pruner.restart([("", 0)])
    if pruner.period == 1:
        whole = ran_count(model, pruner) if runs else frame_count(config, pruner, None)
        return Counts(cell.label, None, whole, None, None, whole)
    kept = pruner.kept
    if kept is None:
        raise UsageError(f"{cell.label} follows the content of frames and has to be measured with `vpbench run`")
    if runs:
        dense, pruned = ran_count(model, pruner), ran_count(model, pruner)
    else:
        dense, pruned = frame_count(config, pruner, None), frame_count(config, pruner, kept)
    last = frame_count(config, pruner, kept, guides=False) if pruner.period else None
    mean = dense.mixed(pruned, FIRST_SHARE) if pruner.period == 0 else None
    if pruner.period == PERIOD and last is not None:
        mean = dense.mixed(last.mixed(pruned, LAST_SHARE / (1 - DENSE_SHARE)), DENSE_SHARE)
    return Counts(cell.label, kept, dense, pruned, last, mean)


def follows_content(model: ViTDet, cell: Cell) -> bool:
    """Whether what a cell's frames cost is up to what they show, so that `counts` has nothing to say of it."""
    pruner = attach(cell, model, (), {}).pruner
    return pruner.period != 1 and pruner.kept is None


def ran_count(model: ViTDet, pruner: Pruner) -> FrameCount:
    """Count the next frame of a method that runs the blocks, which says itself what they took."""
    blank = torch.empty(1, model.config.tokens, model.config.dim, device=model.net.pos_embed.device)
    with torch.inference_mode(), foreseeing(pruner):
        [layers] = layers_of(model.advance(blank, Segments(), pruner))
    return FrameCount(ran_macs(model.config, layers), published_ran_macs(model.config, layers))


def frame_count(config: ViTDetConfig, pruner: Pruner, kept: int | None, guides: bool = True) -> FrameCount:
    """Count one frame of which `kept` tokens go on (None: all); `guides`: whether the next frame is pruned."""
    return FrameCount(
        frame_macs(config, kept) + pruner.frame_macs(kept, guides),
        published_frame_macs(config, kept) + pruner.published_frame_macs(kept),
    )
