"""Every published layout of a VideoSwin checkpoint, built small, and files that are none."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vpbench.backbones.checkpoints import names
from vpbench.backbones.checkpoints.reading import check_fit
from vpbench.backbones.videoswin import (
    VIDEOSWIN_B,
    VIDEOSWIN_EMBEDDED,
    VIDEOSWIN_S,
    VIDEOSWIN_T,
    VideoSwinConfig,
    layouts,
)
from vpbench.backbones.videoswin.network import VideoSwin
from vpbench.errors import UsageError

Tensors = dict[str, Tensor]
CONFIG = VideoSwinConfig(
    8, (1, 2, 3, 1), (1, 2, 2, 4), frames=4, height=32, width=32, patch=(2, 2, 2), window=(2, 3, 3), classes=7
)
TABLE = "layers.0.blocks.0.attn.relative_position_bias_table"


def ours() -> Tensors:
    torch.manual_seed(3)
    return {name: torch.randn_like(tensor) for name, tensor in VideoSwin(CONFIG).state_dict().items()}


def mmaction(tensors: Tensors) -> Tensors:
    """With the buffers that mmaction's windows keep beside their tables."""
    found: Tensors = {}
    for name, tensor in tensors.items():
        found["cls_head.fc_cls." + name[5:] if name.startswith("head.") else f"backbone.{name}"] = tensor
        if name.endswith("_bias_table"):
            found[f"backbone.{name}".replace("_bias_table", "_index")] = torch.zeros(18, 18, dtype=torch.int64)
    return found


def later_mmaction(tensors: Tensors) -> Tensors:
    return {name.replace("backbone.norm.", "backbone.norm3."): tensor for name, tensor in mmaction(tensors).items()}


def stts(tensors: Tensors) -> Tensors:
    return mmaction(tensors) | {
        "backbone.time_score_predictor.0.score_network.in_conv.0.weight": torch.randn(16),
        "backbone.time_score_predictor.0.score_network.out_conv.4.bias": torch.randn(1),
    }


def torchvision(tensors: Tensors) -> Tensors:
    found: Tensors = {}
    for name, tensor in tensors.items():
        name = re.sub(r"^layers\.(\d)\.blocks\.", lambda m: f"features.{2 * int(m[1])}.", name)
        name = re.sub(r"^layers\.(\d)\.downsample\.", lambda m: f"features.{2 * int(m[1]) + 1}.", name)
        found[name.replace("mlp.fc1.", "mlp.0.").replace("mlp.fc2.", "mlp.3.")] = tensor
        if name.endswith("_bias_table"):
            found[name.replace("_bias_table", "_index")] = torch.zeros(18 * 18, dtype=torch.int64)
    return found


def parallel(tensors: Tensors) -> Tensors:
    return {f"module.{name}": tensor for name, tensor in stts(tensors).items()}


@pytest.mark.parametrize(
    ("write", "layout"),
    [
        (dict, "vpbench"),
        (stts, "STTS"),
        (parallel, "STTS"),
        (mmaction, "Video Swin, mmaction2 0.x"),
        (later_mmaction, "mmaction2 1.x"),
        (torchvision, "torchvision swin3d"),
        (lambda t: {name: tensor.double() for name, tensor in mmaction(t).items()}, "Video Swin, mmaction2 0.x"),
    ],
)
def test_every_layout_becomes_ours(write: Callable[[Tensors], Tensors], layout: str) -> None:
    own = ours()
    written = write(own)
    found = layouts.recognise(written, "file")
    assert found.layout == layout
    assert found.tensors.keys() == own.keys()
    for name, tensor in own.items():
        assert torch.equal(found.tensors[name], tensor), name
    assert found.config(replace(CONFIG, classes=400)) == CONFIG
    check_fit(VideoSwin(CONFIG), found.tensors, "file")
    # every tensor of the file is either used or named
    assert len(found.tensors) + len(found.scorers) + len(found.extras) == len(written)
    assert len(found.scorers) == (2 if layout == "STTS" else 0)
    assert all(name.endswith("relative_position_index") for name in found.extras)


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({}, True),
        ({"classes": 3, "frames": 8, "height": 64}, True),
        ({"dim": 16}, False),
        ({"depths": (1, 2, 3, 2)}, False),
        ({"depths": (1, 2, 3), "heads": (1, 2, 2)}, False),
        ({"heads": (1, 2, 2, 2)}, False),
        ({"patch": (2, 4, 4)}, False),
        ({"window": (4, 3, 3)}, False),
    ],
)
def test_sizes_tell_backbones_apart(changes: dict[str, object], fits: bool) -> None:
    found = layouts.recognise(ours(), "file")
    assert found.fits(replace(CONFIG, **changes)) is fits  # type: ignore[arg-type]
    assert found.sizes == "VideoSwin with 1+2+3+1 blocks of 1+2+2+4 heads from width 8, 2x2x2 patches, 75 biases"


def changed(name: str, tensor: Tensor | None, write: Callable[[Tensors], Tensors] = dict) -> Callable[[], Tensors]:
    return lambda: {k: v for k, v in (write(ours()) | {name: tensor}).items() if v is not None}


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (dict, "not a VideoSwin checkpoint.* names are none"),
        (lambda: {TABLE.removeprefix("layers.0."): torch.zeros(75, 1)}, "not a VideoSwin checkpoint"),
        (changed("head.weight", None), "no classifier"),
        (changed("cls_head.fc_cls.weight", None, mmaction), "no classifier"),
        (changed("head.weight", torch.zeros(7)), r"\[7\], not \[classes, width\]"),
        (changed("patch_embed.proj.weight", None), "'patch_embed.proj.weight' is missing"),
        (changed("patch_embed.proj.weight", torch.zeros(8, 3, 2, 2)), "no video model"),
        (changed(TABLE, None), f"'{TABLE}' is missing"),
        (changed(TABLE, torch.zeros(75)), r"\[75\], not \[offsets, heads\]"),
        (changed("norm.weight", torch.full((64,), torch.nan)), "'norm.weight' holds NaN"),
        (changed("norm.weight", torch.zeros(64, dtype=torch.int64)), "'norm.weight' is torch.int64"),
        (changed("head.weight", torch.zeros(7, 64), mmaction), "two tensors stand for 'head.weight'"),
        (changed("backbone.norm.weight", torch.zeros(64), later_mmaction), "two tensors stand for 'norm.weight'"),
        (changed("norm.weight", torch.zeros(64), mmaction), "two tensors stand for 'norm.weight'"),
        (changed("time_score_predictor.0.sigma", torch.zeros(1)), "is no part of an STTS scorer"),
    ],
)
def test_what_is_refused(write: Callable[[], Tensors], says: str) -> None:
    with pytest.raises(UsageError, match=says) as error:
        layouts.recognise(write(), "some file")
    assert str(error.value).startswith("some file: ")
    assert "\n" not in str(error.value)


def test_what_is_missing_or_odd_is_named_by_the_model() -> None:
    tensors = ours() | {"layers.1.blocks.0.norm1.bias": torch.zeros(3), "extra": torch.zeros(2)}
    tensors["backbone.norm.weight"] = torch.zeros(64)  # the patch embedding has no such prefix, so it is no wrapper's
    del tensors["layers.2.downsample.reduction.weight"]
    says = r"1 missing .*2 unknown \(backbone.norm.weight, extra\), 1 of another shape \(layers.1.blocks.0.norm1.bias\)"
    with pytest.raises(UsageError, match=says):
        check_fit(VideoSwin(CONFIG), layouts.recognise(tensors, "file").tensors, "file")


@pytest.mark.parametrize(
    ("config", "count", "name"),
    [
        (VIDEOSWIN_T, 28_158_070, "videoswin_t"),
        (VIDEOSWIN_S, 49_816_678, "videoswin_s"),
        (VIDEOSWIN_B, 88_048_984, "videoswin_b"),
        (VIDEOSWIN_EMBEDDED, None, "videoswin_embedded"),
    ],
)
def test_published_sizes(config: VideoSwinConfig, count: int | None, name: str) -> None:
    """Full lists of names and shapes, without the memory: every tensor is one number, seen many times."""
    with torch.device("meta"):
        model = VideoSwin(config)
    state = {key: torch.zeros(()).expand(tensor.shape) for key, tensor in model.state_dict().items()}
    found = layouts.recognise(torchvision(state), "file")
    assert found.backbones() == [name]
    check_fit(model, found.tensors, "file")
    assert count is None or sum(tensor.numel() for tensor in found.parameters.values()) == count
    blocks = sum(config.depths)
    assert names.grouped(found.extras) == [f"features.*.*.attn.relative_position_index ({blocks})"]
