"""The one attention function: fused, ragged, never padded; and exact scores of it without keeping its map.

All tensors are packed: clip b of a batch owns `lengths[b]` consecutive rows of `[S, ...]`.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from vpbench.api.contexts import HALF, in_its_own_precision, precise
from vpbench.api.tokens import constant, joined, on_device

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
    bias = -lse if weight is None else weight.log() - lse
    heads = q.shape[1]
    if _varlen_fits(q.device.type, q.dtype, lengths):
        queries, keys, scale = _columns(q, k, bias[..., None])
        return _varlen_kernel(queries, keys, keys, lengths, scale, sums=True)[1].exp()
    some = _HEADS if q.device.type == "cpu" else heads
    parts = [t.split(some, dim=1) for t in (q, k, bias[..., None])]
    sums = [_per_clip(_column_log_sums, lengths, *part)[0] for part in zip(*parts, strict=True)]
    return (sums[0] if len(sums) == 1 else torch.cat(sums, dim=1)).view(-1, heads).exp()


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
    return *_widened(q, k, bias * q.shape[-1] ** 0.5), F.pad(v, (0, EXTRA))


def _widened(q: Tensor, k: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Widen heads so that the product, not scaled yet, holds `bias` of each key.

    In half precision one channel would round the bias; three of them, each holding what the last left over, do not.
    """
    parts = [bias.to(k.dtype)]
    for _ in range(2 if k.dtype in HALF else 0):
        bias = bias - parts[-1]
        parts.append(bias.to(k.dtype))
    ones, rest = len(parts), EXTRA - len(parts)
    reads = constant((1.0,) * ones + (0.0,) * rest, q.device, q.dtype).expand(*q.shape[:-1], -1)
    blank = constant((0.0,) * rest, k.device, k.dtype).expand(*k.shape[:-1], -1)
    held = (each.expand(*k.shape[:-1], 1) for each in parts)
    return torch.cat([q, reads], dim=-1), torch.cat([k, *held, blank], dim=-1)


def _column_log_sums(q: Tensor, k: Tensor, bias: Tensor) -> tuple[Tensor]:
    """Return `[B, H, N, 1]`: per key, the log of the sum over queries of `exp(q k / sqrt(D) + bias)`."""
    queries, keys, scale = _columns(q, k, bias)
    return (_fused(queries, keys, keys, scale=scale)[1],)


def _columns(q: Tensor, k: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, float]:
    """Return what a pass with q and k in each other's place attends from and to, `bias` in it, and its scale."""
    width = q.shape[-1]
    # the kernel scales in float32; keys in half precision, scaled before it, would be rounded once more
    scale = width**-0.5 if q.dtype in HALF else 1.0
    if q.dtype in HALF:
        return *_widened(k, q, bias / scale), scale
    return *_widened(k * width**-0.5, q, bias), scale


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
    ends, longest = _cumulative(lengths, q.device), max(lengths)
    if q.dtype in HALF:
        from torch.nn.attention.varlen import AuxRequest, varlen_attn

        out, lse = varlen_attn(q, k, v, ends, ends, longest, longest, scale=scale, return_aux=AuxRequest(lse=True))
        return out, lse.T
    gradient = torch.is_grad_enabled() and q.requires_grad
    packed = (t[None] for t in (q, k, v))
    out, lse = torch.ops.aten._efficient_attention_forward(
        *packed, None, ends, ends, longest, longest, 0.0, 0, sums or gradient, scale=scale
    )[:2]
    return out[0], lse.transpose(1, 2)[_places(lengths, q.device)] if sums else lse


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # what is kept may be used in training later
def _cumulative(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    """Copy the borders of the clips to the device once per batch, not once per block."""
    return on_device((0, *lengths), device).cumsum(0, dtype=torch.int32)


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _places(lengths: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return of each packed token which clip it is of, and its place in it."""
    starts = _cumulative(lengths, device)[:-1].long()
    clip = torch.arange(len(lengths), device=device)
    clip = clip.repeat_interleave(on_device(lengths, device), output_size=sum(lengths))
    return clip, torch.arange(sum(lengths), device=device) - starts[clip]
