"""`benchmarks/gpu.py`: what it would measure, and that it stops in time and goes on where it was."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT

from vpbench import plan, registry
from vpbench.commands import options


@pytest.fixture(scope="module")
def gpu() -> Any:
    spec = importlib.util.spec_from_file_location("gpu_benchmark", ROOT / "benchmarks/gpu.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def given(gpu: Any, **changes: Any) -> argparse.Namespace:
    shared = {"backbones": None, "methods": None, "dtypes": gpu.DTYPES, "batches": None, "modes": None}
    return argparse.Namespace(**shared | changes)


def asked(step: Any) -> Any:
    """Return the request of a step, as the command line would read it."""
    words = step.command[3:]
    assert step.command[:3] == ("-m", "vpbench", "sweep")
    pairs = {name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=True)}
    return options.request(None, None, pairs)


def test_every_method_is_measured_at_every_setting(gpu: Any, tmp_path: Path) -> None:
    requests = [asked(step) for step in gpu.grid(gpu.ON_GPU, given(gpu), tmp_path)]
    settings = {(each.backbone, each.dtype, each.mode[0]) for each in requests}
    assert len(settings) == len(requests) == 3 * (2 * 5 + 1)
    assert {each.backbone for each in requests} == set(gpu.FULL)
    for each in requests:
        assert each.batch == (1, 8, 32)
        assert (each.device, each.weights, each.keep) == ("cuda", "random", (0.5,))
        planned = {cell.method for cell in plan.cells(each, plan.setting(each, 1))}
        flow = registry.backbone(each.backbone).flow
        assert planned >= set(gpu.methods_of(flow)) | {"dense"}
    assert {each.dtype for each in requests[:6]} == {"amp"}, "what is worth most comes first"


def test_all_methods_belong_to_a_flow(gpu: Any) -> None:
    known = {name for flow in gpu.MODES for name in gpu.methods_of(flow)}
    left = set(registry.names("methods")) - known
    assert left == {"dense", "random", "eventful_random", "rgtp_random", "stts_random", "stts_uniform"}, (
        "these come along"
    )


def test_a_step_that_is_stopped_goes_on_and_one_that_ended_is_not_repeated(gpu: Any, tmp_path: Path) -> None:
    def steps(seconds: float) -> list[Any]:
        # what is started in the background of a shell ignores being asked to stop, and so would its own
        code = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_DFL); "
        code += f"open(r'{tmp_path}/ran', 'a').write('x'); time.sleep({seconds})"
        return [gpu.Step("quick", ("-c", "print('found')"), 60, kept=True), gpu.Step("long", ("-c", code), 5.0)]

    progress = gpu.Progress(tmp_path / "steps.json")
    gpu.work_through(steps(60), progress, time.monotonic() + 120, tmp_path, tmp_path / "out")
    assert [key for key in progress.ended if "found" in key] == list(progress.ended)
    assert (tmp_path / "out" / "quick.txt").read_text() == "found\n"
    again = gpu.Progress(tmp_path / "steps.json")
    assert again.ended == progress.ended
    (tmp_path / "out" / "quick.txt").unlink()
    gpu.work_through(steps(0), again, time.monotonic() + 120, tmp_path, tmp_path / "out")
    assert len(again.ended) == 2
    assert not (tmp_path / "out" / "quick.txt").exists()
    assert (tmp_path / "ran").read_text() == "xx"


def test_nothing_begins_when_time_is_up(gpu: Any, tmp_path: Path) -> None:
    progress = gpu.Progress(tmp_path / "steps.json")
    gpu.work_through([gpu.Step("any", ("-c", ""), 60)], progress, time.monotonic() + gpu.GRACE_S, tmp_path, tmp_path)
    assert not progress.ended
