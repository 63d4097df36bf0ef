"""Region proposals: where on a pyramid objects may be, whatever they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpbench.api.contexts import plain
from vpbench.api.tokens import moved
from vpbench.backbones.vitdet import HeadConfig
from vpbench.backbones.vitdet.boxes import clip, decode, survivors


@dataclass(frozen=True)
class Proposals:
    """Proposals of several frames, frame after frame, the best of each first.

    `boxes [R, 4]`, `objectness [R]` (logits), `counts`: proposals of each frame. `broken`: of each frame, candidates
    that were left out because their box or logit is no finite number.
    """

    boxes: Tensor
    objectness: Tensor
    counts: tuple[int, ...]
    broken: tuple[int, ...]

    @property
    def frames(self) -> Tensor:
        """The frame of each proposal, int64 `[R]`."""
        frames = torch.arange(len(self.counts), device="cpu")
        each = torch.tensor(self.counts, dtype=torch.int64, device="cpu")
        return moved(frames.repeat_interleave(each), self.boxes.device)


class Convolutions(nn.Sequential):
    """3 x 3 convolutions with a rectifier after each, named `conv0`, `conv1`, ..."""

    def __init__(self, channels: int, number: int) -> None:
        super().__init__()
        for index in range(number):
            self.add_module(f"conv{index}", nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, input: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to the same."""
        for conv in self:
            input = F.relu(conv(input), inplace=True)
        return input


class RpnHead(nn.Module):
    """Objectness and box deltas of the anchors at every position of a level."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        anchors = len(config.aspect_ratios)
        self.conv = Convolutions(config.channels, config.rpn_convs)
        self.objectness_logits = nn.Conv2d(config.channels, anchors, 1)
        self.anchor_deltas = nn.Conv2d(config.channels, 4 * anchors, 1)

    def forward(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """Map `[B, C, H, W]` to logits `[B, n]` and deltas `[B, n, 4]`, n in the order row, column, anchor."""
        x = self.conv(level)
        logits = self.objectness_logits(x).permute(0, 2, 3, 1).flatten(1)
        deltas = self.anchor_deltas(x).permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, 4))
        return logits, deltas


class _Candidates(NamedTuple):
    """A level's best candidates `[B, n]` in order, and of each frame how many are broken: those get the logit -inf."""

    deltas: Tensor
    anchors: Tensor
    logits: Tensor
    broken: Tensor


class ProposalGenerator(nn.Module):
    """The region proposal network: its head on every level, then the best boxes that do not overlap."""

    def __init__(self, config: HeadConfig, strides: tuple[int, ...]) -> None:
        super().__init__()
        self.config, self.strides = config, strides
        self.rpn_head = RpnHead(config)

    def forward(self, levels: list[Tensor], side: int) -> Proposals:
        """Propose boxes for frames of `side` x `side` pixels from levels `[B, C, H, W]`."""
        found = [self._candidates(number, level) for number, level in enumerate(levels)]
        deltas, anchors = (
            _stacked(each, 0) for each in zip(*((each.deltas, each.anchors) for each in found), strict=True)
        )
        boxes = clip(decode(deltas, anchors, (1, 1, 1, 1)), side)
        logits = _stacked([each.logits[..., None] for each in found], -torch.inf)[..., 0]
        usable = (logits > -torch.inf) & (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)
        # each level's candidates are sorted; those that are none have no area, and so are in nobody's way
        boxes = boxes.masked_fill(~usable[..., None], 0)
        usable &= survivors(boxes.flatten(0, 1), self.config.rpn_nms_threshold).view(usable.shape)
        logits, index = logits.masked_fill(~usable, -torch.inf).flatten(1).sort(dim=1, descending=True, stable=True)
        logits, index = (each[:, : self.config.post_nms] for each in (logits, index))
        there = logits > -torch.inf
        broken = torch.stack([each.broken for each in found]).sum(0)
        counts, lost = (tuple(each) for each in torch.stack([there.sum(1), broken]).tolist())
        frame, rank = torch.nonzero_static(there, size=sum(counts)).unbind(1)
        return Proposals(boxes.flatten(1, 2)[frame, index[frame, rank]], logits[frame, rank], counts, lost)

    def _candidates(self, number: int, level: Tensor) -> _Candidates:
        """Return a level's best, which are decoded together with those of others."""
        logits, deltas = (x.float() for x in self.rpn_head(level))
        # whatever is no finite number is none times zero either
        sound = logits * 0 + (deltas * 0).sum(dim=-1) == 0
        logits = logits.masked_fill(~sound, -torch.inf)
        logits, index = logits.sort(dim=1, descending=True, stable=True)
        logits, index = (x[:, : self.config.pre_nms] for x in (logits, index))
        shape = (level.shape[2], level.shape[3])
        anchors = cell_anchors(self.config.anchor_sizes[number], self.config.aspect_ratios)
        where = grid_anchors(anchors, shape, self.strides[number], level.device)
        deltas = deltas.gather(1, index[..., None].expand(-1, -1, 4))
        return _Candidates(deltas, where[index], logits, (~sound).sum(1))


def _stacked(levels: Sequence[Tensor], blank: float) -> Tensor:
    """Stack candidates `[B, n, C]` of each level to `[B, levels, longest n, C]`, filled up with `blank`."""
    most = max(each.shape[1] for each in levels)
    return torch.stack([F.pad(each, (0, 0, 0, most - each.shape[1]), value=blank) for each in levels], dim=1)


def cell_anchors(size: float, ratios: tuple[float, ...]) -> tuple[tuple[float, float], ...]:
    """Return width and height of the anchors of area `size ** 2` and these ratios of height to width."""
    widths = [(size**2 / ratio) ** 0.5 for ratio in ratios]
    return tuple((width, ratio * width) for width, ratio in zip(widths, ratios, strict=True))


@lru_cache(maxsize=32)
@plain()
def grid_anchors(
    anchors: tuple[tuple[float, float], ...], shape: tuple[int, int], stride: int, device: torch.device
) -> Tensor:
    """Return `[rows x columns x anchors, 4]`: anchors centred at multiples of the stride, from 0 on."""
    y, x = torch.meshgrid(*(torch.arange(length) * float(stride) for length in shape), indexing="ij")
    half = torch.tensor(anchors) / 2
    centres = torch.stack([x, y], dim=-1)[:, :, None]
    return torch.cat([centres - half, centres + half], dim=-1).flatten(0, 2).to(device)
