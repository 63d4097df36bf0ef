"""`vpbench check` as CI calls it: on this tree, on a tree with planted faults, and asked for what there is not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from helpers import ROOT, checkout_with, vpbench, vpbench_process

from vpbench.commands.check import command, units
from vpbench.commands.check.baseline import COMMITTED

NEW = '''"""Keep the first half of the slots."""

from dataclasses import dataclass

from vpbench.methods.frame_stride import FrameStride


@dataclass(frozen=True)
class Mine(FrameStride):
    """As its parent."""

    stride: float = 1.0

    reference = "control"
'''


def states(output: str) -> dict[str, str]:
    """Return what is said of each cell."""
    words = (line.split()[:2] for line in output.splitlines() if "_embedded/" in line and not line.startswith(" "))
    return {key: state for state, key in words}


@pytest.mark.slow
def test_every_method_is_as_in_the_committed_baseline(tmp_path: Path) -> None:
    done = vpbench("check", "--no-time", "--junit", tmp_path / "j.xml", "--markdown", tmp_path / "m.md")
    assert done.returncode == 0, done.stdout + done.stderr
    found = states(done.stdout)
    assert set(found.values()) <= {"ok", "new"}  # a method that was just added has no baseline yet
    assert {"mvit", "videomae", "videoswin", "vitdet", "vivit"} == {key.partition("_embedded/")[0] for key in found}
    cases = ElementTree.parse(tmp_path / "j.xml").getroot().findall("testsuite/testcase")
    assert len(cases) == len(found)
    assert (tmp_path / "m.md").read_text().count("_embedded/") == len(found)


@pytest.mark.slow
def test_faults_in_methods_and_data_of_a_checkout(tmp_path: Path) -> None:
    """A default off by 1 %, one token for another, a method that went and one that came; then other clips."""
    root = checkout_with(tmp_path / "tree", "mine", NEW)
    few_methods(root)
    replace(root / "methods" / "rlt.py", "threshold: float = 0.1", "threshold: float = 0.101")
    swapped = "Selection.top(_swapped(F.pad("
    replace(root / "methods" / "tdiff.py", "Selection.top(F.pad(", swapped)
    replace(root / "methods" / "tdiff.py", "value=torch.inf), self", "value=torch.inf), self.count), self")
    with (root / "methods" / "tdiff.py").open("a") as stream:
        stream.write(SWAP)
    (root / "methods" / "centre.py").unlink()
    junit = tmp_path / "j.xml"
    done = vpbench_process("check", "--no-time", "--backbone", "videomae_embedded", "--junit", junit, cwd=root)
    assert done.returncode == 1, done.stdout + done.stderr
    found = {key.partition("/")[2]: state for key, state in states(done.stdout).items()}
    assert {name for name, state in found.items() if state == "FAIL"} == {"rlt", "tdiff", "centre"}
    assert {name for name, state in found.items() if state == "new"} == {"mine"}
    assert "parameter threshold: expected 0.1, found 0.101" in done.stdout
    assert "site video: expected token" in done.stdout
    assert "the baseline has this cell, the program has not" in done.stdout
    assert len(ElementTree.parse(junit).getroot().findall("testsuite/testcase/failure")) == 3

    manifest = next(root.glob("datasets/synthmotion/clips/manifest.csv"))
    head, first, second, *rest = manifest.read_text().splitlines()
    manifest.write_text("\n".join([head, second, first, *rest]) + "\n")
    done = vpbench_process("check", "--no-time", "--backbone", "mvit_embedded", cwd=root)
    assert done.returncode == 1, done.stdout + done.stderr
    assert set(states(done.stdout).values()) == {"FAIL"}
    assert "other clips than in the baseline" in done.stdout


SWAP = '''

def _swapped(scores: torch.Tensor, count: int) -> torch.Tensor:
    """Let the best that would go stay, and the worst that would stay go."""
    order = scores.argsort(dim=1, descending=True, stable=True)
    if count < scores.shape[1]:
        scores[:, order[0, count]] = torch.inf
        scores[:, order[0, count - 1]] = -torch.inf
    return scores
'''


def few_methods(root: Path) -> None:
    """Leave six methods of those that there are, and `mine`, so that a check takes seconds."""
    left = {"dense", "random", "rlt", "tdiff", "centre", "frame_stride"}
    for path in (root / "methods").glob("[a-z]*"):
        if path.is_dir():
            shutil.rmtree(path)
        elif path.stem not in left | {"mine"}:
            path.unlink()
    baseline = root / COMMITTED.relative_to(ROOT)
    stored = json.loads(baseline.read_text())
    stored["cells"] = {key: cell for key, cell in stored["cells"].items() if key.partition("/")[2] in left}
    baseline.write_text(json.dumps(stored))


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_a_baseline_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(units.SIZES, "recognition", units.SIZES["recognition"]._replace(pool=3, wanted=2))
    own = ("--baseline", tmp_path / "b.json", "--no-time", "--backbone", "videoswin_embedded")
    done = vpbench("check", *own, "--method", "dense")
    assert (done.returncode, "--update" in done.stderr) == (3, True)
    done = vpbench("check", *own, "--method", "dense,stts", "--update")
    assert (done.returncode, done.stdout.count("added ")) == (0, 2), done.stderr
    done = vpbench("check", *own)
    assert done.returncode == 0, done.stdout
    assert states(done.stdout)["videoswin_embedded/stts_random"] == "new"
    done = vpbench("check", *own, "--method", "downsample")
    assert (done.returncode, "nothing can be compared" in done.stderr) == (3, True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--method", "rtl"), "did you mean 'rlt'"),
        (("--backbone", "videomae_b"), "no embedded backbone 'videomae_b'"),
        (("--only-time",), "leave --no-time and --update out"),
        (("--against", "HEAD"), "leave --no-time and --update out"),
        (("--update", "--junit", "j.xml"), "leave --junit and --markdown out"),
        (("--junit", "/no/such/folder/j.xml", "--method", "stts", "--backbone", "mvit_embedded"), "cannot write"),
    ],
)
def test_mistakes_are_told_in_a_line(options: tuple[str, ...], said: str) -> None:
    done = vpbench("check", "--no-time", *options)
    assert done.returncode == (1 if "cannot" in said else 2)
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_comes_with_vpbench_holds_on_any_machine() -> None:
    assert all(cell["time"] is None for cell in json.loads(COMMITTED.read_text(encoding="utf-8"))["cells"].values())


def test_an_installed_baseline_is_never_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(command, "CHECKOUT", tmp_path)
    done = vpbench("check", "--update", "--no-time")
    assert (done.returncode, "name a file of yours with --baseline" in done.stderr) == (2, True)


def test_strict_wants_every_method_in_the_baseline(tmp_path: Path) -> None:
    content = json.loads(COMMITTED.read_text(encoding="utf-8"))
    del content["cells"]["mvit_embedded/frame_stride"]
    (tmp_path / "b.json").write_text(json.dumps(content), encoding="utf-8")
    own = ("--baseline", tmp_path / "b.json", "--no-time", "--backbone", "mvit_embedded")
    named = ("--method", "dense,frame_stride")
    assert states(vpbench("check", *own, *named).stdout)["mvit_embedded/frame_stride"] == "new"
    done = vpbench("check", *own, *named, "--strict")
    assert done.returncode == 1
    assert states(done.stdout) == {"mvit_embedded/dense": "ok", "mvit_embedded/frame_stride": "FAIL"}
    assert "the baseline has no such cell" in done.stdout
    alone = vpbench("check", *own, "--method", "frame_stride", "--strict")
    assert (alone.returncode, states(alone.stdout)) == (1, {"mvit_embedded/frame_stride": "FAIL"})
    untimed = vpbench("check", *own[:2], "--only-time", "--backbone", "mvit_embedded", "--method", "dense")
    assert (untimed.returncode, "holds no times of this machine" in untimed.stderr) == (3, True)


def test_commits_that_are_not_there_are_named() -> None:
    done = vpbench("check", "--against", "no-such-commit", "--method", "dense")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --against no-such-commit: ")
    assert done.stderr.count("\n") == 1
