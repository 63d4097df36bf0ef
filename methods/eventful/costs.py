"""What a block takes of one item: multiply-accumulates as they run, and as the published code's counters count.

Those count 1 for each multiply-accumulate, and for each addition of a bias, a residual or a relative position; then, of
frames after the first, the subtractions of gates and the additions that keep the product with values up to date. Norms,
softmax, sorting and gathering are not counted, neither here nor there.
"""

from collections import Counter
from dataclasses import dataclass

from vpbench.api import BlockParts

#: what the published code counts apart
KINDS = ("linear", "bias", "add", "matmul", "einsum", "gate", "accumulator")


@dataclass(frozen=True)
class Work:
    """What one item took in one block.

    `qkv`, `projection`, `mlp`: tokens that passed these parts. `keys`: keys in all, and `renewed`, those that were
    computed anew, where attention was by products of our own: `level` says which; None: all was the block's own.
    `gated`: whether gates compared anything. `own`: whether attention on the first frame was the block's own as well.
    """

    tokens: int
    qkv: int
    projection: int
    mlp: int
    gated: bool
    level: str | None = None
    keys: int = 0
    renewed: int = 0
    own: bool = False


def executed(parts: BlockParts, width: int, work: Work) -> int:
    """Multiply-accumulates of one item as they run."""
    n, m = work.tokens, work.keys
    total = (3 * work.qkv + work.projection) * width**2 + 2 * work.mlp * width * parts.hidden
    if work.level is None:
        return total + parts.attention_macs(n)
    positions = _positions(parts, n, m) * width
    if not work.gated and work.own:
        return total + parts.attention_macs(n) + n * m * width + (positions if work.level == "full" else 0)
    total += positions
    if not work.gated:
        return total + 2 * n * m * width
    total += (work.qkv * m + n * work.renewed) * width
    return total + (2 * n * work.renewed if work.level == "full" else n * m) * width


def published(parts: BlockParts, width: int, work: Work) -> Counter[str]:
    """Count one item as the published code does, by kind."""
    n, m, heads = work.tokens, work.keys, parts.heads
    rows = {
        "linear": (3 * work.qkv + work.projection) * width**2 + 2 * work.mlp * width * parts.hidden,
        "bias": (3 * work.qkv + work.projection + work.mlp) * width + work.mlp * parts.hidden,
        "add": 2 * n * width,
        "gate": 3 * n * width if work.gated else 0,
    }
    found = Counter(rows)
    if work.level is None:
        return found + Counter(parts.attention_counts(n))
    positions = _positions(parts, n, m)
    found += Counter({"einsum": positions * width, "add": 2 * heads * n * m if positions else 0})
    if not work.gated:
        return found + Counter({"matmul": 2 * n * m * width})
    anew = (work.qkv * m + n * work.renewed) * width
    if work.level == "scores":
        return found + Counter({"matmul": anew + n * m * width})
    accumulator = work.renewed * width + 2 * n * width
    gate = m * width + heads * n * m
    return found + Counter({"matmul": anew + 2 * n * work.renewed * width, "gate": gate, "accumulator": accumulator})


def _positions(parts: BlockParts, queries: int, keys: int) -> int:
    """Return products of a query with an entry of a table of positions, for keys on a square grid; 0 without tables."""
    return 0 if parts.tables() is None else 2 * queries * round(keys**0.5)
