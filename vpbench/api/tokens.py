"""The packed token stream: the tokens of all clips of a batch one after another, never padded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import ClassVar

import torch
from torch import Tensor

from vpbench.api.contexts import kept, precise
from vpbench.errors import UsageError


@dataclass(frozen=True)
class Grid:
    """Token grid of one clip: slots in time, rows, columns; position of a token: `(t*rows + r)*cols + c`."""

    slots: int
    rows: int
    cols: int

    @property
    def per_slot(self) -> int:
        """Tokens of one temporal slot."""
        return self.rows * self.cols

    @property
    def tokens(self) -> int:
        """Tokens of a dense clip."""
        return self.slots * self.per_slot


@dataclass(frozen=True)
class Selection:
    """Which grid positions each clip of a batch keeps, packed clip after clip.

    `index` is int64 `[S]`, ascending inside each clip, `clip [S]` says whose token it is; `lengths` are host integers
    that sum to S, so nothing that follows has to ask the device how many tokens there are. `run_lengths [S]`, where a
    method gives them, says for how many slots (1..slots) each tubelet stands. `per_slot`: how many positions of each
    slot each clip keeps, clip after clip, where the host knows that too.
    """

    index: Tensor
    clip: Tensor
    lengths: tuple[int, ...]
    run_lengths: Tensor | None = None
    per_slot: tuple[int, ...] | None = None

    @classmethod
    def from_mask(cls, mask: Tensor, slots: int = 1) -> "Selection":
        """Keep the positions where `mask` (bool `[B, N]`) is true; asks the device once, for the counts."""
        counts = mask.unflatten(1, (slots, -1)).sum(dim=2).flatten().tolist()
        lengths = tuple(sum(counts[first : first + slots]) for first in range(0, len(counts), slots))
        clip, index = torch.nonzero_static(mask, size=sum(lengths)).unbind(dim=1)
        return cls(index, clip, lengths, per_slot=tuple(counts))

    @classmethod
    def of_each(cls, kept: Tensor) -> "Selection":
        """Keep the positions `kept` (int64 `[B, K]`, ascending) of each clip."""
        batch, count = kept.shape
        clip = torch.arange(batch, device=kept.device)[:, None].expand(-1, count)
        return cls(kept.flatten(), clip.flatten(), (count,) * batch)

    @classmethod
    def of_clips(cls, kept: Sequence[Tensor], device: torch.device, grid: Grid | None = None) -> "Selection":
        """Keep the positions `kept[b]` (int64 `[K_b]`, ascending) of clip b; lists made on the host.

        grid: where given, the positions of each slot are counted there too.
        """
        lengths = tuple(len(k) for k in kept)
        index, clip = torch.cat(list(kept)), torch.arange(len(kept), device="cpu")
        clip = clip.repeat_interleave(torch.tensor(lengths, device="cpu"))
        per_slot = None
        if grid is not None:
            slot = clip * grid.slots + index // grid.per_slot
            per_slot = tuple(slot.bincount(minlength=len(kept) * grid.slots).tolist())
        index, clip = moved(torch.stack([index, clip]), device).unbind(0)
        return cls(index, clip, lengths, per_slot=per_slot)

    def counts(self, grid: Grid) -> tuple[int, ...]:
        """Return how many positions of each slot each clip keeps, clip after clip, `[B * slots]`.

        Asks the device unless the host knows. Raises UsageError on the meta device, where there are no positions.
        """
        if self.per_slot is not None and len(self.per_slot) == len(self.lengths) * grid.slots:
            return self.per_slot
        if self.index.device.type == "meta":
            raise UsageError("how many tokens each step keeps follows the clip; --clip counts on one")
        slot = self.clip * grid.slots + self.index // grid.per_slot
        counts = slot.new_zeros(len(self.lengths) * grid.slots)
        return tuple(counts.scatter_add_(0, slot, torch.ones_like(slot)).tolist())

    @classmethod
    def top(cls, scores: Tensor, count: int) -> "Selection":
        """Keep the `count` highest of `scores` (`[B, N]`) in each clip; equal scores: the lower position first."""
        order = scores.argsort(dim=1, descending=True, stable=True)[:, :count]
        return cls.of_each(order.sort(dim=1).values)

    @classmethod
    def everything(cls, batch: int, tokens: int, device: torch.device) -> "Selection":
        """Keep all `tokens` positions of all `batch` clips."""
        return cls.of_each(torch.arange(tokens, device=device).expand(batch, -1))


class Positions:
    """Grid positions of the packed rows `rows` of others, looked up once somebody asks: a forward alone does not."""

    def __init__(self, of: "Tensor | Positions", rows: Tensor | Callable[[], Tensor]) -> None:
        self._of, self._rows = of, rows
        self._found: Tensor | None = None

    @property
    def found(self) -> Tensor:
        """Positions `[S]`, int64."""
        if self._found is None:
            of = self._of if isinstance(self._of, Tensor) else self._of.found
            self._found = of[self._rows if isinstance(self._rows, Tensor) else self._rows()]
        return self._found


@dataclass(frozen=True)
class Tokens:
    """Tokens of a batch: `x [S, D]`, the grid position `index [S]` of each, and the tokens per clip `lengths`.

    `at` is what `index` is read from. `size [S]` says how many original tokens each one stands for, where a method
    merges; None means one each.
    """

    #: see `measure.stages`
    timed_as: ClassVar[Mapping[str, str]] = {"take": "gather", "keep": "gather", "merge": "gather"}

    x: Tensor
    at: Tensor | Positions
    lengths: tuple[int, ...]
    size: Tensor | None = None

    @property
    def index(self) -> Tensor:
        """Grid position of each token, int64 `[S]`."""
        return self.at if isinstance(self.at, Tensor) else self.at.found

    @property
    def uniform(self) -> bool:
        """Whether all clips have the same number of tokens, so that `[S, D]` is a `[B, N, D]` in disguise."""
        return len(set(self.lengths)) == 1

    def with_x(self, x: Tensor) -> "Tokens":
        """Return the same tokens with other features `[S, D]`."""
        return replace(self, x=x)

    def take(self, rows: Tensor, lengths: tuple[int, ...]) -> "Tokens":
        """Keep the packed rows `rows` (int64, in the new order), `lengths[b]` of them from clip b."""
        size = None if self.size is None else self.size[rows]
        return Tokens(self.x[rows], Positions(self.at, rows), lengths, size)

    def rows_of(self, local: Tensor) -> Tensor:
        """Turn positions `local` `[B, K]` inside clips of equal length into packed rows `[B*K]`."""
        return (local + starts_of(len(self.lengths), self.lengths[0], local.device)).flatten()

    def keep(self, local: Tensor) -> "Tokens":
        """Keep positions `local` `[B, K]` (int64, in the new order) inside clips of equal length."""
        batch, count = local.shape
        clip = starts_of(batch, 1, local.device)
        size = None if self.size is None else self.size.view(batch, -1)[clip, local].flatten()
        x = self.x.view(batch, -1, self.x.shape[1])[clip, local].flatten(0, 1)
        return Tokens(x, Positions(self.at, partial(self.rows_of, local)), (count,) * batch, size)

    def top(self, scores: Tensor, count: int) -> "Tokens":
        """Keep the `count` highest of `scores` `[S]` in each clip, in their order; clips have equal lengths.

        Equal scores: the earlier token first.
        """
        order = scores.view(len(self.lengths), -1).argsort(dim=1, descending=True, stable=True)[:, :count]
        return self.keep(order.sort(dim=1).values)

    def merge(
        self, into: Tensor, heads: Tensor | Callable[[], Tensor], lengths: tuple[int, ...], weight: Tensor | None = None
    ) -> "Tokens":
        """Merge tokens by their size-weighted mean, in float32; sizes add up (ToMe, arXiv 2210.09461, section 3).

        `into [S]` is the new packed row of every old one, `heads [S']` the old row that each new token takes its grid
        position from, or what returns it; new rows belong to clips as `lengths` says. `weight [S]` scales what a token
        brings (default 1).
        """
        share = torch.ones_like(into, dtype=torch.float32) if self.size is None else self.size
        share = share if weight is None else share * weight
        size = summed(share, into, sum(lengths))
        x = summed(self.x * share[:, None], into, sum(lengths))
        return Tokens((x / size[:, None]).to(self.x.dtype), Positions(self.at, heads), lengths, size)

    def mean(self, weighted: bool = True) -> Tensor:
        """Return `[B, D]`, the mean over each clip's tokens; `weighted` by `size` where tokens were merged.

        Summed in float32: the kernel for clips of different lengths would round after every token.
        """
        x = precise(self.x)
        if self.size is None or not weighted:
            return self._per_clip(x, "mean").to(self.x.dtype)
        share = self._per_clip(torch.cat([x * self.size[:, None], self.size[:, None]], dim=1), "sum")
        return (share[:, :-1] / share[:, -1:]).to(self.x.dtype)

    def _per_clip(self, packed: Tensor, reduce: str) -> Tensor:
        if self.uniform:
            stacked = packed.view(len(self.lengths), -1, packed.shape[1])
            return stacked.mean(dim=1) if reduce == "mean" else stacked.sum(dim=1)
        lengths = on_device(self.lengths, packed.device)
        return torch.segment_reduce(packed, reduce, lengths=lengths, axis=0, unsafe=True)

    def split(self, packed: Tensor) -> tuple[Tensor, ...]:
        """Cut a packed `[S, ...]` tensor into one view per clip."""
        return packed.split(self.lengths)


def summed(values: Tensor, into: Tensor, rows: int) -> Tensor:
    """Add up `values` `[S, ...]` in the rows `into` `[S]` of a new tensor, in the same order each time."""
    total = values.new_zeros(rows, *values.shape[1:])
    if values.device.type == "cuda":  # index_add_ adds in whatever order threads come by there
        return total.index_put_((into,), values, accumulate=True)
    return total.index_add_(0, into, values)


@kept
def starts_of(clips: int, length: int, device: torch.device) -> Tensor:
    """Return the first packed row of each of clips of equal length, `[B, 1]`."""
    return torch.arange(clips, device=device)[:, None] * length


def on_device(numbers: tuple[float, ...], device: torch.device, dtype: torch.dtype = torch.int64) -> Tensor:
    """Copy host numbers to the device without waiting for it."""
    return moved(torch.tensor(numbers, dtype=dtype, device="cpu"), device)


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # what is kept may be used in training later
def borders_of(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    """Return the first packed row of each clip, and their number, int32: copied once per batch, not once per block."""
    return on_device((0, *lengths), device).cumsum(0, dtype=torch.int32)


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def places_of(lengths: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return of each packed token which clip it is of, and its place in it."""
    starts = borders_of(lengths, device)[:-1].long()
    clip = torch.arange(len(lengths), device=device)
    clip = clip.repeat_interleave(on_device(lengths, device), output_size=sum(lengths))
    return clip, torch.arange(sum(lengths), device=device) - starts[clip]


@kept
def constant(numbers: tuple[float, ...], device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return host numbers that are the same in each forward on the device."""
    return on_device(numbers, device, dtype)


def moved(host: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor of the host to the device without waiting for it."""
    return (host.pin_memory() if device.type == "cuda" else host).to(device, non_blocking=True)


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Concatenate along the first dimension, where there are several parts; a single one is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))
