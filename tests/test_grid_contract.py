"""What methods must keep to on backbones whose tokens form a grid, of either family."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import moving_clip
from helpers import construct
from tiny_backbones import MVIT, VIDEOSWIN

from vpbench import plan, registry
from vpbench.api import ClipBatch, GridBackbone
from vpbench.api.method import load_method
from vpbench.commands.contract.methods import on_flow
from vpbench.commands.contract.promise import Promise, judge
from vpbench.commands.contract.trial import Trial
from vpbench.errors import UsageError
from vpbench.methods.stts import Stts
from vpbench.registry import Sizes
from vpbench.run import resolve
from vpbench.tasks.recognition import Recognition, count
from vpbench.tasks.recognition.session import to_batch

#: tiny backbones by a full-size one of their family
BACKBONES: dict[str, Sizes] = {"mvit_b_16x4": MVIT, "videoswin_b": VIDEOSWIN}
GRID = [name for name in registry.names("methods") if "grid" in load_method(name).flows]
CLIPS = [moving_clip(n) for n in range(4)]


@pytest.fixture(scope="module", params=BACKBONES)
def model(request: pytest.FixtureRequest) -> GridBackbone:
    torch.manual_seed(0)
    found = construct(BACKBONES[request.param]).eval()
    assert isinstance(found, GridBackbone)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return found.requires_grad_(False)


def test_there_are_methods_for_grids() -> None:
    assert {"dense", "stts", "frame_stride", "downsample"} <= set(GRID)


@pytest.mark.parametrize("promise", on_flow("grid"), ids=lambda each: each.name)
@pytest.mark.parametrize("name", GRID)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_keeps_its_promises_on_a_grid(name: str, backbone: str, promise: Promise[Trial]) -> None:
    verdict = judge(promise, Trial(name, registry.backbone(backbone)), "")
    assert verdict.state == "kept" or (name, verdict.text) == ("dense", "it prunes nothing"), verdict.text


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("name", [name for name in registry.names("methods") if name not in GRID])
def test_others_are_refused_with_the_reason(name: str, backbone: str, model: GridBackbone) -> None:
    asked = plan.options({"method": (name,), "backbone": backbone})
    planned = plan.cells(asked, plan.setting(asked, 1))
    [cell] = [c for c in planned if c.method == name and c.match is None]
    with pytest.raises(UsageError, match=r"holes in its token grid|all steps of a clip at once|on clips it is random"):
        count.counts(model, cell, (784,))


def test_stts_is_refused_on_plain_backbones_before_anything_runs() -> None:
    asked = plan.options({"method": ("stts",), "limit": 2})
    shared, digests = resolve.resolve(asked)
    stts = next(cell for cell in plan.cells(asked, shared, digests) if cell.method == "stts")
    with pytest.raises(UsageError, match="this backbone has a plain stream of tokens"):
        Recognition.open(shared).attach(stts)


@pytest.mark.parametrize(
    "params", [{"time": "x"}, {"time": "0:0"}, {"time": "9:0.5"}, {"space": "4:0.001"}, {"time": "0:-1"}]
)
def test_impossible_selections_are_refused(params: Any, model: GridBackbone) -> None:
    assert Stts(**params).supports(model)


@pytest.mark.parametrize(("name", "same"), [("stts_uniform", True), ("stts_random", False)])
def test_controls_select_as_much_without_scores(name: str, same: bool, model: GridBackbone) -> None:
    """Slices in time, and windows in space: for all clips alike, or drawn for each."""
    batch = ClipBatch(to_batch(CLIPS[:2], "cpu").pixels, ("a", "b"))
    amounts = {"time": "0:4", "space": "1:2"}
    pruner = load_method(name)(**amounts).attach(model)
    pruner.record = {}
    with torch.inference_mode():
        out, again = model(batch, pruner), model(batch, pruner)
        scored = model(batch, Stts(**amounts).attach(model))
    picked = pruner.record["time.0.indices"]
    assert picked.shape == (2, 4)
    assert torch.equal(picked[0], picked[1]) == same
    assert torch.equal(out.logits, again.logits)
    assert [c.mlp for c in out.counts] == [c.mlp for c in scored.counts]
    assert pruner.macs(()) == 0
    assert not pruner.caveat


def test_a_sweep_on_a_grid_brings_the_methods_own_controls() -> None:
    asked = plan.options({"method": ("stts",), "keep": (0.5, 0.75), "backbone": "mvit_b_16x4"})
    planned = plan.cells(asked, plan.setting(asked, 1))
    names = [cell.method for cell in planned]
    assert {name: names.count(name) for name in names} == {"dense": 1, "stts": 2, "stts_random": 2, "stts_uniform": 2}
