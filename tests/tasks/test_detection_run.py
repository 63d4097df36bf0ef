"""Video object detection by the command line, on a small tree of ImageNet VID and a tiny detector."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import vid_tree
from helpers import add_backbone, unwatched

from vpbench import plan
from vpbench.data.boxes import Frame
from vpbench.errors import UsageError
from vpbench.measure import memory, stages
from vpbench.methods.rgtp.vitdet import VideoPruner
from vpbench.methods.rgtp_random import RgtpRandom
from vpbench.render.figures import catalog
from vpbench.render.tables import cells as tables_cells
from vpbench.rows.store import Store, latest
from vpbench.run import group, resolve, work
from vpbench.tasks.detection import walk
from vpbench.tasks.detection.follow import Look
from vpbench.tasks.detection.session import DetectionSession

Run = Callable[..., group.Outcome]
KEEPS = (0.1, 0.4)
MEASURED = (
    "speedup", "wall_ms_p50", "transformer_ms_p50", "transformer_speedup", "gmacs_executed", "gmacs_transformer",
    "gmacs_rgtp", "mem_peak_rss_mb", "efficiency", "aa_ratio", "decode_ms",
)  # fmt: skip


def here(build: Callable[..., Callable[[], object]], *args: object, name: str) -> memory.PeakMemory:
    """Run the job of a process of its own in this one, which knows the tiny detector."""
    build(*args)()
    return memory.PeakMemory(1.0, 2.0, 3.0)


@pytest.fixture(scope="module")
def tiny() -> Iterator[None]:
    """A tiny detector in the catalog, and timing that takes no time."""
    with pytest.MonkeyPatch.context() as patch:
        add_backbone(patch, "vitdet_tiny", vid_tree.TINY)
        patch.setattr(memory, "measure_peak", here)
        unwatched(patch)
        patch.setattr(walk, "WINDOWS", 2)
        patch.setitem(plan.PROFILES, "ci", plan.Profile(2, 0.0, 0.0, 0.0))
        yield


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return vid_tree.build(tmp_path / "vid")


def run(tree: Path, out: Path, only: group.Only | None = None, **given: Any) -> group.Outcome:
    """Measure as `vpbench sweep` does."""
    asked = plan.options(
        {"method": ("rgtp",), "dataset": "imagenet_vid", "root": tree, "backbone": "vitdet_tiny", "weights": "random"}
        | {"profile": "ci", "threads": 1, "out": out, **given}
    )
    shared, digests = resolve.resolve(asked)
    cells = plan.cells(asked, shared, digests)
    return group.run(cells, digests({cell.method for cell in cells}), Store(out), "test", False, only)


def rows_of(out: Path) -> pd.DataFrame:
    return latest(Store(out).read("results"))


@pytest.mark.usefixtures("tiny")
def test_every_cell_has_a_row_with_all_measurements(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(tree, out, keep=KEEPS) == group.Outcome(5, 0, 0)
    rows = rows_of(out).set_index(["method", "keep_nominal"])
    assert set(rows["status"]) == {"ok"}
    assert set(rows["task"]) == {"detection"}
    assert (rows["n_clips"] == 23).all()
    for column in MEASURED:
        assert rows[column].notna().all(), column
    for column in ("map50", "map", "delta_pp", "vs_random_pp", "top1", "agree", "kl", "map_definition"):
        assert rows[column].isna().all(), column
    # segments of 10, 10 and 3 frames, a dense one every 8: 5 of 23; 6 of 64 tokens after the first of four blocks
    expected = (5 + 18 * (1 + 3 * 6 / 64) / 4) / 23
    assert rows.loc[("rgtp", 0.1), "keep_realised"] == pytest.approx(expected)
    assert rows.loc[("rgtp_random", 0.1), "keep_realised"] == pytest.approx(expected)
    gmacs = rows["gmacs_transformer"]
    assert gmacs.loc["rgtp"].sort_index().is_monotonic_increasing
    assert run(tree, out, keep=KEEPS) == group.Outcome(0, 5, 0)


def detections(out: Path) -> dict[Any, pd.DataFrame]:
    """What is on disk, by prediction and video."""
    found = Store(out).read("detections").drop(columns="run_id", errors="ignore")
    return {key: rows.reset_index(drop=True) for key, rows in found.groupby(["prediction_id", "video_id"])}


@pytest.fixture(scope="module")
def trained(tiny: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """A tree, what was measured on it with trained weights at two keep ratios, stages too, and the weights."""
    folder = tmp_path_factory.mktemp("trained")
    tree, weights = vid_tree.build(folder / "vid"), str(vid_tree.weights(folder))
    assert run(tree, folder / "out", weights=weights, keep=KEEPS, stages=True).failed == 0
    return tree, folder / "out", weights


def test_trained_weights_have_a_precision_and_batches_change_nothing(
    trained: tuple[Path, Path, str], tmp_path: Path
) -> None:
    tree, one, weights = trained
    three = tmp_path / "three"
    assert run(tree, three, weights=weights, batch=3, keep=KEEPS[1:]).failed == 0
    every = rows_of(one)
    rows = every[every["keep_nominal"].fillna(KEEPS[1]) == KEEPS[1]].set_index("method")
    for column in ("map50", "map", "map50_ci_lo", "map50_slow", "map_definition"):
        assert rows[column].notna().all(), column
    assert rows.loc["rgtp", ["delta_pp", "delta_ci_lo", "vs_random_pp", "vs_random_ci_hi"]].notna().all()
    assert rows["vs_random_pp"].isna().to_dict() == {"dense": True, "rgtp": False, "rgtp_random": True}
    alone, together = detections(one), detections(three)
    assert len(together) == 6
    assert {name for name, _ in together} == set(rows["prediction_id"])
    assert any(len(found) > 20 for found in together.values())
    for name, found in ((name, alone[name]) for name in together):
        for columns, size in ((["frame", "label"], 0), (["score"], 1), (["x1", "y1", "x2", "y2"], 64)):
            pd.testing.assert_frame_equal(found[columns], together[name][columns], atol=1e-5 * size, rtol=0)


def assert_stages_are_whole(rows: pd.DataFrame) -> None:
    parts = [f"stage_{name}_ms" for name in (*stages.STAGES, stages.REST)]
    dense, rgtp = (rows[rows["method"] == method].iloc[0] for method in ("dense", "rgtp"))
    for row in (dense, rgtp):
        assert sum(row[parts]) == pytest.approx(row["stage_total_ms"])
        assert row["stage_rest_ms"] < 0.3 * row["stage_total_ms"]
        assert row["stage_dense_ms"] == dense["stage_total_ms"]
    assert (rows[["stage_embed_ms", "stage_attention_ms", "stage_mlp_ms", "stage_head_ms"]] > 0).all(axis=None)
    assert (rgtp[["stage_scoring_ms", "stage_gather_ms", "stage_restore_ms"]] > 0).all()
    assert dense["stage_scoring_ms"] < 0.1 * rgtp["stage_scoring_ms"]


def test_tables_and_figures_show_precision(trained: tuple[Path, Path, str], tmp_path: Path) -> None:
    _, out, _ = trained
    text = tables_cells.report(rows_of(out), Store(out).predictions("clips", rows_of(out)))
    for word in ("mAP50", "slow / medium / fast", "ms/frame", "23 frames", "COCO AP@0.5", "vs random", "transformer"):
        assert word in text, word
    for word in ("top-1", "ms/clip", "clips"):
        assert word not in text, word
    rows = rows_of(out)

    def clips(config_id: str) -> pd.DataFrame:
        return Store(out).predictions("clips", rows[rows["config_id"] == config_id])

    files = catalog.draw(rows, clips, tmp_path, catalog.Request(formats=("svg",))).files
    assert [file.stem for file in files] == ["pareto", "speed_vs_flops", "keep", "stages", "tokens"]
    assert "ms per frame" in files[3].read_text()
    drawn = files[0].read_text()
    assert_stages_are_whole(rows_of(out))
    assert "mAP50, %" in drawn
    assert "GMACs per frame" in drawn


@pytest.mark.usefixtures("tiny")
def test_unreadable_frames_are_counted_and_begin_a_segment(tree: Path, tmp_path: Path) -> None:
    out, broken = tmp_path / "out", vid_tree.image_of(tree, "00007010", 24)
    whole = broken.read_bytes()
    broken.write_bytes(whole[:300])
    assert run(tree, out, set=("rgtp.keep_ratio=0.3",)).failed == 3
    rows = rows_of(out).set_index("method")
    assert set(rows["status"]) == {"incomplete"}
    assert (rows["n_failed"] == 1).all()
    [failure] = json.loads(str(rows.loc["rgtp", "failures"]))
    assert failure["video"] == "00007010/24"
    clips = Store(out).read("clips", only={str(rows.loc["rgtp", "prediction_id"])})
    frames = clips.set_index("clip_id")["tokens_layer"]
    dense = [name for name, tokens in frames.dropna().items() if tokens[-1] == 64]
    assert dense == ["00000000/0", "00000000/8", "00007010/20", "00007010/25", "00007010/40"]
    broken.write_bytes(whole)
    assert run(tree, out, set=("rgtp.keep_ratio=0.3",)) == group.Outcome(3, 0, 0)
    assert (rows_of(out)["n_clips"] == 23).all()


@pytest.mark.usefixtures("tiny")
def test_a_run_goes_on_where_it_was_stopped(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, whole, look = tmp_path / "out", tmp_path / "whole", DetectionSession.look

    def stopped(session: DetectionSession, frame: Frame) -> Look:
        if frame.video_id == "00007010":
            raise KeyboardInterrupt
        return look(session, frame)

    monkeypatch.setattr(work, "SETTLE_S", 0.0)
    monkeypatch.setattr(DetectionSession, "look", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(tree, out, "predict", set=("rgtp.keep_ratio=0.3",))
    survivors = {path: path.stat().st_mtime_ns for path in out.glob("*.parquet/*.parquet")}
    assert len(survivors) == 6
    monkeypatch.setattr(DetectionSession, "look", look)
    for folder in (out, whole):
        assert run(tree, folder, "predict", set=("rgtp.keep_ratio=0.3",)) == group.Outcome(3, 0, 0)
    assert {path: path.stat().st_mtime_ns for path in survivors} == survivors
    first, second = detections(out), detections(whole)
    assert len(first) == 6
    for name, found in first.items():
        pd.testing.assert_frame_equal(found, second[name])


@pytest.mark.usefixtures("tiny")
def test_what_cannot_run_is_a_row_with_the_reason(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(tree, out, method=("tome", "rgtp"), keep=(0.5,)).failed == 1
    rows = rows_of(out).set_index("method")
    assert rows["status"].to_dict() == {"dense": "ok", "tome": "refused", "rgtp": "ok", "rgtp_random": "ok"}
    assert "methods that do: dense, eventful, eventful_random, rgtp, rgtp_random" in str(rows.loc["tome", "error"])


@pytest.mark.usefixtures("tiny")
def test_a_method_that_raises_fails_alone(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def planted(*_: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(VideoPruner, "frame", planted)
    assert run(tree, tmp_path / "out", set=("rgtp.keep_ratio=0.3",)) == group.Outcome(2, 0, 1)
    rows = rows_of(tmp_path / "out").set_index("method")
    assert rows.loc["rgtp", "error"] == "ZeroDivisionError: planted"
    assert rows.loc["rgtp_random", "status"] == "ok"


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"backbone": "videomae_s"}, "use --backbone vitdet_"),
        ({"backbone": "videomae_s"}, "synthmotion"),
        ({"dataset": "synthmotion"}, "use --dataset imagenet_vid"),
        ({"dataset": "synthmotion"}, "videomae_embedded, "),
        ({"split": "test"}, "has no split 'test'"),
        ({"root": None}, "--root must name a folder"),
        ({"frames": 16}, "leave --frames out"),
        ({"decoder": "decord"}, "leave --decoder out"),
        ({"size": 60}, "multiple of 8"),
        ({"weights": "embedded"}, "no embedded weights"),
    ],
)
def test_mistakes_are_named_before_anything_runs(tree: Path, tmp_path: Path, given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        run(tree, tmp_path / "out", **given)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_random_tokens_depend_on_frame_and_seed_alone() -> None:
    method, embedded = RgtpRandom(keep_ratio=0.3, reset=4), torch.zeros(2, 64, 16)
    model = vid_tree.random_detector()

    def drawn(starts: list[tuple[str, int]], seed: int = 0) -> list[torch.Tensor | None]:
        pruner = replace(method, seed=seed).attach(model)
        pruner.restart(starts)
        return [pruner.frame(embedded[: len(starts)]) for _ in range(6)]

    both, one, later = drawn([("a", 0), ("b", 7)]), drawn([("b", 7)]), drawn([("b", 8)])
    assert [kept is None for kept in both] == [True, False, False, False, True, False]
    assert both[1] is not None
    assert one[1] is not None
    assert one[2] is not None
    assert later[1] is not None
    assert both[1].shape == (2, 19)
    assert torch.equal(both[1][1:], one[1])
    assert torch.equal(one[2], later[1])
    other = drawn([("b", 7)], seed=1)[1]
    assert other is not None
    assert not torch.equal(other, one[1])


@pytest.mark.parametrize(
    ("periods", "frames"), [((1,), 8), ((1, 8, 8), 8), ((1, 4), 8), ((1, 3), 9), ((1, 5, 8), 32), ((1, 8, 0), 32)]
)
def test_windows_hold_whole_periods(periods: tuple[int, ...], frames: int) -> None:
    assert walk.window_length(periods) == frames
