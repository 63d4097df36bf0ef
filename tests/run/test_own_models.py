"""From videos of one's own and a model that transformers saved to a table: a folder, shards, a name on a hub."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import vpbench, vpbench_process
from hub_server import Hub, serving
from tiny_videos import write_video

from vpbench.rows.store import Store

transformers = pytest.importorskip("transformers")
pytest.importorskip("huggingface_hub")
pytestmark = pytest.mark.usefixtures("hasty", "unweighed")
RUN = ("run", "--dataset", "folder", "--root", "my_videos", "--protocol", "single", "--method", "rlt",
       "--profile", "ci", "--threads", "1", "--out", "out")  # fmt: skip
SIZES = {
    "image_size": 32, "patch_size": 8, "num_frames": 8, "hidden_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 3, "intermediate_size": 96, "id2label": {0: "put down", 1: "lift"},
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One tiny model of two classes, in whole and in shards; its first output is the class that is last by name."""
    top = tmp_path_factory.mktemp("models")
    made = transformers.VideoMAEForVideoClassification(transformers.VideoMAEConfig(**SIZES))
    made.save_pretrained(top / "whole")
    made.save_pretrained(top / "shards", max_shard_size="10KB")
    return {path.name: path for path in top.iterdir()}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Return a folder that holds twelve short videos in two class folders."""
    for label, name in enumerate(("lift", "put down")):
        for number in range(6):
            write_video(tmp_path / "my_videos" / name / f"{number}.mp4", seed=6 * label + number)
    return tmp_path


def shown(folder: Path, said: str) -> list[tuple[str, float]]:
    """Return top-1 by method; asserts that accuracy, operations and time of all were printed and stored."""
    found = Store(folder / "out").read("results").set_index("method").sort_index()
    assert list(found.index) == ["dense", "random", "rlt"]
    assert (found["n_videos"] == 12).all()
    assert found[["top1", "gmacs_executed", "wall_ms_p50"]].notna().all(axis=None)
    assert all(word in said for word in ("top-1", "GMACs", "ms/clip", "12 videos, 1 view each (single)"))
    return list(zip(found.index, found["top1"], strict=True))


def test_folders_and_shards_are_the_same_model(models: dict[str, Path], mine: Path) -> None:
    accuracy = []
    for form in ("whole", "shards"):
        done = vpbench(*RUN, "--weights", models[form], cwd=mine)
        assert done.returncode == 0, done.stderr
        accuracy.append(shown(mine, done.stdout))
        seen = Store(mine / "out").read("videos")
        labels = {name.split("/")[0]: label for name, label in zip(seen["video_id"], seen["label"], strict=True)}
        assert labels == {"lift": 1, "put down": 0}, "the order is the model's own"
        (mine / "out").rename(mine / form)
    assert accuracy[0] == accuracy[1]


def test_a_name_on_a_hub_and_then_without_it(
    models: dict[str, Path], mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(mine / "home"))
    with serving(Hub({("me/tiny", "main"): models["whole"]})) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        done = vpbench_process(*RUN, "--weights", "me/tiny", hasty=True, cwd=mine)
    assert done.returncode == 0, done.stderr
    accuracy = shown(mine, done.stdout)
    (mine / "out").rename(mine / "first")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    again = vpbench_process(*RUN, "--weights", "me/tiny", hasty=True, cwd=mine)
    assert again.returncode == 0, again.stderr
    assert shown(mine, again.stdout) == accuracy
