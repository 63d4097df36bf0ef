"""Sizes of multiscale vision transformers. Imports no torch, so that listing them is instant."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from vpbench.backbones import WEIGHTS
from vpbench.registry import Entry

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class BlockSizes:
    """One block: width in and out, heads, and its strides (t, h, w); `q_stride` None: queries are not pooled."""

    dim: int
    dim_out: int
    heads: int
    q_stride: Triple | None
    kv_stride: Triple


@dataclass(frozen=True)
class MViTConfig:
    """Sizes of an MViT, version 1 with convolutions as pooling (arXiv 2104.11227); triples are (t, h, w).

    `dim`, `heads`: at block 0. `dim_mul`, `head_mul`: (block, factor) where width or heads grow on entering a block;
    the block before makes the new width. `pool_q_stride`: (block, t, h, w) where queries are pooled.
    `pool_kv_stride_adaptive`: the keys' and values' stride at block 0, divided by the query strides met so far.
    `pool_eps`: of the norms after the pooling convolutions; 1e-5 is what the published weights were trained with,
    torchvision evaluates with 1e-6. `stride`: the step between frames that the weights were trained for. `drop_path`,
    `dropout`: of the last block's branches (rising from 0 at the first) and before the classifier, in training only.
    """

    dim: int
    depth: int
    heads: int
    dim_mul: tuple[tuple[int, float], ...]
    head_mul: tuple[tuple[int, float], ...]
    pool_q_stride: tuple[tuple[int, int, int, int], ...]
    pool_kv_stride_adaptive: Triple
    frames: int = 16
    height: int = 224
    width: int = 224
    patch_kernel: Triple = (3, 7, 7)
    patch_stride: Triple = (2, 4, 4)
    patch_padding: Triple = (1, 3, 3)
    pool_kernel: Triple = (3, 3, 3)
    mlp_ratio: float = 4.0
    classes: int = 400
    eps: float = 1e-6
    pool_eps: float = 1e-5
    stride: int = 4
    drop_path: float = 0.0
    dropout: float = 0.0

    def blocks(self) -> Iterator[BlockSizes]:
        """Yield the sizes of each block in turn."""
        dim, heads, kv_stride = self.dim, self.heads, self.pool_kv_stride_adaptive
        dim_mul, head_mul = dict(self.dim_mul), dict(self.head_mul)
        q_strides = {block: (t, h, w) for block, t, h, w in self.pool_q_stride}
        for block in range(self.depth):
            heads = int(heads * head_mul.get(block, 1))
            q_stride = q_strides.get(block)
            if q_stride is not None:
                t, h, w = (max(kv // q, 1) for kv, q in zip(kv_stride, q_stride, strict=True))
                kv_stride = (t, h, w)
            dim_out = int(dim * dim_mul.get(block + 1, 1)) if block + 1 < self.depth else dim
            yield BlockSizes(dim, dim_out, heads, q_stride, kv_stride)
            dim = dim_out


#: the published MViT-B 16x4 for Kinetics-400
MVIT_B = MViTConfig(
    dim=96,
    depth=16,
    heads=1,
    dim_mul=((1, 2.0), (3, 2.0), (14, 2.0)),
    head_mul=((1, 2.0), (3, 2.0), (14, 2.0)),
    pool_q_stride=((1, 1, 2, 2), (3, 1, 2, 2), (14, 1, 2, 2)),
    pool_kv_stride_adaptive=(1, 8, 8),
)
MVIT_EMBEDDED = MViTConfig(
    dim=96,
    depth=7,
    heads=2,
    dim_mul=((2, 2.0),),
    head_mul=((2, 2.0),),
    pool_q_stride=((2, 1, 2, 2),),
    pool_kv_stride_adaptive=(1, 2, 2),
    height=64,
    width=64,
    patch_kernel=(3, 12, 12),
    patch_stride=(2, 8, 8),
    patch_padding=(1, 2, 2),
    classes=18,
    stride=2,
)
TINY = MViTConfig(
    dim=8,
    depth=6,
    heads=1,
    dim_mul=((1, 2.0), (5, 2.0)),
    head_mul=((1, 2.0), (5, 2.0)),
    pool_q_stride=((1, 1, 2, 2), (5, 1, 2, 2)),
    pool_kv_stride_adaptive=(1, 4, 4),
    height=32,
    width=32,
    classes=5,
)

_entry = partial(
    Entry, flow="grid", build=f"{__name__}.network:MViT", protocol="mvit_5x1", layouts=f"{__name__}.layouts", tiny=TINY
)
ENTRIES: dict[str, Entry] = {
    "mvit_embedded": _entry(
        "MViT with conv pooling, 16x64x64, grid of 8x8x8 tokens; trained weights and STTS scorers included",
        MVIT_EMBEDDED,
        weights=WEIGHTS / "mvit_embedded.safetensors",
    ),
    "mvit_b_16x4": _entry("MViT-B with conv pooling, 16x224x224, grid of 8x56x56 tokens", MVIT_B),
}
