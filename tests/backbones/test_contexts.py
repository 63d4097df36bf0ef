"""Contexts of torch that a caller may be in break no backbone, and change none of its answers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
import vid_tree
from helpers import construct
from tiny_backbones import CONFIGS
from torch import Tensor, nn

from vpbench import registry
from vpbench.api import Backbone
from vpbench.backbones import loading
from vpbench.backbones.vitdet.network import ViTDet
from vpbench.commands.contract import contexts
from vpbench.commands.contract.contexts import CONTEXTS

BACKBONES: dict[str, Callable[[], nn.Module]] = {
    **{name: partial(construct, sizes) for name, sizes in CONFIGS.items()},
    "vitdet": vid_tree.random_detector,
}


def seeded(name: str) -> nn.Module:
    torch.manual_seed(0)
    return BACKBONES[name]().eval().requires_grad_(False)


def answers(network: nn.Module) -> dict[str, Tensor]:
    """Return what all methods that fit give."""
    assert isinstance(network, Backbone)
    methods = (
        ("dense", "eventful", "eventful_random", "rgtp", "rgtp_random")
        if isinstance(network, ViTDet)
        else registry.names("methods")
    )
    return contexts.answers(network, methods)


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
