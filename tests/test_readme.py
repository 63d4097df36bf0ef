"""The method shown in the README works exactly as written, from a file dropped into place."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, checkout_with, vpbench, vpbench_process

README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a copy of the checkout with the README's method in it."""
    [code] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    [name] = set(re.findall(r"`methods/(\w+)\.py`", README))
    return checkout_with(tmp_path_factory.mktemp("checkout"), name, code)


def test_it_is_listed_and_runs(checkout: Path, tmp_path: Path) -> None:
    listed = vpbench_process("ls", "methods", cwd=checkout)
    assert re.search(r"^bottom +Keep the tubelets nearest to the lower edge", listed.stdout, re.MULTILINE)
    arguments = ("run", "--method", "bottom", "--keep", "0.4", "--limit", "4", "--profile", "ci", "--threads", "1")
    done = vpbench_process(*arguments, "--out", tmp_path, cwd=checkout, hasty=True)
    assert done.returncode == 0, done.stderr
    assert "bottom" in done.stdout


def test_it_passes_the_contract(checkout: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-vv", "-n", "0", "-k", "bottom"]
    command += ["tests/test_contract.py", "tests/test_flops.py"]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) >= 9


def test_every_command_shown_exists() -> None:
    known = set(re.findall(r"│ (\w+) ", vpbench("--help").stdout))
    used = set(re.findall(r"^vpbench (\w+)", README, re.MULTILINE)) | set(re.findall(r"`vpbench (\w+)[^`]*`", README))
    assert used
    assert used <= known
