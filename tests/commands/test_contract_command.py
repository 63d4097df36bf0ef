"""`vpbench contract` on what documents show, installed as another package, and on methods that break promises."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from conftest import TINY
from helpers import ROOT, like

from vpbench import registry
from vpbench.commands.contract.command import kind_of
from vpbench.commands.contract.methods import on_flow
from vpbench.commands.contract.promise import judge
from vpbench.commands.contract.trial import Trial
from vpbench.errors import UsageError

PAGE = (ROOT / "docs/your-own-method.md").read_text()
[METHOD] = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def install(folder: Path, code: str) -> None:
    """Put a module and an entry point for it where an installer would."""
    (folder / "brightest.py").write_text(code)
    facts = folder / "brightest-1.0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: brightest\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[vpbench.methods]\nbrightest = brightest\n")


def typed(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(folder), str(ROOT)])
    command = [sys.executable, "-m", "vpbench", *words]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": path}, cwd=folder
    )


def test_the_method_of_the_page_is_installed_kept_to_its_contract_and_run(tmp_path: Path) -> None:
    assert len(METHOD.splitlines()) <= 60
    install(tmp_path, METHOD)
    done = typed(tmp_path, "contract", "brightest")
    assert (done.returncode, "all" in done.stdout) == (0, True), done.stdout + done.stderr
    ran = typed(tmp_path, "run", "--method", "brightest", "--keep", "0.4", "--limit", "2", "--only", "predict")
    assert ran.returncode == 0, ran.stderr
    assert "brightest" in ran.stdout


def test_the_failure_that_the_page_shows_is_what_is_printed(tmp_path: Path) -> None:
    install(tmp_path, METHOD.replace('int(backbone.flow == "steps")', "0"))
    done = typed(tmp_path, "contract", "brightest")
    [shown] = re.findall(r"^> (BROKEN .*)$", PAGE, re.MULTILINE)
    assert done.returncode == 1
    assert shown in done.stdout.splitlines()


@pytest.mark.parametrize(
    ("right", "wrong", "promise"),
    [
        (".flatten(1), self.count)", ".flatten(1), self.count - 8)", "keeps_all_at_one"),
        ("return replace(self, keep=keep)", "return replace(self, keep=keep**2)", "reaches_the_keep_ratio"),
        ("return replace(self, keep=keep)", "return self", "names_what_a_keep_sets"),
        (".float().mean(dim=(2, 4, 6, 7))", ".float().mean(dim=(2, 4, 6, 7)).roll(1, 0)", "is_alone_in_a_batch"),
        ("if 1 / backbone.grid.tokens <= self.keep <= 1 else", "if True else", "refuses_nonsense"),
        (
            "clips, grid = len(batch.ids), self.grid",
            "clips, grid = len(batch.ids), self.grid; self.count -= 4",
            "remembers_nothing",
        ),
    ],
)
def test_a_method_that_breaks_a_promise_is_told_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, right: str, wrong: str, promise: str
) -> None:
    assert METHOD.count(right) == 1
    install(tmp_path, METHOD.replace(right, wrong))
    monkeypatch.syspath_prepend(tmp_path)
    points = [EntryPoint("brightest", "brightest", "vpbench.methods")]
    monkeypatch.setattr(registry, "entry_points", lambda group: [each for each in points if each.group == group])
    sys.modules.pop("brightest", None)
    [check] = [each for each in on_flow("stream") if each.name == promise]
    assert judge(check, Trial("brightest", like(TINY)), "").state == "broken"
    sys.modules.pop("brightest", None)


def test_a_name_of_nothing_is_a_mistake_of_usage() -> None:
    with pytest.raises(UsageError, match="no method and no backbone is called 'tom'; did you mean 'tome'"):
        kind_of("tom", None)
    assert kind_of("tome", None) == "method"
    assert kind_of("videomae_s", None) == "backbone"
