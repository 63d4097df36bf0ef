"""How methods come to backbones: who is asked first, and what each kind of backbone refuses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import pytest
import torch
from helpers import PLAIN

from vpbench import plan, registry
from vpbench.api import SITES, Backbone, Clip, ClipBatch, Pruner, UsageError
from vpbench.api.backbone import network
from vpbench.api.method import load_method
from vpbench.tasks.attach import attach, attached

EMBEDDED = [name for name, entry in registry.backbones().items() if entry.weights is not None]
METHODS = registry.names("methods")


class Untouched(Sequence[Clip]):
    """Calibration clips that nobody may decode."""

    @overload
    def __getitem__(self, index: int) -> Clip: ...
    @overload
    def __getitem__(self, index: slice) -> list[Clip]: ...
    def __getitem__(self, index: int | slice) -> Clip | list[Clip]:
        raise AssertionError("decoded for nothing")

    def __iter__(self) -> Iterator[Clip]:
        raise AssertionError("decoded for nothing")

    def __len__(self) -> int:
        raise AssertionError("listed for nothing")


def sizes(name: str) -> Backbone:
    with torch.device("meta"):
        return network(name).eval()


def cell(backbone: str, method: str, keep: float | None = None, **given: Any) -> plan.Cell:
    asked = plan.options({"method": (method,), "backbone": backbone, **given})
    return plan.Cell("", "", plan.setting(asked, 1), method, keep=keep)


@pytest.mark.parametrize("name", [name for name in registry.backbones() if name != "hf"])  # which a folder sizes
def test_names_and_networks_agree_on_the_flow(name: str) -> None:
    assert sizes(name).flow == registry.backbone(name).flow


@pytest.mark.parametrize("backbone", EMBEDDED)
def test_a_method_of_another_flow_is_refused_before_anything_is_decoded(backbone: str) -> None:
    model = sizes(backbone)
    aliens = [name for name in METHODS if model.flow not in load_method(name).flows]
    assert aliens
    for name in aliens:
        with pytest.raises(UsageError, match=f"^{name} keep=0.5 cannot run on {backbone}: ") as caught:
            attach(cell(backbone, name, 0.5), model, Untouched(), {})
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("backbone", EMBEDDED)
def test_methods_act_at_the_sites_of_their_flows_alone(backbone: str) -> None:
    model = sizes(backbone)
    for name in METHODS:
        method = load_method(name)()
        if model.flow in method.flows and method.supports(model) is None:
            pruner = method.attach(model)
            assert not [site for flow in SITES for site in SITES[flow] - SITES[model.flow] if pruner.acts_at(site)]


class Everywhere(Pruner):
    """Changes nothing at two sites of different flows."""

    def video(self, batch: ClipBatch) -> None:
        return None

    def frame(self, embedded: torch.Tensor) -> None:
        return None


@pytest.mark.parametrize(
    ("backbone", "said"),
    [
        ("videomae_embedded", "frame"),
        ("vivit_embedded", "frame"),
        ("mvit_embedded", "video"),
        ("vitdet_embedded", "video"),
    ],
)
def test_sites_that_a_backbone_never_asks_are_refused(backbone: str, said: str) -> None:
    model = sizes(backbone)
    assert said in str(model.refuses(Everywhere()))
    assert model.refuses(Pruner()) is None


def test_a_reason_is_said_by_whoever_attaches() -> None:
    method = load_method("sta")(r=-1)  # type: ignore[call-arg]
    with pytest.raises(UsageError, match=r"^here: sta needs 0 <= r"):
        attached(method, sizes("videomae_embedded"), lambda reason: UsageError(f"here: {reason}"))


def test_without_resets_there_are_no_batches() -> None:
    where = cell("vitdet_embedded", "rgtp", dataset="synthmotion_boxes", batch=2).setting
    without = plan.Cell("", "", where, "rgtp", (("reset", 0),))
    with pytest.raises(UsageError, match="rgtp reset=0 cannot run on vitdet_embedded in batches: without resets"):
        attach(without, sizes("vitdet_embedded"), (), {})


def test_only_random_copies_counts() -> None:
    model, kept = sizes("videomae_embedded"), dict[str, dict[str, int]]()
    where = cell("videomae_embedded", "random").setting
    found = attach(plan.Cell("", "", where, "random", copies="twin"), model, (), kept)
    kept["twin"]["clip"] = 7  # what is copied may become known later
    batch = ClipBatch(torch.zeros(1, 16, 64, 64, 3, dtype=torch.uint8), ("clip",))
    selection = found.pruner.video(batch)
    assert selection is not None
    assert selection.lengths == (7,)
    for name in PLAIN:
        if name != "random":
            with pytest.raises(UsageError, match="cannot copy"):
                attach(plan.Cell("", "", where, name, copies="twin"), model, (), kept)
