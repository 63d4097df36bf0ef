"""One door for all families: what a file is, which backbone it fits, and that converting loses nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import test_mvit_layouts as mvit_layouts
import test_videoswin_layouts as swin_layouts
import torch
from conftest import TINY
from helpers import add_backbone
from safetensors.torch import load_file, save_file
from torch import Tensor

from vpbench import registry
from vpbench.api import ClipBatch, GridBackbone
from vpbench.api.backbone import classifier
from vpbench.backbones import loading
from vpbench.backbones.checkpoints import files, names, reading
from vpbench.backbones.checkpoints.reading import check_fit
from vpbench.backbones.mvit import MVIT_B
from vpbench.backbones.mvit.network import MViT
from vpbench.errors import UsageError
from vpbench.methods.stts import Stts, SttsPruner
from vpbench.registry import Sizes

Tensors = dict[str, Tensor]
SMALL: dict[str, Sizes] = {
    "videomae_small": TINY,
    "mvit_small": mvit_layouts.CONFIG,
    "videoswin_small": swin_layouts.CONFIG,
}
METHODS = {"mvit_small": Stts(time="0:0.5", space="1:0.8"), "videoswin_small": Stts(time="0:0.5")}


@pytest.fixture(autouse=True)
def small_ones_in_the_catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, config in SMALL.items():
        add_backbone(monkeypatch, name, config)


def weights(name: str, scorers: bool = False) -> Tensors:
    """Random weights, with those of the scorers that the family's method would have."""
    torch.manual_seed(5)
    model = classifier(name)
    tensors = {key: tensor + 0.05 * torch.randn_like(tensor) for key, tensor in model.state_dict().items()}
    if scorers:
        assert isinstance(model, GridBackbone)
        pruner = SttsPruner(METHODS[name], model)
        tensors |= {key: torch.randn_like(tensor) for key, tensor in pruner.published_parameters()}
    return tensors


def logits(name: str, file: Path, method: Stts | None = None) -> Tensor:
    model = loading.build(name, str(file), 0)
    config = registry.backbone(name).sizes
    generator = torch.Generator().manual_seed(1)
    shape = (1, config.frames, config.height, config.width, 3)
    clip = ClipBatch(torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8), ("a",))
    with torch.inference_mode():
        pruner = method.attach(model) if method else None
        assert pruner is None or not pruner.caveat
        out: Tensor = (model(clip, pruner) if pruner else model(clip)).logits
    return out


def stts_mvit(tensors: Tensors) -> dict[str, Any]:
    return {"epoch": 3, "model_state": tensors, "cfg": "MVIT:\n  TIME_RATIO:\n  - 0.5\n  SPACE_RATIO: [0.8]\n"}


def stts_swin(tensors: Tensors) -> dict[str, Any]:
    scorers = {f"backbone.{k}": tensors.pop(k) for k in list(tensors) if k.startswith(names.SCORERS)}
    meta = {"config": "model = dict(backbone=dict(time_ratio=[0.5]))", "epoch": 1}
    return {"meta": meta, "state_dict": swin_layouts.mmaction(tensors) | scorers}


@pytest.mark.parametrize(
    ("name", "write", "scorers", "selection"),
    [
        ("mvit_small", stts_mvit, "STTS: time 1, space 1", "TIME_RATIO 0.5; SPACE_RATIO 0.8"),
        ("videoswin_small", stts_swin, "STTS: time 1", "time_ratio 0.5"),
    ],
)
def test_scorers_survive_conversion(
    name: str, write: Callable[[Tensors], Any], scorers: str, selection: str, tmp_path: Path
) -> None:
    file, out = tmp_path / "file.pth", tmp_path / "ours.safetensors"
    given = weights(name, scorers=True)
    torch.save(write(dict(given)), file)
    said = reading.inspect(file)
    assert (said["fits"], said["scorers"], said["selection"]) == (name, scorers, selection)
    reading.convert(file, out, overwrite=False)
    assert load_file(out).keys() == given.keys()
    model = loading.build(name, str(out), 0)
    assert isinstance(model, GridBackbone)
    assert model.addons.keys() == {key for key in given if key.startswith(names.SCORERS)}
    assert all(torch.equal(model.addons[key], given[key]) for key in model.addons)
    assert reading.inspect(out)["scorers"] == scorers
    assert reading.inspect(out)["metadata selection"] == selection
    for method in (None, METHODS[name]):
        assert torch.equal(logits(name, file, method), logits(name, out, method))


@pytest.mark.parametrize("name", ["mvit_embedded", "videoswin_embedded", "videoswin_small", "videomae_small"])
def test_what_comes_back_computes_the_same(name: str, tmp_path: Path) -> None:
    file, out = tmp_path / "file.safetensors", tmp_path / "ours.safetensors"
    save_file(weights(name), file)
    said = reading.inspect(file)
    assert said["fits"] == name
    assert said.get("scorers", "none") == "none"
    assert "selection" not in said
    reading.convert(file, out, overwrite=False)
    assert torch.equal(logits(name, file), logits(name, out))


def test_eps_that_no_tensor_shows_survive(tmp_path: Path) -> None:
    """torchvision evaluates the norms after the pooling with another eps; ours keep the names of SlowFast."""
    file, out = tmp_path / "file.pth", tmp_path / "ours.safetensors"
    tensors = {key: 1e-3 * tensor for key, tensor in weights("mvit_small").items()}
    torch.save(mvit_layouts.torchvision(tensors), file)
    reading.convert(file, out, overwrite=False)
    model = loading.build("mvit_small", str(out), 0)
    assert isinstance(model, MViT)
    assert (model.config.eps, model.config.pool_eps) == (1e-6, 1e-6)
    assert torch.equal(logits("mvit_small", file), logits("mvit_small", out))
    save_file(load_file(out), tmp_path / "nameless.safetensors")
    assert not torch.equal(logits("mvit_small", file), logits("mvit_small", tmp_path / "nameless.safetensors"))


@pytest.mark.parametrize(
    "sizes", ["", "[]", "{}", '{"eps": 1e-6}', "[" * 10**5, '{"eps": 1e-6, "pool_eps": NaN}', f'{{"eps": {"9" * 400}}}']
)
def test_odd_metadata_is_refused(sizes: str, tmp_path: Path) -> None:
    file = tmp_path / "file.safetensors"
    save_file(weights("mvit_small"), file, {"format": "vpbench", "sizes": sizes})
    for use in (lambda: loading.build("mvit_small", str(file), 0), lambda: reading.inspect(file)):
        with pytest.raises(UsageError, match="hold no eps of norms; convert the checkpoint anew") as error:
            use()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("held", SMALL)
@pytest.mark.parametrize("wanted", SMALL)
def test_another_family_is_named(held: str, wanted: str, tmp_path: Path) -> None:
    file = tmp_path / "file.safetensors"
    save_file(weights(held), file)
    if held == wanted:
        assert loading.build(wanted, str(file), 0).config == SMALL[held]
        return
    family = {"videomae_small": "VideoMAE", "mvit_small": "MViT", "videoswin_small": "VideoSwin"}[held]
    says = f"{file}: {family} with .* is not {wanted}; this is {held}: use --backbone {held}"
    with pytest.raises(UsageError, match=says) as error:
        loading.build(wanted, str(file), 0)
    assert "\n" not in str(error.value)


def test_another_size_of_the_family_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file.safetensors"
    save_file(weights("videoswin_small"), file)
    with pytest.raises(UsageError, match="is not videoswin_b; this is videoswin_small: use --backbone videoswin_small"):
        loading.build("videoswin_b", str(file), 0)


def test_sizes_of_no_backbone(tmp_path: Path) -> None:
    file = tmp_path / "file.safetensors"
    save_file(MViT(replace(mvit_layouts.CONFIG, frames=8)).state_dict(), file)
    with pytest.raises(UsageError, match="4 x 16 positions is not mvit_small; no backbone here has these sizes"):
        loading.build("mvit_small", str(file), 0)
    assert reading.inspect(file)["fits"].startswith("no backbone here (MViT with 3 blocks from width 8")


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        (
            {"blocks.0.attn.rel_pos_h": torch.zeros(2), "a": torch.zeros(2)},
            "not a checkpoint of MViT, VideoMAE, VideoSwin, ViTDet or ViViT",
        ),
        ({"pos_embed_spatial": torch.zeros(1, 2, 3)}, "not an MViT checkpoint with pooling convolutions"),
        ({"blocks.0.attn.relative_position_bias_table": torch.zeros(2, 3)}, "not a VideoSwin checkpoint"),
        ({"patch_embed.proj.weight": torch.zeros(2)}, "not a VideoMAE checkpoint"),
    ],
)
def test_what_is_of_no_family(tensors: Tensors, says: str, tmp_path: Path) -> None:
    file = tmp_path / "file.safetensors"
    save_file(tensors, file)
    for use in (lambda: loading.build("mvit_small", str(file), 0), lambda: reading.inspect(file)):
        with pytest.raises(UsageError, match=says) as error:
            use()
        assert "\n" not in str(error.value)


def test_settings_are_found_where_training_code_puts_them(tmp_path: Path) -> None:
    file = tmp_path / "file.pth"
    for tree, text in (
        ({"cfg": "a"}, "a"),
        ({"meta": {"config": "b"}}, "b"),
        ({"cfg": {"time_ratio": 1}, "meta": "c"}, ""),
        ({"cfg": 3, "meta": {"config": ["d"]}}, ""),
    ):
        torch.save({"state_dict": weights("videoswin_small")} | tree, file)
        assert files.read(file).settings == text


def test_the_published_mvit() -> None:
    """The full list of names and shapes, without the memory: every tensor is one number, seen many times."""
    with torch.device("meta"):
        model = MViT(MVIT_B)
        scorers = dict(SttsPruner(Stts(time="0:0.5", space="4:0.7367"), model).published_parameters())
    state = {key: torch.zeros(()).expand(tensor.shape) for key, tensor in (model.state_dict() | scorers).items()}
    found = reading.recognise(state, "file")
    assert (len(state), sum(tensor.numel() for tensor in found.parameters.values())) == (333, 36_912_498)
    assert (found.backbones(), found.layout, found.extras) == (["mvit_b_16x4"], "STTS", ())
    assert found.details() == {"scorers": "STTS: time 1, space 1"}
    check_fit(model, found.tensors, "file")


def test_sizes_are_written_down(tmp_path: Path) -> None:
    file, out = tmp_path / "file.safetensors", tmp_path / "ours.safetensors"
    save_file(weights("videoswin_small"), file)
    reading.convert(file, out, overwrite=False)
    sizes = json.loads(reading.inspect(out)["metadata sizes"])
    assert (sizes["depths"], sizes["classes"]) == ([1, 2, 3, 1], 7)
