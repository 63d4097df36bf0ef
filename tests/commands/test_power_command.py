"""`vpbench power`: from options, from a results folder, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from golden_rows import sweep
from typer.testing import CliRunner

from vpbench.cli import app
from vpbench.errors import NothingMeasured, UsageError
from vpbench.rows.statistics import power
from vpbench.rows.store import Store


def said(*arguments: str) -> str:
    found = CliRunner().invoke(app, ["power", *arguments])
    if found.exception is not None:
        raise found.exception
    return found.output


def test_options_alone() -> None:
    text = said("--clips", "504", "--cells", "20", "--changed", "2")
    assert "504 videos, 20 settings compared at once" in text
    assert "ruled out is a loss of 2.6 pp or more" in text
    assert "1 pp: 2,192 videos for even odds, 3,373 for 80%; with these the odds are 2%" in text
    assert said("--clips", "504").count("of the answers change") == 4, "shares that are likely, where none is known"


def test_any_number_of_videos_is_answered_at_once() -> None:
    many = said("--clips", "100000000", "--changed", "10")
    assert "100,000,000 videos" in many
    assert "with these the odds are 100%" in many
    # where the normal distribution takes over, the two agree
    for gained in (4900, 5000, 5080):
        assert power._at_least(gained, 10_000) == pytest.approx(power._at_least(gained, 10_001), abs=0.01)
        exact = sum(share for number, share in power._binomial(10_001, 0.5) if number >= gained)
        assert power._at_least(gained, 10_001) == pytest.approx(exact, abs=2e-5)


def test_a_results_folder_says_how_many_answers_change(tmp_path: Path) -> None:
    Store(tmp_path).write("results", "all", sweep())
    text = said(str(tmp_path), "--margin", "0.5")
    assert "300 videos, 10 settings compared at once" in text, "random is a control"
    shares = sorted((r["disc_b"] + r["disc_c"]) / 300 for r in sweep() if r["method"] in ("rlt", "sta"))
    median = (shares[4] + shares[5]) / 2
    assert f"{100 * median:.2g} % of the answers change" in text
    assert f"0.5 pp: {power.videos_needed(0.5, median, 10):,} videos" in text
    assert "1,000 videos, 2 settings" in said(str(tmp_path), "--clips", "1000", "--cells", "2")


@pytest.mark.parametrize("wrong", [("--margin", "0"), ("--clips", "0"), ("--changed", "101")])
def test_what_makes_no_sense_is_a_mistake_of_usage(wrong: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match=wrong[0]):
        said("--clips", "504", *wrong)


def test_without_labels_it_asks_for_numbers(tmp_path: Path) -> None:
    unlabelled = [row | {"disc_b": None, "disc_c": None} for row in sweep()]
    Store(tmp_path).write("results", "all", unlabelled)
    with pytest.raises(NothingMeasured, match="--clips and --changed"):
        said(str(tmp_path))
