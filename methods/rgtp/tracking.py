"""Move a heat map along with the content: where did each token come from since the last step?"""

import torch
import torch.nn.functional as F
from torch import Tensor

#: what a similarity of exactly zero counts as, so that positions outside the grid lose (RGTP, ICIP 2025)
_NOTHING = -100.0


def sources(now: Tensor, before: Tensor, rows: int, cols: int, radius: int) -> Tensor:
    """Return, for each token of `now`, the most similar token of `before` within `radius` on the grid, int64 `[B, N]`.

    now, before: patch embeddings `[B, N, D]` without positions, N = rows x cols. Similarity is the plain dot product;
    of equal ones the first wins, offsets ordered by row, then column. Where nothing in the grid is as similar as the
    outside, the source is token 0.
    """
    reach = 2 * radius + 1
    frame = before.unflatten(1, (rows, cols))
    padded = F.pad(frame, (0, 0, radius, radius, radius, radius))
    here = now.unflatten(1, (rows, cols))
    shifts = [(dy, dx) for dy in range(reach) for dx in range(reach)]
    similar = torch.stack(
        [torch.linalg.vecdot(here, padded[:, dy : dy + rows, dx : dx + cols]) for dy, dx in shifts], dim=-1
    )
    winner = torch.where(similar == 0, _NOTHING, similar).argmax(dim=-1)
    y = torch.arange(rows, device=now.device)[:, None] + winner // reach - radius
    x = torch.arange(cols, device=now.device) + winner % reach - radius
    inside = (y >= 0) & (y < rows) & (x >= 0) & (x < cols)
    return torch.where(inside, y * cols + x, 0).flatten(1)


def macs(tokens: int, width: int, radius: int) -> int:
    """Multiply-accumulates of `sources` for one grid of `tokens` tokens of `width` channels."""
    return (2 * radius + 1) ** 2 * tokens * width
