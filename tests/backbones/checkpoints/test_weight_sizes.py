"""Sizes of a network: from its weights, from what lies beside them, and from a name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import own_weights
import pytest
import torch
from conftest import TINY
from helpers import add_backbone
from own_weights import CONFIG, logits, reference, state
from safetensors.torch import save_file

from vpbench import registry
from vpbench.backbones import loading
from vpbench.backbones.checkpoints import reading
from vpbench.backbones.checkpoints.reading import Asked
from vpbench.backbones.videomae import VideoMAEConfig, layouts
from vpbench.backbones.videomae.network import VideoMAE
from vpbench.errors import UsageError


@pytest.fixture(autouse=True)
def tiny_in_the_catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    add_backbone(monkeypatch, "videomae_tiny", TINY)


def test_a_table_of_other_frames(tmp_path: Path) -> None:
    """As mmaction2 saves it: the table of a network of 32 frames, where the backbone has 16."""
    longer = VideoMAE(replace(CONFIG, frames=32, stored_positions=True))
    own = state() | {"pos_embed": longer.pos_embed.detach()[None]}
    torch.save({"state_dict": own}, tmp_path / "f32.pth")
    for frames in (None, 32):
        model = loading.build("videomae_tiny", str(tmp_path / "f32.pth"), 0, Asked(frames=frames))
        assert (model.config.frames, model.config.height) == (32, 32)
    assert reading.inspect(tmp_path / "f32.pth")["clips"] == "32 frames of 32x32"


@pytest.mark.parametrize(
    ("length", "frames", "size", "found"),
    [
        (128, None, None, (16, 32)), (256, None, None, (32, 32)), (128, 32, None, (16, 32)), (72, None, None, (16, 24)),
        (512, 64, None, (64, 32)), (512, None, 64, (16, 64)), (512, 16, 64, (16, 64)), (130, None, None, (16, 32)),
        (512, None, None, "64 frames of 32x32, or for 16 of 64x64; give --frames 64, or --size 64"),
    ],
)  # fmt: skip
def test_what_a_tables_length_says(length: int, frames: int | None, size: int | None, found: Any) -> None:
    base = VideoMAEConfig(24, 3, 2, height=32, width=32, patch=8)
    if isinstance(found, str):
        with pytest.raises(UsageError, match=found):
            layouts.of_table(base, length, frames, size)
        return
    sizes = layouts.of_table(base, length, frames, size)
    assert (sizes.frames, sizes.height) == found


def test_sizes_in_a_name() -> None:
    entry = registry.backbone("videomae:dim=48,depth=3,heads=4,frames=8,height=32,width=32,patch=8,mlp_ratio=2.5")
    assert entry.sizes == VideoMAEConfig(48, 3, 4, 8, 32, 32, patch=8, mlp_ratio=2.5)
    assert registry.sized_name(entry.sizes).startswith("videomae:dim=48,depth=3,heads=4,frames=8,")
    assert (
        registry.backbone(registry.sized_name(registry.backbone("videomae_g").sizes)).sizes
        == registry.backbone("videomae_g").sizes
    )
    for name, says in {
        "videomae:dim=48,depth=3": "give heads as well",
        "videomae:dim=48,depht=3": "no size 'depht'; did you mean 'depth'",
        "videomae:dim=x,depth=3,heads=1": "dim is 'x', not a number",
        "videomae:dim=-1,depth=3,heads=1": "dim is -1",
        "vidomae:dim=1": "no family 'vidomae' takes sizes; did you mean 'videomae'",
        "videomae:": "no size ''",
    }.items():
        with pytest.raises(UsageError, match=says):
            registry.check("backbones", name)


def test_vit_g() -> None:
    """Names and shapes without the memory: every tensor is one number, seen many times."""
    sizes = registry.backbone("videomae_g").sizes
    assert isinstance(sizes, VideoMAEConfig)
    with torch.device("meta"):
        model = VideoMAE(replace(sizes, classes=710))
    state_dict = {f"module.{k}": torch.zeros(()).expand(v.shape) for k, v in model.state_dict().items()}
    layout, tensors, _ = layouts.renamed(state_dict, "file")
    found = layouts.Recognised(layout, tensors, {}, ())
    assert found.backbones() == ["videomae_g"]
    assert tensors["blocks.0.mlp.fc1.weight"].shape == (6144, 1408)
    reading.check_fit(model, found.tensors, "file")
    assert round(sum(t.numel() for t in found.tensors.values()) / 1e6) == 1013


def test_kinetics_710_on_kinetics_400(tmp_path: Path) -> None:
    """The order of mmaction2's classes is known, that of others' is not."""
    own = state() | {"head.weight": torch.rand(710, 24), "head.bias": torch.rand(710)}
    torch.save(own_weights.mmengine(own), tmp_path / "mm.pth")
    whole, narrow = (
        loading.build("videomae_tiny", str(tmp_path / "mm.pth"), 0, Asked(dataset=d)) for d in ("ssv2", "k400")
    )
    assert (whole.config.classes, narrow.config.classes, whole.news) == (710, 400, "")
    assert torch.equal(logits(narrow), logits(whole)[:, :400])
    assert narrow.news.endswith(
        "of its 710 classes the first 400 are those of k400, by tools/data/kinetics710/label_map_k710.txt in "
        "open-mmlab/mmaction2, commit e10347b"
    )
    torch.save({"module": own}, tmp_path / "v2.pth")
    assert loading.build("videomae_tiny", str(tmp_path / "v2.pth"), 0).config.classes == 710
    with pytest.raises(
        UsageError, match=r"710 classes \(Kinetics-710\), and k400 has 400; .* misc/label_710to400\.json"
    ):
        loading.build("videomae_tiny", str(tmp_path / "v2.pth"), 0, Asked(dataset="k400"))


def test_heads_that_do_not_divide() -> None:
    with pytest.raises(UsageError, match="a width of 24 cannot be cut into 5 heads"):
        loading.build("videomae:dim=24,depth=1,heads=5", "random", 0)


def test_no_heads_no_backbone(tmp_path: Path) -> None:
    """Sizes that no backbone has need what no tensor shows."""
    odd = VideoMAE(replace(CONFIG, dim=36))
    save_file({k: v.clone() for k, v in odd.state_dict().items()}, tmp_path / "odd.safetensors")
    with pytest.raises(
        UsageError, match=r"give the folder with its config\.json, or the sizes: --backbone videomae:dim="
    ):
        loading.backbone_of(str(tmp_path / "odd.safetensors"))
    model = loading.build(
        "videomae:dim=36,depth=3,heads=3,height=32,width=32,patch=8", str(tmp_path / "odd.safetensors"), 0
    )
    assert model.heads == 3


def test_no_biases_are_biases_of_zero(tmp_path: Path) -> None:
    own = state()
    torch.save({k: v for k, v in own.items() if "q_bias" not in k and "v_bias" not in k}, tmp_path / "file.pth")
    zero = {k: torch.zeros_like(v) if k.endswith(("q_bias", "v_bias")) else v for k, v in own.items()}
    assert torch.equal(logits(loading.build("videomae_tiny", str(tmp_path / "file.pth"), 0)), reference(zero))
