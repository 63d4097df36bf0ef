"""Documents keep in step with the code: every column, every room, every file that they name."""

from __future__ import annotations

import re

import pytest
from helpers import ROOT
from test_house import MAY

from vpbench.rows.schema import SCHEMAS

PAGES = ("README.md", "docs/architecture.md", "docs/measurement.md")
#: where a path may start from
BASES = ("", "vpbench")
#: what readers write, and runs
MADE = {"methods/bottom.py", "out/", "plans/"}


def named(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", text)


@pytest.mark.parametrize("table", SCHEMAS)
def test_every_column_is_explained(table: str) -> None:
    section = (ROOT / "docs/measurement.md").read_text().split("\n## 8.")[1]
    own = re.split(r"\n\*\*\w+\*\*", section[section.index(f"\n**{table}**") + 1 :])[0]
    assert set(SCHEMAS[table].names) <= set(named(own))


def test_the_table_of_rooms_is_the_one_that_is_enforced() -> None:
    section = (ROOT / "docs/architecture.md").read_text().split("\n## ")[1]
    rows = dict(re.findall(r"^\| `(\w+)` \|[^|]*\| ([^|]*) \|$", section, re.MULTILINE))
    assert {name: set(named(others)) for name, others in rows.items()} == {
        name: others for name, others in MAY.items() if name not in ("", "__main__")
    }


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_is_named_is_there(page: str) -> None:
    paths = {each for each in named((ROOT / page).read_text()) if re.fullmatch(r"[\w./-]+(\.(py|toml|txt|md)|/)", each)}
    assert {each for each in paths - MADE if not any((ROOT / base / each).exists() for base in BASES)} == set()
