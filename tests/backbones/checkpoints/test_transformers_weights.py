"""Models that `transformers` itself has saved answer here as they do there: from a folder, shards, and a hub."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY
from helpers import ROOT, add_backbone
from hub_server import Hub, serving
from torch import Tensor

from vpbench.api import ClipBatch
from vpbench.backbones import loading
from vpbench.backbones.checkpoints import files, hub, reading
from vpbench.backbones.videomae import MEAN, STD, VideoMAEConfig
from vpbench.errors import UsageError

transformers = pytest.importorskip("transformers")
pytest.importorskip("huggingface_hub")
SIZES = {
    "image_size": 32, "patch_size": 8, "num_frames": 8, "hidden_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 3, "intermediate_size": 52, "id2label": {0: "jump", 1: "run"},
}  # fmt: skip
CLIPS = torch.randint(0, 256, (2, 8, 32, 32, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def model(**more: Any) -> Any:
    """A model of transformers with a head of two classes, all vectors moved away from where they start."""
    torch.manual_seed(0)
    made = transformers.VideoMAEForVideoClassification(transformers.VideoMAEConfig(**SIZES | more)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return made


def theirs(of: Any, mean: Any = MEAN, std: Any = STD) -> Tensor:
    """What transformers answers on frames that are normalised as its processors do."""
    pixels = (CLIPS / 255 - torch.tensor(mean)) / torch.tensor(std)
    with torch.inference_mode():
        found: Tensor = of(pixel_values=pixels.permute(0, 1, 4, 2, 3)).logits
    return found


def ours(weights: str) -> Tensor:
    """What this package answers, with the backbone that the weights themselves name."""
    network = loading.build(loading.backbone_of(weights), weights, 0)
    with torch.inference_mode():
        found: Tensor = network(ClipBatch(CLIPS, ("a", "b"))).logits
    return found


def close(found: Tensor, wanted: Tensor) -> None:
    assert wanted.abs().max() > 0.3  # or nothing would be told apart
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One model in all forms that a folder has."""
    top, made = tmp_path_factory.mktemp("saved"), model()
    made.save_pretrained(top / "whole")
    made.save_pretrained(top / "shards", max_shard_size="10KB")
    made.config.save_pretrained(top / "bin")
    torch.save(made.state_dict(), top / "bin" / "pytorch_model.bin")
    return {path.name: path for path in top.iterdir()}


@pytest.mark.parametrize("form", ["whole", "shards", "bin"])
def test_logits_are_those_of_transformers(form: str, saved: dict[str, Path]) -> None:
    close(ours(str(saved[form])), theirs(model()))
    assert files.read(saved[form], numbers=False).classes == ("jump", "run")
    said = reading.inspect(saved[form])
    assert said["classes"] == "2: jump, run"
    assert said["fits"].startswith("videomae:dim=24,depth=2,heads=3,frames=8,height=32,width=32,patch=8,mlp_ratio=2.1")
    assert len(list(saved["shards"].glob("*.safetensors"))) > 2


@pytest.mark.parametrize(
    "more",
    [
        {"qv_bias": False}, {"layer_norm_eps": 0.01}, {"num_attention_heads": 6}, {"image_size": [32, 32]},
        {"intermediate_size": 23}, {"tubelet_size": 4}, {"patch_size": 16}, {"hidden_act": "gelu_python"},
    ],
)  # fmt: skip
def test_what_config_states_is_what_is_built(more: dict[str, Any], tmp_path: Path) -> None:
    made = model(**more)
    made.save_pretrained(tmp_path)
    close(ours(str(tmp_path)), theirs(made))


@pytest.mark.parametrize("normalised", [True, False])
def test_colours_are_those_that_its_processor_states(normalised: bool, tmp_path: Path) -> None:
    made = model()
    made.save_pretrained(tmp_path)
    transformers.VideoMAEImageProcessor(do_normalize=normalised).save_pretrained(tmp_path)
    mean, std = ((0.5,) * 3, (0.5,) * 3) if normalised else ((0.0,) * 3, (1.0,) * 3)
    close(ours(str(tmp_path)), theirs(made, mean, std))
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").unlink()
    # frames in [0, 255] instead of [0, 1], as a processor without rescaling has them, and the newer place of settings
    own = settings | {"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [127.5] * 3}
    (tmp_path / "processor_config.json").write_text(json.dumps({"video_processor": own}))
    scaled = (mean, std) if normalised else ((0.0,) * 3, (1 / 255,) * 3)
    close(ours(str(tmp_path)), theirs(made, *scaled))


def test_a_known_size_keeps_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backbone of these sizes is named, with whatever classes and frames; one of other heads or layers is not."""
    known = {"hidden_size": 24, "num_hidden_layers": 3, "intermediate_size": 96, "num_frames": 32}
    add_backbone(monkeypatch, "videomae_tiny", TINY)
    for more, name in (
        ({"num_attention_heads": 2}, "videomae_tiny"),
        ({"num_attention_heads": 3}, "videomae:dim=24,depth=3,heads=3,frames=32,height=32,width=32,patch=8"),
        ({"num_attention_heads": 2, "intermediate_size": 48}, "videomae:dim=24,depth=3,heads=2,frames=32,"),
    ):
        model(**known | more).save_pretrained(tmp_path)
        assert loading.backbone_of(str(tmp_path)).startswith(name)
        assert loading.build(loading.backbone_of(str(tmp_path)), str(tmp_path), 0).config.frames == 32
    with pytest.raises(UsageError, match="is not videomae_tiny; this is videomae:dim=24,depth=3,heads=2,frames=32,"):
        loading.build("videomae_tiny", str(tmp_path), 0)


# -- a hub


@pytest.fixture(scope="module")
def answering(saved: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub with a model in two revisions, one that is private, and one of files that are no weights."""
    beside = {"optimizer.pt": b"x", "tf_model.h5": b"x", "runs/events": b"x", "pytorch_model.bin": b"x"}
    for name, content in beside.items():
        (saved["whole"] / name).parent.mkdir(exist_ok=True)
        (saved["whole"] / name).write_bytes(content)
    (saved["whole"] / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    texts = tmp_path_factory.mktemp("texts")
    (texts / "README.md").write_text("no weights")
    models = {("me/tiny", "main"): saved["whole"], ("me/tiny", "v2"): saved["shards"]}
    more = {("me/private", "main"): saved["bin"], ("me/texts", "main"): texts}
    with serving(Hub(models | more, {"me/private": "secret"})) as found:
        yield found


CODE = """
import pathlib, sys, torch
from vpbench.api import ClipBatch
from vpbench.backbones import loading
from vpbench.backbones.checkpoints import reading
from vpbench.errors import UsageError
folder = pathlib.Path(sys.argv[1])
clips = ClipBatch(torch.load(folder / "clips.pt"), ("a", "b"))
for name in sys.argv[2:]:
    try:
        network = loading.build(loading.backbone_of(name), name, 0)
        with torch.inference_mode():
            torch.save(network(clips).logits, folder / f"{name.replace('/', '-')}.pt")
        print(name, reading.inspect(pathlib.Path(loading.local(name)))["licence"])
    except UsageError as error:
        print(error)
"""


def asked_elsewhere(folder: Path, environment: dict[str, str], *names: str) -> list[str]:
    """Ask for weights in a process of its own, since the client reads its environment once; returns what it prints."""
    torch.save(CLIPS, folder / "clips.pt")
    own = {name: value for name, value in os.environ.items() if not name.startswith("HF_")} | environment
    command = [sys.executable, "-c", CODE, str(folder), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=own, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_hub(answering: Hub, tmp_path: Path) -> None:
    """A real client, first with the hub, then from its cache alone."""
    home = {"HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "secret"}
    names = ("me/tiny", "me/tiny@v2", "me/private", "me/nobody", "me/tiny@v3", "me/texts")
    said = asked_elsewhere(tmp_path, home | {"HF_ENDPOINT": answering.url}, *names)
    assert said[0] == "me/tiny cc-by-nc-4.0 (stated in README.md)"
    assert said[1].startswith("me/tiny@v2 not in the file")
    assert said[3].startswith("weights me/nobody: is no file here, and no model on the hub, or a private one")
    assert said[4:] == [
        "weights me/tiny@v3: has no such revision",
        "weights me/texts: the model on the hub has no weights",
    ]
    fetched = {each.rpartition("/")[2] for each in answering.asked if each.startswith("GET") and "/resolve/" in each}
    shards = {path.name for path in answering.models["me/tiny", "v2"].glob("model*")}
    assert fetched == {"config.json", "README.md", "model.safetensors", "pytorch_model.bin", *shards}
    assert sum("pytorch_model.bin" in each for each in answering.asked if each.startswith("GET /me/tiny")) == 0

    (tmp_path / "offline").mkdir()
    answering.asked.clear()
    offline = home | {"HF_ENDPOINT": answering.url, "HF_HUB_OFFLINE": "1"}
    again = asked_elsewhere(tmp_path / "offline", offline, "me/tiny", "me/tiny@v2", "me/other")
    assert again[0] == said[0]
    assert again[2].endswith("not in the hub's cache, which is all there is offline (HF_HUB_OFFLINE)")
    assert answering.asked == []
    for folder in (tmp_path, tmp_path / "offline"):
        for name in ("me-tiny", "me-tiny@v2"):
            close(torch.load(folder / f"{name}.pt"), theirs(model()))


def test_names_on_a_hub_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hub.is_name("org/name")
    assert hub.is_name("org/name.v1@refs/pr/3")
    for path in (
        "name",
        "a/b/c",
        "./a/b",
        "/a/b",
        "a/b.pth",
        "out/model.safetensors",
        "a/model.bin.index.json",
        "a/b@",
    ):
        assert not hub.is_name(path), path
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert loading.local("org/name") == "org/name"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"names on a hub need huggingface_hub: pip install 'vpbench\[hf\]'"):
        loading.local("org/another")


def test_a_hub_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    client = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(client.constants, "HF_HUB_OFFLINE", False)
    api = client.HfApi(endpoint="http://127.0.0.1:9")
    monkeypatch.setattr(client, "HfApi", lambda: api)
    with pytest.raises(UsageError, match=r"cannot be reached .*; with HF_HUB_OFFLINE=1 what was"):
        hub.fetch("org/name")


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["model.safetensors", "pytorch_model.bin", "config.json", "vocab.txt"], {"model.safetensors", "config.json"}),
        (["pytorch_model.bin", "README.md", "onnx/model.safetensors"], {"pytorch_model.bin", "README.md"}),
        (["model.safetensors.index.json", "model-00001-of-00002.safetensors"],
         {"model.safetensors.index.json", "model-*-of-*.safetensors"}),
        (["vit_b.pth", "config.json"], {"vit_b.pth", "config.json"}),
    ],
)  # fmt: skip
def test_only_what_is_needed(files: list[str], found: set[str]) -> None:
    assert set(hub.needed(files, "org/name")) == found


def test_several_files_on_a_hub_are_named() -> None:
    with pytest.raises(UsageError, match=r"several files of weights \(a\.pth, b\.pth\); fetch one and name it"):
        hub.needed(["a.pth", "b.pth"], "org/name")


def test_sizes_of_a_config(saved: dict[str, Path]) -> None:
    _, found = reading.read(saved["whole"])
    assert found.own_sizes() == VideoMAEConfig(24, 2, 3, 8, 32, 32, patch=8, mlp_ratio=52 / 24, eps=1e-12, fc_eps=1e-5)


@pytest.mark.parametrize(("name", "value"), [("num_hidden_layers", 5), ("hidden_size", 48), ("patch_size", [8, 16])])
def test_a_config_of_another_network_is_refused(
    saved: dict[str, Path], tmp_path: Path, name: str, value: object
) -> None:
    shutil.copytree(saved["whole"], tmp_path / "odd")
    path = tmp_path / "odd" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(UsageError, match=f"its config.json says {name} .* and its tensors"):
        reading.read(tmp_path / "odd")
