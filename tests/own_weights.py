"""Checkpoints as people's own training code leaves them, built small: what each library writes, in its exact form."""

from __future__ import annotations

import argparse
import collections
import functools
import json
import pickle
import re
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conftest import TINY, moving_clip
from safetensors.torch import save_file
from torch import Tensor

from vpbench.api import Classifier
from vpbench.backbones.videomae.network import VideoMAE
from vpbench.tasks.recognition.session import to_batch

Tensors = dict[str, Tensor]
#: writes a checkpoint into a folder, with something more beside the weights, and returns what to give to `--weights`
Layout = Callable[[Path, Tensors, Mapping[str, Any]], Path]
CONFIG = replace(TINY, classes=7)


def state() -> Tensors:
    """The tensors of a trained network of `CONFIG`."""
    return dict(_state())


@functools.cache
def _state() -> Tensors:
    torch.manual_seed(3)
    model = VideoMAE(CONFIG)
    return {name: tensor + 0.1 * torch.randn_like(tensor) for name, tensor in model.state_dict().items()}


#: of the same network, other numbers: what an average, or what it is of, holds
OTHER = {name: tensor * 2 for name, tensor in state().items()}


def logits(model: Classifier) -> Tensor:
    """What a network answers."""
    with torch.inference_mode():
        found: Tensor = model(to_batch([moving_clip(0)], "cpu")).logits
    return found


def reference(tensors: Mapping[str, Tensor]) -> Tensor:
    """What the network of `CONFIG` with these tensors answers."""
    model = VideoMAE(CONFIG).eval()
    model.load_state_dict(dict(tensors))
    return logits(model)


def prefixed(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def foreign(name: str, content: Any = None) -> Any:
    """An object of a class that nobody has who reads it: its modules are there until `saved` has written it."""
    home, _, kind = name.rpartition(".")
    parts = home.split(".")
    for number in range(len(parts)):
        module = ".".join(parts[: number + 1])
        sys.modules.setdefault(module, types.ModuleType(module))
        _FOREIGN.add(module)
    if not hasattr(sys.modules[home], kind):
        setattr(sys.modules[home], kind, type(kind, (), {"__module__": home}))
    made = getattr(sys.modules[home], kind)()
    made.__dict__["_content"] = content
    return made


_FOREIGN: set[str] = set()


def saved(file: Path, tree: Any) -> Path:
    torch.save(tree, file)
    for module in _FOREIGN:
        del sys.modules[module]
    _FOREIGN.clear()
    return file


def _torch(make: Callable[[Tensors], dict[str, Any]], name: str = "file.pth") -> Layout:
    return lambda folder, s, more: saved(folder / name, make(s) | dict(more))


def lightning(s: Tensors) -> dict[str, Any]:
    hyper = {
        "optimizer": functools.partial(torch.optim.AdamW, lr=1e-3),
        "config": foreign("omegaconf.dictconfig.DictConfig", {"lr": 1e-3}),
        "root": Path("/data/videos"),
        "names": {"a", "b"},
        "loss": torch.nn.functional.cross_entropy,
    }
    score = {"best_model_score": torch.tensor(0.5), "kth_best_model_path": ""}
    return {
        "epoch": 3, "global_step": 10, "pytorch-lightning_version": "2.6.6", "state_dict": prefixed("model.", s),
        "loops": {"fit_loop": {"state_dict": {}}}, "callbacks": {"ModelCheckpoint{'monitor': 'acc'}": score},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []}], "lr_schedulers": [],
        "hparams_name": "kwargs", "hyper_parameters": hyper,
    }  # fmt: skip


def deepspeed(s: Tensors) -> dict[str, Any]:
    return {
        "module": s, "buffer_names": [], "optimizer": None, "param_shapes": [{k: v.shape for k, v in s.items()}],
        "lr_scheduler": None, "ds_config": {"train_batch_size": 8}, "ds_version": "0.14.0", "global_steps": 7,
        "args": argparse.Namespace(lr=0.1, data_path=Path("/data")), "epoch": 3,
        "loss_scaler": foreign("deepspeed.runtime.fp16.loss_scaler.LossScaler", 1.0),
    }  # fmt: skip


def mmengine(s: Tensors) -> dict[str, Any]:
    history = foreign("mmengine.logging.history_buffer.HistoryBuffer", (np.arange(3.0), np.arange(3)))
    hub = {"log_scalars": collections.OrderedDict({"train/loss": history}), "runtime_info": {"epoch": 3}}
    meta = {"epoch": 3, "cfg": "time_ratio = 0.5", "dataset_meta": {"classes": [f"class {n}" for n in range(7)]}}
    state_dict = {("cls_head.fc_cls." + k[5:] if k.startswith("head.") else f"backbone.{k}"): v for k, v in s.items()}
    names = (("patch_embed.proj.", "patch_embed.projection."), ("mlp.fc1.", "mlp.layers.0.0."))
    for ours, theirs in (*names, ("mlp.fc2.", "mlp.layers.1.")):
        state_dict = {k.replace(ours, theirs): v for k, v in state_dict.items()}
    groups = collections.defaultdict(dict, {0: {"step": np.float64(3)}})
    return {"meta": meta, "state_dict": state_dict, "message_hub": hub, "optimizer": {"state": groups}}


def transformers_names(s: Tensors) -> Tensors:
    """As a `VideoMAEForVideoClassification` names them in its files."""
    found = {}
    for name, tensor in s.items():
        name = name.replace("patch_embed.proj.", "videomae.embeddings.patch_embeddings.projection.")
        name = re.sub(r"^blocks\.", "videomae.encoder.layer.", name).replace("head.", "classifier.")
        name = name.replace("norm1.", "layernorm_before.").replace("norm2.", "layernorm_after.")
        name = name.replace("mlp.fc1.", "intermediate.dense.").replace("mlp.fc2.", "output.dense.")
        name = name.replace("attn.proj.", "attention.output.dense.").replace("attn.", "attention.attention.")
        if name.endswith("qkv.weight"):
            for part, weight in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                found[name.replace("qkv", part)] = weight.clone()
        else:
            found[name] = tensor
    return found


def described(folder: Path, **more: Any) -> None:
    """Write the `config.json` of a transformers VideoMAE of `CONFIG`, whose norms are those of our own."""
    config = {
        "model_type": "videomae", "architectures": ["VideoMAEForVideoClassification"], "image_size": 32,
        "patch_size": 8, "num_frames": 16, "tubelet_size": 2, "hidden_size": 24, "num_hidden_layers": 3,
        "num_attention_heads": 2, "intermediate_size": 96, "hidden_act": "gelu", "use_mean_pooling": True,
        "id2label": {str(n): f"class {n}" for n in range(7)},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config | more))


def trainer(folder: Path, s: Tensors, more: Mapping[str, Any]) -> Path:
    """A `checkpoint-500` of transformers' Trainer."""
    described(folder)
    save_file(transformers_names(s), folder / "model.safetensors", {"format": "pt"})
    saved(folder / "optimizer.pt", {"state": {0: {"exp_avg": torch.zeros(3)}}} | dict(more))
    saved(folder / "training_args.bin", foreign("mycode.args.TrainingArguments"))
    saved(folder / "rng_state.pth", {"numpy": np.random.default_rng(0).bit_generator.state})
    (folder / "trainer_state.json").write_text("{}")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\ntags:\n- video\n---\n# A model\n")
    return folder


def shards(suffix: str, index: bool = False) -> Layout:
    """A folder of three shards and their index, or the index itself."""

    def make(folder: Path, s: Tensors, more: Mapping[str, Any]) -> Path:
        described(folder)
        named, stem = transformers_names(s), {"safetensors": "model", "bin": "pytorch_model"}[suffix]
        parts = [dict(list(named.items())[n::3]) for n in range(3)]
        files = [f"{stem}-{n + 1:05d}-of-00003.{suffix}" for n in range(3)]
        for part, file in zip(parts, files, strict=True):
            save_file(part, folder / file) if suffix == "safetensors" else saved(folder / file, part | dict(more))
        where = {name: file for part, file in zip(parts, files, strict=True) for name in part}
        written = folder / f"{stem}.{suffix}.index.json"
        written.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where}))
        return written if index else folder

    return make


def _bin(folder: Path, s: Tensors, more: Mapping[str, Any]) -> Path:
    described(folder)
    saved(folder / "pytorch_model.bin", collections.OrderedDict(transformers_names(s)) | dict(more))
    return folder


def accelerate(folder: Path, s: Tensors, more: Mapping[str, Any]) -> Path:
    """What `Accelerator.save_state` leaves, without safetensors."""
    saved(folder / "pytorch_model.bin", s | dict(more))
    saved(folder / "optimizer.bin", {"state": {0: {"exp_avg": torch.zeros(3)}}})
    (folder / "random_states_0.pkl").write_bytes(pickle.dumps({"numpy_random_seed": np.arange(3)}))
    return folder


def deepspeed_folder(folder: Path, s: Tensors, more: Mapping[str, Any]) -> Path:
    (folder / "latest").write_text("global_step7\n")
    (folder / "global_step7").mkdir()
    saved(folder / "global_step7" / "mp_rank_00_model_states.pt", deepspeed(s) | dict(more))
    saved(folder / "global_step7" / "zero_pp_rank_0_mp_rank_00_optim_states.pt", {"optimizer_state_dict": {}})
    return folder


def _legacy(folder: Path, s: Tensors, more: Mapping[str, Any]) -> Path:
    torch.save({"model": s} | dict(more), folder / "old.pth", _use_new_zipfile_serialization=False)
    return folder / "old.pth"


def _arrays(folder: Path, s: Tensors, more: Mapping[str, Any]) -> Path:
    tree = {"model": {name: tensor.numpy() for name, tensor in s.items()}, "iteration": np.float64(3), **more}
    (folder / "model.pkl").write_bytes(pickle.dumps(tree))
    return folder / "model.pkl"


def _compiled_blocks(s: Tensors) -> Tensors:
    return {re.sub(r"^(blocks\.\d+\.)", r"\1_orig_mod.", name): tensor for name, tensor in s.items()}


def _checkpointed(s: Tensors) -> Tensors:
    inner = r"_fsdp_wrapped_module.\1_checkpoint_wrapped_module."
    return {re.sub(r"^(blocks\.\d+\.)", inner, name): tensor for name, tensor in s.items()}


def _scaled(names: tuple[str, str]) -> Callable[[Tensors], dict[str, Any]]:
    """Take what scales branches out of the layers before them, as LayerScale has it."""

    def make(s: Tensors) -> dict[str, Any]:
        found = dict(s)
        for block in range(CONFIG.depth):
            for name, layer in zip(names, ("attn.proj", "mlp.fc2"), strict=True):
                scale = torch.rand(CONFIG.dim) + 0.5
                found[f"blocks.{block}.{name}"] = scale
                found[f"blocks.{block}.{layer}.weight"] = s[f"blocks.{block}.{layer}.weight"] / scale[:, None]
                found[f"blocks.{block}.{layer}.bias"] = s[f"blocks.{block}.{layer}.bias"] / scale
        return {"model": found}

    return make


def _averaged(s: Tensors) -> dict[str, Any]:
    return {"steps": torch.tensor(3), **prefixed("module.", s)}


#: what is read, each with the key that is taken
READ: dict[str, tuple[Layout, str]] = {
    "transformers, a Trainer's folder": (trainer, ""),
    "transformers, shards": (shards("safetensors"), ""),
    "transformers, shards by their index": (shards("safetensors", index=True), ""),
    "transformers, pytorch_model.bin": (_bin, ""),
    "transformers, shards of .bin": (shards("bin"), ""),
    "transformers, under Lightning": (
        _torch(lambda s: lightning({}) | {"state_dict": prefixed("net.", transformers_names(s))}),
        "state_dict",
    ),
    "accelerate, save_state": (accelerate, ""),
    "Lightning with hyper-parameters": (_torch(lightning, "last.ckpt"), "state_dict"),
    "Lightning with averaging": (
        _torch(lambda s: lightning(s) | {"current_model_state": OTHER, "averaging_state": {"n": torch.tensor(3)}}),
        "state_dict",
    ),
    "DeepSpeed, mp_rank": (_torch(deepspeed, "mp_rank_00_model_states.pt"), "module"),
    "DeepSpeed, its folder": (deepspeed_folder, "module"),
    "mmengine with message_hub": (_torch(mmengine), "state_dict"),
    "mmengine with averaging": (_torch(lambda s: mmengine(s) | {"ema_state_dict": _averaged(OTHER)}), "state_dict"),
    "VideoMAE with model_ema": (
        _torch(lambda s: {"model": s, "model_ema": OTHER, "args": argparse.Namespace(lr=0.1), "epoch": 3}),
        "model",
    ),
    "timm with state_dict_ema": (
        _torch(lambda s: {"state_dict": OTHER, "state_dict_ema": s, "arch": "vit", "metric": np.float64(3)}),
        "state_dict_ema",
    ),
    "an average alone": (_torch(lambda s: {"model_ema": s}), "model_ema"),
    "the tutorial's form": (
        _torch(lambda s: {"epoch": 7, "model_state_dict": s, "optimizer_state_dict": {"state": {}}, "loss": 0.4}),
        "model_state_dict",
    ),
    "torch.compile": (_torch(lambda s: {"model": prefixed("_orig_mod.", s)}), "model"),
    "torch.compile inside DDP": (_torch(lambda s: {"state_dict": prefixed("module._orig_mod.", s)}), "state_dict"),
    "torch.compile around DDP": (_torch(lambda s: {"state_dict": prefixed("_orig_mod.module.", s)}), "state_dict"),
    "compiled blocks": (_torch(lambda s: {"model": _compiled_blocks(s)}), "model"),
    "FSDP and activation checkpointing": (_torch(_checkpointed), ""),
    "net.module.backbone": (_torch(lambda s: {"model": prefixed("net.module.backbone.", s)}), "model"),
    "backbone.net": (_torch(lambda s: prefixed("backbone.net.", s)), ""),
    "numbers of NumPy": (
        _torch(lambda s: {"model": s, "best": np.float64(83.2), "each": np.arange(3), "when": np.datetime64("2024")}),
        "model",
    ),
    "LayerScale": (_torch(_scaled(("gamma_1", "gamma_2"))), "model"),
    "LayerScale, timm's names": (_torch(_scaled(("ls1.gamma", "ls2.gamma"))), "model"),
    "torch before 1.6": (_legacy, "model"),
    "a pickle of arrays": (_arrays, "model"),
    "objects of own code": (
        _torch(lambda s: {"model": s, "meter": foreign("mycode.utils.AverageMeter", [1, 2]), "when": Path("x").exists}),
        "model",
    ),
}
