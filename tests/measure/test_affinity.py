"""Which processors a measurement is kept on."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from vpbench.measure import affinity


def machine(root: Path, *cores: str) -> Path:
    """Write the topology of a machine whose cores hold these processors, such as '0,4'."""
    for core in cores:
        for cpu in core.split(","):
            folder = root / f"cpu{cpu}" / "topology"
            folder.mkdir(parents=True)
            (folder / "thread_siblings_list").write_text(f"{core}\n")
    return root


def test_every_core_is_used_once_before_any_is_used_twice(tmp_path: Path) -> None:
    topology = machine(tmp_path, "0,4", "1,5", "2,6", "3,7")
    assert affinity.choose(range(8), 4, topology) == (0, 1, 2, 3)
    assert affinity.choose(range(8), 6, topology) == (0, 1, 2, 3, 4, 5)
    assert affinity.choose((4, 5, 0), 2, topology) == (0, 5)


def test_without_a_topology_every_processor_is_a_core(tmp_path: Path) -> None:
    assert affinity.choose((3, 1, 2), 2, tmp_path) == (1, 2)


@pytest.mark.skipif(sys.platform != "linux", reason="processors can be chosen on Linux only")
def test_all_threads_are_pinned_and_released() -> None:
    usable = os.sched_getaffinity(0)
    if len(usable) < 2:
        pytest.skip("this process may use one processor only")
    with affinity.pinned(1) as chosen:
        assert len(chosen) == 1
        assert all(os.sched_getaffinity(int(task.name)) == set(chosen) for task in affinity.TASKS.iterdir())
    assert os.sched_getaffinity(0) == usable


def test_nothing_is_pinned_where_all_processors_are_asked_for_or_a_gpu() -> None:
    with affinity.pinned(10_000) as chosen:
        assert chosen == ()
    with affinity.pinned(1, "cuda") as chosen:
        assert chosen == ()
