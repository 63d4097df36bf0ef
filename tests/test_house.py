"""Where things may go: rooms, the directions between them, and what must stay light."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = {"errors", "storage", "progress", "processes", "registry"}
ALL = DATA | {"rows", "data", "api", "plan", "backbones", "measure", "tasks"}
#: what each room may import besides itself; commands and cli may import all, and nobody imports them
MAY = {
    "": set(),
    "errors": set(),
    "storage": {"errors"},
    "progress": set(),
    "registry": {"errors"},
    "processes": {"errors"},
    "rows": {"errors", "storage"},
    "data": DATA,
    "api": {"errors", "data", "registry"},
    "plan": {"errors", "storage", "registry", "api"},
    "backbones": {"errors", "storage", "registry", "api"},
    "measure": {"errors", "processes", "api", "rows"},
    "tasks": ALL - {"tasks"},
    "run": ALL,
    "render": {"errors", "storage", "rows"},
    "methods": {"api"},
    "datasets": {"errors", "data"},
    "commands": ALL | {"run", "render", "methods", "datasets"},
    "cli": {"errors", "progress", "commands"},
    "__main__": {"cli"},
}
#: imports against the table; there are none, and a new one is refused
DEBTS: set[tuple[str, str]] = set()
#: what commands share; else a command imports no other, but the demo, which is made of them
COMMON = ("options", "output")
MADE_OF_COMMANDS = {"commands.demo"}
#: rooms no module of which loads torch, and modules of other rooms that do not
LIGHT_ROOMS = ("errors", "storage", "progress", "processes", "registry", "plan", "rows", "render", "cli", "datasets")
LIGHT = ("vpbench.data", "vpbench.data.boxes", "vpbench.data.sources", "vpbench.data.protocols", "vpbench.data.video")


def module(path: Path) -> str:
    """Return the name that a file is imported by: links give methods and datasets their place in the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(parts if parts[0] == "vpbench" else ("vpbench", *parts))


FILES = {
    module(path): path
    for top in ("vpbench", "methods", "datasets")
    for path in sorted((ROOT / top).rglob("*.py"))
    if not any((ROOT / folder).is_symlink() for folder in path.relative_to(ROOT).parents)
}


def owner(name: str) -> str:
    """Return the module of this package that a name is in, "" for others'."""
    while name and name not in FILES:
        name = name.rpartition(".")[0]
    return name


def imported(path: Path) -> Iterator[str]:
    """Yield the modules that a file imports; read, so that imports for types and inside functions count."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (owner(each.name) for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (owner(f"{node.module}.{each.name}") for each in node.names)


GRAPH = {name: set(imported(path)) - {name, ""} for name, path in FILES.items()}


def room(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


def part(name: str) -> str:
    """Return the second word inside a room: the command, the task."""
    return name.split(".")[2] if name.count(".") > 1 else ""


def allowed(name: str, other: str) -> bool:
    here, there = room(name), room(other)
    if here != there:
        narrow = here == "run" and there == "tasks"  # what all tasks have in common, and no single one
        return other == "vpbench" or (there in MAY[here] and (not narrow or part(other) in ("", "task")))
    if here == "commands":
        return part(other) in (part(name), *COMMON) or name.removeprefix("vpbench.") in MADE_OF_COMMANDS
    return not (here == "tasks" and {part(name), part(other)} == {"recognition", "detection"})


def test_every_room_is_in_the_table() -> None:
    assert {room(name) for name in FILES} == set(MAY)


def test_no_module_imports_itself_in_a_circle() -> None:
    graphlib.TopologicalSorter(GRAPH).prepare()  # its error names the circle


def test_imports_go_one_way() -> None:
    found = {(name, other) for name, others in GRAPH.items() for other in others if not allowed(name, other)}
    short = {(name.removeprefix("vpbench."), other.removeprefix("vpbench.")) for name, other in found}
    assert short - DEBTS == set()
    assert DEBTS - short == set(), "paid: take it out of DEBTS"


def test_what_has_to_answer_at_once_loads_no_torch() -> None:
    families = {name for name in FILES if room(name) == "backbones" and "\nENTRIES: " in FILES[name].read_text()}
    light = sorted({name for name in FILES if room(name) in LIGHT_ROOMS} | families | set(LIGHT))
    assert len(families) == 6
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    if 'torch' in sys.modules: sys.exit(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *light], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


def test_files_and_folders_stay_small() -> None:
    long = {name: lines for name, path in FILES.items() if (lines := len(path.read_text().splitlines())) > 400}
    assert long == {}
    own = [each for each in (ROOT / "vpbench").iterdir() if not each.is_symlink() and each.name != "__pycache__"]
    folders = [each.name for each in own if each.is_dir()]
    loose = [each.name for each in own if each.suffix == ".py" and not each.name.startswith("__")]
    assert len(folders) <= 12
    assert len(folders) + len(loose) <= 17, (folders, loose)
