"""The one attention function: fused, ragged, never padded; and exact scores of it without keeping its map.

All tensors are packed: clip b of a batch owns `lengths[b]` consecutive rows of `[S, ...]`.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from vpbench.api.contexts import HALF, in_its_own_precision, precise
from vpbench.api.tokens import borders_of, constant, joined, places_of

# A fused kernel carries biases in extra channels of each head; kernels want widths that are multiples of 8.
EXTRA = 8
# What the variable-length kernels of CUDA take: flash attention half precision, the memory-efficient one float32.
_VARLEN = (*HALF, torch.float32)
# Rows of the attention map that exist at a time on a CPU where a score needs the map itself.
_ROWS = 32
# Elements of the maps of whole blocks that exist at a time, and clips on a CPU, whose cache holds so many. A GPU is
# launched once for as much as its memory takes.
_MAP, _CLIPS = 1 << 28, 4
# Heads that are widened at a time on the second pass on a CPU: the copies stay small beside q, k and v themselves.
_HEADS = 4


def attend(q: Tensor, k: Tensor, v: Tensor, lengths: tuple[int, ...], size: Tensor | None = None) -> Tensor:
    """Softmax attention among the tokens of each clip; q, k, v and the result are `[S, H, D]`.

    `size [S]`, where given, adds `log(size)` to the logits of each key (proportional attention, ToMe,
    arXiv 2210.09461). Equal lengths run as one batched call. Ragged lengths run as one variable-length kernel on CUDA,
    elsewhere as one fused call per clip over views of the packed buffer: on a CPU that was measured 1.2 to 2.3 times
    faster than padding with a mask, and it does no work for tokens that do not exist.
    """
    if _varlen_fits(q.device.type, q.dtype, lengths):
        return _varlen(q, k, v, lengths, size, sums=False)[0]
    if size is not None:
        return _per_clip(_biased, lengths, q, k, v, _log(size, q))[0]
    gradient = torch.is_grad_enabled() and q.requires_grad and q.device.type == "cpu"
    kernel = explicit_attention if gradient else F.scaled_dot_product_attention
    return _per_clip(lambda *qkv: (kernel(*qkv),), lengths, q, k, v)[0]


def attend_with_lse(
    q: Tensor, k: Tensor, v: Tensor, lengths: tuple[int, ...], size: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return what `attend` does and, as float32 `[S, H]`, the natural log of each query's softmax denominator."""
    if _varlen_fits(q.device.type, q.dtype, lengths):
        out, lse = _varlen(q, k, v, lengths, size, sums=True)
        return out, lse
    out, lse = _per_clip(_fused, lengths, q, k, v, *([] if size is None else [_log(size, q)]))
    return out, lse[..., 0]


@in_its_own_precision
def attend_with_fused(
    q: Tensor, k: Tensor, v: Tensor, lengths: tuple[int, ...], size: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return what `attend` does and its map fused over heads, float32 `[B, N, N]`: the root of the mean square.

    Clips have equal lengths. The map of all heads exists for some clips at a time only.
    """
    heads, width = q.shape[1:]
    out, fused = [], []
    some = _CLIPS if q.device.type == "cpu" else max(1, _MAP // (heads * lengths[0] ** 2))
    packed = (t.view(-1, lengths[0], heads, width).transpose(1, 2).split(some) for t in (q, k, v))
    bias = None if size is None else _log(size, q).view(-1, 1, 1, lengths[0]).split(some)
    for number, (queries, keys, values) in enumerate(zip(*packed, strict=True)):
        queries, keys = _widest(queries), _widest(keys)
        logits = (queries * width**-0.5) @ keys.transpose(-2, -1)
        weights = (logits if bias is None else logits + bias[number]).softmax(dim=-1)
        out.append((weights.to(values.dtype) @ values).transpose(1, 2))
        fused.append(_root_mean_square(weights))
    return joined(out).flatten(0, 1), joined(fused)


def _widest(x: Tensor) -> Tensor:
    """Return `x` in float32 at least and contiguous, in one copy; a product would make the second of two."""
    return x.to(torch.float32, memory_format=torch.contiguous_format) if x.dtype in HALF else x.contiguous()


def _root_mean_square(weights: Tensor) -> Tensor:
    """Return `[B, N, N]` of maps `[B, H, N, N]`; on a CPU vector_norm over heads takes eleven times as long."""
    if weights.device.type == "cpu":
        return weights.square().mean(dim=1).sqrt()
    return torch.linalg.vector_norm(weights, dim=1).mul_(weights.shape[1] ** -0.5)


@in_its_own_precision
def received(q: Tensor, k: Tensor, lse: Tensor, lengths: tuple[int, ...], weight: Tensor | None = None) -> Tensor:
    """Return `[S, H]`: the attention that each token receives, `sum_i weight_i A_ij`, exactly and without the map A.

    `A_ij = exp(q_i k_j / sqrt(D) - lse_i)`, so its column sums are the exponential of a log-sum-exp over queries: a
    second fused pass with q and k in each other's place and `log(weight_i) - lse_i` as bias. lse: float32, from
    `attend_with_lse`; weight: `[S, H]`, positive, default 1.
    """
    less = lse if weight is None else lse - weight.log()
    if _varlen_fits(q.device.type, q.dtype, lengths):
        queries, keys = _columns(q, k, less[..., None])
        return _varlen_kernel(queries, keys, keys, lengths, q.shape[-1] ** -0.5, sums=True)[1].exp()
    return _per_clip(_column_log_sums, lengths, q, k, less[..., None])[0][..., 0].exp()


@in_its_own_precision
def walked(q: Tensor, k: Tensor, lse: Tensor, lengths: tuple[int, ...], steps: int) -> Tensor:
    """Return `[S]`: where a walk along the attention is after `steps` steps, `s <- A^T s` from 1, averaged over heads.

    After one step that is `received`. Clips have equal lengths. The walk stays among logarithms, which no token that
    nobody looks at underflows.
    """

    def kernel(q: Tensor, k: Tensor, lse: Tensor) -> tuple[Tensor]:
        return (_column_log_sums(q, k, lse, steps)[0].exp().mean(dim=1, keepdim=True),)

    return _per_clip(kernel, lengths, q, k, lse[..., None])[0].flatten()


def received_macs(tokens: int, heads: int, width: int) -> int:
    """Multiply-accumulates of `received` for one clip: both products of a fused pass `EXTRA` channels wider."""
    return 2 * tokens * tokens * heads * (width + EXTRA)


@in_its_own_precision
def map_entropy(q: Tensor, k: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """Return `[S]`: `sum_j a_ij ln a_ij` of a, the attention map averaged over heads (negative entropy of its rows).

    The logarithm of a mean over heads has no fused form; the map exists for a few rows at a time only.
    """

    def kernel(q: Tensor, k: Tensor) -> tuple[Tensor]:
        keys = k.transpose(-2, -1)
        batch, heads, tokens = keys.shape[0], keys.shape[1], keys.shape[3]
        some = _ROWS if q.device.type == "cpu" else max(1, _MAP // (batch * heads * tokens))
        chunks = [(rows @ keys).softmax(-1).mean(1) for rows in (q * q.shape[-1] ** -0.5).split(some, dim=2)]
        sums = [torch.xlogy(a, a).sum(-1) for a in chunks]
        return ((sums[0] if len(sums) == 1 else torch.cat(sums, dim=1))[:, None, :, None],)

    return _per_clip(kernel, lengths, q.float(), k.float())[0][:, 0, 0]


def kernel_name(device: str, dtype: torch.dtype, ragged: bool) -> str:
    """Name what `attend` runs in evaluation, for the `attn_impl` column."""
    if not ragged:
        return "sdpa"
    if not device.startswith("cuda") or dtype not in _VARLEN:
        return "sdpa_per_clip"
    return "varlen" if dtype in HALF else "varlen_efficient"


def explicit_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention as two matrix products, for gradients on a CPU, where the fused kernel's backward pass is slow.

    q, k, v: `[B, H, N, D]`.
    """
    weights = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return precise(weights).softmax(dim=-1).to(v.dtype) @ v


def _per_clip(
    kernel: Callable[..., tuple[Tensor, ...]], lengths: tuple[int, ...], *packed: Tensor
) -> tuple[Tensor, ...]:
    """Run a kernel over `[B, H, N, *]` on packed `[S, H, *]` tensors; returns what it returns, packed again."""
    if len(set(lengths)) > 1:
        clips = zip(lengths, *(t.split(lengths) for t in packed), strict=True)
        found = [_per_clip(kernel, (length,), *clip) for length, *clip in clips]
        return tuple(torch.cat(parts) for parts in zip(*found, strict=True))
    out = kernel(*(t.view(-1, lengths[0], *t.shape[1:]).transpose(1, 2) for t in packed))
    return tuple(t.transpose(1, 2).flatten(0, 1) for t in out)


def _log(size: Tensor, q: Tensor) -> Tensor:
    """Return the bias `[S, 1, 1]` of keys that stand for `size [S]` tokens; never rounded to half precision."""
    return size.to(torch.promote_types(q.dtype, torch.float32)).log()[:, None, None]


@in_its_own_precision
def _biased(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> tuple[Tensor]:
    """Attention with a bias `[B, 1, N, 1]` per key, in float32 whatever q, k and v are in."""
    if q.device.type == "cuda":  # its fastest kernels take no mask; on a CPU a mask costs 3 %, the wider heads 14 %
        q, k, wide, scale = *_with_bias_channels(q, k, v, bias), q.shape[-1] ** -0.5
        return (F.scaled_dot_product_attention(q, k, wide, scale=scale)[..., : v.shape[-1]],)
    return (F.scaled_dot_product_attention(q, k, v, attn_mask=_mask(bias)),)


def _mask(bias: Tensor) -> Tensor:
    return bias.transpose(-2, -1).expand(-1, -1, bias.shape[2], -1)


def _with_bias_channels(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Widen heads so that the scaled product holds `bias` of each key; bias: broadcasts to k's `[..., 1]`."""
    root = q.shape[-1] ** 0.5
    return _reading(q, root), _holding(k, bias, root), F.pad(v, (0, EXTRA))


def _reading(q: Tensor, times: float) -> Tensor:
    """Widen the heads of q so that the product, not scaled yet, adds `times` what `_holding` holds of each key."""
    ones = (1.0, -1.0, 1.0) if q.dtype in HALF else (times,)
    reads = constant(ones + (0.0,) * (EXTRA - len(ones)), q.device, q.dtype)
    return torch.cat([q, reads.expand(*q.shape[:-1], -1)], dim=-1)


def _holding(k: Tensor, bias: Tensor, times: float) -> Tensor:
    """Widen the heads of k by a bias; in half precision by three parts of it, since one would round it.

    Each holds what the last left over, the second with the other sign; `times` is in them already.
    """
    if k.dtype not in HALF:
        blank = constant((0.0,) * (EXTRA - 1), k.device, k.dtype)
        return torch.cat([k, bias.expand(*k.shape[:-1], 1), blank.expand(*k.shape[:-1], -1)], dim=-1)
    wide = torch.cat([k, constant((0.0,) * EXTRA, k.device, k.dtype).expand(*k.shape[:-1], -1)], dim=-1)
    parts = wide[..., k.shape[-1] : k.shape[-1] + 3].add_(bias, alpha=times)
    over = torch.add(parts[..., :1], bias, alpha=-times)
    parts[..., 1:].copy_(over)
    parts[..., 2:].sub_(over)
    return wide


def _column_log_sums(q: Tensor, k: Tensor, less: Tensor, steps: int = 1) -> tuple[Tensor]:
    """Return `[B, H, N, 1]`: per key, the log of the sum over queries of `exp(q k / sqrt(D) - less)`.

    Of further steps, what the last one gave is added to the exponents of queries.
    """
    if q.device.type == "cpu" and q.shape[1] > _HEADS:
        some = zip(*(t.split(_HEADS, dim=1) for t in (q, k, less)), strict=True)
        parts = [_column_log_sums(queries, keys, own, steps)[0] for queries, keys, own in some]
        return (torch.cat(parts, dim=1),)
    queries, keys = _columns(q, k, less)
    scale = q.shape[-1] ** -0.5
    sums = _fused(queries, keys, keys, scale=scale)[1]
    for _ in range(steps - 1):
        keys = _holding(q, less - sums, -1 / scale)
        sums = _fused(queries, keys, keys, scale=scale)[1]
    return (sums,)


def _columns(q: Tensor, k: Tensor, less: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a pass with q and k in each other's place attends from and to; its scaled product holds `-less`."""
    root = q.shape[-1] ** 0.5
    return _reading(k, -root), _holding(q, less, -root)


def _fused(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """Fused attention with its log-sum-exp `[B, H, N, 1]`, which the public function computes but does not return.

    bias: `[B, 1, N, 1]`, of each key.
    """
    ops, (tokens, width) = torch.ops.aten, q.shape[2:]
    if q.device.type != "cuda":
        mask = None if bias is None else _mask(bias)
        out, lse = ops._scaled_dot_product_flash_attention_for_cpu(q, k, v, attn_mask=mask, scale=scale)
        return out, lse[..., None].float()
    if bias is not None:
        scale = width**-0.5
        q, k, v = _with_bias_channels(q, k, v, bias)
    if q.dtype in HALF:
        out, lse = ops._scaled_dot_product_flash_attention(q, k, v, scale=scale)[:2]
    else:
        out, lse = ops._scaled_dot_product_efficient_attention(q, k, v, None, True, scale=scale)[:2]
    return out[..., :width], lse[..., :tokens, None].float()


def _varlen_fits(device: str, dtype: torch.dtype, lengths: tuple[int, ...]) -> bool:
    return device == "cuda" and dtype in _VARLEN and len(set(lengths)) > 1


def _varlen(
    q: Tensor, k: Tensor, v: Tensor, lengths: tuple[int, ...], size: Tensor | None, sums: bool
) -> tuple[Tensor, Tensor]:
    """One kernel for clips of different lengths, bounded by cumulative lengths instead of a mask.

    Also returns the log-sum-exp `[S, H]`, float32, if `sums` are asked for.
    """
    width = q.shape[-1]
    if size is not None:
        q, k, v = _with_bias_channels(q, k, v, _log(size, q))
    out, lse = _varlen_kernel(q, k, v, lengths, width**-0.5, sums)
    return out[..., :width], lse


def _varlen_kernel(
    q: Tensor, k: Tensor, v: Tensor, lengths: tuple[int, ...], scale: float, sums: bool
) -> tuple[Tensor, Tensor]:
    """Run flash attention in half precision; in float32 the kernel that equal lengths get there, with borders."""
    ends, longest = borders_of(lengths, q.device), max(lengths)
    if q.dtype in HALF:
        from torch.nn.attention.varlen import AuxRequest, varlen_attn

        out, lse = varlen_attn(q, k, v, ends, ends, longest, longest, scale=scale, return_aux=AuxRequest(lse=True))
        return out, lse.T
    gradient = torch.is_grad_enabled() and q.requires_grad
    packed = (t[None] for t in (q, k, v))
    out, lse = torch.ops.aten._efficient_attention_forward(
        *packed, None, ends, ends, longest, longest, 0.0, 0, sums or gradient, scale=scale
    )[:2]
    return out[0], lse.transpose(1, 2)[places_of(lengths, q.device)] if sums else lse
