"""Tiny networks with random weights, one of each family: derived from what entries say of themselves."""

from collections.abc import Callable
from functools import lru_cache

import torch

from vpbench import registry
from vpbench.api import Backbone
from vpbench.errors import VpbenchError
from vpbench.registry import Entry

#: what is added to initial weights, in which tokens would hardly matter: so many normal deviates
NOISE = 0.1
#: a detector's, so that boxes are found
DETECTOR_NOISE = 0.15


def families() -> dict[str, Entry]:
    """Map places, as findings name them, to an entry of each family of this package that says how small it can be.

    Those that other packages are needed for are as plain as ours are.

    Backbones of other packages have a contract of their own, and do not decide on that of a method.
    """
    found: dict[str, Entry] = {}
    for entry in registry.backbones().values():
        if entry.tiny is not None and entry.needs is None and entry.build.startswith("vpbench."):
            found.setdefault(place(entry), entry)
    return found


def place(entry: Entry) -> str:
    """Name a backbone as findings do: by its family and its flow."""
    return f"{entry.family} ({entry.flow})"


def seeded(entry: Entry, noise: float | None = None) -> Backbone:
    """Build a network of an entry's tiny sizes (its own, where it has none) with the same random weights every time.

    Raises VpbenchError where it is broken.
    """
    found: Backbone = _built(entry).eval().requires_grad_(False)
    amount = noise if noise is not None else DETECTOR_NOISE if entry.task == "detection" else NOISE
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for parameter in found.parameters() if amount else ():
            parameter.add_(amount * torch.randn_like(parameter))
    return found


def _built(entry: Entry) -> Backbone:
    build: Callable[[object], object] = registry.imported(entry.build)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = build(entry.tiny or entry.sizes)
    if not isinstance(found, Backbone):
        raise VpbenchError(f"{entry.build} must return a vpbench.api.Backbone, it returns a {type(found).__name__}")
    return found


@lru_cache(maxsize=32)
def tiny(entry: Entry, noise: float | None = None) -> Backbone:
    """Return the network of `seeded`, built once: for checks that leave it as it is."""
    return seeded(entry, noise)
