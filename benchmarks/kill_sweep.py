"""What does a sweep keep when it is killed? kill -9 of its process group at random moments, then the command again.

    python benchmarks/kill_sweep.py --kills 10 --between 20,40 --out FOLDER

After each kill the Parquet files are read from outside: rows predicted, timing rounds kept, cells finished, rows
computed again, seconds from the start to the first file and from the last file to the kill, which are lost. At the end
the sweep may finish, and every row has to be there once, in files that can be read. Tables that go by `prediction_id`
and those that go by `config_id` are both understood. With `--like RESULTS`, the folder of the same sweep never killed,
all rows have to be equal to the last bit. Exits with 1 if anything is lost, doubled, torn or different, or if a sweep
did not get any further between two kills.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from same_numbers import leaves, tables_of

SWEEP = (
    "--backbone videomae_s --weights random --method dense,random,rlt,tdiff,tome --keep 0.5,0.75 --split ci --limit 40 "
    "--frames 8 --profile ci --threads 1"
)
# what tells rows of a table apart, besides the id of their cell
KEYS = {
    "clips": ("clip_id", "view"),
    "videos": ("video_id",),
    "fates": ("clip_id", "stage"),
    "samples": ("run_id", "process", "block", "round", "order", "scope"),
    "work": ("block", "kind", "process"),
}
# how a tree reads a table, and how many rows of it are there twice
READ = """
from pathlib import Path
from vpbench.rows.store import Store
rows = Store(Path({folder!r}), writable=False).read({table!r})
keys = [name for name in ("prediction_id", "config_id", *{keys!r}) if name in rows]
print(int(rows.duplicated(keys).sum()))
"""
# what may differ when a row is computed again
_OF_A_RUN = {"run_id", "timestamp_utc", "decode_ms", "preprocess_ms"}

Key = tuple[Any, ...]


@dataclass
class Kept:
    """What lies in a results folder."""

    #: table -> key -> rows of that key, each as (run, content)
    rows: dict[str, dict[Key, list[tuple[str, str]]]] = field(default_factory=dict)
    torn: list[str] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    newest: float = 0.0

    @property
    def progress(self) -> tuple[int, int, int, int]:
        """Rows predicted, rounds timed, other pieces of work (pictures, memory), cells finished."""
        predicted = "videos" if self.rows["videos"] else "clips"
        pieces = len(self.rows["work"]) + len(self.rows["fates"])
        return len(self.rows[predicted]), len(self.rows["samples"]), pieces, len(self.finished)

    @property
    def finished(self) -> dict[str, dict[str, Any]]:
        """The newest row of each cell that has a result."""
        done = sorted((row for row in self.results if row["status"] == "ok"), key=lambda row: row["timestamp_utc"])
        return {row["config_id"]: row for row in done}

    def repeated(self, before: Kept) -> tuple[int, int]:
        """Count rows that had been kept and were computed again, and those that came out differently."""
        again = changed = 0
        for table in ("clips", "videos"):
            for key, rows in before.rows[table].items():
                for was, now in zip(rows, self.rows[table].get(key, []), strict=False):
                    again += was[0] != now[0]
                    changed += was[1] != now[1]
        return again, changed


def read(folder: Path) -> Kept:
    """Read all parts of all tables; dot files belong to writers that died, and no reader looks at them."""
    kept = Kept({table: {} for table in KEYS})
    for path in sorted(folder.glob("*.parquet/*.parquet")):
        if path.name.startswith("."):
            continue
        kept.newest = max(kept.newest, path.stat().st_mtime)
        try:
            content = pq.ParquetFile(pa.BufferReader(path.read_bytes())).read()
            beside = (content.schema.metadata or {}).get(b"vpbench.whole_with", b"").decode().split()
            if not all((folder / f"{table}.parquet" / path.name).exists() for table in beside):
                continue  # its writer died before the rest of the part was there: no reader takes it
            rows = content.to_pylist()
        except (OSError, pa.ArrowException) as error:
            kept.torn.append(f"{path.name}: {str(error).splitlines()[0]}")
            continue
        table = path.parent.stem
        if table == "results":
            kept.results += rows
        for row in rows if table in KEYS else ():
            key = (row.get("prediction_id") or row.get("config_id"), *(row.get(name) for name in KEYS[table]))
            if table == "samples" and "block" not in row:
                key = (*key, path.stem)  # dense has the same rounds in several blocks of a run, a file each
            said = repr([(name, value) for name, value in row.items() if name not in _OF_A_RUN])
            kept.rows[table].setdefault(key, []).append((row.get("run_id", ""), said))
    return kept


class Sweep:
    """The command that is killed and begun again."""

    def __init__(self, tree: Path, out: Path, arguments: str) -> None:
        self.tree, self.out = tree.resolve(), out.resolve()
        self.command = [sys.executable, "-m", "vpbench", "sweep", *shlex.split(arguments), "--out", str(self.out)]
        self.environment = os.environ | {"PYTHONPATH": str(self.tree), "PYTHONDONTWRITEBYTECODE": "1"}

    def killed_after(self, seconds: float, log: Path) -> int | None:
        """Run for so long, then kill the whole group; returns the exit code if it ended by itself before."""
        with log.open("ab") as said:
            process = subprocess.Popen(
                self.command, cwd=self.tree, env=self.environment, stdout=said, stderr=said, start_new_session=True
            )
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            while _alive(process.pid):
                time.sleep(0.05)

    def asked(self, *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.command, *more], cwd=self.tree, env=self.environment, capture_output=True, text=True, check=False
        )


def _alive(group: int) -> bool:
    """Tell whether a process of a group still runs; ended ones that nobody has waited for do nothing any more."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, its_group = path.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                return True
    return False


def kill_often(sweep: Sweep, kills: int, between: Sequence[float], seed: int, log: Path) -> list[str]:
    """Kill the sweep `kills` times and print what each kill left; returns what is wrong."""
    moments, problems, before = random.Random(seed), list[str](), read(sweep.out)
    header = (
        "kill",
        "ran s",
        "rows",
        "rounds",
        "pieces",
        "cells",
        "again",
        "first file s",
        "lost s",
        "left-over files",
    )
    print("".join(f"{name:>16}" for name in header))
    for number in range(1, kills + 1):
        began, names = time.time(), set(sweep.out.rglob("*.parquet"))
        code = sweep.killed_after(moments.uniform(*between), log)
        ended, kept = time.time(), read(sweep.out)
        written = [path.stat().st_mtime for path in set(sweep.out.rglob("*.parquet")) - names if path.is_file()]
        again, changed = kept.repeated(before)
        lost = ended - max(kept.newest, began)
        first = f"{min(written) - began:.1f}" if written else "none"
        temporary = len(list(sweep.out.glob("*.parquet/.*")))
        cells = (number, f"{ended - began:.1f}", *kept.progress, again, first, f"{lost:.1f}", temporary)
        print("".join(f"{cell:>16}" for cell in cells), flush=True)
        problems += [f"kill {number}: torn: {name}" for name in kept.torn]
        problems += [f"kill {number}: {changed} rows came out differently"] * bool(changed)
        problems += [f"kill {number}: rows lost"] * any(
            a < b for a, b in zip(kept.progress, before.progress, strict=True)
        )
        if code is not None:
            print(f"the sweep ended by itself with exit code {code}, before kill {number}")
            break
        problems += [f"kill {number}: no progress since the one before"] * (kept.progress == before.progress)
        before = kept
    return problems


def whole(sweep: Sweep, log: Path, longest: float) -> list[str]:
    """Let the sweep finish, and return what is lost, doubled or torn."""
    before, began = read(sweep.out), time.time()
    code = sweep.killed_after(longest, log)
    kept = read(sweep.out)
    again, changed = kept.repeated(before)
    print(
        f"finished in {time.time() - began:.1f} s with exit code {code}: {kept.progress}, {again} rows computed again"
    )
    problems = [f"the last run ended with exit code {code}; see {log}"] * (code != 0)
    problems += [f"torn: {name}" for name in kept.torn] + [f"{changed} rows came out differently"] * bool(changed)
    problems += doubled(sweep)
    predicted = "videos" if kept.rows["videos"] else "clips"
    videos = Counter(key[0] for key in kept.rows[predicted])
    for config_id, row in kept.finished.items():
        own = videos[row.get("prediction_id") or config_id]
        if own != row["n_expected"]:
            problems.append(f"{predicted}: {own} of {row['n_expected']} rows of {row['method']}, {config_id}")
    plan = sweep.asked("--dry-run").stdout.splitlines()
    if not plan or not plan[-1].endswith(" 0 to do"):
        problems.append(f"not all cells are done: {plan[-1] if plan else 'no plan'}")
    shown = subprocess.run(
        [sys.executable, "-m", "vpbench", "table", str(sweep.out), "--format", "csv"],
        cwd=sweep.tree, env=sweep.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if shown.returncode or "warning" in shown.stderr:
        problems.append(f"vpbench table: exit code {shown.returncode}: {shown.stderr.strip()[-300:]}")
    return problems


def doubled(sweep: Sweep) -> list[str]:
    """Return which rows are there more than once to whoever reads them: what was computed again replaces what was."""
    found = []
    for table, keys in KEYS.items():
        code = READ.format(folder=str(sweep.out), table=table, keys=keys)
        command = [sys.executable, "-c", code]
        read = subprocess.run(
            command, cwd=sweep.tree, env=sweep.environment, capture_output=True, text=True, check=True
        )
        found += [f"{table}: {read.stdout.strip()} rows are there more than once"] * (read.stdout.strip() != "0")
    return found


def unlike(out: Path, like: Path) -> list[str]:
    """Name rows that differ from those of a sweep that was never killed."""
    one, other = (dict(leaves(tables_of(folder))) for folder in (like, out))
    return [
        f"differs from {like}: {key}: {one.get(key)} -> {other.get(key)}"
        for key in dict.fromkeys([*one, *other])
        if one.get(key, like) != other.get(key, like)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", type=Path, default=Path(), help="checkout whose sweep is killed (default: here)")
    parser.add_argument("--out", type=Path, required=True, help="results folder, which must not be there yet")
    parser.add_argument("--kills", type=int, default=10, help="how often (default: 10)")
    parser.add_argument("--between", default="20,40", help="seconds from one start to its kill, LEAST,MOST")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (default: 0)")
    parser.add_argument("--sweep", default=SWEEP, help=f"options of the sweep (default: {SWEEP})")
    parser.add_argument("--like", type=Path, help="results folder of the same sweep, never killed")
    parser.add_argument("--longest", type=float, default=3600, help="seconds the last run may take (default: 3600)")
    given = parser.parse_args()
    if given.out.exists():
        raise SystemExit(f"{given.out} is there already; name a new folder")
    between = [float(value) for value in given.between.split(",")]
    sweep, log = Sweep(given.tree, given.out, given.sweep), given.out.resolve().with_suffix(".log")
    problems = kill_often(sweep, given.kills, between, given.seed, log)
    problems += whole(sweep, log, given.longest)
    if given.like is not None and not read(given.out).torn:
        problems += unlike(given.out, given.like)
    for problem in problems:
        print(problem)
    print(f"{len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
