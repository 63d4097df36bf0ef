"""Every method on every kind of backbone: the fate that is watched is what the forward itself reports."""

from __future__ import annotations

import pytest
import torch
from conftest import moving_clip
from helpers import construct
from tiny_backbones import CONFIGS

from vpbench import registry
from vpbench.api import Classifier, Method, Output
from vpbench.api.method import load_method
from vpbench.errors import UsageError
from vpbench.measure.watch.clips import Watched, watched
from vpbench.rows.fates import DROPPED
from vpbench.tasks.recognition.session import to_batch

METHODS = registry.names("methods")


def model(name: str) -> Classifier:
    torch.manual_seed(0)
    found = construct(CONFIGS[name]).eval()
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return found.requires_grad_(False)


MODELS = {name: model(name) for name in CONFIGS}


def prepared(name: str, backbone: str, keep: float) -> Method:
    """Set a method's parameters; skips what the two cannot do together."""
    network, kind = MODELS[backbone], load_method(name)
    clips = [moving_clip(n, CONFIGS[backbone]) for n in range(4)]  # type: ignore[arg-type]
    if network.flow not in kind.flows:
        pytest.skip(f"it does not prune the flow {network.flow}")
    try:
        method = kind().at_keep(keep, network, clips)
    except UsageError as error:
        pytest.skip(str(error))
    if reason := method.supports(network) or network.refuses(method.attach(network)):
        pytest.skip(reason)
    return method


def run(name: str, backbone: str, keep: float) -> Watched[Output]:
    method = prepared(name, backbone, keep)
    batch = to_batch([moving_clip(7, CONFIGS[backbone])], "cpu")  # type: ignore[arg-type]
    network = MODELS[backbone]
    with torch.inference_mode():
        plain = network(batch, method.attach(network))
        found = watched(network, batch, method.attach(network), values=True)
    # who asks for all heat maps leaves the fused kernel, which rounds otherwise
    torch.testing.assert_close(found.output.logits, plain.logits, atol=1e-6, rtol=0)
    assert found.output.counts == plain.counts
    return found


@pytest.mark.parametrize("keep", [0.5, 0.75, 1.0])
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("backbone", ["videomae", "vivit"])
def test_as_many_survive_as_the_forward_counts(name: str, backbone: str, keep: float) -> None:
    if name == "dense" and keep < 1:
        return
    found = run(name, backbone, keep)
    fixed = MODELS[backbone].grid.slots if backbone == "vivit" else 0  # class tokens
    if name.startswith("eventful"):  # its gates compute some tokens anew, and all go on
        assert found.fate.left() == MODELS[backbone].grid.tokens
    elif name in ("sta", "representation_shift") and keep < 1:  # its last stage may act after what counts last
        assert found.fate.left(-2) == found.output.counts[-1].mlp[0] - fixed
        assert found.fate.left() < found.fate.left(-2)
    else:
        assert found.fate.left() == found.output.counts[-1].mlp[0] - fixed


@pytest.mark.parametrize("keep", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("name", [name for name in METHODS if "grid" in load_method(name).flows])
@pytest.mark.parametrize("backbone", ["mvit", "videoswin"])
def test_what_is_left_of_a_grid_is_what_entered_the_last_block(name: str, backbone: str, keep: float) -> None:
    if name == "dense" and keep < 1:
        return
    found = run(name, backbone, keep)
    dense = MODELS[backbone](to_batch([moving_clip(7, CONFIGS[backbone])], "cpu"))  # type: ignore[arg-type]
    fixed = int(backbone == "mvit")
    last, whole = (out.counts[-1].attention[0] - fixed for out in (found.output, dense))
    # the network pools as much with a method as without
    assert found.fate.left() * whole == last * found.fate.tokens
    if name.startswith("stts"):
        assert (found.fate.final == DROPPED).any() == (keep < 1)


@pytest.mark.parametrize(
    ("backbone", "time", "space"),
    [
        ("mvit", "0:5/3:3", "2:3"),
        ("mvit", "", "1:5/4:2"),
        ("videoswin", "0:6/1:4", "0:7/1:2"),
        ("videoswin", "1:3", ""),
    ],
)
def test_slices_and_windows_are_followed_through_pooled_grids(backbone: str, time: str, space: str) -> None:
    network = MODELS[backbone]
    method = load_method("stts_random")(time=time, space=space)  # type: ignore[call-arg]
    batch = to_batch([moving_clip(7, CONFIGS[backbone])], "cpu")  # type: ignore[arg-type]
    fate = watched(network, batch, method.attach(network)).fate
    slots = fate.final.reshape(fate.grid) != DROPPED
    kept = [slot for slot in slots if slot.any()]
    assert len(kept) == (min(int(part.split(":")[1]) for part in time.split("/")) if time else network.grid.slots)
    windows = [int(part.split(":")[1]) for part in space.split("/") if space]
    for slot in kept:
        rows, columns = slot.any(axis=1).sum(), slot.any(axis=0).sum()
        assert slot.sum() == rows * columns  # a window, without holes
        # pooled once or not at all before the last window; where a side was odd, its last token stands for one alone
        assert {int(rows), int(columns)} <= ({windows[-1], 2 * windows[-1], 2 * windows[-1] - 1} if windows else {8})
    assert [stage.name.split()[0] for stage in fate.stages] == ["block" if backbone == "mvit" else "stage"] * len(
        {part.split(":")[0] for text in (time, space) for part in text.split("/") if part}
    )
