"""Checkpoints that cannot be used, built small, each with what the one line that refuses it says."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from own_weights import CONFIG, Tensors, deepspeed, described, prefixed, saved, shards, trainer, transformers_names
from safetensors.torch import save_file

from vpbench.backbones.videomae.network import VideoMAE


def _module(folder: Path, s: Tensors) -> Path:
    torch.save(VideoMAE(CONFIG), folder / "whole.pth")
    return folder / "whole.pth"


def _script(folder: Path, s: Tensors) -> Path:
    with zipfile.ZipFile(folder / "script.pt", "w") as archive:  # torch warns where it writes them itself
        for name in ("data.pkl", "constants.pkl", "code/__torch__/torch/nn/modules/linear.py"):
            archive.writestr(f"script/{name}", b"\x80\x02}.")
    return folder / "script.pt"


def _headless(s: Tensors) -> Tensors:
    return {name: tensor for name, tensor in s.items() if not name.startswith("head.")}


def _one_shard(folder: Path, s: Tensors) -> Path:
    return shards("safetensors")(folder, s, {}) / "model-00002-of-00003.safetensors"


def _renamed_shard(folder: Path, s: Tensors) -> Path:
    blocks = {k: v for k, v in transformers_names(s).items() if "layer.2." in k}
    save_file(blocks, folder / "part.safetensors")
    return folder / "part.safetensors"


def _first_shard(folder: Path, s: Tensors) -> Path:
    part = {k: v for k, v in s.items() if k.startswith(("patch_embed.", "blocks.0.", "blocks.1.norm"))}
    save_file(part, folder / "part.safetensors")
    return folder / "part.safetensors"


def _lost_shard(folder: Path, s: Tensors) -> Path:
    (shards("safetensors")(folder, s, {}) / "model-00002-of-00003.safetensors").unlink()
    return folder


def _index(content: Any) -> Callable[[Path, Tensors], Path]:
    def make(folder: Path, s: Tensors) -> Path:
        (folder / "model.safetensors.index.json").write_text(
            content if isinstance(content, str) else json.dumps(content)
        )
        return folder

    return make


def _configured(**more: Any) -> Callable[[Path, Tensors], Path]:
    def make(folder: Path, s: Tensors) -> Path:
        trainer(folder, s, {})
        described(folder, **more)
        return folder

    return make


def _plain(make: Callable[[Tensors], dict[str, Any]]) -> Callable[[Path, Tensors], Path]:
    return lambda folder, s: saved(folder / "file.pth", make(s))


def _with(name: str, content: bytes = b"") -> Callable[[Path, Tensors], Path]:
    def make(folder: Path, s: Tensors) -> Path:
        (folder / name).write_bytes(content)
        return folder

    return make


def _split(folder: Path, s: Tensors) -> Path:
    for rank in range(2):
        saved(folder / f"mp_rank_{rank:02d}_model_states.pt", deepspeed(s))
    return folder


def _adapter(folder: Path, s: Tensors) -> Path:
    (folder / "adapter_config.json").write_text("{}")
    save_file(
        {"base_model.model.blocks.0.attn.lora_A.weight": torch.zeros(2, 24)}, folder / "adapter_model.safetensors"
    )
    return folder


def _two(folder: Path, s: Tensors) -> Path:
    for name in ("best.pth", "last.pth"):
        torch.save(s, folder / name)
    return folder


def _file(name: str, content: bytes) -> Callable[[Path, Tensors], Path]:
    return lambda folder, s: _with(name, content)(folder, s) / name


def _bad_config(folder: Path, s: Tensors) -> Path:
    trainer(folder, s, {})
    (folder / "config.json").write_text("{'single': quotes}")
    return folder


#: what is refused in one line, and what that says
REFUSED: dict[str, tuple[Callable[[Path, Tensors], Path], str]] = {
    "another key": (_plain(lambda s: {"net": s, "acc": 0.5}), r"tensors are under 'net'; give --weights-key net"),
    "a whole model": (_module, r"holds a pickled VideoMAE \(a whole model; save its state_dict\(\)\)"),
    "TorchScript": (_script, "a TorchScript archive"),
    "one shard": (_one_shard, r"one of 3 shards; give the folder or model\.safetensors\.index\.json"),
    "a renamed shard": (_renamed_shard, "a part of a model; give the folder of all its shards"),
    "the first shard, renamed": (_first_shard, r"a part of a model \(one of several shards\?\)"),
    "a shard that is missing": (_lost_shard, r"1 of 3 shards are missing \(model-00002-of-00003"),
    "pre-training": (
        _plain(lambda s: prefixed("encoder.", _headless(s)) | {"mask_token": torch.zeros(1, 1, 24)}),
        "a pre-training checkpoint, it has no classifier",
    ),
    "no classifier": (
        _plain(lambda s: _headless(s)),
        "a pre-training checkpoint or a backbone alone",
    ),
    "norm where fc_norm is expected": (
        _plain(lambda s: {k.replace("fc_norm.", "norm."): v for k, v in s.items()}),
        "has 'norm', not 'fc_norm': it was trained to read the class off the first token",
    ),
    "use_mean_pooling false": (_configured(use_mean_pooling=False), "use_mean_pooling false"),
    "another activation": (_configured(hidden_act="relu"), "hidden_act 'relu'"),
    "heads that do not divide": (_configured(num_attention_heads=5), "5 heads are stated, which do not divide"),
    "heads of no number": (_configured(num_attention_heads=[2]), r"num_attention_heads is '\[2\]', not a whole number"),
    "frames beyond measure": (_configured(num_frames=10**30), "num_frames is '1000"),
    "clips beyond measure": (_configured(num_frames=90_000, image_size=90_000), "pixels a colour are stated"),
    "channels": (_configured(num_channels=4), "num_channels 4; clips have 3"),
    "timesformer": (_configured(model_type="timesformer"), "transformers' 'timesformer'; of its models VideoMAE is"),
    "transformers' ViViT": (
        _plain(lambda s: {f"vivit.encoder.layer.{n}.layernorm_before.weight": torch.ones(2) for n in range(9)}),
        "Hugging Face's ViViT, in which all tokens of a clip attend to each other",
    ),
    "two networks": (
        _plain(lambda s: {f"{of}.{name}": value for of in ("student", "teacher") for name, value in s.items()}),
        r"2 networks of the same names \(student, teacher\); save one of them alone",
    ),
    "ZeRO-3": (_plain(lambda s: deepspeed({k: torch.zeros(0) for k in s})), "ZeRO-3 leaves them; run its zero_to_fp32"),
    "parts of a split model": (_split, "one part of a model that DeepSpeed split over devices"),
    "an adapter": (_adapter, r"holds an adapter \(PEFT\)"),
    "a distributed checkpoint": (_with(".metadata"), "holds a distributed checkpoint"),
    "TensorFlow": (_with("tf_model.h5"), "TensorFlow's weights alone"),
    "two files": (_two, r"a folder with 2 files of weights; name one of them \(best\.pth, last\.pth\)"),
    "no files": (_with("notes.txt"), r"has no weights \(model\.safetensors or pytorch_model\.bin\)"),
    "an index of other folders": (_index({"weight_map": {"a": "../../secret.bin"}}), "does not lie beside it"),
    "an index of nothing": (_index({"weight_map": {}}), "names no shards"),
    "an index that is none": (_index("[" * 10**5), "not valid JSON"),
    "a config that is none": (_bad_config, "not valid JSON"),
    "a pointer of Git LFS": (
        _file("p.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:7\n"), "git lfs pull"),
    "a web page": (_file("p.pth", b"\n<!DOCTYPE html><title>Quota</title>"), "a web page, not the file; download it"),
    "an empty file": (_file("p.pth", b""), "the file is empty; fetch it again"),
}  # fmt: skip
