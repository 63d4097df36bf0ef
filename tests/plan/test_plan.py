from __future__ import annotations

import inspect
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT

from vpbench import plan
from vpbench.api import Method
from vpbench.errors import UsageError
from vpbench.plan import Digests, identity


def fixed(methods: Iterable[str], **other: str) -> Digests:
    code = other.pop("code", "code")
    given = {"weights": "w", "manifest": "m", "calibration": "c", "machine": "p"} | other
    return Digests(code=dict.fromkeys(methods, code), **given)


def planned(digests: Any = fixed, **given: Any) -> list[plan.Cell]:
    asked = plan.options(given)
    return plan.cells(asked, plan.setting(asked, threads=2), digests)


def test_dense_and_random_come_with_every_method() -> None:
    labels = [cell.label for cell in planned(method=("rlt",), keep=(0.4, 0.6))]
    assert labels == ["dense", "random keep=0.4", "random keep=0.6", "rlt keep=0.4", "rlt keep=0.6"]


def test_native_parameters_get_a_random_control_of_the_same_count() -> None:
    dense, sta, control = planned(method=("sta",), set=("sta.r=8",))
    assert (dense.label, sta.label) == ("dense", "sta r=8")
    assert control.method == "random"
    assert control.match == sta.config_id


def test_set_makes_a_grid_and_reaches_only_its_method() -> None:
    cells = planned(method=("rlt", "tdiff"), set=("rlt.threshold=0.1,0.2", "tdiff.keep=0.5", "tdiff.pair=ends,tubelet"))
    assert sum(c.method == "rlt" for c in cells) == 2
    assert sum(c.method == "tdiff" for c in cells) == 2


@pytest.mark.parametrize(
    ("method", "given", "name"), [("rlt", "threshold=.1", "threshold"), ("stts", "space=0:3,0:5", "space")]
)
def test_a_keep_ratio_beside_what_it_derives_is_a_mistake(method: str, given: str, name: str) -> None:
    said = f"keep derives {method}'s {name}; give --keep or --set {name}, not both"
    with pytest.raises(UsageError, match=f"^{said}$"):
        planned(method=("topk", method), keep=(0.4,), set=(f"{method}.{given}",))
    assert planned(method=(method,), set=(given.split(",")[0],))
    assert planned(method=("rgtp",), keep=(0.4,), set=("reset=4",)), "what keep leaves alone may be set beside it"


def test_ids_are_stable_unique_and_follow_what_changes_numbers() -> None:
    base = [c.config_id for c in planned(method=("rlt", "sta"), keep=(0.4, 0.6))]
    assert len(set(base)) == len(base)
    assert base == [c.config_id for c in planned(method=("rlt", "sta"), keep=(0.4, 0.6))]
    for change in ({"dtype": "bf16"}, {"batch": 2}, {"seed": 1}, {"threads": 1}, {"decoder": "decord"}):
        assert not set(base) & {c.config_id for c in planned(method=("rlt", "sta"), keep=(0.4, 0.6), **change)}
    for other in ({"weights": "x"}, {"manifest": "x"}, {"machine": "x"}, {"code": "x"}):
        found = planned(partial(fixed, **other), method=("rlt", "sta"), keep=(0.4, 0.6))
        assert not set(base) & {c.config_id for c in found}
    elsewhere = [c.config_id for c in planned(method=("rlt", "sta"), keep=(0.4, 0.6), out=Path("elsewhere"))]
    assert base == elsewhere


@pytest.mark.parametrize(
    ("change", "also_config"),
    [
        ({"batch": 8}, True),
        ({"profile": "ci"}, True),
        ({"threads": 1}, True),
        ({"processes": 3}, True),
        ({"stages": True}, True),
        ({"e2e": True}, True),
        ({"energy": True}, True),
        ({"root": Path("elsewhere")}, False),
        ({"workers": 3}, False),
        ({"cache": Path("cache")}, False),
        ({"limit": 5}, False),  # the digest of what is seen knows it
    ],
    ids=str,
)
def test_how_it_is_run_changes_no_prediction(change: dict[str, Any], also_config: bool) -> None:
    given = {"method": ("rlt", "tome"), "keep": (0.4,), "set": ("tome.form=drop",)}
    one, other = planned(**given), planned(**given, **change)
    assert [c.prediction_id for c in one] == [c.prediction_id for c in other]
    assert not also_config or not {c.config_id for c in one} & {c.config_id for c in other}
    assert also_config or [c.config_id for c in one] == [c.config_id for c in other]


def test_equal_devices_are_one_and_other_kinds_are_not() -> None:
    first, second, host = (planned(method=("rlt",), keep=(0.4,), device=d) for d in ("cuda:0", "cuda:1", "cpu"))
    assert [c.prediction_id for c in first] == [c.prediction_id for c in second]
    assert [c.config_id for c in first] == [c.config_id for c in second]
    assert not {c.prediction_id for c in first} & {c.prediction_id for c in host}


def test_another_model_of_machine_times_anew_and_predicts_nothing_anew() -> None:
    here, there = (planned(partial(fixed, machine=m), method=("sta",), set=("sta.r=8",)) for m in ("one", "other"))
    assert [c.prediction_id for c in here] == [c.prediction_id for c in there]
    assert not {c.config_id for c in here} & {c.config_id for c in there}


def test_only_what_is_derived_from_calibration_follows_it() -> None:
    def ids(digest: str, **given: Any) -> set[str]:
        return {c.prediction_id for c in planned(partial(fixed, calibration=digest), **given)}

    assert len(ids("a", method=("rlt",), keep=(0.4,)) & ids("b", method=("rlt",), keep=(0.4,))) == 2, "dense and random"
    given = {"method": ("rlt",), "set": ("rlt.threshold=0.1",)}
    assert ids("a", **given) == ids("b", **given)


def test_a_control_follows_what_it_copies() -> None:
    one, other = (planned(method=("sta",), set=(f"sta.r={r}",)) for r in (8, 16))
    assert one[2].copies == one[1].prediction_id
    assert one[2].prediction_id != other[2].prediction_id


def test_comments_docstrings_and_imports_are_no_code_and_constants_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digest of a method's file, written another way each time."""

    class Own(Method):
        def attach(self, backbone: Any) -> Any: ...

    def digest(text: str) -> str:
        (tmp_path / "own.py").write_text(text)
        return identity.code_digest("own")

    monkeypatch.setattr("vpbench.api.method.load_method", lambda name: Own)
    monkeypatch.setattr(inspect, "getfile", lambda kind: str(tmp_path / "own.py"))
    plain = digest("class Own:\n    x = 1\n\n    def f(self):\n        return 2\n")
    told = '"""What it is."""\nimport os\n\n\nclass Own:  # why\n    """It."""\n    x = 1\n\n    def f(self):\n'
    assert digest(told + '        """Two."""\n        return 2  # not 3\n') == plain
    assert digest("class Own:\n    x = 1\n\n    def f(self):\n        return 3\n") != plain
    assert digest("class Own:\n    x = 2\n\n    def f(self):\n        return 2\n") != plain


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"method": ("rtl",)}, "did you mean 'rlt'"),
        ({"method": ("rlt",), "dataset": "synthmotoin"}, "did you mean 'synthmotion'"),
        ({"method": ("rlt",), "backbone": "videomae_x"}, "did you mean 'videomae_"),
        ({"method": ("rlt",), "kepe": (0.4,)}, "unknown key 'kepe'; did you mean 'keep'"),
        ({"method": ("rlt",), "keep": (0.0,)}, "outside (0, 1]"),
        ({"method": ("rlt",), "keep": (1.5,)}, "outside (0, 1]"),
        ({"method": ("rlt",), "keep": (float("nan"),)}, "keep"),
        ({"method": ()}, "no method"),
        ({"method": ("rlt",), "dtype": "fp8"}, "dtype"),
        ({"method": ("rlt",), "batch": 0}, "batch"),
    ],
)
def test_mistakes_are_named(given: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan.options(given)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("threshold", "write name=value"),
        ("rlt.treshold=0.1", "did you mean 'threshold'"),
        ("rlt.threshold=high", "not a float"),
        ("rtl.threshold=0.1", "did you mean 'rlt'"),
    ],
)
def test_wrong_parameters_are_named(assignment: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        planned(method=("rlt",), set=(assignment,))
    assert says in str(caught.value)


def test_config_files(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('method = ["rlt"]\nkeep = [0.4]\n')
    assert plan.read_config(file) == {"method": ["rlt"], "keep": [0.4]}
    file.write_text("method = [")
    with pytest.raises(UsageError, match="not valid TOML"):
        plan.read_config(file)
    with pytest.raises(UsageError, match="No such file"):
        plan.read_config(tmp_path / "missing.toml")


def test_keep_derives_what_is_not_set() -> None:
    planned_cells = planned(method=("tome",), keep=(0.4, 0.6), set=("tome.form=merge,drop",))
    assert [c.label for c in planned_cells if c.method == "tome"] == [
        "tome form=merge keep=0.4",
        "tome form=merge keep=0.6",
        "tome form=drop keep=0.4",
        "tome form=drop keep=0.6",
    ]


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.toml")), ids=lambda p: p.stem)
def test_committed_configs_are_valid(path: Path) -> None:
    content = plan.read_config(path)
    presets = content.pop("presets", {})
    for options in [*presets.values(), *([content] if content else [])]:
        asked = plan.options({key: value for key, value in options.items() if key != "about"})
        assert len(plan.cells(asked, plan.setting(asked, 2), fixed)) >= 1 + (asked.method != ("dense",))


def budgeted(**given: Any) -> dict[int | None, list[plan.Cell]]:
    """Return the cells of a request by frames, of a network with 32 tokens a frame."""
    asked = plan.options({"method": ("rlt", "random"), **given})
    settings = plan.groups(plan.setting(asked, threads=2), asked, lambda _: 1)
    return {each.frames: plan.cells(asked, each, fixed, lambda own: 32 * (own.frames or 16)) for each in settings}


def test_a_budget_is_a_keep_ratio_at_each_length() -> None:
    found = budgeted(frames=(8, 16, 32), budget_tokens=(256, 512))
    assert {frames: [(c.method, c.keep) for c in cells] for frames, cells in found.items()} == {
        8: [("dense", None)],
        16: [("dense", None), ("random", 0.5), ("rlt", 0.5)],
        32: [("dense", None), *((method, keep) for method in ("random", "rlt") for keep in (0.25, 0.5))],
    }
    assert len({c.config_id for cells in found.values() for c in cells}) == 9


def test_one_length_may_stand_for_itself_and_the_backbones_is_meant_without_any() -> None:
    assert list(budgeted(frames=8, budget_tokens=128)) == [8]
    [(frames, cells)] = budgeted(budget_tokens=128).items()
    assert (frames, cells[-1].keep) == (None, 0.25)


def test_a_budget_beside_a_keep_ratio_or_what_it_derives_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="give --keep or --budget-tokens, not both"):
        plan.options({"method": ("rlt",), "keep": (0.5,), "budget_tokens": (128,)})
    with pytest.raises(UsageError, match="keep derives rlt's threshold"):
        budgeted(budget_tokens=(128,), set=("rlt.threshold=0.1",))
    with pytest.raises(UsageError, match="budget_tokens"):
        plan.options({"method": ("rlt",), "budget_tokens": (0,)})
    asked = plan.options({"method": ("rlt",), "budget_tokens": (128,)})
    with pytest.raises(UsageError, match="a budget of tokens is for runs and sweeps"):
        plan.cells(asked, plan.setting(asked, threads=2), fixed)
