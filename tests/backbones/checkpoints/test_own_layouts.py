"""Checkpoints as people's own training code leaves them: each is read to the last number, or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import own_weights
import pytest
import torch
from conftest import TINY
from helpers import add_backbone, vpbench
from inert import inert
from own_weights import OTHER, READ, logits, prefixed, reference, state
from refused_weights import REFUSED
from safetensors.torch import load_file, save_file
from torch import Tensor

from vpbench.backbones import loading
from vpbench.backbones.checkpoints import files, reading
from vpbench.backbones.checkpoints.reading import Asked
from vpbench.backbones.videomae import VideoMAEConfig, layouts
from vpbench.backbones.videomae.network import VideoMAE
from vpbench.errors import UsageError


@pytest.fixture(autouse=True)
def tiny_in_the_catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    add_backbone(monkeypatch, "videomae_tiny", TINY)


@pytest.fixture(scope="module")
def trained() -> Tensor:
    """What the network of `state` answers."""
    return reference(state())


@pytest.mark.parametrize("layout", READ)
def test_what_people_have_is_read(layout: str, trained: Tensor, tmp_path: Path) -> None:
    make, wrapper = READ[layout]
    path = make(tmp_path, state(), {})
    with inert():
        contents = files.read(path)
    assert contents.wrapper == wrapper
    model = loading.build("videomae_tiny", str(path), 0)
    close = 1e-5 if layout.startswith(("LayerScale", "transformers")) else 0
    torch.testing.assert_close(logits(model), trained, atol=close, rtol=0)
    said = reading.inspect(path)
    assert said["fits"] == "videomae_tiny"
    assert said["classes"].startswith("7")


def test_there_are_enough_of_them() -> None:
    assert len(READ) >= 25
    assert len(REFUSED) >= 25


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused_is_named(kind: str, tmp_path: Path) -> None:
    make, says = REFUSED[kind]
    path = make(tmp_path, state())
    for use in (lambda: loading.build("videomae_tiny", str(path), 0), lambda: reading.inspect(path)):
        with pytest.raises(UsageError, match=says) as error:
            use()
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 600


BOTH = {
    "VideoMAE with model_ema": ("model_ema", "not the average, as VideoMAE's own evaluation does"),
    "timm with state_dict_ema": ("state_dict", "the average, as timm does"),
    "mmengine with averaging": ("ema_state_dict", "where mmengine puts the average when it saves"),
    "Lightning with averaging": ("current_model_state", "where Lightning puts the average when it saves"),
}


@pytest.mark.parametrize("layout", BOTH)
def test_plain_weights_and_their_average(layout: str, tmp_path: Path) -> None:
    other, why = BOTH[layout]
    make, taken = READ[layout]
    path = make(tmp_path, state(), {})
    key, line = loading.weights_key("videomae_tiny", str(path))
    assert key == taken
    assert line == f"weights {path}: taking {taken!r}, {why}; --weights-key takes others ({other})"
    assert reading.inspect(path)["other keys"] == f"{other} (taken: {taken}, {why})"
    assert loading.weights_key("videomae_tiny", str(path), other) == (other, "")
    assert torch.equal(logits(loading.build("videomae_tiny", str(path), 0, Asked(other))), reference(OTHER))
    plain = loading.weights_digest("videomae_tiny", str(path))
    assert loading.weights_digest("videomae_tiny", str(path), taken) == plain
    assert loading.weights_digest("videomae_tiny", str(path), other) != plain
    with pytest.raises(UsageError, match="no tensors under 'modle'; --weights-key takes '"):
        loading.build("videomae_tiny", str(path), 0, Asked("modle"))


def test_a_key_of_ones_own(tmp_path: Path) -> None:
    torch.save({"net": state(), "best": {"student": OTHER}, "acc": 0.5}, tmp_path / "net.pth")
    with pytest.raises(UsageError, match=r"tensors are under 'net' or 'best\.student'; give --weights-key net"):
        reading.inspect(tmp_path / "net.pth")
    for key, tensors in (("net", state()), ("best.student", OTHER)):
        assert torch.equal(
            logits(loading.build("videomae_tiny", str(tmp_path / "net.pth"), 0, Asked(key))), reference(tensors)
        )
    plain, net, best = (
        loading.weights_digest("videomae_tiny", str(tmp_path / "net.pth"), key) for key in (None, "net", "best.student")
    )
    assert len({plain, net, best}) == 3
    assert loading.weights_key("videomae_tiny", str(tmp_path / "net.pth"), "net") == ("net", "")
    with pytest.raises(UsageError, match="random weights are in no file; leave --weights-key out"):
        loading.weights_key("videomae_tiny", "random", "net")
    save_file(state(), tmp_path / "one.safetensors")
    with pytest.raises(UsageError, match="safetensors hold one set of weights; leave --weights-key out"):
        reading.inspect(tmp_path / "one.safetensors", "net")


def test_what_inspect_says(tmp_path: Path) -> None:
    said = reading.inspect(own_weights.trainer(tmp_path, state(), {}))
    assert said["classes"] == "7: class 0, class 1, class 2, class 3, class 4, ..."
    assert loading.backbone_of(str(tmp_path)) == "videomae_tiny"
    assert (said["clips"], said["licence"]) == ("16 frames of 32x32", "apache-2.0 (stated in README.md)")
    torch.save({"model": prefixed("module._orig_mod.", state()), "epoch": 3}, tmp_path / "ddp.pth")
    said = reading.inspect(tmp_path / "ddp.pth")
    assert (said["wrapped by"], said["layout"]) == ("torch.compile (_orig_mod)", "VideoMAE, prefix module.")
    assert said["left aside"] == "epoch"
    (tmp_path / "shards").mkdir()
    path = own_weights.shards("bin")(tmp_path / "shards", state(), {})
    shown = vpbench("checkpoint", "inspect", path)
    assert "3 shards, torch zip" in shown.stdout


ODD: list[Any] = [None, -1, 0, 1e300, float("inf"), float("nan"), "x", [], [1, 2, 3], {}, True, 10**30, [None] * 3]


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "processor_config.json"])
def test_odd_values_beside_weights(file: str, tmp_path: Path) -> None:
    """Whatever stands in a text beside the weights: a network, or one line."""
    path = own_weights.trainer(tmp_path, state(), {})
    usual = json.loads((path / "config.json").read_text())
    colours = {"do_normalize": True, "image_mean": 0.5, "image_std": 0.5, "do_rescale": True, "rescale_factor": 0.1}
    contents = files.read(path)
    found = reading.recognise(contents.tensors, "file")
    outcomes = set()
    for key in {"config.json": usual, "preprocessor_config.json": colours}.get(file, {"video_processor": 1}):
        for value in ODD:
            settings = {key: value} if file == "processor_config.json" else (usual | colours) | {key: value}
            (path / file).write_text(json.dumps(settings))
            read = files.read(path, numbers=False)
            try:
                layouts.stated(found, read, "here")  # type: ignore[arg-type]
                assert all(isinstance(name, str) for name in read.classes)
                outcomes.add("read")
            except UsageError as error:
                outcomes.add(str(error).partition(":")[0])
    assert outcomes <= {"read", "here"}
    assert "read" in outcomes


def test_class_names(tmp_path: Path) -> None:
    own = tuple(f"class {n}" for n in range(7))
    path = own_weights.trainer(tmp_path, state(), {})
    assert names(path) == own
    reading.convert(path, tmp_path / "ours.safetensors", overwrite=False)
    assert names(tmp_path / "ours.safetensors") == own
    torch.save(own_weights.mmengine(state()), tmp_path / "mm.pth")
    assert names(tmp_path / "mm.pth") == own
    for labels in ({str(n): f"LABEL_{n}" for n in range(7)}, {"a": "b"}, {"0": 3}, ["x", 3], {}):
        own_weights.described(tmp_path, id2label=labels)
        assert names(path) == ()
    own_weights.described(tmp_path, id2label={"0": "a\nb"})
    assert names(path) == ("'a\\nb'",)


def names(path: Path) -> tuple[str, ...]:
    return files.read(path, numbers=False).classes


def test_a_folder_is_known_by_all_that_decides_its_network(tmp_path: Path) -> None:
    path = own_weights.trainer(tmp_path, state(), {})
    before = loading.weights_digest("videomae_tiny", str(path))
    (path / "README.md").write_text("# Other words\n")
    assert loading.weights_digest("videomae_tiny", str(path)) == before
    own_weights.described(path, layer_norm_eps=1e-5)
    assert loading.weights_digest("videomae_tiny", str(path)) != before


def test_one_command_takes_a_folder(tmp_path: Path, unweighed: None, hasty: None) -> None:
    """No backbone is named: the weights decide; the row says what they are."""
    torch.manual_seed(0)
    small = VideoMAEConfig(24, 2, 3, 8, 32, 32, patch=8, classes=18)
    folder = tmp_path / "weights"
    folder.mkdir()
    tensors = {k: v.clone() for k, v in VideoMAE(small).state_dict().items()}
    torch.save(own_weights.transformers_names(tensors), folder / "pytorch_model.bin")
    own_weights.described(folder, num_frames=8, num_hidden_layers=2, num_attention_heads=3, id2label=None)
    torch.save({"model": tensors, "model_ema": tensors}, tmp_path / "both.pth")
    common = ("--method", "rlt", "--limit", "2", "--profile", "ci", "--threads", "1", "--out", tmp_path / "out")
    done = vpbench("run", "--weights", folder, *common)
    assert done.returncode == 0, done.stderr
    name = "videomae:dim=24,depth=2,heads=3,frames=8,height=32,width=32,patch=8"
    assert name in done.stdout
    again = vpbench(
        "run", "--weights", tmp_path / "both.pth", "--backbone", name, "--weights-key", "model_ema", *common
    )
    assert again.returncode == 0, again.stderr
    assert "with file weights (model_ema) on synthmotion/test" in again.stdout
    both = vpbench("run", "--weights", tmp_path / "both.pth", "--backbone", name, *common, "--dry-run")
    assert "taking 'model', not the average, as VideoMAE's own evaluation does" in both.stderr
    counted = vpbench("flops", "--weights", folder, "--method", "rlt", "--tokens", "32")
    assert counted.stdout.startswith(name)


def test_converted_and_back(tmp_path: Path) -> None:
    """What `config.json` states is in the converted file: it needs no folder."""
    path = own_weights.trainer(tmp_path, state(), {})
    own_weights.described(path, layer_norm_eps=1e-3)
    (path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25] * 3}))
    out = tmp_path / "ours.safetensors"
    reading.convert(path, out, overwrite=False)
    assert set(load_file(out)) == set(state())
    one, other = (loading.build("videomae_tiny", str(each), 0) for each in (path, out))
    assert one.config == other.config
    assert (one.config.mean, one.config.fc_eps) == ((0.5, 0.5, 0.5), 1e-5)  # type: ignore[attr-defined]
    assert torch.equal(logits(one), logits(other))
    assert loading.backbone_of(str(out)) == "videomae_tiny"
