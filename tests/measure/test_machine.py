"""The description of this machine, and the warnings drawn from one."""

from __future__ import annotations

import dataclasses
import getpass
import json
import os
import platform
import subprocess
from pathlib import Path

import pytest
import torch

from vpbench.measure import gpu, machine
from vpbench.measure.machine import Machine, git_state, snapshot, warnings

QUIET = Machine(
    device="cpu",
    device_name="a CPU",
    cpu_name="a CPU",
    cores=8,
    isa=("avx2",),
    isa_level="AVX2",
    cpu_mhz=3000.0,
    cpu_max_mhz=None,
    governor="performance",
    load=0.1,
    threads=8,
    interop_threads=1,
    python_version="3.11.0",
    torch_version="2.6.0",
    cuda_version=None,
    driver=None,
    gpu=None,
    gpu_unknown="",
    debug_build=False,
    flags={},
    libraries={},
    git_commit=None,
    git_dirty=None,
)


def test_snapshot_describes_this_process() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = snapshot()
    finally:
        torch.set_num_threads(threads)
    assert found.threads == 1
    assert found.device == "cpu"
    assert found.device_name == found.cpu_name != ""
    assert 1 <= found.cores <= (os.cpu_count() or 1)
    assert found.torch_version == torch.__version__
    assert found.python_version == platform.python_version()
    assert {"numpy", "av"} <= found.libraries.keys()
    assert set(found.isa) <= set(machine.ISA_FLAGS)
    assert found.load >= 0


def test_snapshot_is_json_and_names_nobody() -> None:
    text = json.dumps(dataclasses.asdict(snapshot()))
    words = text.replace('"', " ").replace(",", " ").split()
    assert platform.node() not in words
    assert getpass.getuser() not in words
    assert str(Path.cwd()) not in text


def test_cpuinfo_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Fast CPU @ 3: turbo\nflags\t\t: fpu avx2 amx_bf16 avx512fake\n")
    governor = tmp_path / "governor"
    governor.write_text("powersave\n")
    monkeypatch.setattr(machine, "_CPUINFO", cpuinfo)
    monkeypatch.setattr(machine, "_GOVERNOR", governor)
    found = snapshot()
    assert found.device_name == "Fast CPU @ 3: turbo"
    assert found.isa == ("avx2", "amx_bf16")
    assert found.governor == "powersave"


def test_a_brand_alone_is_told_apart_by_family_and_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    monkeypatch.setattr(machine, "_CPUINFO", cpuinfo)
    said = []
    for model in (1, 17):
        cpuinfo.write_text(f"model name\t: AMD EPYC\ncpu family\t: 25\nmodel\t\t: {model}\nflags\t\t: avx2\n")
        said.append((snapshot().device_name, machine.model()))
    assert [name for name, _ in said] == ["AMD EPYC (family 25, model 1)", "AMD EPYC (family 25, model 17)"]
    assert all(model.endswith(name) for name, model in said)


def test_a_quiet_machine_has_no_warnings() -> None:
    assert warnings(QUIET) == []
    assert warnings(dataclasses.replace(QUIET, load=1.6, governor=None)) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"load": 1.7}, "busy"),
        ({"governor": "powersave"}, "powersave"),
        ({"debug_build": True}, "debug"),
        ({"threads": 9}, "9 threads"),
    ],
)
def test_each_spoiler_is_named(change: dict[str, object], word: str) -> None:
    found = warnings(dataclasses.replace(QUIET, **change))  # type: ignore[arg-type]
    assert len(found) == 1
    assert word in found[0]


COOL = gpu.Facts(gpu.State(1980.0, 40.0, 120.0, ()), 1980.0, 0, False, True, 139.0, 141.0)


@pytest.mark.parametrize(
    ("facts", "unknown", "word"),
    [
        (COOL, "", None),
        (dataclasses.replace(COOL, others=2), "", "2 other processes"),
        (dataclasses.replace(COOL, state=dataclasses.replace(COOL.state, throttled=("power cap",))), "", "power cap"),
        (dataclasses.replace(COOL, mig=True), "", "MIG"),
        (None, "asking needs nvidia-ml-py", "nvidia-ml-py"),
    ],
)
def test_what_spoils_a_gpu_is_named(facts: gpu.Facts | None, unknown: str, word: str | None) -> None:
    found = warnings(dataclasses.replace(QUIET, device="cuda", gpu=facts, gpu_unknown=unknown))
    assert [word in line for line in found if word] == [True] * (word is not None)
    assert len(found) == (word is not None)


def test_flags_say_how_exact_products_are() -> None:
    assert snapshot().flags["float32 matmul precision"] == torch.get_float32_matmul_precision()
    assert snapshot().flags["deterministic algorithms"] == str(torch.are_deterministic_algorithms_enabled())


def _git(root: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(root), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "a.py").write_text("a = 1\n")
    _git(tmp_path, "init", "-q")
    return tmp_path


def test_git_state_of_a_checkout(checkout: Path) -> None:
    assert git_state(checkout) == (None, None)  # nothing committed yet
    _git(checkout, "add", ".")
    _git(checkout, "commit", "-q", "-m", "m")
    commit = _git(checkout, "rev-parse", "HEAD")
    assert git_state(checkout) == (commit, False)
    (checkout / "rows.parquet").write_text("a result, not code")
    assert git_state(checkout) == (commit, False)
    (checkout / "methods" / "new.py").write_text("b = 2\n")
    assert git_state(checkout) == (commit, True)


def test_git_state_ignores_a_repository_further_up(checkout: Path) -> None:
    _git(checkout, "add", ".")
    _git(checkout, "commit", "-q", "-m", "m")
    assert git_state(checkout / "methods") == (None, None)


def test_git_state_ignores_where_the_user_is(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _git(checkout, "add", ".")
    _git(checkout, "commit", "-q", "-m", "m")
    commit = _git(checkout, "rev-parse", "HEAD")
    users = checkout / "users"
    users.mkdir()
    _git(users, "init", "-q")
    _git(users, "commit", "-q", "--allow-empty", "-m", "another")
    monkeypatch.chdir(users)
    monkeypatch.setenv("GIT_DIR", str(users / ".git"))
    assert git_state(checkout) == (commit, False)


def test_git_missing(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _git(checkout, "add", ".")
    _git(checkout, "commit", "-q", "-m", "m")
    monkeypatch.setenv("PATH", "")
    assert git_state(checkout) == (None, None)
