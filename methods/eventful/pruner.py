"""Blocks run behind token gates: three pairs of gate and buffer in each, and both products of global attention."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from vpbench.api import Backbone, BlockParts, FrameBackbone, Pruner, Ran, Selection, UsageError
from vpbench.methods.eventful import products
from vpbench.methods.eventful.costs import KINDS, Work, executed, published
from vpbench.methods.eventful.gates import Pair, changes, rows
from vpbench.methods.eventful.products import Products

#: parts of a block that a gate stands before, in the order of a forward
GATES = ("qkv", "projection", "mlp")


@dataclass(frozen=True)
class Setting:
    """What gates do, see `Eventful`. `threshold` None: the `k` largest changes pass; `cast` None: nothing is cast."""

    k: int
    threshold: float | None
    level: str
    pooled: bool
    cast: torch.dtype | None
    before_norm: bool
    previous: bool


@dataclass
class State:
    """What one block remembers of B items of N tokens (`shape`); empty before their first frame."""

    shape: torch.Size
    pairs: tuple[Pair, Pair, Pair] = field(default_factory=lambda: (Pair(), Pair(), Pair()))
    products: Products | None = None

    def narrow(self, batch: int) -> None:
        """Go on with the first `batch` items."""
        for pair in self.pairs:
            pair.narrow(batch)
        self.shape = torch.Size((batch, self.shape[1]))
        if self.products is not None:
            self.products = self.products.part(slice(0, batch))


@dataclass(frozen=True)
class Attended:
    """How attention came about: by the block's own (`level` None), or by products of ours.

    `keys` of an item in all, and `renewed` of each. `own`: the block's own besides, on a first frame, whose numbers are
    then those of a dense forward.
    """

    level: str | None = None
    keys: int = 0
    renewed: tuple[int, ...] = ()
    own: bool = False


class GatedPruner(Pruner):
    """Runs every block on the tokens that changed; the stream itself is that of the new frame, whole."""

    timed_as: ClassVar[Mapping[str, str]] = {
        **{name: stage for name, stage in Pruner.timed_as.items() if name != "run_block"},
        "_attention_half": "attention",
        "_mlp_half": "mlp",
        "_choose": "scoring",
        "_gather": "gather",
    }

    def __init__(self, setting: Setting, backbone: Backbone) -> None:
        self.setting = setting
        self.tokens = backbone.grid.per_slot + int(backbone.flow == "steps")
        self.period = 1 if setting.level == "none" else 0
        self.states: dict[int, State] = {}
        if setting.level != "none" and setting.threshold is None:
            # of pooled keys the content decides how many are computed anew
            self.kept = None if setting.pooled else min(setting.k, self.tokens)
            self.caveat = "" if setting.k else "k=0: only the residual stream follows the video"

    def _waits(self, depth: int, everywhere: int) -> int:
        """Return how often a frame after the first has to ask how many tokens, or cells of them, changed."""
        gates = 0 if self.setting.threshold is None else len(GATES) * depth
        return 0 if self.setting.level == "none" else gates + (everywhere if self.setting.pooled else 0)

    def run_block(self, layer: int, x: Tensor, parts: BlockParts) -> Ran:
        """Run a block, whole where nothing is remembered of such a batch, else on what its gates let through."""
        state = self.states.get(layer)
        if state is None or state.shape != x.shape[:2]:
            state = State(x.shape[:2])
            if self.setting.level != "none":
                self.states[layer] = state
        x, qkv, projection, how = self._attention_half(layer, x, state, parts)
        x, mlp = self._mlp_half(layer, x, state, parts)
        every = (x.shape[1],) * len(x)
        passed = [every if each is None else each.lengths for each in (qkv, projection, mlp)]
        return self._ran(layer, x, parts, passed, how, gated=qkv is not None)

    def foreseen(self, layer: int, x: Tensor, parts: BlockParts) -> Ran:
        """Say what `run_block` would, but for the stream; raises UsageError where content decides."""
        first = layer not in self.states
        if self.kept is None and not first:
            raise UsageError("how much eventful computes anew follows the content, as it is set up")
        if self.setting.level != "none":
            self.states[layer] = State(x.shape[:2])
        batch, tokens, _ = x.shape
        passed = (tokens if first else min(self.setting.k, tokens),) * batch
        how = Attended()
        if parts.everywhere and self.setting.level != "tokenwise":
            pooled = self.setting.pooled
            own = first and not pooled and self.setting.cast is None
            how = Attended(self.setting.level, tokens // 4 if pooled else tokens, () if first else passed, own)
        return self._ran(layer, x, parts, [passed] * 3, how, gated=not first)

    def _ran(
        self, layer: int, x: Tensor, parts: BlockParts, passed: Sequence[tuple[int, ...]], how: Attended, gated: bool
    ) -> Ran:
        """Put together what came of a block, and what each item took."""
        batch, tokens, width = x.shape
        works = [
            Work(tokens, one, two, three, gated, how.level, how.keys, renewed, how.own)
            for one, two, three, renewed in zip(*passed, how.renewed or (0,) * batch, strict=True)
        ]
        counted = [published(parts, width, work) for work in works]
        if self.record is not None:
            kinds = torch.tensor([[each[kind] for kind in KINDS] for each in counted], device="cpu")
            self.note(f"{self._prefix()}block{layer}.counts", kinds)
        macs = tuple(executed(parts, width, work) for work in works)
        return Ran(x, passed[0], passed[2], macs, tuple(each.total() for each in counted))

    def _attention_half(
        self, layer: int, x: Tensor, state: State, parts: BlockParts
    ) -> tuple[Tensor, Selection | None, Selection | None, Attended]:
        """Do the first half; returns the stream, and what the gates before both layers let through (None: all)."""
        qkv, chosen = self._normed(layer, 0, x, state, parts.norm1, parts.qkv)
        attended, how = self._attend(layer, qkv, chosen, state, parts)
        projected, passed = self._through(layer, 1, attended, state, parts.projection)
        return x + projected, chosen, passed, how

    def _mlp_half(self, layer: int, x: Tensor, state: State, parts: BlockParts) -> tuple[Tensor, Selection | None]:
        """Do the second half."""
        made, passed = self._normed(layer, 2, x, state, parts.norm2, parts.feed_forward)
        return x + made, passed

    def _normed(
        self,
        layer: int,
        gate: int,
        x: Tensor,
        state: State,
        norm: Callable[[Tensor], Tensor],
        part: Callable[[Tensor], Tensor],
    ) -> tuple[Tensor, Selection | None]:
        """Pass the stream through a gate behind a norm, or before it."""
        if not self.setting.before_norm:
            return self._through(layer, gate, norm(x), state, part)
        # a reference is written to, and the stream belongs to others
        return self._through(layer, gate, x.clone(), state, lambda used: part(norm(used)))

    def _through(
        self, layer: int, gate: int, seen: Tensor, state: State, part: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Selection | None]:
        """Pass tokens `[B, N, C]` through a gate; returns the buffer `[B, N, E]`, and what passed (None: all)."""
        pair = state.pairs[gate]
        if pair.reference is None:
            return pair.flush(seen, part), None
        used, chosen = self._gather(seen, self._choose(layer, gate, changes(seen, pair.reference)))
        buffer = pair.restore(rows(chosen, seen.shape[1]), used, part(used))
        if self.setting.previous:
            pair.reference = seen
        self.note(f"{self._prefix()}block{layer}.{GATES[gate]}", chosen.index)
        return buffer, chosen

    def _prefix(self) -> str:
        """Return what names in `record` begin with."""
        return ""

    def _choose(self, layer: int, gate: int, change: Tensor) -> Selection:
        """Choose tokens by their changes `[B, N]`; of equal ones the first."""
        if self.setting.threshold is None:
            return Selection.top(change, min(self.setting.k, change.shape[1]))
        return Selection.from_mask(change > self.setting.threshold)

    def _gather(self, seen: Tensor, chosen: Selection) -> tuple[Tensor, Selection]:
        """Take the chosen tokens `[R, C]` of `[B, N, C]`."""
        return seen.flatten(0, 1)[rows(chosen, seen.shape[1])], chosen

    def _attend(
        self, layer: int, qkv: Tensor, chosen: Selection | None, state: State, parts: BlockParts
    ) -> tuple[Tensor, Attended]:
        """Attend among tokens `[B, N, 3 D]`, of which those chosen have changed (None: all); returns `[B, N, D]`."""
        setting = self.setting
        if not parts.everywhere or setting.level == "tokenwise":
            return parts.attention(qkv), Attended()
        q, k, v = qkv.unflatten(2, (3, parts.heads, -1)).unbind(2)
        tables = parts.tables()
        if setting.pooled:
            k, v, tables = products.pooled(k), products.pooled(v), products.pooled_keys(tables)
        if chosen is None or state.products is None:
            own = parts.attention(qkv) if not setting.pooled and setting.cast is None else None
            state.products, out = products.first(q, k, v, tables, own, setting.level, setting.cast)
            self._note_keys(layer, (k.shape[1],) * len(k))
            return _joined(out, qkv), Attended(setting.level, k.shape[1], own=own is not None)
        keys = products.touched(chosen, *qkv.shape[:2]) if setting.pooled else chosen
        self._note_keys(layer, keys.lengths)
        state.products.score(q, k, chosen, keys)
        if setting.level == "full":
            out = state.products.apply(q, v, tables, keys)
        else:
            out = products.attended(state.products.logits, q, v, tables)
        return _joined(out, qkv), Attended(setting.level, k.shape[1], keys.lengths)

    def _note_keys(self, layer: int, keys: tuple[int, ...]) -> None:
        """Write down how many keys of each item are computed anew, where somebody asks."""
        if self.record is not None:
            self.note(f"{self._prefix()}block{layer}.keys", torch.tensor(keys, device="cpu"))


def _joined(out: Tensor, qkv: Tensor) -> Tensor:
    """Return heads `[B, N, H, d]` side by side in the type of others; a copy, since `out` may be remembered."""
    return out.flatten(2).to(qkv.dtype, copy=True)


class StepGates(GatedPruner):
    """On encoders that take a clip step by step: nothing is remembered from clip to clip."""

    stepwise = True

    def __init__(self, setting: Setting, backbone: Backbone) -> None:
        super().__init__(setting, backbone)
        self.last = backbone.depth - 1
        self.step = 0
        self.waits = (backbone.grid.slots - 1) * self._waits(backbone.depth, backbone.depth)

    def waves(self, steps: int) -> Sequence[Sequence[int]]:
        """Begin a clip: one step after the other."""
        self.states, self.step = {}, 0
        return [[step] for step in range(steps)]

    def run_block(self, layer: int, x: Tensor, parts: BlockParts) -> Ran:
        """Run a block of a step."""
        ran = super().run_block(layer, x, parts)
        if layer == self.last:
            self.step += 1
        return ran

    def _prefix(self) -> str:
        return f"step{self.step}."


class FrameGates(GatedPruner):
    """On detectors: state lives as long as a segment of a video."""

    def __init__(self, setting: Setting, backbone: FrameBackbone) -> None:
        super().__init__(setting, backbone)
        self.waits = self._waits(backbone.depth, len(backbone.unwindowed))

    def restart(self, starts: Sequence[tuple[str, int]] = ()) -> None:
        """Forget everything; which segments begin, does not matter."""
        self.states = {}

    def narrow(self, batch: int) -> None:
        """Go on with the first `batch` segments."""
        for state in self.states.values():
            state.narrow(batch)
