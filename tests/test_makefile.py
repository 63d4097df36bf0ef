"""`make` installs what its target needs, once, and says in one line what to do where it cannot."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from helpers import ROOT

#: stands for a Python: makes "environments" whose Python writes down what it is asked, and fails where told to
PYTHON = """#!/bin/sh
[ "$1" = -c ] && exit ${TOO_OLD:-0}
[ "$2" = venv ] && { mkdir -p $3/bin; cp $0 $3/bin/python; ln -sf python $3/bin/vpbench; exit; }
echo "$*" | sed 's/.* pip install.* -q/installed/' >>log
exit ${OFFLINE:-0}
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    return tmp_path


def make(checkout: Path, *targets: str, **state: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "-s", "PYTHON=./python", *targets]
    environment = {"PATH": "/usr/bin:/bin", **state}
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False, env=environment)


def test_each_target_installs_what_it_needs_and_once(checkout: Path) -> None:
    for targets in ((), ("setup",), ("demo",), ("test",), ("test",), ("demo",)):
        assert make(checkout, *targets).returncode == 0
    log = (checkout / "log").read_text().splitlines()
    assert log == ["installed -e .", "demo", "demo", "installed -e .[dev]", "-m pytest", "-m pytest", "demo"]


def test_tests_of_a_fresh_clone_install_once(checkout: Path) -> None:
    make(checkout, "test", "demo")
    assert (checkout / "log").read_text().splitlines() == ["installed -e .[dev]", "-m pytest", "demo"]


@pytest.mark.parametrize(
    ("state", "says"), [({"TOO_OLD": "1"}, "make PYTHON=python3.12"), ({"OFFLINE": "1"}, "network")]
)
def test_one_line_where_nothing_can_be_installed(checkout: Path, state: dict[str, str], says: str) -> None:
    done = make(checkout, "demo", **state)
    [line, _] = done.stderr.splitlines()  # the second is make's
    assert says in line
    assert done.returncode != 0
    assert not (checkout / ".venv/.ready").exists()
