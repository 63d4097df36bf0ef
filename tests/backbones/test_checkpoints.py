"""Every published layout of a VideoMAE checkpoint, built small; and files that mean harm."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY, moving_clip
from helpers import add_backbone, vpbench
from safetensors.torch import load_file, save_file
from torch import Tensor

from vpbench import registry
from vpbench.api import ClipBatch
from vpbench.backbones import loading, videomae
from vpbench.backbones.checkpoints import reading
from vpbench.backbones.videomae import layouts
from vpbench.backbones.videomae.network import VideoMAE
from vpbench.errors import UsageError
from vpbench.tasks.recognition.session import to_batch

Tensors = dict[str, Tensor]
CONFIG = dataclasses.replace(TINY, classes=7)


@pytest.fixture(autouse=True)
def tiny_in_the_catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    add_backbone(monkeypatch, "videomae_tiny", TINY)


def source(run_lengths: bool = False) -> VideoMAE:
    torch.manual_seed(3)
    model = VideoMAE(dataclasses.replace(CONFIG, run_lengths=run_lengths)).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def state() -> Tensors:
    return {k: v.clone() for k, v in source().state_dict().items()}


def prefixed(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + k: v for k, v in tensors.items()}


def hugging_face(tensors: Tensors, old: bool) -> Tensors:
    """As transformers has it: files name the biases q_bias and v_bias, models of 5.x query.bias and value.bias."""
    found = {}
    for name, tensor in tensors.items():
        name = name.replace("patch_embed.proj.", "videomae.embeddings.patch_embeddings.projection.")
        name = re.sub(r"^blocks\.", "videomae.encoder.layer.", name).replace("head.", "classifier.")
        name = name.replace("norm1.", "layernorm_before.").replace("norm2.", "layernorm_after.")
        name = name.replace("mlp.fc1.", "intermediate.dense.").replace("mlp.fc2.", "output.dense.")
        name = name.replace("attn.proj.", "attention.output.dense.")
        inner = name.replace("attn.", "attention.attention.")
        if inner.endswith("qkv.weight"):
            for part, weight in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                found[inner.replace("qkv", part)] = weight.clone()
        elif inner.endswith("_bias") and not old:
            found[inner.replace("q_bias", "query.bias").replace("v_bias", "value.bias")] = tensor
        else:
            found[inner] = tensor
    return found


def mmaction(tensors: Tensors, fused: bool) -> Tensors:
    found = {}
    for name, tensor in tensors.items():
        name = name.replace("patch_embed.proj.", "patch_embed.projection.")
        name = name.replace("mlp.fc1.", "mlp.layers.0.0.").replace("mlp.fc2.", "mlp.layers.1.")
        found["cls_head.fc_cls." + name.removeprefix("head.") if name.startswith("head.") else "backbone." + name] = (
            tensor
        )
    if fused:
        for layer in range(TINY.depth):
            q, v = (found.pop(f"backbone.blocks.{layer}.attn.{part}_bias") for part in "qv")
            found[f"backbone.blocks.{layer}.attn.qkv.bias"] = torch.cat([q, torch.zeros_like(q), v])
    return found


LAYOUTS: dict[str, Callable[[Tensors], Any]] = {
    "bare": lambda s: s,
    "deepspeed": lambda s: {"module": s, "epoch": 3, "args": argparse.Namespace(lr=0.1, data_path="/data")},
    "model": lambda s: {"model": s, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}, "scaler": {}},
    "model first": lambda s: {"module": {"junk": torch.zeros(1)}, "model": s},
    "lightning": lambda s: {"state_dict": prefixed("model.", s), "epoch": 1, "pytorch-lightning_version": "2.0"},
    "prefix backbone": lambda s: {"model": prefixed("backbone.", s)},
    "prefix encoder": lambda s: {"model": prefixed("encoder.", s) | {"decoder.blocks.0.x": torch.zeros(2)}},
    "data parallel": lambda s: prefixed("module.", s),
    "lightning around transformers": lambda s: {"state_dict": prefixed("model.", hugging_face(s, old=True))},
    "settings under model": lambda s: {"model": {"name": "vit"}, "state_dict": prefixed("model.", s)},
    "transformers 4": lambda s: hugging_face(s, old=True),
    "transformers 5": lambda s: hugging_face(s, old=False),
    "mmaction2": lambda s: {"meta": {"epoch": 1}, "state_dict": mmaction(s, fused=False)},
    "mmaction2 fused bias": lambda s: {"state_dict": mmaction(s, fused=True)},
    "a scalar of NumPy beside it": lambda s: {"model": s, "best": np.float64(1)},
    "half": lambda s: {"module": {k: v.half() for k, v in s.items()}},
}


def saved(folder: Path, tree: Any, name: str = "file.pth") -> str:
    torch.save(tree, folder / name)
    return str(folder / name)


def logits(model: Any) -> Tensor:
    with torch.inference_mode():
        out: Tensor = model(to_batch([moving_clip(0)], "cpu")).logits
    return out


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_recognised_and_load_to_the_last_tensor(layout: str, tmp_path: Path) -> None:
    file = saved(tmp_path, LAYOUTS[layout](state()))
    model = loading.build("videomae_tiny", file, seed=0)
    assert model.config.classes == 7
    assert next(model.parameters()).dtype == torch.float32
    torch.testing.assert_close(logits(model), logits(source()), atol=2e-2 if layout == "half" else 0, rtol=0)


def test_the_old_pickle_format_and_safetensors_load_too(tmp_path: Path) -> None:
    torch.save({"module": state()}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(state(), tmp_path / "new.safetensors")
    for name in ("old.pth", "new.safetensors"):
        assert torch.equal(logits(loading.build("videomae_tiny", str(tmp_path / name), 0)), logits(source()))


def test_run_length_embeddings_decide_the_model(tmp_path: Path) -> None:
    file = saved(tmp_path, source(run_lengths=True).state_dict())
    model = loading.build("videomae_tiny", file, 0)
    assert model.reads_run_lengths
    assert torch.equal(logits(model), logits(source(run_lengths=True)))


@pytest.mark.parametrize("layout", ["deepspeed", "transformers 5", "mmaction2", "mmaction2 fused bias"])
def test_inspect_and_convert(layout: str, tmp_path: Path) -> None:
    file, out = saved(tmp_path, LAYOUTS[layout](state())), tmp_path / "ours.safetensors"
    said = reading.inspect(Path(file))
    assert said["fits"] == "videomae_tiny"
    assert said["classes"] == "7"
    assert "CC-BY-NC" in said["licence"]
    assert "args" in said["left aside"] if layout == "deepspeed" else "args" not in said["left aside"]
    reading.convert(Path(file), out, overwrite=False)
    written = reading.inspect(out)
    assert written["metadata source_sha256"] == said["sha256"]
    assert json.loads(written["metadata sizes"])["classes"] == 7
    assert out.stat().st_mode == Path(file).stat().st_mode
    assert torch.equal(logits(loading.build("videomae_tiny", str(out), 0)), logits(source()))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.pth", "ours.safetensors"]
    with pytest.raises(UsageError, match="--force"):
        reading.convert(Path(file), out, overwrite=False)
    reading.convert(Path(file), out, overwrite=True)


def test_embedded_weights_are_ours() -> None:
    said = reading.inspect(Path(str(registry.backbone("videomae_embedded").weights)))
    assert (said["fits"], said["classes"], said["layout"]) == ("videomae_embedded", "18", "vpbench")


class Harm:
    """A pickle that creates a file when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def without(name: str) -> Tensors:
    return {k: v for k, v in state().items() if k != name}


def damaged_directory(folder: Path) -> None:
    """A zip whose end claims to lie on several disks, at which Python's own zip reader raises."""
    whole = Path(saved(folder, {"module": state()})).read_bytes()
    end = whole.rindex(b"PK\x05\x06")
    locator = b"PK\x06\x07" + bytes([9] * 16)
    (folder / "file.pth").write_bytes(whole[:end].replace(b"PK\x06\x07", b"PK\x06\x06") + locator + whole[end:])


def truncated(folder: Path, suffix: str) -> None:
    file = folder / f"file{suffix}"
    save_file(state(), file) if suffix == ".safetensors" else torch.save({"module": state()}, file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


NAN = state() | {"blocks.1.mlp.fc1.bias": torch.full((96,), torch.nan)}
QUERY = "videomae.encoder.layer.0.attention.attention.query.weight"
KEY_BIAS = {f"videomae.encoder.layer.{i}.attention.attention.key.bias": torch.ones(24) for i in range(3)}
HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "code": (lambda f: saved(f, {"module": state(), "extra": Harm(f / "harmed")}), "refused, it holds code"),
    "plain pickle": (lambda f: (f / "file.pth").write_bytes(pickle.dumps(Harm(f / "harmed"))), "refused, it holds"),
    "cut pth": (lambda f: truncated(f, ".pth"), "cut short"),
    "damaged pth": (damaged_directory, "not a readable torch checkpoint"),
    "cut safetensors": (lambda f: truncated(f, ".safetensors"), "not a readable safetensors"),
    "empty": (lambda f: (f / "file.pth").write_bytes(b""), "empty"),
    "text": (lambda f: (f / "file.pth").write_text("hello " * 99), "neither a safetensors file nor"),
    "folder": (lambda f: (f / "file.pth").mkdir(), "the folder has no weights"),
    "missing": (lambda f: None, "No such file"),
    "a list": (lambda f: saved(f, [torch.zeros(1)]), "holds a list"),
    "no tensors": (lambda f: saved(f, {"epoch": 1}), "no tensors"),
    "nothing fits": (
        lambda f: saved(f, {"model": {"layer1.weight": torch.zeros(3)}}),
        "not a checkpoint of MViT, VideoMAE, .* 'layer1.weight'",
    ),
    "image model": (
        lambda f: saved(f, state() | {"patch_embed.proj.weight": torch.zeros(24, 3, 8, 8)}),
        "3-D convolution",
    ),
    "pre-training": (lambda f: saved(f, without("head.weight")), "pre-training checkpoint"),
    "a missing tensor": (lambda f: saved(f, without("blocks.2.norm1.bias")), r"1 missing \(blocks.2.norm1.bias\)"),
    "an unknown tensor": (lambda f: saved(f, state() | {"gamma": torch.zeros(2)}), r"1 unknown \(gamma\)"),
    "an odd shape": (
        lambda f: saved(f, state() | {"fc_norm.bias": torch.zeros(25)}),
        r"1 of another shape \(fc_norm.bias\)",
    ),
    "NaN": (lambda f: saved(f, NAN), "'blocks.1.mlp.fc1.bias' holds NaN"),
    "a key bias": (lambda f: saved(f, hugging_face(state(), old=False) | KEY_BIAS), "keys a bias"),
    "half a query": (
        lambda f: saved(
            f, {k: v for k, v in hugging_face(state(), old=True).items() if "0.attention.attention.key" not in k}
        ),
        "not all there",
    ),
    "a query of odd shape": (
        lambda f: saved(f, hugging_face(state(), old=True) | {QUERY: torch.zeros(20, 24)}),
        "not all there as 24 x 24",
    ),
    "a fused bias of odd shape": (
        lambda f: saved(f, state() | {"blocks.0.attn.qkv.bias": torch.zeros(2)}),
        r"is \[2\], not \[72\]",
    ),
    "two query biases": (
        lambda f: saved(f, state() | {"blocks.0.attn.qkv.bias": torch.zeros(72)}),
        "two tensors stand for 'blocks.0.attn.q_bias'",
    ),
    "two norms": (
        lambda f: saved(f, prefixed("backbone.", state()) | {"fc_norm.weight": torch.ones(24)}),
        "two tensors stand for 'fc_norm.weight'",
    ),
    "no classes": (lambda f: saved(f, state() | {"head.weight": torch.zeros(0, 24)}), r"not \[classes, width\]"),
    "run lengths of odd shape": (
        lambda f: saved(f, state() | {"length_embed": torch.zeros(8)}),
        r"not \[1, slots, 24\]",
    ),
    "an empty table": (lambda f: saved(f, state() | {"pos_embed": torch.zeros(0, 128, 24)}), "shape .pos_embed"),
    "numbers that are not there": (
        lambda f: saved(f, state() | {"head.weight": torch.zeros(1).expand(10**10, 24)}),
        "'head.weight' claims 240000000000 numbers",
    ),
    "sparse": (lambda f: saved(f, state() | {"head.weight": torch.ones(7, 24).to_sparse()}), "'head.weight' is sparse"),
    "no data": (lambda f: saved(f, state() | {"fc_norm.bias": torch.zeros(24, device="meta")}), "empty of data"),
    "complex": (
        lambda f: saved(f, state() | {"fc_norm.bias": torch.zeros(24, dtype=torch.complex64)}),
        "'fc_norm.bias' is torch.complex64",
    ),
    "eight bits": (
        lambda f: saved(f, state() | {"fc_norm.bias": torch.zeros(24).to(torch.float8_e4m3fn)}),
        "'fc_norm.bias' is torch.float8",
    ),
    "beyond float32": (
        lambda f: saved(f, state() | {"fc_norm.bias": torch.full((24,), 1e300, dtype=torch.float64)}),
        "'fc_norm.bias' holds",
    ),
    "a name of two lines": (lambda f: saved(f, state() | {"a\nb": torch.zeros(1)}), "no name of a tensor"),
    "a pipe": (lambda f: os.mkfifo(f / "file.pth"), "not a regular file"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_give_one_line_and_run_nothing(kind: str, tmp_path: Path) -> None:
    make, message = HOSTILE[kind]
    make(tmp_path)
    file = next((path for path in tmp_path.iterdir() if path.name != "harmed"), tmp_path / "file.pth")
    with pytest.raises(UsageError, match=message) as caught:
        loading.build("videomae_tiny", str(file), 0)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "harmed").exists()
    with pytest.raises(UsageError):
        reading.inspect(file)
    with pytest.raises(UsageError):
        reading.convert(file, tmp_path / "ours.safetensors", overwrite=False)
    assert not (tmp_path / "ours.safetensors").exists()
    if file.exists() and not file.is_dir():
        with contextlib.suppress(UsageError):  # ends, also for a pipe that nobody writes to
            loading.weights_digest("videomae_tiny", str(file))


def test_a_zero_key_bias_is_none(tmp_path: Path) -> None:
    zero = {name: torch.zeros_like(bias) for name, bias in KEY_BIAS.items()}
    file = saved(tmp_path, hugging_face(state(), old=False) | zero)
    assert torch.equal(logits(loading.build("videomae_tiny", file, 0)), logits(source()))


def test_what_no_backbone_could_load_is_not_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = saved(tmp_path, state())
    monkeypatch.delitem(registry.entries(), "videomae_tiny")
    assert "no backbone here" in reading.inspect(Path(file))["fits"]
    with pytest.raises(UsageError, match="no backbone here has the sizes of VideoMAE with 3 blocks of width 24"):
        reading.convert(Path(file), tmp_path / "ours.safetensors", overwrite=False)


def test_a_classifier_of_something_something(tmp_path: Path) -> None:
    """Another number of classes than the catalog's, at the real width and depth of the smallest published model."""
    with torch.device("meta"):
        shapes = VideoMAE(videomae.VideoMAEConfig(384, 12, 6, classes=174)).state_dict()
    file = saved(tmp_path, {"module": {k: torch.full(v.shape, 0.01, dtype=torch.half) for k, v in shapes.items()}})
    model = loading.build("videomae_s", file, 0)
    assert (model.config.classes, model.heads, model.training) == (174, 6, False)
    with pytest.raises(UsageError, match="this is videomae_s: use --backbone videomae_s"):
        loading.build("videomae_b", file, 0)


def test_another_size_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="this is videomae_tiny: use --backbone videomae_tiny"):
        loading.build("videomae_b", saved(tmp_path, state()), 0)


def test_the_command_line(tmp_path: Path) -> None:
    weights = str(registry.backbone("videomae_embedded").weights)
    shown = vpbench("checkpoint", "inspect", weights)
    assert shown.returncode == 0
    assert "videomae_embedded" in shown.stdout
    assert shown.stderr == ""
    done = vpbench("checkpoint", "convert", weights, tmp_path / "copy.safetensors")
    assert done.returncode == 0, done.stderr
    assert {k: v.shape for k, v in load_file(tmp_path / "copy.safetensors").items()} == {
        k: v.shape for k, v in load_file(weights).items()
    }
    nowhere = vpbench("checkpoint", "convert", weights, tmp_path / "no folder" / "copy.safetensors")
    assert nowhere.returncode == 2
    assert len(nowhere.stderr.splitlines()) == 1
    torch.save(Harm(tmp_path / "harmed"), tmp_path / "bad.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Harm(tmp_path / "harmed")))  # torch warns about its protocol
    for command in (
        ("checkpoint", "inspect", tmp_path / "bad.pth"),
        ("checkpoint", "inspect", tmp_path / "plain.pth"),
        ("checkpoint", "convert", tmp_path / "bad.pth", tmp_path / "out.safetensors"),
        ("run", "--method", "rlt", "--weights", tmp_path / "bad.pth"),
    ):
        refused = vpbench(*command)
        assert refused.returncode == 2
        assert len(refused.stderr.strip().splitlines()) == 1
        assert refused.stderr.startswith("error: ")
    assert not (tmp_path / "harmed").exists()


def test_equals_transformers_with_mapped_weights() -> None:
    """In float64, where rounding cannot hide a wrong bias or norm; all vectors moved away from their initial values."""
    library = pytest.importorskip("transformers")
    theirs = library.VideoMAEForVideoClassification(
        library.VideoMAEConfig(
            image_size=32, patch_size=16, num_frames=4, tubelet_size=2, hidden_size=48, num_hidden_layers=3,
            num_attention_heads=4, intermediate_size=192, layer_norm_eps=1e-6, num_labels=7, use_mean_pooling=True,
        )
    ).double().eval()  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    config = videomae.VideoMAEConfig(dim=48, depth=3, heads=4, frames=4, height=32, width=32, classes=7)
    ours = VideoMAE(config).double().eval()
    ours.fc_norm.eps = theirs.fc_norm.eps  # the library leaves it at torch's default
    layout, exact, _ = layouts.renamed(theirs.state_dict(), "transformers")
    assert layout == "Hugging Face videomae, names in transformers 5"
    reading.load_strictly(ours, exact, "transformers")
    pixels = torch.randn(2, 4, 32, 32, 3, generator=generator, dtype=torch.float64)
    with torch.inference_mode():
        expected = theirs(pixel_values=pixels.permute(0, 1, 4, 2, 3)).logits
        got = ours(ClipBatch(pixels, ("a", "b"))).logits
    torch.testing.assert_close(got, expected, atol=1e-12, rtol=0)
