"""Every method in half precision and under autocast: with the same tokens kept, hardly further off than dense."""

from __future__ import annotations

import pytest
from helpers import like
from tiny_backbones import CONFIGS

from vpbench import registry
from vpbench.commands.contract import halves


@pytest.mark.parametrize("name", CONFIGS)
def test_half_precision_costs_pruned_clips_no_more_than_dense_ones(name: str) -> None:
    found = halves.errors(like(CONFIGS[name]), registry.names("methods"), others=True)
    assert len({method for method, _, _ in found}) >= 6
    assert not {key: pair for key, pair in found.items() if pair[0] > pair[1]}
