"""Every published layout of an MViT checkpoint, built small, and files that are none."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vpbench.backbones.checkpoints import names
from vpbench.backbones.checkpoints.reading import check_fit
from vpbench.backbones.mvit import MViTConfig, layouts
from vpbench.backbones.mvit.network import MViT
from vpbench.errors import UsageError

Tensors = dict[str, Tensor]
CONFIG = MViTConfig(
    dim=8,
    depth=3,
    heads=1,
    dim_mul=((1, 2.0),),
    head_mul=((1, 2.0),),
    pool_q_stride=((1, 1, 2, 2),),
    pool_kv_stride_adaptive=(1, 4, 4),
    frames=4,
    height=16,
    width=16,
    classes=7,
)


def ours() -> Tensors:
    torch.manual_seed(3)
    return {name: torch.randn_like(tensor) for name, tensor in MViT(CONFIG).state_dict().items()}


def with_scorers(tensors: Tensors) -> Tensors:
    return tensors | {
        "time_score_predictor.0.score_network.in_conv.0.weight": torch.randn(16),
        "space_score_predictor.0.score_network.out_conv.4.bias": torch.randn(1),
    }


def separate(tensors: Tensors) -> Tensors:
    """One matrix and one bias each for queries, keys and values."""
    found: Tensors = {}
    for name, tensor in tensors.items():
        if ".qkv." in name:
            parts = zip("qkv", tensor.chunk(3), strict=True)
            found |= {name.replace(".qkv.", f".{part}."): value.clone() for part, value in parts}
        else:
            found[name] = tensor
    return found


def torchvision(tensors: Tensors) -> Tensors:
    tables = {
        "cls_token": ("class_token", (-1,)),
        "pos_embed_class": ("class_pos", (-1,)),
        "pos_embed_spatial": ("spatial_pos", (-1, CONFIG.dim)),
        "pos_embed_temporal": ("temporal_pos", (-1, CONFIG.dim)),
    }
    rules = (
        (r"^patch_embed\.proj\.", "conv_proj."),
        (r"attn\.proj\.", "attn.project.0."),
        (r"attn\.pool_(.)\.", r"attn.pool_\1.pool."),
        (r"attn\.norm_(.)\.", r"attn.pool_\1.norm_act.0."),
        (r"mlp\.fc1\.", "mlp.0."),
        (r"mlp\.fc2\.", "mlp.3."),
        (r"^(blocks\.\d+)\.proj\.", r"\1.project."),
        (r"^head\.projection\.", "head.1."),
    )
    found = {}
    for name, tensor in tensors.items():
        if name in tables:
            theirs, shape = tables[name]
            found[f"pos_encoding.{theirs}"] = tensor.reshape(shape)
        else:
            for pattern, theirs in rules:
                name = re.sub(pattern, theirs, name)
            found[name] = tensor
    return found


@pytest.mark.parametrize(
    ("write", "layout", "pool_eps"),
    [
        (dict, "SlowFast", 1e-5),
        (with_scorers, "STTS", 1e-5),
        (separate, "SlowFast, separate q, k, v", 1e-5),
        (torchvision, "torchvision mvit_v1_b", 1e-6),
        (lambda t: {f"module.{k}": v for k, v in t.items()}, "SlowFast", 1e-5),
        (lambda t: {k: v.double() for k, v in t.items()}, "SlowFast", 1e-5),
    ],
)
def test_every_layout_becomes_ours(write: Callable[[Tensors], Tensors], layout: str, pool_eps: float) -> None:
    own = ours()
    written = write(own)
    before = dict(written)
    found = layouts.recognise(written, "file")
    assert found.layout == layout
    assert found.tensors.keys() == own.keys()
    for name, tensor in own.items():
        assert torch.equal(found.tensors[name], tensor), name
    config = found.config(CONFIG)
    assert (config.classes, config.pool_eps) == (7, pool_eps)
    check_fit(MViT(config), found.tensors, "file")
    assert found.scorers.keys() == {name for name in written if name.startswith(names.SCORERS)}
    assert written.keys() == before.keys()


def changed(name: str, tensor: Tensor | None) -> Callable[[], Tensors]:
    def write() -> Tensors:
        return {k: v for k, v in (ours() | {name: tensor}).items() if v is not None}

    return write


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda: {"blocks.0.attn.qkv.weight": torch.zeros(3, 3)}, "not an MViT checkpoint"),
        (dict, "not an MViT checkpoint"),
        (changed("head.projection.weight", None), "no classifier"),
        (changed("head.projection.weight", torch.zeros(7)), "not \\[classes, width\\]"),
        (changed("norm.weight", torch.full((16,), torch.nan)), "'norm.weight' holds NaN"),
        (changed("norm.weight", torch.zeros(16, dtype=torch.int64)), "'norm.weight' is torch.int64"),
        (changed("cls_token", torch.tensor(1.0)), "not a table"),
        (changed("blocks.0.attn.q.weight", torch.zeros(8, 8)), "blocks.0.attn.q, k and v are not all there"),
        (lambda: separate(ours()) | {"blocks.0.attn.v.bias": torch.zeros(3)}, "bias of the same shape"),
        (lambda: separate(ours()) | ours(), "two tensors stand for 'blocks.0.attn.qkv"),
        (lambda: torchvision(ours()) | {"cls_token": torch.zeros(8)}, "two tensors stand"),
    ],
)
def test_what_is_refused(write: Callable[[], Tensors], says: str) -> None:
    with pytest.raises(UsageError, match=says) as error:
        layouts.recognise(write(), "some file")
    assert str(error.value).startswith("some file: ")
    assert "\n" not in str(error.value)


def test_what_is_missing_is_named_by_the_model() -> None:
    tensors = ours()
    del tensors["blocks.1.attn.pool_q.weight"]
    found = layouts.recognise(tensors | {"blocks.1.attn.rel_pos_h": torch.zeros(2)}, "file")
    with pytest.raises(UsageError, match=r"1 missing \(blocks.1.attn.pool_q.weight\), 1 unknown"):
        check_fit(MViT(CONFIG), found.tensors, "file")
