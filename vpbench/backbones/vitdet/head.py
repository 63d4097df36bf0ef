"""The second stage: classify the proposed regions, refine their boxes, keep the best."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpbench.api import Detections
from vpbench.backbones.vitdet import HeadConfig
from vpbench.backbones.vitdet.boxes import clip, decode, suppress
from vpbench.backbones.vitdet.proposals import ProposalGenerator, Proposals
from vpbench.backbones.vitdet.pyramid import NormedConv
from vpbench.backbones.vitdet.regions import levels_of, pool_at_once, pool_regions

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
        if frames.device.type == "cuda":
            regions = pool_at_once(levels, proposals.boxes, proposals.counts, level, self.strides, config.pooled)
        else:
            regions = pool_regions(levels, proposals.boxes, frames, level, self.strides, config.pooled)
        logits, deltas = self.box_predictor(self.box_head(regions))
        scores = logits.float().softmax(dim=1)[:, :-1]
        boxes = decode(deltas.float(), proposals.boxes[:, None], config.box_weights)
        # whatever is no finite number is none times zero either
        sound = (torch.cat([scores, boxes.flatten(1)], dim=1) * 0).sum(dim=1) == 0
        return self._best(clip(boxes, side), scores.masked_fill(~sound[:, None], 0), sound, proposals, frames)

    def _best(
        self, boxes: Tensor, scores: Tensor, sound: Tensor, proposals: Proposals, frames: Tensor
    ) -> list[Detections]:
        """Choose among boxes `[R, classes, 4]` with scores `[R, classes]` those of each frame that count."""
        config, batch = self.config, len(proposals.counts)
        likely = scores > config.score_threshold
        # of each frame: candidates of each class, and regions that are broken
        counted = torch.cat([likely, ~sound[:, None]], dim=1).long()
        counted = counted.new_zeros(batch, counted.shape[1]).index_add_(0, frames, counted)
        *counts, lost = zip(*counted.tolist(), strict=True)
        per_group = [n for of_frame in zip(*counts, strict=True) for n in of_frame]
        row, label = torch.nonzero_static(likely, size=sum(per_group)).unbind(1)
        boxes, scores, frame = boxes[row, label], scores[row, label], frames[row]
        order, survives = suppress(boxes, scores, frame * config.classes + label, per_group, config.nms_threshold)
        boxes, scores, label, frame = (each[order] for each in (boxes, scores, label, frame))
        own = (frame[:, None] == torch.arange(batch, device=frame.device)) & survives[:, None]
        best = own & (own.cumsum(0) <= config.max_detections)
        kept = best.sum(0).tolist()
        # frame after frame, and best first in each
        index = torch.nonzero_static(best.T, size=sum(kept))[:, 1]
        found = zip(*(each[index].split(kept) for each in (boxes, scores, label)), strict=True)
        broken = (before + now for before, now in zip(proposals.broken, lost, strict=True))
        return [Detections(*each) for each in zip(*zip(*found, strict=True), broken, proposals.counts, strict=True)]
