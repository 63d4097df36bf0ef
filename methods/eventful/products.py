"""Both products of global attention, computed for tokens that changed; other entries stay what they were."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vpbench.api import Selection, in_its_own_precision, kept, precise
from vpbench.methods.eventful.gates import rows

Tables = tuple[Tensor, Tensor]
#: logits that are made at a time: on a CPU they stay in cache
_PIECE = {"cpu": 1 << 20}
_LARGE_PIECE = 1 << 27


@dataclass
class Products:
    """What global attention of B items remembers: N queries, M keys (tokens, or cells of them), H heads of width d.

    `logits [B, N, H, M]`: queries by keys over the root of d, always the product of the buffers, in which every row and
    every column is. `weights [B, N, H, M]`: attention as it was when the key of each column was last selected; `values
    [B, M, H, d]`, those of then; `output [B, N, H, d]`, the product of both, built up frame by frame.
    """

    logits: Tensor
    weights: Tensor | None = None
    values: Tensor | None = None
    output: Tensor | None = None

    def part(self, items: slice) -> "Products":
        """Return the same of some items, as views."""
        others = (None if each is None else each[items] for each in (self.weights, self.values, self.output))
        return Products(self.logits[items], *others)

    @in_its_own_precision
    def score(self, q: Tensor, k: Tensor, queries: Selection, keys: Selection) -> None:
        """Compute rows of selected queries and columns of selected keys anew; q `[B, N, H, d]`, k `[B, M, H, d]`."""
        q, k = precise(q) * q.shape[-1] ** -0.5, precise(k)
        for items, (some, others) in together(queries, keys):
            own_q, own_k, logits = q[items], k[items], self.logits[items]
            made = _products(_taken(own_q, some), own_k)
            logits.flatten(0, 1).index_copy_(0, rows(some, q.shape[1]), made.flatten(0, 1))
            _put(logits, others, _products(own_q, _taken(own_k, others)))

    @in_its_own_precision
    def apply(self, q: Tensor, v: Tensor, tables: Tables | None, keys: Selection) -> Tensor:
        """Bring weights and values of selected keys into the output; returns it, `[B, N, H, d]`, not to be changed.

        With W and V as they are now and J the selected keys: `O += W_J dV + dW V_J(old)`, which is what the product of
        all remembered weights with all values is, if it was before. Columns outside of J keep the weights of older
        frames, for all queries, and rows no longer sum to 1: so it is published.
        """
        assert self.weights is not None
        assert self.values is not None
        assert self.output is not None
        for items, (some,) in together(keys):
            own = self.part(items)
            assert own.weights is not None
            assert own.values is not None
            assert own.output is not None
            now = torch.cat([_columns(each, some) for each in attention(own.logits, q[items], tables)], dim=1)
            now = now.to(own.weights.dtype)
            change = now - _columns(own.weights, some)
            _put(own.weights, some, now)
            before, after = _taken(own.values, some), _taken(v[items], some).to(own.values.dtype)
            own.values.flatten(0, 1).index_copy_(0, rows(some, v.shape[1]), after.flatten(0, 1))
            own.output += weighed(now, after - before) + weighed(change, before)
        return self.output


def first(
    q: Tensor, k: Tensor, v: Tensor, tables: Tables | None, own: Tensor | None, level: str, cast: torch.dtype | None
) -> tuple[Products, Tensor]:
    """Attend in a first frame; returns what has to be remembered of it, and the output `[B, N, H, d]`.

    own: what the block's own attention made of the same, `[B, N, D]`; the output then. cast: the type of weights,
    values and output, at least float32 where there is none.
    """
    logits, kind = scores(q, k), cast or torch.promote_types(v.dtype, torch.float32)
    values = v.to(kind, copy=True).contiguous()
    if level != "full":
        out = attended(logits, q, values, tables) if own is None else own.unflatten(2, q.shape[2:])
        return Products(logits), out
    every = weights(logits, q, tables).to(kind)
    out = weighed(every, values) if own is None else own.unflatten(2, q.shape[2:])
    return Products(logits, every, values, out.to(kind, copy=True).contiguous()), out


@in_its_own_precision
def scores(q: Tensor, k: Tensor) -> Tensor:
    """Return the logits `[B, N, H, M]` of all queries `[B, N, H, d]` by all keys `[B, M, H, d]`, without any bias."""
    return _products(precise(q) * q.shape[-1] ** -0.5, precise(k)).contiguous()


def attention(logits: Tensor, q: Tensor, tables: Tables | None) -> Iterator[Tensor]:
    """Yield the softmax of logits `[B, N, H, M]` with relative positions, some queries after the other."""
    batch, _, heads, keys = logits.shape
    some = max(1, _PIECE.get(logits.device.type, _LARGE_PIECE) // (batch * heads * keys))
    if tables is None:
        yield from (precise(piece).softmax(dim=-1) for piece in logits.split(some, dim=1))
        return
    side = tables[0].shape[0]
    grid = precise(q).unflatten(1, (side, side))
    down = torch.einsum("byxhd,ykd->byxhk", grid, precise(tables[0])).flatten(1, 2)
    along = torch.einsum("byxhd,xkd->byxhk", grid, precise(tables[1])).flatten(1, 2)
    for piece, y, x in zip(*(each.split(some, dim=1) for each in (logits, down, along)), strict=True):
        cells = piece.unflatten(3, (y.shape[3], x.shape[3]))
        yield (cells + y[..., None] + x[..., None, :]).flatten(3).softmax(dim=-1)


@in_its_own_precision
def weights(logits: Tensor, q: Tensor, tables: Tables | None) -> Tensor:
    """Return all that `attention` yields, `[B, N, H, M]`."""
    return torch.cat(list(attention(logits, q, tables)), dim=1)


@in_its_own_precision
def attended(logits: Tensor, q: Tensor, v: Tensor, tables: Tables | None) -> Tensor:
    """Return what `attention` yields times values `[B, M, H, d]`: `[B, N, H, d]`, in their type."""
    return torch.cat([weighed(each.to(v.dtype), v) for each in attention(logits, q, tables)], dim=1)


@in_its_own_precision
def weighed(weights: Tensor, v: Tensor) -> Tensor:
    """Return weights `[B, N, H, M]` times values `[B, M, H, d]`: `[B, N, H, d]`."""
    return (weights.transpose(1, 2) @ v.transpose(1, 2)).transpose(1, 2)


def pooled(x: Tensor) -> Tensor:
    """Average keys or values `[B, N, H, d]` of a square grid over cells of 2 x 2 tokens, `[B, N / 4, H, d]`."""
    half = round(x.shape[1] ** 0.5) // 2
    cells = x.unflatten(1, (half, 2, half, 2))
    return cells.mean(dim=(2, 4)).flatten(1, 2)


def pooled_keys(tables: Tables | None) -> Tables | None:
    """Average the keys of relative positions `[side, side, d]` over pairs, `[side, side / 2, d]`."""
    if tables is None:
        return None
    down, along = (table.unflatten(1, (-1, 2)).mean(dim=2) for table in tables)
    return down, along


def touched(selection: Selection, batch: int, tokens: int) -> Selection:
    """Return the cells of 2 x 2 tokens that hold a selected one, each once; asks the device how many there are."""
    cell = _cells(tokens, selection.index.device)[selection.index]
    mask = torch.zeros(batch, tokens // 4, dtype=torch.bool, device=cell.device)
    mask.flatten().index_fill_(0, rows(replace(selection, index=cell), tokens // 4), True)
    return Selection.from_mask(mask)


@kept
def _cells(tokens: int, device: torch.device) -> Tensor:
    half = torch.arange(round(tokens**0.5), device=device) // 2
    return (half[:, None] * (len(half) // 2) + half).flatten()


def together(*selections: Selection) -> Iterator[tuple[slice, Sequence[Selection]]]:
    """Yield items that have equally many selected as one, if all have, else one by one."""
    batch = len(selections[0].lengths)
    if all(len(set(each.lengths)) == 1 for each in selections):
        yield slice(0, batch), selections
        return
    parts = [each.index.split(each.lengths) for each in selections]
    for item in range(batch):
        yield slice(item, item + 1), [Selection.of_each(own[item][None]) for own in parts]


def _products(q: Tensor, k: Tensor) -> Tensor:
    """Return `[B, N, H, M]` of `[B, N, H, d]` and `[B, M, H, d]`."""
    return (q.transpose(1, 2) @ k.permute(0, 2, 3, 1)).transpose(1, 2)


def _taken(x: Tensor, selection: Selection) -> Tensor:
    """Return the selected rows `[B, K, ...]` of `[B, N, ...]`; as many of each item."""
    return x.flatten(0, 1)[rows(selection, x.shape[1])].unflatten(0, (len(x), selection.lengths[0]))


def _places(x: Tensor, selection: Selection) -> Tensor:
    index = selection.index.view(len(x), 1, 1, selection.lengths[0])
    return index.expand(-1, *x.shape[1:3], -1)


def _columns(x: Tensor, selection: Selection) -> Tensor:
    """Return the selected columns `[B, N, H, K]` of `[B, N, H, M]`."""
    return x.gather(3, _places(x, selection))


def _put(x: Tensor, selection: Selection, columns: Tensor) -> None:
    """Replace the selected columns of `[B, N, H, M]`."""
    x.scatter_(3, _places(x, selection), columns)
