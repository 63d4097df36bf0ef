"""Weights: the embedded ones, random ones, or a file in any published layout; loaded strictly, and never executed."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from vpbench.api import Backbone, GridBackbone
from vpbench.backbones.catalog import CATALOG, Config
from vpbench.backbones.models import construct
from vpbench.backbones.mvit_config import MViTConfig
from vpbench.backbones.videoswin_config import VideoSwinConfig
from vpbench.checkpoints import files, mvit, videomae, videoswin
from vpbench.errors import UsageError, VpbenchError


def weights_file(backbone: str, weights: str) -> Path | None:
    """Return the file that `weights` (`embedded`, `random` or a path) means, None for random weights."""
    if weights == "random":
        return None
    if weights != "embedded":
        return Path(weights)
    file = CATALOG[backbone].weights
    if file is None:
        raise UsageError(f"{backbone} has no embedded weights; give --weights FILE (.safetensors, .pth) or random")
    return file


def weights_digest(backbone: str, weights: str) -> str:
    """SHA-256 of the weights file, or `random`; raises UsageError if it cannot be read."""
    file = weights_file(backbone, weights)
    return "random" if file is None else files.digest(file)


def weights_kind(weights: str) -> str:
    """Return `embedded`, `random`, or `file` for weights of the user's own."""
    return weights if weights in ("embedded", "random") else "file"


def build(backbone: str, weights: str, seed: int) -> Backbone:
    """Build a backbone in evaluation mode, float32, on the CPU; random weights depend on `seed` alone.

    Raises UsageError in one line for files that cannot be read, are of another model, or do not fit in every tensor.
    """
    file = weights_file(backbone, weights)
    if file is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return construct(CATALOG[backbone].config).eval()
    config, tensors, addons = _recognise(backbone, file)
    # compared before the model takes memory: its sizes come from a file that nobody vouches for
    with torch.device("meta"):
        check_fit(construct(config), tensors, f"weights {file}")
    with torch.random.fork_rng(devices=[]):
        model = construct(config)
    if isinstance(model, GridBackbone):
        model.addons = addons
    load_strictly(model, tensors, f"weights {file}")
    return model.eval()


def _recognise(backbone: str, file: Path) -> tuple[Config, dict[str, Tensor], dict[str, Tensor]]:
    """Return what a file says about the backbone it was named for: sizes, its tensors, and those of trained methods."""
    state, base, where = files.read(file).tensors, CATALOG[backbone].config, f"weights {file}"
    if isinstance(base, MViTConfig):
        found = mvit.recognise(state, where)
        return found.config(base), found.tensors, found.scorers
    if isinstance(base, VideoSwinConfig):
        swin = videoswin.recognise(state, where)
        return swin.config(base), swin.tensors, swin.scorers
    plain = videomae.recognise(state, where)
    fitting = plain.backbones()
    if backbone not in fitting:
        known = f"this is {fitting[0]}: use --backbone {fitting[0]}" if fitting else "no backbone here has these sizes"
        raise UsageError(f"{where}: {plain.depth} blocks of width {plain.dim} are not {backbone}; {known}")
    return plain.config(backbone), plain.tensors, {}


def _check_sizes(backbone: str, found: videomae.Recognised, where: str) -> None:
    with torch.device("meta"):
        check_fit(construct(found.config(backbone)), found.tensors, where)


def load_strictly(model: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Load tensors; raises UsageError as `check_fit` does."""
    check_fit(model, tensors, where)
    model.load_state_dict(dict(tensors))


def check_fit(model: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise UsageError that counts and names missing, unknown and odd-shaped tensors, if there are any."""
    own = model.state_dict()
    wrong = {
        "missing": own.keys() - tensors.keys(),
        "unknown": tensors.keys() - own.keys(),
        "of another shape": {k for k in own.keys() & tensors.keys() if own[k].shape != tensors[k].shape},
    }
    said = [f"{len(names)} {what} ({_first(names)})" for what, names in wrong.items() if names]
    if said:
        raise UsageError(f"{where} do not fit: tensors {', '.join(said)}")


def _first(names: set[str]) -> str:
    return ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")


def inspect(file: Path) -> dict[str, str]:
    """Say what a file is and what it fits, line by line; raises UsageError if it holds no VideoMAE classifier."""
    contents = files.read(file)
    found = videomae.recognise(contents.tensors, str(file))
    fitting = found.backbones()
    precision = sorted({str(t.dtype).removeprefix("torch.") for t in contents.tensors.values()})
    said = {
        "container": contents.container + (f", tensors under {contents.wrapper!r}" if contents.wrapper else ""),
        "layout": found.layout,
        "fits": ", ".join(fitting) or f"no backbone here ({found.depth} blocks of width {found.dim})",
        "classes": str(found.tensors["head.weight"].shape[0]),
        "parameters": f"{sum(t.numel() for t in found.tensors.values()) / 1e6:.2f} M in {', '.join(precision)}",
        "run lengths": "yes (RLT)" if "length_embed" in found.tensors else "no",
        "left aside": ", ".join((*contents.others, *found.extras)) or "nothing",
        "sha256": files.digest(file),
        "licence": "not in the file; weights published by VideoMAE's authors are CC-BY-NC 4.0",
    }
    for name in fitting[:1]:
        _check_sizes(name, found, str(file))
    # free text of the file, which might hold anything a terminal acts upon
    return said | {_printable(f"metadata {key}"): _printable(value) for key, value in contents.metadata.items()}


def _printable(text: str) -> str:
    return text if text.isprintable() else repr(text)


def convert(file: Path, out: Path, overwrite: bool) -> None:
    """Write a checkpoint as safetensors under our names, float32, whole or not at all.

    Raises UsageError for files that no backbone could load, and for an `out` that exists (without `overwrite`) or has
    another suffix; VpbenchError if it cannot be written.
    """
    if out.suffix != ".safetensors":
        raise UsageError(f"{out}: give a name that ends in .safetensors")
    if out.exists() and not overwrite:
        raise UsageError(f"{out} exists; --force overwrites it")
    found = videomae.recognise(files.read(file).tensors, str(file))
    fitting = found.backbones()
    if not fitting:
        raise UsageError(f"{file}: no backbone here has {found.depth} blocks of width {found.dim}")
    _check_sizes(fitting[0], found, str(file))
    metadata = {
        "format": "vpbench",
        "source": file.name,
        "source_sha256": files.digest(file),
        "layout": found.layout,
        "sizes": json.dumps(asdict(found.config(fitting[0]))),
    }
    temporary = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        # a tensor of the file may be a view of another one, which safetensors will not write
        save_file(
            {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in found.tensors.items()},
            temporary,
            metadata,
        )
        temporary.chmod(mode)  # the library leaves the file readable for its owner alone
        os.replace(temporary, out)
    except (OSError, SafetensorError) as error:
        raise VpbenchError(f"{out} cannot be written: {str(error).splitlines()[0]}") from error
    finally:
        temporary.unlink(missing_ok=True)
