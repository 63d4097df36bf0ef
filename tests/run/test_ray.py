"""`--executor ray` on three nodes of a local cluster gives the rows of one process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import vid_tree
from helpers import ROOT, SMALL, add_backbone
from likeness import alike

from vpbench import plan
from vpbench.rows.store import Store
from vpbench.run import resolve
from vpbench.run.executors.inline import Inline
from vpbench.run.executors.ray import Ray

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'vpbench[ray]'")
cluster_utils = pytest.importorskip("ray.cluster_utils", reason="Ray is not installed: pip install 'vpbench[ray]'")

#: tiny networks as plug-ins of a package, so that workers, which are other processes, know them
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
COMMON = {"threads": 1, "profile": "ci"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("package")
    (folder / "ray_entries.py").write_text(ENTRIES)
    told = folder / "ray_entries-1.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: ray-entries\nVersion: 1\n")
    (told / "entry_points.txt").write_text(POINTS)
    with pytest.MonkeyPatch.context() as patch:
        add_backbone(patch, "small", SMALL)
        add_backbone(patch, "vitdet_tiny", vid_tree.TINY)
        patch.setenv("PYTHONPATH", f"{folder}:{ROOT}")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")
        found = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        for _ in range(2):
            found.add_node(num_cpus=1)
        ray.init(address=found.address, log_to_driver=False)
        yield found
        ray.shutdown()
        found.shutdown()


def both(folder: Path, **given: Any) -> None:
    """Measure by Ray and in one process, and compare."""
    for name, executor in (("ray", Ray()), ("one", Inline())):
        job = resolve.job(plan.options(COMMON | given | {"out": folder / name}), "test command")
        outcome = executor(job, "predict")
        assert outcome.failed == 0
        assert outcome.measured == len(job.cells)
    alike(folder / "one", folder / "ray", exact=False)


def test_three_nodes_give_the_rows_of_one_process(cluster: Any, tmp_path: Path) -> None:
    tree, weights = vid_tree.build(tmp_path / "vid"), vid_tree.weights(tmp_path)
    boxes = {"backbone": "vitdet_tiny", "weights": str(weights), "dataset": "imagenet_vid", "root": tree}
    both(tmp_path / "boxes", **boxes, method=("rgtp",), keep=(0.4,))
    # native parameters: every method has a random control that copies its token counts
    clips = {"backbone": "small", "weights": "random", "method": ("rlt", "sta"), "set": ("sta.r=8",), "limit": 40}
    both(tmp_path / "clips", **clips)
    # by now the processes of all nodes are there
    workers = {part.split("-")[2] for part in Store(tmp_path / "clips" / "ray").parts("videos")}
    assert len(workers) > 1, "several nodes have worked"
