"""Attention inside the windows of a square grid, with decomposed relative positions."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpbench.api.contexts import in_its_own_precision, precise
from vpbench.backbones.layers import Derived
from vpbench.backbones.vitdet import ViTDetConfig
from vpbench.backbones.vitdet.windows import Queries, SquareWindows

# Elements of the attention map, or of its bias, that exist at a time: on a CPU they stay in cache.
_PIECE = {"cpu": 1 << 20}
_LARGE_PIECE = 1 << 27


class Attention(nn.Module):
    """Multi-head attention inside the windows of a square grid, with decomposed relative positions."""

    def __init__(self, config: ViTDetConfig, windows: SquareWindows, table: int) -> None:
        super().__init__()
        self.heads, self.windows = config.heads, windows
        self.qkv = nn.Linear(config.dim, 3 * config.dim)
        self.proj = nn.Linear(config.dim, config.dim)
        places, width = 2 * table - 1, config.dim // config.heads
        self.rel_pos_h = nn.Parameter(nn.init.trunc_normal_(torch.empty(places, width), std=0.02))
        self.rel_pos_w = nn.Parameter(nn.init.trunc_normal_(torch.empty(places, width), std=0.02))
        self._tables = Derived(_relatives)

    def forward(
        self, y: Tensor, chosen: Tensor | None, written: Tensor, queries: Queries, memory: Tensor, wants_map: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Write the keys and values of tokens `y` `[T, D]` into memory at `written`; attend from those `chosen`.

        chosen `[R]`: rows of y, None for all. Returns `[R, D]` and, if wanted, the map `[A, M, V]` fused over heads.
        """
        width = y.shape[1]
        if chosen is None:
            q, kv = self.qkv(y).split([width, 2 * width], dim=1)
        else:
            weight, bias = self.qkv.weight, self.qkv.bias
            q, kv = F.linear(y[chosen], weight[:width], bias[:width]), F.linear(y, weight[width:], bias[width:])
        memory.index_copy_(0, written, kv.unflatten(1, (2, self.heads, -1)).to(memory.dtype))
        out, fused = self._among(q.unflatten(1, (self.heads, -1)), queries, memory, wants_map)
        return self.proj(out.flatten(1)), fused

    def whole(self, projected: Tensor) -> Tensor:
        """Attend among all tokens of segments, `[B, N, 3 D]` from the qkv layer to `[B, N, D]`."""
        batch, tokens, _ = projected.shape
        q, *kv = projected.view(batch * tokens, 3, self.heads, -1).unbind(dim=1)
        every, memory = self.windows.every(batch, projected.device), self.new_memory(batch).to(projected.dtype)
        memory.index_copy_(0, every.rows, torch.stack(kv, dim=1))
        return self._among(q, every, memory, wants_map=False)[0].flatten(1).unflatten(0, (batch, tokens))

    def new_memory(self, batch: int) -> Tensor:
        """Return memory for `batch` segments in which padding is what the qkv layer makes of zeros: its bias."""
        _, *kv = self.qkv.bias.detach().view(3, self.heads, -1)
        return torch.stack(kv).repeat(batch * self.windows.count * self.windows.volume, 1, 1, 1)

    def tables(self) -> tuple[Tensor, Tensor]:
        """Return the relative positions of both axes `[side, side, width]`, query by key; kept in evaluation."""
        return self._tables(self.rel_pos_h, self.rel_pos_w, side=self.windows.size)

    def _among(self, q: Tensor, queries: Queries, memory: Tensor, wants_map: bool) -> tuple[Tensor, Tensor | None]:
        """Attend from `q` `[R, heads, width]` to the memory of the windows they are in."""
        size, width = self.windows.size, q.shape[2]
        vertical, horizontal = self.tables()
        along_y = q @ vertical[queries.y].transpose(1, 2)
        along_x = q @ horizontal[queries.x].transpose(1, 2)
        spread = queries.spread(torch.cat([q, along_y, along_x], dim=2)).transpose(1, 2)
        kv = memory.view(-1, self.windows.volume, 2, *memory.shape[2:])
        kv = kv if queries.windows is None else kv[queries.windows]
        k, v = kv.permute(2, 0, 3, 1, 4)
        piece = _PIECE.get(q.device.type, _LARGE_PIECE) // (len(kv) * self.heads * self.windows.volume)
        out, maps = [], []
        for part in spread.split(max(1, piece), dim=2):
            some, along_y, along_x = part.split([width, size, size], dim=3)
            bias = (along_y[..., :, None] + along_x[..., None, :]).flatten(3)
            if wants_map:
                attended, fused = _explicit(some, k, v, bias)
                maps.append(fused)
            else:
                attended = F.scaled_dot_product_attention(some, k, v, attn_mask=bias)
            out.append(attended)
        joined = queries.packed(torch.cat(out, dim=2).transpose(1, 2))
        return joined, torch.cat(maps, dim=1) if wants_map else None


@in_its_own_precision
def _explicit(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Attention `[A, heads, M, width]`, and its map, float32 `[A, M, V]`, fused over heads by root mean square."""
    products = precise(q) @ precise(k).transpose(-2, -1)
    weights = torch.add(precise(bias), products, alpha=q.shape[-1] ** -0.5).softmax(-1, dtype=torch.float32)
    return (weights.to(v.dtype) @ v).to(q.dtype), weights.square().mean(1).sqrt()


def _relatives(vertical: Tensor, horizontal: Tensor, side: int) -> tuple[Tensor, Tensor]:
    return relative(vertical, side), relative(horizontal, side)


def relative(table: Tensor, side: int) -> Tensor:
    """Return the entry for each query and key of an axis, `[side, side, width]`, of a table `[2S - 1, width]`.

    Where the axis is not S long, the S x S picture of entries is resized: not the table itself.
    """
    length = (len(table) + 1) // 2
    place = torch.arange(length, device=table.device)
    entries = table[place[:, None] - place[None] + length - 1]
    return entries if length == side else resized(entries, side).contiguous()


def resized(picture: Tensor, side: int) -> Tensor:
    """Resize a picture `[S, S, width]` to `[side, side, width]`, bicubic."""
    image = picture.permute(2, 0, 1)[None].float()
    image = F.interpolate(image, (side, side), mode="bicubic", align_corners=False)
    return image[0].permute(1, 2, 0).to(picture.dtype)
