"""Every published layout of a ViTDet checkpoint, built small, and files that are none."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import add_backbone
from torch import Tensor

from vpbench.backbones import loading
from vpbench.backbones.checkpoints import reading
from vpbench.backbones.checkpoints.reading import check_fit
from vpbench.backbones.vitdet import VITDET_B_672, VITDET_B_1024, HeadConfig, ViTDetConfig, layouts
from vpbench.backbones.vitdet.network import ViTDet
from vpbench.errors import UsageError

Tensors = dict[str, Tensor]
CONFIG = ViTDetConfig(
    dim=8, depth=4, heads=2, side=32, patch=4, window=3, windowed=(0, 1, 3), positions=4, global_table=5,
    head=HeadConfig(classes=3, channels=4, rpn_convs=1, pooled=2, box_convs=1, fc_dim=6),
)  # fmt: skip
POSITIONS, TABLE = "net.pos_embed", "net.blocks.2.attn.rel_pos_h"
SCORES = "roi_heads.box_predictor.cls_score.weight"
#: RGTP's names of the pyramid's layers, from the published ones
STAGES = {
    2: {"0": "0", "1": "1", "3": "3", "4": "4", "4.norm": "5", "5": "6", "5.norm": "7"},
    3: {"0": "0", "1": "1", "1.norm": "2", "2": "3", "2.norm": "4"},
    4: {"0": "0", "0.norm": "1", "1": "2", "1.norm": "3"},
    5: {"1": "1", "1.norm": "2", "2": "3", "2.norm": "4"},
}
BLOCKS = {
    "norm1": "input_layer_norm",
    "attn.qkv": "qkv",
    "attn.proj": "projection",
    "attn.rel_pos_h": "relative_position.y_embedding",
    "attn.rel_pos_w": "relative_position.x_embedding",
    "norm2": "mlp_layer_norm",
    "mlp.fc1": "mlp_1",
    "mlp.fc2": "mlp_2",
}


def ours(config: ViTDetConfig = CONFIG) -> Tensors:
    torch.manual_seed(3)
    return {name: torch.randn_like(tensor) for name, tensor in ViTDet(config).state_dict().items()}


def detectron2(tensors: Tensors) -> Tensors:
    """With the entry of a class token before the positions, and what older versions keep beside the weights."""
    found = {f"backbone.{k}" if k.startswith(("net.", "simfp_")) else k: v for k, v in tensors.items()}
    table = found["backbone.net.pos_embed"]
    found["backbone.net.pos_embed"] = torch.cat([torch.full_like(table[:, :1], 7.0), table], dim=1)
    return found | {"pixel_mean": torch.zeros(3, 1, 1), "pixel_std": torch.ones(3, 1, 1)}


def rgtp(tensors: Tensors) -> Tensors:
    found: Tensors = {}
    for name, tensor in tensors.items():
        if match := re.match(r"simfp_(\d)\.([\d.]+(?:norm)?)\.(\w+)$", name):
            name = f"pyramid.stages.{int(match[1]) - 2}.{STAGES[int(match[1])][match[2]]}.{match[3]}"
        elif match := re.match(r"net\.blocks\.(\d)\.(norm[12]|\w+\.\w+)(.*)$", name):
            name = f"backbone.blocks.{match[1]}.{BLOCKS[match[2]]}{match[3]}"
        name = name.replace("net.patch_embed.proj", "embedding.conv")
        found[name.replace(POSITIONS, "backbone.position_encoding.encoding")] = tensor
    return found


def parallel(tensors: Tensors) -> Tensors:
    return {f"module.{name}": tensor for name, tensor in rgtp(tensors).items()}


@pytest.mark.parametrize(
    ("write", "layout"),
    [
        (dict, "vpbench"),
        (detectron2, "detectron2"),
        (rgtp, "RGTP"),
        (parallel, "RGTP"),
        (lambda t: {name: tensor.double() for name, tensor in detectron2(t).items()}, "detectron2"),
    ],
)
def test_every_layout_becomes_ours(write: Callable[[Tensors], Tensors], layout: str) -> None:
    own = ours()
    written = write(own)
    assert layout == "vpbench" or len(written.keys() & own.keys()) < len(own) / 2
    assert layouts.matches(written)
    found = layouts.recognise(written, "file")
    assert found.layout == layout
    assert found.tensors.keys() == own.keys()
    for name, tensor in own.items():
        assert torch.equal(found.tensors[name], tensor), name
    assert found.config(replace(CONFIG, head=replace(CONFIG.head, classes=30))) == CONFIG
    check_fit(ViTDet(CONFIG), found.tensors, "file")
    # every tensor of the file is either used or named
    assert len(found.tensors) + len(found.extras) == len(written)
    assert found.extras == (("pixel_mean", "pixel_std") if layout == "detectron2" else ())


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({}, True),
        ({"side": 64, "heads": 4}, True),
        ({"dim": 16}, False),
        ({"depth": 5}, False),
        ({"patch": 8}, False),
        ({"window": 4}, False),
        ({"windowed": (0, 1, 2)}, False),
        ({"positions": 5}, False),
        ({"global_table": 6}, False),
    ],
)
def test_sizes_tell_detectors_apart(changes: dict[str, object], fits: bool) -> None:
    found = layouts.recognise(ours(), "file")
    assert found.fits(replace(CONFIG, **changes)) is fits  # type: ignore[arg-type]
    assert found.sizes == "ViTDet with 4 blocks of width 8, 4x4 patches, 4x4 positions, relative ones of 3+3+5+3"


def changed(name: str, tensor: Tensor | None, write: Callable[[Tensors], Tensors] = dict) -> Callable[[], Tensors]:
    return lambda: {k: v for k, v in (write(ours()) | {name: tensor}).items() if v is not None}


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (dict, "not a ViTDet checkpoint.* names are none"),
        (lambda: {TABLE: torch.zeros(9, 4)}, "not a ViTDet checkpoint"),
        (changed(SCORES, None), "no classifier of regions"),
        (changed(SCORES, torch.zeros(4)), r"\[4\], not \[classes, width\]"),
        (changed("net.patch_embed.proj.weight", None), "'net.patch_embed.proj.weight' is missing"),
        (changed("net.patch_embed.proj.weight", torch.zeros(8, 3, 2, 4, 4)), r"not \[width, 3, patch, patch\]"),
        (changed("backbone.net.pos_embed", None, detectron2), "'net.pos_embed' is missing"),
        (changed(POSITIONS, torch.zeros(16, 8)), r"\[16, 8\], not \[1, positions, width\]"),
        (changed(POSITIONS, torch.zeros(1, 18, 8)), "18 positions, which are no square"),
        (changed(TABLE, torch.zeros(9)), r"\[9\], not \[offsets, width\]"),
        (changed(TABLE, torch.full((9, 4), torch.nan)), "holds NaN"),
        (changed(TABLE, torch.zeros(9, 4, dtype=torch.int64)), "is torch.int64"),
        (changed(POSITIONS, torch.zeros(1, 16, 8), detectron2), "two tensors stand for 'net.pos_embed'"),
    ],
)
def test_what_is_refused(write: Callable[[], Tensors], says: str) -> None:
    with pytest.raises(UsageError, match=says) as error:
        layouts.recognise(write(), "some file")
    assert str(error.value).startswith("some file: ")
    assert "\n" not in str(error.value)


def test_what_is_missing_or_odd_is_named_by_the_model() -> None:
    tensors = detectron2(ours()) | {"backbone.simfp_3.9.weight": torch.zeros(2)}
    del tensors["roi_heads.box_head.fc1.bias"]
    with pytest.raises(UsageError, match=r"1 missing .*fc1.bias\), 1 unknown \(simfp_3.9.weight\)"):
        check_fit(ViTDet(CONFIG), layouts.recognise(tensors, "file").tensors, "file")


@pytest.mark.parametrize("write", [detectron2, rgtp])
def test_published_sizes(write: Callable[[Tensors], Tensors]) -> None:
    """Full lists of names and shapes, without the memory: every tensor is one number, seen many times."""
    with torch.device("meta"):
        models = [ViTDet(config) for config in (VITDET_B_672, VITDET_B_1024)]
    state = {key: torch.zeros(()).expand(tensor.shape) for key, tensor in models[0].state_dict().items()}
    state |= {POSITIONS: torch.zeros(1, 196, 768)}
    written = write(state)
    assert len(written) == 229 + (2 if write is detectron2 else 0)
    shapes = {name.removeprefix("backbone."): tuple(tensor.shape) for name, tensor in detectron2(state).items()}
    assert shapes[POSITIONS] == (1, 197, 768)
    assert shapes["net.blocks.0.attn.rel_pos_h"] == (27, 64)
    assert shapes["net.blocks.2.attn.rel_pos_w"] == (127, 64)
    assert shapes["simfp_2.0.weight"] == (768, 384, 2, 2)
    assert shapes["proposal_generator.rpn_head.anchor_deltas.weight"] == (12, 256, 1, 1)
    assert shapes["roi_heads.box_head.fc1.weight"] == (1024, 12544)
    assert (shapes[SCORES], shapes["roi_heads.box_predictor.bbox_pred.weight"]) == ((31, 1024), (120, 1024))
    found = layouts.recognise(written, "file")
    assert found.backbones() == ["vitdet_b_672", "vitdet_b_1024"]
    for model in models:
        check_fit(model, found.tensors, "file")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    add_backbone(monkeypatch, "vitdet_small", CONFIG)


@pytest.mark.usefixtures("small")
def test_files_are_inspected_converted_and_built(tmp_path: Path) -> None:
    file, out = tmp_path / "model.pth", tmp_path / "model.safetensors"
    torch.save({"model": detectron2(ours()), "iteration": 3}, file)
    said = reading.inspect(file)
    assert (said["layout"], said["fits"], said["classes"]) == ("detectron2", "vitdet_small", "3")
    assert said["left aside"] == "iteration, pixel_mean, pixel_std"
    reading.convert(file, out, overwrite=False)
    assert reading.inspect(out)["layout"] == "vpbench"
    models = [loading.build_detector("vitdet_small", str(each), 0) for each in (file, out)]
    for name, tensor in ours().items():
        assert all(torch.equal(model.state_dict()[name], tensor) for model in models), name
    assert not models[0].training
    with pytest.raises(UsageError, match="finds objects in the frames of videos; it cannot classify clips"):
        loading.build("vitdet_small", str(file), 0)
    with pytest.raises(UsageError, match="videomae_s classifies clips; it cannot find objects"):
        loading.build_detector("videomae_s", "random", 0)


@pytest.mark.usefixtures("small")
def test_random_weights_depend_on_the_seed_alone() -> None:
    first, again, other = (loading.build_detector("vitdet_small", "random", seed) for seed in (0, 0, 1))
    assert all(map(torch.equal, first.parameters(), again.parameters()))
    assert isinstance(first, ViTDet)
    assert isinstance(other, ViTDet)
    assert not torch.equal(first.net.pos_embed, other.net.pos_embed)


@pytest.mark.usefixtures("small")
def test_pickles_of_arrays_are_read(tmp_path: Path) -> None:
    file, own = tmp_path / "model.pkl", ours()
    arrays = {name: np.asarray(tensor) for name, tensor in detectron2(own).items()}
    file.write_bytes(pickle.dumps({"model": arrays, "__author__": "somebody"}))
    model = loading.build_detector("vitdet_small", str(file), 0)
    assert all(torch.equal(tensor, own[name]) for name, tensor in model.state_dict().items())
    assert reading.inspect(file)["container"] == "pickle of arrays, tensors under 'model'"
