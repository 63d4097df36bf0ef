"""`--executor ray` on three nodes of a local cluster: the rows of one process; a node is lost, a driver comes back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import vid_tree
from helpers import ROOT
from likeness import alike

from vpbench.rows.store import Store

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'vpbench[ray]'")
cluster_utils = pytest.importorskip("ray.cluster_utils")

#: tiny networks as plug-ins of a package, so that workers of other processes know them
ENTRIES = f"""
import sys
sys.path.append({str(ROOT / "tests")!r})
from dataclasses import replace
from helpers import SMALL, like
from vpbench.backbones import vitdet
SMALL_CLASSIFIER = replace(like(SMALL), summary="for tests", sizes=SMALL, weights=None)
TINY_DETECTOR = replace(like(vitdet.TINY), summary="for tests", sizes=vitdet.TINY, weights=None)
"""
POINTS = "[vpbench.backbones]\nsmall = ray_entries:SMALL_CLASSIFIER\nvitdet_tiny = ray_entries:TINY_DETECTOR\n"
COMMON = ("--threads", "1", "--profile", "ci", "--only", "predict")
#: native parameters: every method has a random control that copies its token counts
CLIPS = ("sweep", "--backbone", "small", "--method", "rlt,sta", "--set", "sta.r=8", "--weights", "random", *COMMON)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    (folder / "ray_entries.py").write_text(ENTRIES)
    (folder / "ray_entries-1.dist-info").mkdir()
    (folder / "ray_entries-1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: ray-entries\nVersion: 1\n"
    )
    (folder / "ray_entries-1.dist-info" / "entry_points.txt").write_text(POINTS)
    return folder


@pytest.fixture(scope="module")
def environment(package: Path) -> dict[str, str]:
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0", "OMP_NUM_THREADS": "1"}
    return os.environ | quiet | {"PYTHONPATH": f"{package}:{ROOT}"}


@pytest.fixture(scope="module")
def cluster(environment: dict[str, str]) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        found = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        for _ in range(2):
            found.add_node(num_cpus=1)
        found.wait_for_nodes()
        yield found
        found.shutdown()


def begun(environment: dict[str, str], cluster: Any, *arguments: str | Path) -> subprocess.Popen[str]:
    there = {} if cluster is None else {"RAY_ADDRESS": cluster.address}
    command = [sys.executable, "-m", "vpbench", *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment | there, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def done(process: subprocess.Popen[str]) -> None:
    said = process.communicate(timeout=250)[0]
    assert process.returncode == 0, said


def test_three_nodes_give_the_rows_of_one_process(environment: dict[str, str], cluster: Any, tmp_path: Path) -> None:
    tree, weights = vid_tree.build(tmp_path / "vid"), vid_tree.weights(tmp_path)
    boxes = ("sweep", "--backbone", "vitdet_tiny", "--method", "rgtp", "--keep", "0.4", "--dataset", "imagenet_vid")
    where = ("--root", str(tree), "--weights", str(weights), *COMMON)
    for name, command in (("clips", (*CLIPS, "--limit", "24")), ("boxes", (*boxes, *where))):
        done(begun(environment, None, *command, "--out", tmp_path / name / "one"))
        done(begun(environment, cluster, *command, "--executor", "ray", "--out", tmp_path / name / "ray"))
        alike(tmp_path / name / "one", tmp_path / name / "ray", exact=False)
    workers = {part.split("-")[2] for part in Store(tmp_path / "clips" / "ray").parts("videos")}
    assert len(workers) > 1, "several nodes have worked"


def test_a_node_and_a_driver_are_lost_and_no_row_is(environment: dict[str, str], cluster: Any, tmp_path: Path) -> None:
    command = (*CLIPS, "--limit", "100", "--out", tmp_path / "ray")
    driver = begun(environment, cluster, *command, "--executor", "ray")
    parts(tmp_path / "ray", 4)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    before = parts(tmp_path / "ray", 0)
    assert before < 500, "it was killed before its end"
    driver = begun(environment, cluster, *command, "--executor", "ray")
    parts(tmp_path / "ray", before + 100)
    victim = cluster.add_node(num_cpus=1)
    others = [node for node in cluster.worker_nodes if node is not victim]
    cluster.remove_node(others[0], allow_graceful=False)
    done(driver)
    store = Store(tmp_path / "ray")
    rows = store.read("videos")
    assert len(rows) == 500
    assert not rows.duplicated(["prediction_id", "video_id"]).any()
    assert set(store.read("results")["status"]) == {"ok"}
    assert not store.problems


def parts(folder: Path, count: int) -> int:
    """Wait until so many rows are there; returns how many are."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        rows = len(Store(folder, writable=False).read("videos", columns=("video_id",))) if folder.is_dir() else 0
        if rows >= count:
            return rows
        time.sleep(0.1)
    raise AssertionError(f"not even {count} rows")
