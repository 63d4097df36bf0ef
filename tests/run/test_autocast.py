"""`--dtype amp`: autocast over float32 weights, entered for each forward, wherever a network is run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from conftest import TINY, moving_clip
from helpers import HASTE, few_frames, unwatched, weightless
from torch.utils._python_dispatch import TorchDispatchMode

from vpbench import plan
from vpbench.api import Classifier
from vpbench.api.precisions import PRECISIONS
from vpbench.backbones import loading
from vpbench.backbones.videomae.network import VideoMAE
from vpbench.backbones.vitdet.network import ViTDet
from vpbench.errors import UsageError
from vpbench.plan import request
from vpbench.rows.store import Store, latest
from vpbench.run import group, resolve
from vpbench.tasks.recognition import Recognition
from vpbench.tasks.recognition.session import to_batch


@pytest.fixture(autouse=True)
def hurried(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plan.PROFILES, "ci", HASTE)
    weightless(monkeypatch)
    unwatched(monkeypatch)


def loaded(dtype: str) -> VideoMAE:
    torch.manual_seed(0)
    asked = plan.options({"method": ("dense",), "dtype": dtype, "threads": 1})
    return loading.use_device(VideoMAE(TINY).eval(), plan.setting(asked, 1))


class Casts(TorchDispatchMode):
    """Counts how often each parameter is cast."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names = {each.data_ptr(): name for name, each in model.named_parameters() if each.ndim > 1}
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        name = given and isinstance(given[0], torch.Tensor) and self.names.get(given[0].data_ptr())
        if name and function._opname in ("to", "_to_copy"):
            self.count[name] += 1
        return function(*given, **named or {})


def test_names_are_the_same_on_the_command_line() -> None:
    assert set(get_args(request.Dtype)) == set(PRECISIONS)


@pytest.mark.parametrize(("dtype", "rounded"), [("amp", torch.bfloat16), ("amp-fp16", torch.float16)])
def test_a_forward_is_what_it_is_inside_autocast(dtype: str, rounded: torch.dtype) -> None:
    batch, plain, own = to_batch([moving_clip(0), moving_clip(1)], "cpu"), loaded("fp32"), loaded(dtype)
    assert {each.dtype for each in own.parameters()} == {torch.float32}
    with torch.inference_mode():
        found, exact = own(batch), plain(batch)
        with torch.autocast("cpu", rounded):
            expected = plain(batch)
    assert found.logits.dtype == rounded
    assert torch.equal(found.logits, expected.logits)
    assert not torch.equal(found.logits.float(), exact.logits)
    assert (found.macs, found.counts) == (exact.macs, exact.counts)
    assert not torch.is_autocast_enabled("cpu")


def test_each_forward_casts_each_weight_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once for many forwards, which would be timed too short, even in an autocast around them all."""
    monkeypatch.setattr("vpbench.backbones.layers._ROWS", 50)  # in float32 a block's MLP is used six times
    model, batch = loaded("amp"), to_batch([moving_clip(0), moving_clip(1)], "cpu")
    model.requires_grad_()  # or there would be no cache to be in the way
    for mode in (torch.inference_mode, torch.no_grad):
        with mode(), torch.autocast("cpu", torch.bfloat16):
            for _ in range(2):
                with Casts(model) as casts:
                    model(batch)
                linear = {name: n for name, n in casts.count.items() if name.endswith("weight") and "patch" not in name}
                assert len(linear) == 4 * TINY.depth + 1
                assert set(linear.values()) == {1}


@pytest.mark.parametrize(("device", "dtype"), [("meta", torch.bfloat16), ("cpu", torch.float64)])
def test_what_torch_would_run_without_autocast_is_refused(device: str, dtype: torch.dtype) -> None:
    with pytest.raises(UsageError, match=f"^--dtype amp cannot run on {device} .*; give another --dtype$"):
        loading._autocast(device, "amp", dtype)


def measured(out: Path, **given: Any) -> Any:
    asked = plan.options({"profile": "ci", "threads": 1, "limit": 2, "out": out} | given)
    shared, digests = resolve.resolve(asked)
    cells = plan.cells(asked, shared, digests)
    group.run(cells, digests({cell.method for cell in cells}), Store(out), "test", force=False)
    return latest(Store(out).read("results")).set_index(["dtype", "method"])


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Note of every forward whether autocast was on."""
    seen = list[bool]()
    for kind in (VideoMAE, ViTDet):
        own = kind.embed

        def embed(self: Any, *given: Any, own: Any = own) -> Any:
            seen.append(torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16)
            return own(self, *given)

        monkeypatch.setattr(kind, "embed", embed)
    return seen


def test_rows_name_it_and_all_their_forwards_are_inside_it(
    tmp_path: Path, forwards: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vpbench.methods.ats._CLIPS", 1)  # it is derived on forwards, which are to be inside it too
    monkeypatch.setattr("vpbench.methods.ats._STEPS", 2)
    monkeypatch.setattr(Recognition, "stage_rounds", 1)
    given = {"method": ("ats",), "keep": (0.5,), "split": "ci", "stages": True}
    measured(tmp_path, **given)
    assert not any(forwards)
    forwards.clear()
    rows = measured(tmp_path, dtype="amp", **given)
    assert len(forwards) > 20
    assert all(forwards)
    assert set(rows["status"]) == {"ok"}
    for method in ("dense", "ats"):
        single, amp = rows.loc[("fp32", method)], rows.loc[("amp", method)]
        assert single["config_id"] != amp["config_id"]
        assert single["prediction_id"] != amp["prediction_id"]
    dense = [rows.loc[(dtype, "dense"), "gmacs_executed"] for dtype in ("fp32", "amp")]
    assert dense[0] == dense[1]


def test_detectors_run_inside_it_too(tmp_path: Path, forwards: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    few_frames(monkeypatch, 4)
    given = {"dataset": "synthmotion_boxes", "backbone": "vitdet_embedded", "split": "ci", "size": 40}
    rows = measured(tmp_path, method=("rgtp",), keep=(0.5,), dtype="amp", **given | {"limit": 1})
    assert set(rows["status"]) == {"ok"}
    assert forwards
    assert all(forwards)


def test_defaults_follow_the_device() -> None:
    def settled(**given: Any) -> tuple[str, int]:
        asked = plan.options({"method": ("dense",), **given})
        shared = plan.setting(asked, 1)
        assert [each.batch for each in plan.groups(shared, asked, lambda _: 1)] == [shared.batch]
        return shared.dtype, shared.batch

    assert settled() == settled(device="cpu") == ("fp32", 1)
    assert settled(device="cuda") == settled(device="cuda:1") == ("amp", 8)
    assert settled(device="cuda", dtype="bf16", batch=1) == ("bf16", 1)
