"""The demo: what it runs, part by part, and what is there after each of them."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from vpbench import cli, registry
from vpbench.commands import demo, plot, report, run


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the demo does, in order; each part measures as many cells as it has methods."""
    found: list[str] = []
    left = {"VideoMAE": 7, "MViT": 0, "ViViT": 3, "ViTDet": 2}

    def execute(asked: object, dry_run: bool, force: bool) -> int:
        backbone = getattr(asked, "backbone")  # noqa: B009
        found.append(f"{backbone} {getattr(asked, 'out')}")  # noqa: B009
        return 0 if dry_run else next(n for name, n in left.items() if name.lower() in backbone)

    monkeypatch.setattr(run, "execute", execute)
    monkeypatch.setattr(plot, "plot", lambda folder, figure, format: found.append(f"{figure} {folder}"))
    monkeypatch.setattr(report, "write", lambda folder: Path(folder, "report.html").touch())
    monkeypatch.chdir(tmp_path)
    Path("out/demo").mkdir(parents=True)
    return found


def test_what_was_measured_is_drawn_after_every_part(steps: list[str]) -> None:
    done = CliRunner().invoke(cli.app, ["demo"])
    assert done.exit_code == 0, done.output
    assert steps == [
        "videomae_embedded out/demo",
        "pareto out/demo",
        "mvit_embedded out/demo",  # measures nothing here, hence draws nothing
        "vivit_embedded out/demo",
        "pareto out/demo",
        "vitdet_embedded out/demo",
        "None out/demo",  # all figures
    ]
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == [f"part {n} of 4" for n in (1, 2, 3, 4)]
    assert done.stdout.splitlines()[-1] == "open out/demo/report.html"


def test_a_dry_run_draws_nothing(steps: list[str]) -> None:
    assert CliRunner().invoke(cli.app, ["demo", "--full", "--dry-run"]).exit_code == 0
    assert [step.split()[1] for step in steps] == ["out/demo-full"] * 4


def test_both_have_a_method_of_each_paper_on_its_own_backbone() -> None:
    assert sum(part.share for part in demo.SHORT) == pytest.approx(1)
    for parts in (demo.SHORT, demo.FULL):
        named = {name for part in parts for name in part.sweep["method"].split(",")}
        assert {"dense", "random", "rlt", "sta", "stts", "rgtp"} <= named <= set(registry.names("methods"))
