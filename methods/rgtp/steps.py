"""RGTP on encoders that take a video step by step: what a step's class read decides what the next step keeps."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vpbench.api import Backbone, Pruner, Tokens, Trace, constant, precise
from vpbench.methods.rgtp import rollout, tracking
from vpbench.methods.rgtp.selection import Split, pattern


@dataclass
class _Wave:
    """Steps that run together, while they run: what was kept, and the fused attention of their blocks.

    kept `[S, K]`, dropped `[S, N-K]`, nearest `[S, N-K]` (numbers of kept tokens); S sequences, clips first.
    """

    steps: Sequence[int]
    kept: Tensor
    dropped: Tensor
    nearest: Tensor
    first: Tensor | None
    maps: list[Tensor] = field(default_factory=list)


class StepPruner(Pruner):
    """Prunes each step once, between attention and MLP of block 0, by the heat map of the step before.

    Steps between two resets depend on each other only, so all groups run at once, and steps in them one after the
    other; what depends on pixels alone (block 0's attention, tracking) is done for all steps before.
    """

    stepwise = True

    def __init__(self, backbone: Backbone, split: Split, reset: int, reset_pattern: str, radius: int) -> None:
        self.split, self.reset, self.reset_pattern, self.radius = split, reset, reset_pattern, radius
        self.grid, self.depth = backbone.grid, backbone.depth
        self.heads, self.key_width = backbone.heads, backbone.key_width
        #: whether any step may lose a token
        self.prunes = reset > 0 or split.count(self.grid.per_slot) < self.grid.per_slot
        self.order: list[list[int]] = []
        self.number = 0
        self.wave: _Wave | None = None
        #: heat maps `[B, N]` of steps that are done, and where each token came from `[B, N]`, by step
        self.heat: dict[int, Tensor] = {}
        self.source: dict[int, Tensor] = {}
        #: multiply-accumulates of the method on one clip in the last forward, and those of tracking among them
        self.work = self.tracked = 0

    def resets(self, step: int) -> bool:
        """Whether a step forgets what came before it."""
        return step > 0 and self.reset > 0 and step % self.reset == 0

    def guides(self, step: int) -> bool:
        """Whether the step after this one reads its heat map."""
        return self.prunes and step + 1 < self.grid.slots and not self.resets(step + 1)

    def waves(self, steps: int) -> Sequence[Sequence[int]]:
        """First steps of all groups, second ones, and so on; the clip's first step is apart, since it keeps all."""
        if self.reset == 0:
            self.order = [[step] for step in range(steps)] if self.prunes else [list(range(steps))]
        else:
            later = range(self.reset, steps, self.reset)
            depths = [[start + depth for start in (0, *later)] for depth in range(1, self.reset)]
            self.order = [[0], list(later), *([step for step in wave if step < steps] for wave in depths)]
        self.order = [wave for wave in self.order if wave]
        self.number, self.heat = 0, {}
        return self.order

    def embedded(self, x: Tensor) -> None:
        """Track every token to the step before, for the steps that will ask; x: `[B, steps, N, D]`."""
        self.work = self.tracked = 0
        steps = [step for step in range(1, x.shape[1]) if self.guides(step - 1)] if self.radius else []
        self.source = {}
        if steps:
            own = constant(tuple(steps), x.device, torch.int64)
            now, before = (precise(x[:, each]).flatten(0, 1) for each in (own, own - 1))
            found = tracking.sources(now, before, self.grid.rows, self.grid.cols, self.radius)
            self.source = dict(zip(steps, found.view(x.shape[0], len(steps), -1).unbind(1), strict=True))
            self.tracked = len(steps) * tracking.macs(x.shape[2], x.shape[3], self.radius)
            self.work += self.tracked

    def wants_fused(self, layer: int) -> bool:
        """Ask for block 0's maps, of all steps, and for those of waves that guide others."""
        return self.prunes if layer == 0 else self._guiding()

    def _guiding(self) -> bool:
        assert self.wave is not None
        # somebody who asked for intermediate values gets all heat maps
        return (self.prunes and self.record is not None) or any(map(self.guides, self.wave.steps))

    def after_attention(self, layer: int, tokens: Tokens, trace: Trace) -> Tokens:
        """Prune in block 0; lay aside the maps of the others."""
        if layer:
            if trace.fused is not None and self.wave is not None:
                self.wave.maps.append(trace.fused)
            return tokens
        steps = self.order[self.number]
        self.number += 1
        clips = len(tokens.lengths) // len(steps)
        kept, dropped = self._choose(steps, clips, tokens.x.device)
        length = tokens.lengths[0]
        nearest = self._nearest(trace, length, kept, dropped)
        self.wave = _Wave(steps, kept, dropped, nearest, None)
        if self._guiding():
            self.wave.first = trace.fused
        if dropped.shape[1] == 0 and kept.shape[1] == length - 1:
            return tokens
        own = torch.cat([kept.new_zeros(len(kept), 1), kept + 1], dim=1)
        return tokens.take(tokens.rows_of(own), (own.shape[1],) * len(own))

    def _choose(self, steps: Sequence[int], clips: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return kept and dropped patches of a wave `[S, K]`, `[S, N-K]`, by position, in the order of selection."""
        count = self.grid.per_slot
        if steps[0] == 0:
            every = torch.arange(count, device=device).expand(clips, -1)
            every = every.repeat(len(steps), 1)
            return every, every[:, :0]
        if self.resets(steps[0]):
            kept, dropped = pattern(self.reset_pattern, self.grid.rows, self.grid.cols, device)
            return kept.expand(clips * len(steps), -1), dropped.expand(clips * len(steps), -1)
        before = torch.stack([self.heat.pop(step - 1) for step in steps], dim=1)
        if self.source:
            before = before.gather(2, torch.stack([self.source[step] for step in steps], dim=1))
        for number, step in enumerate(steps):
            self.note(f"step{step}.score", before[:, number])
        kept, dropped = self.split(before.flatten(0, 1))
        # all of them stay in their places, so that nothing is moved for nothing
        return (kept, dropped) if dropped.shape[1] else (kept.sort(dim=1).values, dropped)

    def _nearest(self, trace: Trace, length: int, kept: Tensor, dropped: Tensor) -> Tensor:
        """Return which of the kept patches is most similar to each dropped one, by the keys' mean over heads."""
        keys = trace.mean_keys().view(len(kept), length, -1)[:, 1:]
        theirs, ours = (keys.gather(1, at[..., None].expand(-1, -1, keys.shape[2])) for at in (dropped, kept))
        if dropped.shape[1] == 0:
            return dropped
        self.work += len(self.order[self.number - 1]) * dropped.shape[1] * kept.shape[1] * keys.shape[2]
        return (theirs @ ours.transpose(1, 2)).argmax(dim=2)

    def after_block(self, layer: int, tokens: Tokens) -> Tokens:
        """Turn the maps into the wave's heat maps once its last block is done."""
        if layer == self.depth - 1 and self.wave is not None:
            if self._guiding():
                self._heat(self.wave)
            self.wave = None
        return tokens

    def _heat(self, wave: _Wave) -> None:
        kept, steps = wave.kept, wave.steps
        own = torch.cat([kept.new_zeros(len(kept), 1), kept + 1], dim=1)
        row = torch.zeros(own.shape, device=kept.device, dtype=torch.float32).index_fill_(1, own.new_zeros(1), 1.0)
        row = rollout.rollout(row, reversed(wave.maps))
        assert wave.first is not None
        first = _restricted(row, wave.first, own)
        read = first[:, 1:]
        scores = read.new_zeros(len(kept), self.grid.per_slot).scatter(1, kept, read)
        scores = scores.scatter(1, wave.dropped, read.gather(1, wave.nearest))
        heat = rollout.normalised(scores).unflatten(0, (-1, len(steps)))
        self.heat |= dict(zip(steps, heat.unbind(1), strict=True))
        self._charge(own.shape[1], len(steps))
        self._explain(wave, heat)

    def _charge(self, kept: int, steps: int) -> None:
        # block 0's map is of all tokens, even where the row through it is not
        self.work += steps * ((1 + self.grid.per_slot) ** 2 + (self.depth - 1) * kept * kept)

    def _explain(self, wave: _Wave, heat: Tensor) -> None:
        if self.record is None:
            return
        count, steps = self.grid.per_slot, len(wave.steps)
        cluster = torch.arange(count, device=heat.device).repeat(len(wave.kept), 1)
        cluster = cluster.scatter(1, wave.dropped, wave.kept.gather(1, wave.nearest)).unflatten(0, (-1, steps))
        kept = wave.kept.unflatten(0, (-1, steps))
        for number, step in enumerate(wave.steps):
            self.note(f"step{step}.heat", heat[:, number])
            self.note(f"step{step}.cluster", cluster[:, number])
            self.note(f"step{step}.kept", kept[:, number])

    def published_macs(self, attention: tuple[int, ...]) -> int:
        """Count rollout by whole maps, at every step, as the published code does; the rest is the same work."""
        steps, count = range(self.grid.slots), self.grid.per_slot
        n, width = count + 1, self.key_width
        kept = [self._kept(step) for step in steps]
        maps = sum(n**3 + (self.depth - 1) * (k + 1) ** 3 for k in kept)
        nearest = sum((count - k) * k * width for k in kept)
        tracked = sum(1 for step in steps if step and not self.resets(step)) if self.radius else 0
        return maps + nearest + tracked * tracking.macs(count, self.heads * width, self.radius)

    def _kept(self, step: int) -> int:
        if step == 0:
            return self.grid.per_slot
        if self.resets(step):
            return len(pattern(self.reset_pattern, self.grid.rows, self.grid.cols)[0])
        return self.split.count(self.grid.per_slot)

    def macs(self, attention: tuple[int, ...]) -> int:
        """Rollout, tracking and nearest tokens of one clip in the last forward; no pixel changes them."""
        return self.work

    def uncounted_macs(self) -> int:
        """Tracking's dot products, which are no products of matrices."""
        return self.tracked


def _restricted(row: Tensor, fused: Tensor, own: Tensor) -> Tensor:
    """Take `row` `[S, K]` back through a block whose map `[S, n, n]` is cut to rows and columns `own` `[S, K]`.

    Rows are divided by their whole sums.
    """
    fused = fused.to(row.dtype)
    weight = row / (fused.sum(dim=-1).gather(1, own) + 1)
    spread = torch.zeros(fused.shape[:2], device=row.device, dtype=row.dtype).scatter(1, own, weight)
    return (spread[:, None] @ fused)[:, 0].gather(1, own) + weight
