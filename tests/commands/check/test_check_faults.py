"""Planted faults that the gate must catch, each in a method or backbone that was sound when the baseline was made."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from vpbench.api import ClipBatch, Method, Selection, Tokens
from vpbench.api.method import load_method
from vpbench.backbones.videomae.network import VideoMAE
from vpbench.commands.check import against, gate, speed, units
from vpbench.commands.check.baseline import COMMITTED, Baseline
from vpbench.commands.check.cells import Cells
from vpbench.commands.check.gate import Request, Verdict
from vpbench.commands.check.update import update
from vpbench.datasets.synthmotion import SynthMotion
from vpbench.errors import NothingMeasured, UsageError, VpbenchError
from vpbench.measure import clock
from vpbench.measure.rounds import MODEL
from vpbench.methods import rlt, sta, stts, tdiff
from vpbench.methods.rgtp.vitdet import VideoPruner
from vpbench.tasks import attach
from vpbench.tasks.task import Attached

BACKBONE = "videomae_embedded"
METHODS = ("dense", "rlt", "sta", "tdiff")
SIZES: dict[str, dict[str, Any]] = {"recognition": {"pool": 3, "wanted": 2}, "detection": {"pool": 2, "wanted": 1}}
ASKED = Request(METHODS, (BACKBONE,), timing=False)


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Fewer clips than the gate has, and no trace of its one thread."""
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        for task, numbers in SIZES.items():
            patch.setitem(units.SIZES, task, units.SIZES[task]._replace(**numbers))
        patch.setattr(units, "FRAMES", 5)
        patch.setattr(speed, "BASELINE_ROUNDS", 20)
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def sound() -> Baseline:
    return update(Baseline(), ASKED)[0]


def check(baseline: Baseline, asked: Request = ASKED) -> dict[str, Verdict]:
    return {verdict.key.partition("/")[2]: verdict for verdict in gate.check(baseline, asked)}


def only(verdicts: dict[str, Verdict], method: str) -> str:
    """Return what a method failed with, and see that no other did."""
    assert {name for name, verdict in verdicts.items() if verdict.state == "FAIL"} == {method}
    assert verdicts[method].hint
    return "\n".join(f"{d.kind}: {d.text}" for d in verdicts[method].differences)


def test_an_unchanged_tree_passes_and_an_update_changes_nothing(sound: Baseline) -> None:
    verdicts = check(sound)
    assert {name: verdict.state for name, verdict in verdicts.items()} == dict.fromkeys(METHODS, "ok")
    assert {len(cell.clips) for cell in sound.cells.values()} == {2}
    assert update(sound, ASKED) == (sound, [])


def test_one_swapped_token(sound: Baseline, monkeypatch: pytest.MonkeyPatch) -> None:
    def swapped(self: Any, batch: ClipBatch, honest: Callable[..., Selection] = tdiff._Pruner.video) -> Selection:
        kept = honest(self, batch)
        absent = [n for n in range(self.backbone.grid.tokens) if n not in kept.index.tolist()]
        index = torch.cat([kept.index[: len(kept.index) - len(absent[:1])], kept.index.new_tensor(absent[:1])])
        return dataclasses.replace(kept, index=index.sort().values)

    monkeypatch.setattr(tdiff._Pruner, "video", swapped)
    text = only(check(sound), "tdiff")
    assert "sets: clip test0000_move_e, site video: expected token " in text
    assert "tokens:" not in text
    assert "macs:" not in text


def test_a_threshold_applied_one_per_cent_off(sound: Baseline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no parameter says so: the sets do."""

    def video(self: Any, batch: ClipBatch, honest: Callable[..., Selection] = rlt._Pruner.video) -> Selection:
        self.threshold *= 1.01
        try:
            return honest(self, batch)
        finally:
            self.threshold /= 1.01

    monkeypatch.setattr(rlt._Pruner, "video", video)
    assert "tokens: clip" in only(check(sound), "rlt")


def test_one_per_cent_more_macs(sound: Baseline, monkeypatch: pytest.MonkeyPatch) -> None:
    total = next(iter(sound.cells[f"{BACKBONE}/sta"].clips.values())).macs
    honest = sta._Pruner.macs
    monkeypatch.setattr(sta._Pruner, "macs", lambda self, attention: honest(self, attention) + total // 100)
    text = only(check(sound), "sta")
    assert "(+1.00 %)" in text
    assert {line.partition(":")[0] for line in text.splitlines()} == {"macs"}


@pytest.mark.parametrize("alone", [False, True])
def test_logits_off_by_a_thousandth(sound: Baseline, monkeypatch: pytest.MonkeyPatch, alone: bool) -> None:
    """All of them, or one by as much as a thousandth of the largest; dense is named as the place to look."""

    def classify(self: Any, tokens: Tokens, *rest: Any, honest: Any = VideoMAE.classify) -> torch.Tensor:
        logits: torch.Tensor = honest(self, tokens, *rest)
        if not alone:
            return logits * 1.001
        logits[:, 3] += 1e-3 * logits.abs().amax()
        return logits

    monkeypatch.setattr(VideoMAE, "classify", classify)
    verdicts = check(sound)
    assert {verdict.state for verdict in verdicts.values()} == {"FAIL"}
    assert {d.kind for verdict in verdicts.values() for d in verdict.differences} <= {"logits", "fidelity"}
    assert "dense on videomae_embedded changed too" in verdicts["sta"].hint


def test_keeping_everything_that_is_not_dense(sound: Baseline, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = rlt.Rlt.at_keep
    monkeypatch.setattr(rlt.Rlt, "at_keep", lambda self, keep, *rest: honest(self, 0.99 if keep == 1 else keep, *rest))
    assert only(check(sound), "rlt").startswith("keep-all: keeping everything: off dense by")


def test_a_changed_clip_list_is_all_that_is_said(sound: Baseline, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = SynthMotion.videos
    monkeypatch.setattr(SynthMotion, "videos", lambda self, split: honest(self, split)[1:])
    verdicts = check(sound)
    assert {verdict.state for verdict in verdicts.values()} == {"FAIL"}
    assert [d.text.partition(":")[0] for d in verdicts["rlt"].differences] == ["other clips than in the baseline"]
    with pytest.raises(UsageError, match="leave --method out"):
        update(sound, ASKED)


def test_a_changed_clip_of_the_same_name(sound: Baseline, monkeypatch: pytest.MonkeyPatch) -> None:
    def videos(self: SynthMotion, split: str, honest: Any = SynthMotion.videos) -> Any:
        first, second, *rest = honest(self, split)
        return [first, dataclasses.replace(second, path=first.path), *rest]

    monkeypatch.setattr(SynthMotion, "videos", videos)
    assert "other clips" in check(sound)["dense"].differences[0].text


def test_a_method_that_fails_or_refuses_is_named_and_the_others_are_compared(
    sound: Baseline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Any, batch: ClipBatch) -> Selection:
        raise ZeroDivisionError("no token")

    monkeypatch.setattr(tdiff._Pruner, "video", broken)
    monkeypatch.setattr(sta.Sta, "supports", lambda self, backbone: "it is Sunday")
    verdicts = check(sound)
    assert {name: verdict.state for name, verdict in verdicts.items()} == {
        "dense": "ok", "rlt": "ok", "sta": "FAIL", "tdiff": "FAIL",
    }  # fmt: skip
    assert "ZeroDivisionError: no token" in verdicts["tdiff"].differences[0].text
    assert "it is Sunday" in verdicts["sta"].differences[0].text


def test_a_new_cell_is_named_and_held_to_dense(sound: Baseline, monkeypatch: pytest.MonkeyPatch) -> None:
    less = dataclasses.replace(sound, cells={key: c for key, c in sound.cells.items() if not key.endswith("/rlt")})
    assert check(less)["rlt"].state == "new"
    honest = rlt.Rlt.at_keep
    monkeypatch.setattr(rlt.Rlt, "at_keep", lambda self, keep, *rest: honest(self, 0.99 if keep == 1 else keep, *rest))
    assert only(check(less), "rlt").startswith("keep-all")


def test_defaults_that_keep_everything_are_checked_at_a_half(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = load_method

    @dataclasses.dataclass(frozen=True)
    class Idle(tdiff.Tdiff):
        keep: float = 1.0

    def load(name: str) -> type[Method]:
        return Idle if name == "tdiff" else honest(name)

    monkeypatch.setattr(attach, "load_method", load)
    made, changes = update(Baseline(), Request(("tdiff",), (BACKBONE,), timing=False))
    [cell] = made.cells.values()
    assert (cell.keep, cell.params["keep"]) == (0.5, 0.5)
    assert changes == [f"added    {BACKBONE}/tdiff"]
    assert gate.check(made, Request(("tdiff",), (BACKBONE,), timing=False))[0].state == "ok"


def test_nothing_in_common_is_nothing_compared(sound: Baseline) -> None:
    with pytest.raises(NothingMeasured, match="it has dense, rlt, sta, tdiff"):
        check(sound, Request(("tome",), (), timing=False))
    with pytest.raises(NothingMeasured, match="it has none"):
        check(Baseline())


@pytest.mark.parametrize(
    ("asked", "text"),
    [(Request(("rtl",)), "did you mean 'rlt'"), (Request((), ("mvit_embeded",)), "did you mean 'mvit_embedded'")],
)
def test_unknown_names_are_answered_with_near_ones(sound: Baseline, asked: Request, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        update(sound, asked)
    everything = dataclasses.replace(sound, cells={"mvit_embeded/rtl": next(iter(sound.cells.values()))})
    with pytest.raises(UsageError, match=text):
        check(everything, asked)


def test_an_update_says_what_changed_and_leaves_the_rest(sound: Baseline, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = sta._Pruner.macs
    monkeypatch.setattr(sta._Pruner, "macs", lambda self, attention: honest(self, attention) + 1)
    monkeypatch.setattr(tdiff.Tdiff, "supports", lambda self, backbone: "it is Sunday")
    made, changes = update(sound, ASKED)
    assert [line.split(":")[0] for line in changes] == [f"changed  {BACKBONE}/sta", f"removed  {BACKBONE}/tdiff"]
    assert "MACs" in changes[0]
    assert made.cells[f"{BACKBONE}/rlt"] is sound.cells[f"{BACKBONE}/rlt"]


def test_clips_that_are_nearly_ties_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two clips in which a bit of noise decides; with three of them there are too few clips left."""
    monkeypatch.setitem(units.SIZES, "recognition", units.SIZES["recognition"]._replace(pool=5, wanted=3))
    unsteady = 2

    def after_block(self: Any, layer: int, tokens: Tokens) -> Tokens:
        if layer or self.number >= unsteady:
            return tokens
        noisy = int((tokens.x[0].double().sum() * 1e9).long() % 500)
        return tokens.take(torch.tensor([n for n in range(512) if n != noisy]), (511,))

    def video(self: Any, batch: ClipBatch, honest: Any = tdiff._Pruner.video) -> None:
        self.number = int(batch.ids[0][4:8])

    monkeypatch.setattr(tdiff._Pruner, "after_block", after_block)
    monkeypatch.setattr(tdiff._Pruner, "video", video)
    asked = Request(("tdiff",), (BACKBONE,), timing=False)
    [cell] = update(Baseline(), asked)[0].cells.values()
    assert [name[:8] for name in cell.clips] == [f"test{n:04}" for n in range(2, 5)]
    unsteady = 3
    with pytest.raises(VpbenchError, match="only 2 of 5 clips are steady"):
        update(Baseline(), asked)


@pytest.mark.parametrize("backbone", ["mvit_embedded", "videoswin_embedded"])
def test_another_slice_on_a_grid(backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Request(("stts",), (backbone,), timing=False)
    made = update(Baseline(), asked)[0]
    assert check(made, asked)["stts"].state == "ok"
    honest = stts.best

    def swapped(scores: torch.Tensor, count: int) -> torch.Tensor:
        return torch.cat([honest(scores, count)[:, :-1], honest(scores, count + 1)[:, -1:]], dim=1)

    monkeypatch.setattr(stts, "best", swapped)
    assert "site time.0.indices: expected" in only(check(made, asked), "stts")


def test_another_token_in_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Request(("rgtp",), ("vitdet_embedded",), timing=False)
    made = update(Baseline(), asked)[0]
    assert check(made, asked)["rgtp"].state == "ok"
    honest = VideoPruner.frame

    def swapped(self: Any, embedded: torch.Tensor) -> torch.Tensor | None:
        kept = honest(self, embedded)
        if kept is not None and self.number == 3:
            absent = [n for n in range(embedded.shape[1]) if n not in kept[0].tolist()]
            kept[0, -1] = absent[0] if absent else kept[0, -1]
        return kept

    monkeypatch.setattr(VideoPruner, "frame", swapped)
    text = only(check(made, asked), "rgtp").splitlines()
    assert text[0].startswith("sets: clip test0000_move_e/3, site frame: expected token")


@pytest.mark.parametrize(("backbone", "task"), [("vivit_embedded", "recognition"), ("vitdet_embedded", "detection")])
def test_embedded_backbones_are_run_by_their_task(backbone: str, task: str) -> None:
    assert Cells(backbone).task.name == task


def test_a_slowdown_of_thirty_per_cent(sound: Baseline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Timed beside dense, twice where it looks slower; the same method as fast as before passes."""
    took = {"dense": 20_000_000, "tdiff": 8_000_000}
    clock_now = SlowlyTicking(took)
    monkeypatch.setattr(clock, "time", clock_now)
    monkeypatch.setattr(Cells, "walk", lambda self, cell: SimpleNamespace(scopes={MODEL: clock_now.work(cell)}))
    asked = Request(("dense", "tdiff"), (BACKBONE,), timing=True)
    timed = update(sound, asked)[0]
    assert check(timed, asked)["tdiff"].state == "ok"
    took["tdiff"] = round(1.3 * took["tdiff"])
    assert only(check(timed, asked), "tdiff").startswith("time: time over dense: expected 0.39")
    alone = gate.check(timed, dataclasses.replace(asked, results=False))
    assert [(v.key, v.state, v.measured) for v in alone] == [(f"{BACKBONE}/tdiff", "FAIL", None)]
    with pytest.raises(NothingMeasured, match="times, with --update"):
        gate.check(sound, dataclasses.replace(asked, results=False))


def test_times_of_another_machine_are_not_compared(sound: Baseline, capsys: pytest.CaptureFixture[str]) -> None:
    cells = {key: dataclasses.replace(cell, time=1e-3) for key, cell in sound.cells.items()}  # all would be slower
    elsewhere = Baseline({**speed.versions(), "machine": "another"}, sound.inputs, cells)
    found = check(elsewhere, Request(("dense", "tdiff"), (BACKBONE,)))
    assert {verdict.state for verdict in found.values()} == {"ok"}
    assert "times are of another machine, and are not compared" in capsys.readouterr().err
    fresh = update(elsewhere, Request(("dense",), (BACKBONE,), timing=False))[0]
    assert all(cell.time is None for cell in fresh.cells.values())  # nor do they pass for this one's later


def test_another_commit_is_timed_in_turns(monkeypatch: pytest.MonkeyPatch, sound: Baseline) -> None:
    """A method that takes 30 % longer here than there is found, one that takes 10 % longer is not; by cell."""
    asked_of: list[tuple[str, str]] = []
    took = {"this tree": {"tdiff": 1.3, "rlt": 1.1}, "base": {}}

    class Answering:
        def __init__(self, folder: Path, name: str) -> None:
            self.name = name

        def ask(self, **asked: Any) -> Any:
            if "cells" in asked:
                return [each for each in asked["cells"] if not (self.name == "base" and each.endswith("/sta"))]
            asked_of.append((self.name, asked["run"]))
            share = took[self.name].get(asked["run"].rpartition("/")[2], 1.0)
            return round(1e7 * share * (1 + len(asked_of) % 7 * 1e-3))

        def close(self) -> None:
            pass

    monkeypatch.setattr(against, "Tree", Answering)
    request = Request(METHODS, (BACKBONE,), turns=against.Turns(Path("other"), "base"))
    found = check(sound, request)
    assert {key for key, verdict in found.items() if verdict.state != "ok"} == {"tdiff"}
    assert "time over that at base: expected 1.000, found 1.3" in found["tdiff"].differences[0].text
    assert found["sta"].note == "base has no such cell, so its time is not compared"
    # in turns: of two calls in a row one is each tree's, of the same cell
    pairs = list(zip(asked_of[::2], asked_of[1::2], strict=True))
    assert all(one[1] == other[1] and one[0] != other[0] for one, other in pairs)


class SlowlyTicking:
    """A clock that only work moves on, by what each method takes and up to 1 % more or less."""

    def __init__(self, took: dict[str, int]) -> None:
        self.took, self.now, self.draw = took, 0, np.random.default_rng(0)

    def perf_counter_ns(self) -> int:
        return self.now

    def perf_counter(self) -> float:
        return self.now / 1e9

    def work(self, cell: Attached) -> Callable[[int], object]:
        def run(number: int) -> None:
            self.now += round(self.took[cell.cell.method] * self.draw.uniform(0.99, 1.01))

        return run


def test_the_committed_file_lies_in_the_package() -> None:
    assert COMMITTED.stat().st_size < 1_000_000
    assert COMMITTED.parent == Path(gate.__file__).parent
