"""What every backbone that classifies clips keeps to; runs over one of each family."""

from __future__ import annotations

import pytest

from vpbench import registry
from vpbench.commands.contract.networks import families
from vpbench.commands.contract.on_networks import ON_NETWORK, Subject
from vpbench.commands.contract.promise import Promise, judge

NAMES = {
    place: next(name for name, each in registry.backbones().items() if each is entry)
    for place, entry in families().items()
    if entry.task == "recognition"
}
#: half precision has a test of its own (test_precisions.py), and so have contexts (test_contexts.py)
OWN = [each for each in ON_NETWORK if not each.name.startswith("stands_")]


@pytest.mark.parametrize("promise", OWN, ids=lambda each: each.name)
@pytest.mark.parametrize("place", NAMES)
def test_keeps_its_promises(place: str, promise: Promise[Subject]) -> None:
    name = NAMES[place]
    verdict = judge(promise, Subject(name, registry.backbone(name)), place)
    grid = verdict.text == "its tokens form a grid, from which single ones cannot be dropped"
    assert verdict.state == "kept" or (grid and "grid" in place), verdict.text
