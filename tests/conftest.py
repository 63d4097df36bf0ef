"""Shared fixtures: a tiny backbone, and a clean place for results."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator

import pytest
import torch

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run in two processes side by side,
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # and threads that wait leave the cores to the other
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # processes that compile would each load torch first
os.environ.pop("COLUMNS", None)  # tables are whole where nothing says how wide they may be

from helpers import HASTE, smaller, unwatched, weightless

from vpbench import plan
from vpbench.api import Clip
from vpbench.backbones import videomae
from vpbench.backbones.videomae import VideoMAEConfig
from vpbench.backbones.videomae.network import VideoMAE
from vpbench.commands.contract import clips

TINY = videomae.TINY
#: fixtures of several files
pytest_plugins = ("sharded",)


#: the longest files of tests, by the seconds that they took: they begin first, or one process would wait for the other
LONG = (
    "test_commands_shown.py",
    "test_shards_faults.py",
    "test_several_processes.py",
    "test_shards.py",
    "test_object_store.py",
    "test_processes.py",
    "test_packaging.py",
    "test_runner.py",
    "test_check_command.py",
    "test_count_cells.py",
    "test_detection_execution.py",
    "test_check_faults.py",
    "test_compiled_parts.py",
    "test_detection_run.py",
    "test_launches.py",
    "test_own_data.py",
    "test_views_run.py",
    "test_figure_catalog.py",
    "test_published_table.py",
    "test_count_stts.py",
    "test_resize.py",
    "test_count.py",
    "test_phases.py",
    "test_changed_files.py",
    "test_readme.py",
    "test_batches_run.py",
    "test_stts_training.py",
    "test_golden_numbers.py",
    "test_pareto_figure.py",
    "test_cli.py",
    "test_contexts.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first, in the order of `LONG`."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how long each folder of tests took, the longest first."""
    took: dict[str, float] = defaultdict(float)
    for report in (each for reports in terminalreporter.stats.values() for each in reports):
        if isinstance(report, pytest.TestReport):
            took[report.nodeid.partition("::")[0].rpartition("/")[0]] += report.duration
    terminalreporter.section("seconds of each group of tests")
    longest_first = sorted(took.items(), key=lambda each: -each[1])
    for group, seconds in [*longest_first, ("together", sum(took.values()))]:
        terminalreporter.write_line(f"{seconds:8.1f}  {group}")


@pytest.fixture(scope="module")
def hasty() -> Iterator[None]:
    """Make timing take next to no time, where times are not looked at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(plan.PROFILES, "ci", HASTE)
        unwatched(patch)
        yield


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let `videomae_embedded` be a small network with random weights, where its numbers are not looked at."""
    with pytest.MonkeyPatch.context() as patch:
        smaller(patch, tmp_path_factory.mktemp("small") / "videomae_embedded.safetensors")
        yield


@pytest.fixture
def unweighed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure no memory, which takes a process for each cell."""
    weightless(monkeypatch)


@pytest.fixture
def tiny() -> VideoMAE:
    """A backbone of 128 tokens with random weights large enough to make tokens matter."""
    torch.manual_seed(0)
    model = VideoMAE(TINY).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def moving_clip(number: int, config: VideoMAEConfig = TINY) -> Clip:
    """A clip with a still background, a moving square and noise that differs from clip to clip."""
    return clips.moving_clip(number, config)
