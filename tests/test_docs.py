"""Documents keep in step with the code: every column, room, file, link, command and option that they name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from helpers import ROOT
from test_house import MAY

from vpbench import cli
from vpbench.rows.schema import SCHEMAS

PAGES = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
COMMANDS = typer.main.get_command(cli.app)
#: where a path may start from
BASES = ("", "vpbench", "results/amd-epyc-2-cores", "results/intel-xeon-2-cores")
#: what readers write, and runs
MADE = {"brightest.py", "meanvit.py", "methods/bottom.py", "out/", "out/show/", "plans/", "leases/"}


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


def anchors(text: str) -> set[str]:
    """Return what GitHub calls the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    here = ROOT / page
    for target in re.findall(r"\]\(([^)\s]+)\)", here.read_text()):
        name, _, anchor = target.partition("#")
        file = (here.parent / name) if name else here
        assert file.exists(), target
        assert not anchor or anchor in anchors(file.read_text()), target


def test_the_index_has_every_page() -> None:
    linked = set(re.findall(r"\]\((\w[\w-]*\.md)\)", (ROOT / "docs/README.md").read_text()))
    assert {f"docs/{name}" for name in linked} | {"README.md", "docs/README.md"} == set(PAGES)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 1200


@pytest.mark.parametrize("page", PAGES)
def test_commands_stand_where_they_are_run(page: str) -> None:
    """test_commands_shown.py runs blocks in `sh`; none may hide in another language, or in none."""
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
    assert {language for language, _ in fences} <= {"sh", "yaml", "python", "mermaid"}
    assert not [code for language, code in fences if language != "sh" and re.search(r"^vpbench ", code, re.MULTILINE)]


def mentioned(text: str) -> Iterator[list[str]]:
    """Yield the words after `vpbench` of commands within sentences and workflows."""
    for code in [*named(text), *re.findall(r"^```yaml\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)]:
        yield from (words.split() for words in re.findall(r"\bvpbench (?=[a-z])([^\n;&|)]+)", code))


@pytest.mark.parametrize("page", PAGES)
def test_every_command_and_option_that_is_mentioned_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    for words in mentioned(text):
        command = COMMANDS
        while words and (below := subcommands(command)) and not words[0].startswith("-"):
            command = below[words.pop(0)]
        assert {word for word in words if word.startswith("--")} <= options(command)
    assert {span.split()[0] for span in named(text) if span.startswith("--")} <= options(COMMANDS)


def subcommands(command: Any) -> dict[str, Any]:
    return getattr(command, "commands", {})


def options(command: Any) -> set[str]:
    """Return the options of a command and of all below it."""
    own = {name for each in command.params for name in each.opts if name.startswith("--")}
    return own.union(*(options(each) for each in subcommands(command).values()))
