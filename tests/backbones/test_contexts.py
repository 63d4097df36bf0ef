"""Contexts of torch that a caller may be in break no backbone, and change none of its answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import pytest
import torch
import vid_tree
from conftest import moving_clip
from helpers import construct
from tiny_backbones import CONFIGS
from torch import Tensor, nn

from vpbench import registry
from vpbench.api import Classifier
from vpbench.api.method import load_method
from vpbench.backbones import loading
from vpbench.backbones.vitdet.network import Segments, ViTDet
from vpbench.errors import UsageError
from vpbench.tasks.recognition.session import to_batch


@contextmanager
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


CONTEXTS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "inference_mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "default dtype": double,
    "default device": lambda: torch.device("meta"),
    "deterministic": deterministic,
}
BACKBONES: dict[str, Callable[[], nn.Module]] = {
    **{name: partial(construct, sizes) for name, sizes in CONFIGS.items()},
    "vitdet": vid_tree.random_detector,
}


def seeded(name: str) -> nn.Module:
    torch.manual_seed(0)
    return BACKBONES[name]().eval().requires_grad_(False)


def answers(network: nn.Module) -> dict[str, Tensor]:
    """Return what all methods that fit give for two clips, or for three frames; constants are made anew."""
    _forget_constants()
    if isinstance(network, ViTDet):
        return {name: followed(network, name) for name in ("dense", "rgtp", "rgtp_random")}
    assert isinstance(network, Classifier)
    with torch.device("cpu"):
        clips = [moving_clip(n, network.config) for n in range(2)]  # type: ignore[arg-type]
    found = {}
    for name in registry.names("methods"):
        try:
            method = load_method(name)().at_keep(1.0 if name == "dense" else 0.5, network, clips)
        except UsageError:
            continue
        if not method.supports(network) and not network.refuses(method.attach(network)):
            with torch.no_grad():
                found[name] = network(to_batch(clips, "cpu"), method.attach(network)).logits
    return found


def followed(network: ViTDet, name: str) -> Tensor:
    pruner = load_method(name)().at_keep(1.0 if name == "dense" else 0.3, network, ()).attach(network)
    pruner.restart([("v", 0)])
    with torch.device("cpu"):
        pixels = torch.from_numpy(moving_clip(0).pixels)[:3, None]
    segments, outputs = Segments(), []
    with torch.no_grad():
        for frame in pixels:
            went, found = network(frame, segments, pruner)
            outputs += [went.output.flatten(), found[0].boxes.flatten(), found[0].scores]
    return torch.cat(outputs)


def _forget_constants() -> None:
    from vpbench.backbones.videoswin import windows as swin
    from vpbench.backbones.vitdet import proposals
    from vpbench.backbones.vitdet import windows as square

    constants: tuple[Any, ...] = (swin.partition, swin.relative_index, square._places, proposals.grid_anchors)
    for kept in constants:
        kept.cache_clear()


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    assert ours.keys() == theirs.keys()
    assert len(ours) >= 3
    return not [
        name for name, each in ours.items() if each.dtype != torch.float32 or not torch.equal(each, theirs[name])
    ]


@pytest.mark.parametrize("name", BACKBONES)
def test_answers_are_the_same_in_every_context(name: str) -> None:
    network = seeded(name)
    expected = answers(network)
    for context in CONTEXTS.values():
        with context():
            found = answers(network)
        assert same(found, expected)
        assert same(answers(network), expected), "what a context left behind"


@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_may_be_built_in_inference_mode(name: str) -> None:
    usual = seeded(name)
    with torch.inference_mode():
        network = seeded(name)
        assert same(answers(network), answers(usual))
        for parameter in [*network.parameters(), *usual.parameters()]:
            parameter.mul_(1.1)
    assert same(answers(network), answers(usual)), "what was made of the weights follows them"


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("name", ["videomae_embedded", "videoswin_embedded"])
def test_weights_are_read_as_they_are_in_every_context(name: str, context: str) -> None:
    expected = loading.build(name, "random", 3).state_dict()
    with CONTEXTS[context]():
        found = loading.build(name, "random", 3)
    assert all(torch.equal(tensor, expected[key]) for key, tensor in found.state_dict().items())
    assert all(each.dtype == torch.float32 and not each.is_inference() for each in found.parameters())
