"""RGTP on detectors that look at videos frame by frame: what the found boxes were made of is what the next frame keeps.

The tokens under confident boxes are traced back through the global blocks; windowed ones take no part.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vpbench.api import Detections, FrameBackbone, Pruner, starts_of, summed
from vpbench.methods.rgtp import rollout, tracking
from vpbench.methods.rgtp.selection import Split


class VideoPruner(Pruner):
    """Keep the best tokens by the heat map of the frame before, moved along with the content.

    reset: every so many frames one is dense and forgets (0: only a segment's first). radius: how far, in tokens,
    content may move between frames (0: no tracking). threshold: score of the boxes that guide. pooled: roll out over
    cells of 2 x 2 tokens instead of tokens.
    """

    waits = 1  # for the windows that kept tokens are in

    def __init__(
        self, backbone: FrameBackbone, split: Split, reset: int, radius: int, threshold: float, pooled: bool
    ) -> None:
        self.split, self.reset, self.radius = split, reset, radius
        self.side, self.patch, self.tokens = backbone.grid.rows, backbone.patch, backbone.grid.tokens
        self.width, self.maps_made = backbone.heads * backbone.key_width, len(backbone.unwindowed)
        self.period, self.kept = reset, split.count(self.tokens)
        self.threshold, self.pooled = threshold, pooled
        self.restart()

    def restart(self, starts: Sequence[tuple[str, int]] = ()) -> None:
        """Forget everything: the next frame is the first of new segments; which ones, does not matter."""
        self.number = -1
        #: tokens `[B, K]` that go on in this frame, None where all do
        self.chosen: Tensor | None = None
        #: heat map `[B, N]` and patch embeddings `[B, N, D]` of the last frame; maps, last block first
        self.heat: Tensor | None = None
        self.before: Tensor | None = None
        self.maps: list[Tensor] = []

    def narrow(self, batch: int) -> None:
        """Go on with the first `batch` segments; the others have ended."""
        self.heat = None if self.heat is None else self.heat[:batch]
        self.before = None if self.before is None else self.before[:batch]
        self.maps = [each[:batch] for each in self.maps]

    def is_dense(self, number: int) -> bool:
        """Whether the frame of this number in a segment keeps all tokens and forgets what came before it."""
        return number == 0 or (self.reset > 0 and number % self.reset == 0)

    @property
    def wants_maps(self) -> bool:
        """Whether a next frame may read this one's heat map, or somebody wants to see it."""
        return self.record is not None or not self.is_dense(self.number + 1)

    def frame(self, embedded: Tensor) -> Tensor | None:
        """Choose tokens of the next frame, `[B, K]` of `[B, N, D]`; None in dense frames."""
        self.number += 1
        scores, self.chosen = embedded.new_zeros(embedded.shape[:2]), None
        if not self.is_dense(self.number):
            assert self.heat is not None
            assert self.before is not None
            scores, side = self.heat, self.side
            if self.radius:
                scores = scores.gather(1, tracking.sources(embedded.float(), self.before, side, side, self.radius))
            self.chosen = self.split(scores)[0]
            self.note("kept", self.chosen)
        self.before = embedded.float()
        self.note("selection_score", scores)
        return self.chosen

    def output(self, maps: tuple[Tensor, ...], found: Sequence[Detections]) -> None:
        """Make the heat map `[B, N]` of a frame from its global blocks' attention and what was found in it."""
        if not maps:
            return
        anchors = self.anchors(found)
        self._remember(maps)
        self.heat = self._heat(anchors)
        self.note("anchors", anchors)
        self.note("heatmap", self.heat)

    def anchors(self, found: Sequence[Detections]) -> Tensor:
        """Return the tokens `[B, N]` (bool) under boxes with a score above the threshold; all where there is no box.

        As published, the last row and column of the grid are under no box.
        """
        side = self.side
        sure = pad_sequence([each.scores > self.threshold for each in found], batch_first=True)
        boxes = pad_sequence([each.boxes for each in found], batch_first=True) * (1 / self.patch)
        low, high = boxes[..., :2].floor().clamp(0, side - 1), boxes[..., 2:].ceil().clamp(0, side - 1)
        place = torch.arange(side, device=boxes.device)
        across, down = ((place >= low[..., axis, None]) & (place < high[..., axis, None]) for axis in (0, 1))
        down &= sure[..., None]
        mask = (down[..., None] & across[..., None, :]).any(dim=1).flatten(1)
        return mask | ~sure.any(dim=1, keepdim=True)

    def _remember(self, maps: tuple[Tensor, ...]) -> None:
        """Put the rows of this frame's tokens into the maps, last block first; a dense frame replaces all of them."""
        if self.chosen is None:
            self.maps = [self._cells(each).mean(dim=2) if self.pooled else each for each in reversed(maps)]
            return
        if self.pooled:
            self._remember_cells(maps, self.chosen)
            return
        for known, rows in zip(self.maps, reversed(maps), strict=True):
            known.scatter_(1, self.chosen[..., None].expand_as(rows), rows)

    def _remember_cells(self, maps: tuple[Tensor, ...], kept: Tensor) -> None:
        """Replace the rows of cells with a kept token by the mean over these tokens."""
        shape = self.maps[0].shape
        into = cells(self.side, kept.device)[kept] + starts_of(shape[0], shape[1], kept.device)
        into, places = into.flatten(), shape[0] * shape[1]
        count = summed(torch.ones_like(into, dtype=maps[0].dtype), into, places).view(*shape[:2], 1)
        for number, rows in enumerate(reversed(maps)):
            added = summed(self._pool_keys(rows).flatten(0, 1), into, places).view(shape)
            self.maps[number] = torch.where(count > 0, added / count, self.maps[number])

    def _cells(self, dense: Tensor) -> Tensor:
        """Bring a map `[B, N, N]` to `[B, N / 4, 4, N / 4]`: queries by cell, keys added up in cells."""
        half = self.side // 2
        queries = self._pool_keys(dense).unflatten(1, (half, 2, half, 2))
        return queries.transpose(2, 3).flatten(3, 4).flatten(1, 2)

    def _pool_keys(self, rows: Tensor) -> Tensor:
        """Add up the keys of each cell: `[B, K, N]` to `[B, K, N / 4]`."""
        half = self.side // 2
        return rows.unflatten(2, (half, 2, half, 2)).sum(dim=(3, 5)).flatten(2)

    def _heat(self, anchors: Tensor) -> Tensor:
        """Roll the anchors `[B, N]` back through the global blocks to a heat map `[B, N]`."""
        side = self.side
        flags = anchors.float()
        if self.pooled:
            flags = (F.avg_pool2d(flags.unflatten(1, (1, side, side)), 2) >= 0.5).flatten(1).float()
        # boxes can miss every token, or cover no cell by half; then nothing is known, as if nothing was found
        flags = torch.where(flags.any(dim=1, keepdim=True), flags, 1.0)
        row = rollout.rollout(rollout.normalised(flags), self.maps)
        if self.pooled:
            row = row.unflatten(1, (1, side // 2, side // 2))
            row = F.interpolate(row, scale_factor=2, mode="bilinear", align_corners=False).flatten(1)
        elif self.chosen is not None:
            # as published, what was not seen keeps its heat where it was, though the choice had moved it
            assert self.heat is not None
            row = self.heat.scatter(1, self.chosen, row.gather(1, self.chosen))
        return rollout.normalised(row)

    def frame_macs(self, kept: int | None, guides: bool = True) -> int:
        """Multiply-accumulates of one frame: tracking where it is not dense, and where it guides the next, rollout."""
        return self._tracked(kept) + (self._rolled_out(2) if guides else 0)

    def published_frame_macs(self, kept: int | None) -> int:
        """Count rollout in every frame, by whole products of maps where they are pooled, as the published code does."""
        return self._tracked(kept) + self._rolled_out(3 if self.pooled else 2)

    def _tracked(self, kept: int | None) -> int:
        tracks = kept is not None and self.radius > 0
        return tracking.macs(self.tokens, self.width, self.radius) if tracks else 0

    def _rolled_out(self, power: int) -> int:
        positions = self.tokens // 4 if self.pooled else self.tokens
        return self.maps_made * positions**power


def cells(side: int, device: torch.device) -> Tensor:
    """Return the cell of 2 x 2 tokens that each token of a grid belongs to, int64 `[side x side]`."""
    half = torch.arange(side, device=device) // 2
    return (half[:, None] * (side // 2) + half).flatten()
