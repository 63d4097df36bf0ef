"""The second stage: classify the proposed regions, refine their boxes, keep the best."""

from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor, nn

from vpbench.api import Detections
from vpbench.backbones.vitdet import HeadConfig
from vpbench.backbones.vitdet.boxes import clip, decode, suppress
from vpbench.backbones.vitdet.proposals import ProposalGenerator, Proposals
from vpbench.backbones.vitdet.pyramid import NormedConv
from vpbench.backbones.vitdet.regions import levels_of, pool_regions

__all__ = ["Detections", "ProposalGenerator", "Proposals", "RoiHeads"]


class BoxHead(nn.Module):
    """Convolutions and a wide layer on a pooled region; modules are named as published, from `conv1` on."""

    def __init__(self, config: HeadConfig, eps: float) -> None:
        super().__init__()
        self.convs = [f"conv{number}" for number in range(1, config.box_convs + 1)]
        for name in self.convs:
            setattr(self, name, NormedConv(config.channels, config.channels, 3, eps))
        self.fc1 = nn.Linear(config.channels * config.pooled**2, config.fc_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map regions `[R, C, pooled, pooled]` to `[R, fc_dim]`."""
        for name in self.convs:
            x = F.relu(getattr(self, name)(x), inplace=True)
        return F.relu(self.fc1(x.flatten(1)))


class BoxPredictor(nn.Module):
    """Class scores, the last of which is background, and one set of box deltas for each class."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.cls_score = nn.Linear(config.fc_dim, config.classes + 1)
        self.bbox_pred = nn.Linear(config.fc_dim, 4 * config.classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map `[R, fc_dim]` to logits `[R, classes + 1]` and deltas `[R, classes, 4]`."""
        return self.cls_score(x), self.bbox_pred(x).unflatten(1, (-1, 4))


class RoiHeads(nn.Module):
    """What is in each proposed region, and where exactly."""

    def __init__(self, config: HeadConfig, strides: tuple[int, ...], eps: float) -> None:
        super().__init__()
        self.config, self.strides = config, strides
        self.box_head = BoxHead(config, eps)
        self.box_predictor = BoxPredictor(config)

    def forward(self, levels: list[Tensor], proposals: Proposals, side: int) -> list[Detections]:
        """Return what is in the frames, of `side` x `side` pixels, of levels `[B, C, H, W]`."""
        config, frames = self.config, proposals.frames
        level = levels_of(proposals.boxes, self.strides, config.canonical_size, config.canonical_level)
        regions = pool_regions(levels, proposals.boxes, frames, level, self.strides, config.pooled)
        logits, deltas = self.box_predictor(self.box_head(regions))
        scores = logits.float().softmax(dim=1)[:, :-1]
        boxes = decode(deltas.float(), proposals.boxes[:, None], config.box_weights)
        sound = scores.isfinite().all(dim=1) & boxes.isfinite().flatten(1).all(dim=1)
        lost = frames[~sound].bincount(minlength=len(proposals.counts)).tolist()
        broken = [before + own for before, own in zip(proposals.broken, lost, strict=True)]
        best = self._best(clip(boxes, side), scores.masked_fill(~sound[:, None], 0), frames, broken)
        return [replace(each, proposals=n) for each, n in zip(best, proposals.counts, strict=True)]

    def _best(self, boxes: Tensor, scores: Tensor, frames: Tensor, broken: list[int]) -> list[Detections]:
        """Choose among boxes `[R, classes, 4]` with scores `[R, classes]` those of each frame that count."""
        config = self.config
        row, label = (scores > config.score_threshold).nonzero(as_tuple=True)
        boxes, scores, frame = boxes[row, label], scores[row, label], frames[row]
        kept = suppress(boxes, scores, frame * config.classes + label, config.nms_threshold)
        found = []
        for number, lost in enumerate(broken):
            own = kept[frame[kept] == number][: config.max_detections]
            found.append(Detections(boxes[own], scores[own], label[own], lost))
        return found
