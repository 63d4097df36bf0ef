"""The method shown in docs/methods.md works exactly as written, from a file dropped into place."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, checkout_with, vpbench_process

PAGE = (ROOT / "docs" / "methods.md").read_text()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a copy of the checkout with the page's method in it."""
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    [name] = set(re.findall(r"`methods/(\w+)\.py`", PAGE))
    return checkout_with(tmp_path_factory.mktemp("checkout"), name, code)


def test_it_is_listed_and_runs(checkout: Path, tmp_path: Path) -> None:
    listed = vpbench_process("ls", "methods", cwd=checkout)
    assert re.search(r"^bottom +Keep the tubelets nearest to the lower edge", listed.stdout, re.MULTILINE)
    arguments = ("run", "--method", "bottom", "--keep", "0.4", "--limit", "4", "--profile", "ci", "--threads", "1")
    done = vpbench_process(*arguments, "--out", tmp_path, cwd=checkout, hasty=True)
    assert done.returncode == 0, done.stderr
    assert "bottom" in done.stdout


def test_it_passes_the_contract(checkout: Path) -> None:
    [typed] = re.findall(r"^pytest (.*)$", PAGE, re.MULTILINE)
    command = [sys.executable, "-m", "pytest", "-vv", "-n", "0", *shlex.split(typed)]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) >= 9
