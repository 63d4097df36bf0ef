"""The demo: what it runs, part by part, and what is there after each of them."""

from pathlib import Path

import pytest
from golden_rows import clip_rows, measured, sweep_videos
from typer.testing import CliRunner

from vpbench import cli, registry
from vpbench.commands import demo, plot, report, run
from vpbench.render import stamp
from vpbench.rows.store import Store


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the demo does, in order."""
    found: list[str] = []

    def execute(asked: object, dry_run: bool, force: bool) -> int:
        found.append(f"{getattr(asked, 'backbone')} {getattr(asked, 'out')}")  # noqa: B009
        return 0 if dry_run else 3

    def page(folder: Path) -> Path:
        found.append(f"page {folder}")
        return folder / "report.html"

    monkeypatch.setattr(run, "execute", execute)
    monkeypatch.setattr(plot, "refresh", lambda folder, backbone, which: found.append(f"{which} {backbone} {folder}"))
    monkeypatch.setattr(report, "refresh", page)
    monkeypatch.chdir(tmp_path)
    return found


def test_what_was_measured_is_drawn_after_every_part(steps: list[str]) -> None:
    done = CliRunner().invoke(cli.app, ["demo"])
    assert done.exit_code == 0, done.output
    each = ("videomae", "mvit", "vivit", "vitdet")
    assert steps == [
        step
        for name in each
        for step in (f"{name}_embedded out/demo", f"pareto,tokens {name}_embedded out/demo", "page out/demo")
    ]
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == [f"part {n} of 4" for n in (1, 2, 3, 4)]
    assert done.stdout.splitlines()[-1] == "open out/demo/report.html"


def test_the_time_that_is_left_follows_the_parts_that_are_done(
    steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [demo.Part(name, "videomae_embedded", {"method": "dense"}, 30.0) for name in ("one", "two", "three")]
    monkeypatch.setattr(demo, "SHORT", parts)
    # a part takes twice as long as where its seconds were written down
    times = iter([0.0, 60.0, 60.0, 120.0, 120.0, 180.0])
    monkeypatch.setattr("vpbench.commands.demo.time.monotonic", lambda: next(times))
    lines = CliRunner().invoke(cli.app, ["demo"]).stderr.splitlines()
    assert [line.split(", about ")[1] for line in lines] == ["90 s left", "120 s left", "60 s left"]


def test_what_was_drawn_before_is_not_waited_for(steps: list[str]) -> None:
    for part in demo.SHORT[:3]:
        plot.own_folder(Path("out/demo"), part.backbone).mkdir(parents=True)
    lines = CliRunner().invoke(cli.app, ["demo"]).stderr.splitlines()
    assert [line.endswith(" s left") for line in lines] == [True] * 4
    assert lines[0] == f"part 1 of 4: VideoMAE, about {demo.SHORT[3].seconds:.0f} s left"
    for part in demo.SHORT:
        plot.own_folder(Path("out/demo"), part.backbone).mkdir(parents=True, exist_ok=True)
    lines = CliRunner().invoke(cli.app, ["demo"]).stderr.splitlines()
    assert lines == [f"part {n + 1} of 4: {part.what}" for n, part in enumerate(demo.SHORT)]


def test_a_dry_run_draws_nothing(steps: list[str]) -> None:
    assert CliRunner().invoke(cli.app, ["demo", "--full", "--dry-run"]).exit_code == 0
    assert [step.split()[1] for step in steps] == ["out/demo-full"] * 4


def test_both_have_a_method_of_each_paper_on_its_own_backbone() -> None:
    for parts in (demo.SHORT, demo.FULL):
        named = {name for part in parts for name in part.sweep["method"].split(",")}
        assert {"dense", "random", "rlt", "sta", "stts", "rgtp"} <= named <= set(registry.names("methods"))
        assert {part.backbone for part in parts} < set(registry.names("backbones"))


def stored(folder: Path, top1: float) -> None:
    """Write rows of a backbone, of which rlt's top-1 is given."""
    store = Store(folder)
    for method, keep, own in (("dense", None, {}), ("random", 0.4, {}), ("rlt", 0.4, {"top1": top1})):
        row = measured(method, keep, **own)
        store.write("results", str(row["config_id"]), [row])
        store.write("clips", str(row["config_id"]), clip_rows(method, keep))
    store.write("videos", "all", sweep_videos())


def test_what_is_drawn_stays_until_rows_change_or_it_is_gone(tmp_path: Path) -> None:
    stored(tmp_path, 80.0)
    backbone = str(Store(tmp_path).read("results")["backbone"].iloc[0])
    figure, page = tmp_path / "figures" / backbone / "pareto.png", tmp_path / "report.html"

    def drawn() -> tuple[int, int]:
        plot.refresh(tmp_path, backbone)
        assert report.refresh(tmp_path) == page
        return figure.stat().st_mtime_ns, page.stat().st_mtime_ns

    first = drawn()
    assert drawn() == first
    stored(tmp_path, 60.0)  # measured anew
    second = drawn()
    assert second[0] > first[0]
    assert second[1] > first[1]
    figure.unlink()
    third = drawn()
    assert figure.exists()
    assert third[1] == second[1]


def test_a_picture_of_rows_that_are_gone_does_not_stay(tmp_path: Path) -> None:
    stored(tmp_path, 80.0)
    rows = Store(tmp_path).read("results")
    old, new, other = (tmp_path / name for name in ("old.png", "new.png", "mine.png"))
    for path in (old, new, other):
        path.touch()
    stamp.renew(tmp_path / "stamp", rows, [old])
    assert stamp.fresh(tmp_path / "stamp", rows) == [old]
    stamp.renew(tmp_path / "stamp", rows, [new])
    assert not old.exists()
    assert new.exists()
    assert other.exists()
    assert stamp.fresh(tmp_path / "stamp", rows.iloc[:2]) == []
