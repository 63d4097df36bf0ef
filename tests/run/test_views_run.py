"""Whole runs with several views per video: what is averaged, what is decoded how often, what a table says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import clip_folder, unwatched, vpbench, weightless

from vpbench import plan
from vpbench.data import Video, feed
from vpbench.data import video as data_video
from vpbench.data.protocols import catalog
from vpbench.rows.store import Store
from vpbench.run import group, resolve
from vpbench.tasks.recognition.session import Session, batch_for

VIEWS = ("--protocol", "videomae_5x3", "--profile", "ci", "--threads", "1")


def asked(out: Path, **given: Any) -> plan.Options:
    return plan.options({"profile": "ci", "threads": 1, "out": out, "limit": 2} | given)


def sweep(request: plan.Options, only: group.Only | None = None) -> Store:
    shared, digests = resolve.resolve(request)
    cells = plan.cells(request, shared, digests)
    store = Store(request.out)
    group.run(cells, digests({cell.method for cell in cells}), store, "test", False, only)
    return store


@pytest.fixture(scope="module", autouse=True)
def short_rounds(small: None) -> Iterator[None]:
    """What is timed here is not looked at, nor what memory it takes."""
    with pytest.MonkeyPatch.context() as patch:
        weightless(patch)
        unwatched(patch)
        patch.setitem(plan.PROFILES, "ci", plan.Profile(2, 0.0, 0.0, 0.0))
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two videos of 15 views each."""
    out = tmp_path_factory.mktemp("views")
    return sweep(asked(out, method=("rlt",), keep=(0.4,), protocol="videomae_5x3", e2e=True, batch=4))


def test_a_row_for_each_view_and_one_for_each_video(store: Store) -> None:
    results = store.read("results")
    assert set(results["method"]) == {"dense", "random", "rlt"}
    assert set(results["status"]) == {"ok"}
    for column, value in {
        "views": 15,
        "n_clips": 30,
        "n_videos": 2,
        "n_expected": 2,
        "protocol": "videomae_5x3",
    }.items():
        assert set(results[column]) == {value}, column
    clips, every = (store.predictions(table, results) for table in ("clips", "videos"))
    for config_id in results["config_id"]:
        assert (clips["config_id"] == config_id).sum() == 30
        videos = every[every["config_id"] == config_id]
        assert videos["views"].tolist() == [15] * 2
        assert (videos["decode_ms"] > 0).all()
        row = results[results["config_id"] == config_id].iloc[0]
        assert row["top1"] == pytest.approx(100 * videos["correct"].astype(float).mean())
        assert row["e2e_clips_per_s"] > 0
        assert 0 < row["device_wait_frac"] < 1
        assert row["decode_ms"] > 0
        assert row["preprocess_ms"] > 0
    samples = store.read("samples")
    assert set(samples["scope"]) == {"model", "e2e"}


def test_a_video_is_judged_by_the_mean_of_its_views(store: Store) -> None:
    """Against a plain loop: every view alone, softmax, mean."""
    request = asked(store.folder, method=("dense",), protocol="videomae_5x3")
    session = Session(resolve.resolve(request)[0])
    results = store.read("results")
    found = store.predictions("videos", results[results["method"] == "dense"]).set_index("video_id")
    for video in session.videos:
        clips = session.feed.loader.load(video).clips
        with torch.inference_mode():
            mean = sum(
                session.backbone(batch_for(session.backbone, [clip], "cpu")).logits[0].double().softmax(0)
                for clip in clips
            )
        assert found.loc[video.video_id, "pred"] == int(torch.as_tensor(mean).argmax())
        best = torch.as_tensor(mean).topk(5).indices.tolist()
        assert found["top5"].map(list)[video.video_id] == best


def test_ten_settings_decode_each_video_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    original = data_video.open_video

    def noting(video: Video, decoder: str) -> Any:
        opened.append(video.video_id)
        return original(video, decoder)

    monkeypatch.setattr(feed, "open_video", noting)
    keeps = (0.2, 0.4, 0.5, 0.7, 0.9)  # with as many random controls: two blocks of timing
    store = sweep(asked(tmp_path, method=("tdiff",), keep=keeps, limit=2, protocol="spread_2x3"))
    assert len(store.read("results")) == 11
    assert sorted(opened) == sorted(set(opened)), "timing walks through what quality has decoded"
    assert len(opened) == 2


def test_workers_and_cache_change_no_number(store: Store, tmp_path: Path) -> None:
    given = {"method": ("rlt",), "keep": (0.4,), "protocol": "videomae_5x3", "batch": 4}
    other = sweep(asked(tmp_path / "out", workers=2, cache=tmp_path / "cache", **given), "predict")
    again = sweep(asked(tmp_path / "again", cache=tmp_path / "cache", **given), "predict")
    names = ["prediction_id", "video_id", "pred", "correct", "kl", "agree"]
    tables = [each.read("videos")[names].sort_values(["video_id", "prediction_id"]) for each in (store, other, again)]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table.reset_index(drop=True), tables[0].reset_index(drop=True))
    for name in ("results", "videos"):
        assert again.read(name)["decode_ms"].isna().all(), "what comes from the cache takes no decoding"
    assert set(other.read("results")["config_id"]) == set(again.read("results")["config_id"])


def test_other_views_are_other_cells(tmp_path: Path) -> None:
    def ids(**given: Any) -> set[str]:
        request = asked(tmp_path, method=("rlt",), keep=(0.4,), **given)
        shared, digests = resolve.resolve(request)
        return {cell.config_id for cell in plan.cells(request, shared, digests)}

    base = ids()
    assert not base & ids(protocol="videomae_5x3")
    assert base == ids(workers=3, cache=tmp_path / "cache"), "these change no number"
    assert not ids(e2e=True) & ids(e2e=True, workers=3), "but they do where reading is timed"


def test_the_table_says_what_it_rests_on(tmp_path: Path) -> None:
    folder = clip_folder(tmp_path / "clips", good=3)
    next(iter(sorted(folder.glob("*.mp4")))).write_bytes(b"broken")
    command = (
        "run",
        "--method",
        "random",
        "--keep",
        "0.5",
        "--root",
        folder,
        *VIEWS,
        "--out",
        tmp_path / "out",
        "--e2e",
    )
    done = vpbench(*command)
    assert done.returncode == 1
    assert "2 videos, 15 views each (videomae_5x3); 1 of 3 could not be read" in done.stdout
    assert "one process decodes a clip in" in done.stdout
    assert "from files to answers, 0 workers" in done.stdout
    assert "incomplete" in done.stdout


def test_a_typo_in_a_protocol_is_named() -> None:
    done = vpbench("run", "--method", "rlt", "--protocol", "videomea_5x3")
    assert done.returncode == 2
    assert "did you mean 'videomae_5x3'" in done.stderr
    listed = vpbench("ls", "protocols")
    assert all(name in listed.stdout for name in catalog.names())


def test_detectors_have_no_views() -> None:
    done = vpbench("run", "--method", "rgtp", "--dataset", "synthmotion_boxes", "--backbone", "vitdet_embedded",
                   "--protocol", "single")  # fmt: skip
    assert done.returncode == 2
    assert "all frames are seen" in done.stderr


def test_floats_of_a_protocol_are_normalised_like_bytes(tmp_path: Path) -> None:
    """MViT's and ViViT's views are floats; where nothing is resized they hold whole numbers."""
    for backbone in ("mvit_embedded", "vivit_embedded", "videoswin_embedded", "videomae_embedded"):
        session = Session(resolve.resolve(asked(tmp_path, method=("dense",), backbone=backbone))[0])
        clip = session.feed.loader.load(session.videos[0]).clips[0]
        assert clip.pixels.dtype == np.uint8
        floats = [type(clip)(clip.clip_id, clip.video_id, 0, 0, clip.pixels.astype(np.float32))]
        with torch.inference_mode():
            one, other = (
                session.backbone(batch_for(session.backbone, clips, "cpu")).logits for clips in ([clip], floats)
            )
        assert torch.allclose(one, other, rtol=0, atol=1e-5), backbone


def test_fresh_processes_time_the_same_configurations(tmp_path: Path) -> None:
    store = sweep(asked(tmp_path, method=("rlt",), keep=(0.4,), limit=3, processes=2))
    samples = store.read("samples")
    assert set(samples["process"]) == {0, 1}
    assert samples.groupby(["config_id", "process"]).size().nunique() == 1
    results = store.read("results")
    assert set(results["n_process"]) == {2}
    assert set(results["status"]) == {"ok"}
    orders = samples.pivot_table(index=["config_id", "round"], columns="process", values="order")
    assert (orders[0] != orders[1]).any(), "each process shuffles anew"
