"""Weights: the embedded ones, random ones, or a safetensors file; loaded strictly, and never executed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from vpbench.api import Backbone
from vpbench.backbones.catalog import CATALOG
from vpbench.backbones.videomae import VideoMAE
from vpbench.errors import UsageError


def weights_file(backbone: str, weights: str) -> Path | None:
    """Return the file that `weights` (`embedded`, `random` or a path) means, None for random weights."""
    if weights == "random":
        return None
    if weights != "embedded":
        return Path(weights)
    file = CATALOG[backbone].weights
    if file is None:
        raise UsageError(f"{backbone} has no embedded weights; give --weights FILE.safetensors or --weights random")
    return file


def weights_digest(backbone: str, weights: str) -> str:
    """SHA-256 of the weights file, or `random`; raises UsageError if it cannot be read."""
    file = weights_file(backbone, weights)
    if file is None:
        return "random"
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise UsageError(f"weights {file}: {error.strerror}") from error


def weights_kind(weights: str) -> str:
    """Return `embedded`, `random`, or `file` for weights of the user's own."""
    return weights if weights in ("embedded", "random") else "file"


def build(backbone: str, weights: str, seed: int) -> Backbone:
    """Build a backbone in evaluation mode, float32, on the CPU; random weights depend on `seed` alone."""
    file = weights_file(backbone, weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = VideoMAE(CATALOG[backbone].config)
    if file is not None:
        _load_strictly(model, file)
    return model.eval()


def _load_strictly(model: Backbone, file: Path) -> None:
    try:
        state = load_file(file)
    except (OSError, SafetensorError) as error:
        raise UsageError(f"weights {file}: not a readable safetensors file ({error})") from error
    own = model.state_dict()
    wrong = sorted(own.keys() ^ state.keys()) + sorted(
        k for k in own.keys() & state.keys() if own[k].shape != state[k].shape
    )
    if wrong:
        raise UsageError(
            f"weights {file} do not fit: {len(wrong)} tensors missing, unknown or odd-shaped, first {wrong[0]!r}"
        )
    broken = [k for k, v in state.items() if not v.isfinite().all()]
    if broken:
        raise UsageError(f"weights {file}: tensor {broken[0]!r} holds NaN or infinity")
    model.load_state_dict({k: v.float() for k, v in state.items()})
