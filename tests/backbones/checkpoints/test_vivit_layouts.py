"""Every published layout of a ViViT checkpoint, built small, and files that are none."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import add_backbone
from torch import Tensor

from vpbench.api.backbone import classifier
from vpbench.backbones import loading
from vpbench.backbones.checkpoints.reading import check_fit
from vpbench.backbones.vivit import ViViTConfig, layouts
from vpbench.backbones.vivit.network import ViViT
from vpbench.errors import UsageError

Tensors = dict[str, Tensor]
CONFIG = ViViTConfig(
    dim=8, depth=3, heads=2, temporal_depth=2, frames=6, height=32, width=32, tubelet=2, patch=16, classes=5
)


def ours() -> Tensors:
    torch.manual_seed(3)
    return {name: torch.randn_like(tensor) for name, tensor in ViViT(CONFIG).state_dict().items()}


def renamed(tensors: Tensors, rules: tuple[tuple[str, str], ...]) -> Tensors:
    found = {}
    for name, tensor in tensors.items():
        for pattern, theirs in rules:
            name = re.sub(pattern, theirs, name)
        found[name] = tensor
    return found


def tadaconv(tensors: Tensors) -> Tensors:
    rules = (
        (r"^head\.", "head.linear."),
        (r"^patch_embed\.proj\.", "backbone.stem.conv1."),
        (r"^cls_token$", "backbone.cls_token"),
        (r"^temporal_cls_token$", "backbone.cls_token_out"),
        (r"^pos_embed$", "backbone.pos_embd"),
        (r"^temporal_pos_embed$", "backbone.temp_embd"),
        (r"^norm\.", "backbone.norm."),
        (r"^temporal_norm\.", "backbone.norm_out."),
        (r"^blocks\.", "backbone.layers."),
        (r"^temporal_blocks\.", "backbone.layers_temporal."),
        (r"\.norm1\.", ".norm."),
        (r"\.norm2\.", ".norm_ffn."),
        (r"\.attn\.qkv\.", ".attn.to_qkv."),
        (r"\.mlp\.fc1\.", ".ffn.net.0."),
        (r"\.mlp\.fc2\.", ".ffn.net.3."),
    )
    return renamed(tensors, rules)


def verbs_and_nouns(tensors: Tensors) -> Tensors:
    """As for EPIC-Kitchens: 3 verbs and 2 nouns in heads of their own."""
    theirs = tadaconv(tensors)
    for kind in ("weight", "bias"):
        verbs, nouns = theirs.pop(f"head.linear.{kind}").split((3, 2))
        theirs |= {f"head.linear1.{kind}": verbs, f"head.linear2.{kind}": nouns}
    return theirs


def rgtp(tensors: Tensors) -> Tensors:
    rules = (
        (r"^head\.", "classifier."),
        (r"^patch_embed\.proj\.", "embedding.conv."),
        (r"^cls_token$", "spatial_model.class_token"),
        (r"^temporal_cls_token$", "temporal_model.class_token"),
        (r"^pos_embed$", "spatial_model.backbone.position_encoding.encoding"),
        (r"^temporal_pos_embed$", "temporal_model.backbone.position_encoding.encoding"),
        (r"^norm\.", "spatial_model.layer_norm."),
        (r"^temporal_norm\.", "temporal_model.layer_norm."),
        (r"^blocks\.", "spatial_model.backbone.blocks."),
        (r"^temporal_blocks\.", "temporal_model.backbone.blocks."),
        (r"\.norm1\.", ".input_layer_norm."),
        (r"\.norm2\.", ".mlp_layer_norm."),
        (r"\.attn\.qkv\.", ".qkv."),
        (r"\.attn\.proj\.", ".projection."),
        (r"\.mlp\.fc1\.", ".mlp_1."),
        (r"\.mlp\.fc2\.", ".mlp_2."),
    )
    return renamed(tensors, rules)


@pytest.mark.parametrize(
    ("write", "layout"),
    [
        (tadaconv, "TAdaConv"),
        (verbs_and_nouns, "TAdaConv"),
        (rgtp, "RGTP"),
        (dict, "vpbench"),
        (lambda t: {f"module.{k}": v for k, v in tadaconv(t).items()}, "TAdaConv"),
        (lambda t: {k: v.half().double() for k, v in rgtp({n: w.half() for n, w in t.items()}).items()}, "RGTP"),
    ],
)
def test_every_layout_becomes_ours(write: Callable[[Tensors], Tensors], layout: str) -> None:
    own = ours()
    found = layouts.recognise(write(own), "file")
    assert found.layout == layout
    assert found.tensors.keys() == own.keys()
    for name, tensor in own.items():
        assert torch.equal(found.tensors[name], tensor) or torch.equal(found.tensors[name], tensor.half().float()), name
    assert found.config(CONFIG).classes == 5
    check_fit(ViViT(CONFIG), found.tensors, "file")


@pytest.mark.parametrize(("key", "ending"), [("model_state", "pyth"), (None, "pth")])
def test_files_load_to_the_last_tensor(
    key: str | None, ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_backbone(monkeypatch, "vivit_small", CONFIG)
    own = ours()
    tree = {key: tadaconv(own), "epoch": 3} if key else rgtp(own)
    torch.save(tree, tmp_path / f"file.{ending}")
    model = loading.build("vivit_small", str(tmp_path / f"file.{ending}"), seed=0)
    loaded = model.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in own.items())


@pytest.mark.parametrize(("name", "millions"), [("vivit_b_k400", 115.06), ("vivit_b_epic", 114.99)])
def test_full_size_has_the_published_number_of_tensors(name: str, millions: float) -> None:
    with torch.device("meta"):
        tensors = classifier(name).state_dict()
    assert len(tensors) == 204
    assert sum(tensor.numel() for tensor in tensors.values()) / 1e6 == pytest.approx(millions, abs=0.005)


def without(name: str) -> Tensors:
    return {key: tensor for key, tensor in verbs_and_nouns(ours()).items() if key != name}


def having(name: str, tensor: Tensor) -> Tensors:
    return verbs_and_nouns(ours()) | {name: tensor}


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        (without("head.linear2.bias"), "verbs .* and nouns"),
        (having("head.linear2.weight", torch.zeros(2, 9)), "verbs .* and nouns"),
        (having("backbone.pos_embd", torch.zeros(5, 8)), "pos_embed"),
        (having("backbone.norm.weight", torch.full((8,), float("nan"))), "NaN"),
        ({"backbone.temp_embd": torch.zeros(1, 4, 8)}, "ViViT checkpoint"),
    ],
)
def test_what_is_none_is_named(tensors: Tensors, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        layouts.recognise(tensors, "file")
    assert str(caught.value).startswith("file")
    assert "\n" not in str(caught.value)
