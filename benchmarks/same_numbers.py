"""Do two trees of vpbench compute the same? Facts of one tree go into a folder, and two folders are compared.

    python benchmarks/same_numbers.py write --tree DIR --out FACTS --stored RESULTS
    python benchmarks/same_numbers.py compare FACTS OTHER_FACTS

A tree is asked through its command line and its Parquet tables alone, so that both may be of any layout:

a  what `--dry-run` plans for every file and preset of configs/; ids lie in a file of their own (`compare --ids`)
b  `vpbench flops` of every preset
c  predictions, detections, fates and deterministic results of every method on every embedded backbone, to the last bit
d  tables, figures (svg) and page of one stored results folder, which has to be at the same path for both, byte for byte
e  what `vpbench check --no-time` and `vpbench verify tests/parity` say

In (c) rows go by backbone, method, keep ratio and clip or frame, never by id. Nothing is normalised but the folder
that (d) writes to, where commands print it, and seconds in the JUnit file of (e).
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

PARTS = "abcde"
# tests/helpers.SAME without the id, and what else of a results row is deterministic
SAME = (
    "status method method_params keep_nominal n_clips n_failed failures keep_realised gmacs_executed top1 top5 "
    "delta_pp agree kl logit_rel_l2 tokens_kept_mean clip_list_sha256"
)
ALSO = (
    "error task dataset split backbone weights_sha256 training_free reference caveat n_videos n_expected protocol "
    "views frames stride resolution batching scenario tokens_dense tokens_kept_p5 tokens_kept_p95 pad_waste "
    "gmacs_effective gmacs_p95 gflops_executed gmacs_dense gmacs_transformer gmacs_rgtp map50 map50_ci_lo map50_ci_hi "
    "map map_definition map50_slow map50_medium map50_fast vs_random_pp vs_random_ci_lo vs_random_ci_hi problems "
    "delta_ci_lo delta_ci_hi disc_b disc_c mcnemar_p"
)
# table -> columns that say which row it is, columns that are compared
TABLES = {
    "clips": (
        "clip_id view",
        "video_id label error pred top5 correct tokens_in tokens_layer macs padding_macs transformer_macs rgtp_macs "
        "broken kl logit_rel_l2 agree",
    ),
    "videos": ("video_id", "error views label pred top5 correct noun_label noun_pred noun_correct kl agree"),
    "detections": ("video_id frame", "error label score x1 y1 x2 y2"),
    "fates": ("clip_id stage", "video_id slots rows columns tubelet_frames tubelet_height tubelet_width tokens frames"),
}
# runs commands one after the other in one process, since each would load torch again
WORKER = """
import contextlib, io, json, runpy, sys, traceback
answers, real = [], sys.stdout
for arguments in json.load(sys.stdin):
    out, err, code = io.StringIO(), io.StringIO(), 0
    sys.argv = ["vpbench", *arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_module("vpbench", run_name="__main__", alter_sys=True)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            code = -1
            traceback.print_exc()
    answers.append({"exit": code, "out": out.getvalue(), "err": err.getvalue()})
json.dump(answers, real)
"""

Answer = dict[str, Any]


class Tree:
    """A checkout, asked in processes that import its own `vpbench`; `scratch` is a folder for what it writes."""

    def __init__(self, folder: Path, scratch: Path, jobs: int, device: str) -> None:
        self.folder, self.scratch, self.jobs, self.device = folder.resolve(), scratch, jobs, device
        one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        fixed = {"COLUMNS": "240", "NO_COLOR": "1", "TERM": "dumb", "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8"}
        self.environment = os.environ | one_thread | fixed | {"PYTHONPATH": str(self.folder)}
        usable = sorted(os.sched_getaffinity(0))
        self._processors: queue.Queue[int] = queue.Queue()
        for number in range(jobs):
            self._processors.put(usable[number % len(usable)])

    def vpbench(self, *arguments: str) -> Answer:
        """Run one command in a process of its own."""
        done = self._python(["-m", "vpbench", *arguments], None)
        return {"exit": done.returncode, "out": done.stdout, "err": done.stderr}

    def several(self, commands: Sequence[Sequence[str]]) -> list[Answer]:
        """Run many short commands, shared out to `jobs` processes."""
        shares = [commands[number :: self.jobs] for number in range(self.jobs)]
        found = self.at_once([lambda share=share: self._batch(share) for share in shares if share])  # type: ignore[misc]
        answers: list[Answer] = [{}] * len(commands)
        for number, share in enumerate(found):
            answers[number :: self.jobs] = share
        return answers

    def at_once(self, tasks: Sequence[Callable[[], Any]]) -> list[Any]:
        """Call functions that run processes, `jobs` at a time, each on a processor of its own."""
        with ThreadPoolExecutor(self.jobs) as pool:
            return list(pool.map(lambda task: task(), tasks))

    def _batch(self, commands: Sequence[Sequence[str]]) -> list[Answer]:
        done = self._python(["-c", WORKER], json.dumps([list(each) for each in commands]))
        if done.returncode:
            raise SystemExit(f"{self.folder}: commands ended with {done.returncode}:\n{done.stderr[-3000:]}")
        return list[Answer](json.loads(done.stdout))

    def _python(self, arguments: Sequence[str], given: str | None) -> subprocess.CompletedProcess[str]:
        processor = self._processors.get()
        try:
            # the mask is inherited: timing pins itself to the first processor it may use, which must not be the same
            return subprocess.run(
                ["taskset", "-c", str(processor), sys.executable, *arguments],
                cwd=self.folder, env=self.environment, input=given, capture_output=True, text=True, check=False,
            )  # fmt: skip
        finally:
            self._processors.put(processor)


def plans(tree: Tree, out: Path) -> None:
    """Part a: a request that lacks weights or boxes is tried with what is always there."""
    results = str(tree.scratch / "planned")
    wanted = {f"preset {name}": ["sweep", "--preset", name] for name in listed(tree, "presets")}
    for path in sorted((tree.folder / "configs").glob("*.toml")):
        if "presets" not in tomllib.loads(path.read_text()):
            wanted[f"config {path.name}"] = ["sweep", "--config", f"configs/{path.name}"]
    planned: dict[str, Any] = {name: {"cells": [], "refused": []} for name in wanted}
    ids: dict[str, list[str]] = {}
    boxes = ["--weights", "random", "--dataset", "synthmotion_boxes", "--split", "ci"]
    for more in (list[str](), ["--weights", "random"], boxes):
        left = [name for name in wanted if name not in ids]
        answers = tree.several([[*wanted[name], *more, "--dry-run", "--out", results] for name in left])
        for name, answer in zip(left, answers, strict=True):
            if answer["exit"]:
                planned[name]["refused"].append([answer["exit"], answer["err"]])
                continue
            lines = [line.split(maxsplit=1) for line in answer["out"].splitlines()[:-1]]  # the last one is a sum
            ids[name] = [line[0] for line in lines]
            planned[name]["cells"] = [line[1] for line in lines]
    save(out / "a" / "plans.json", planned)
    save(out / "a" / "ids.json", ids)


def counts(tree: Tree, out: Path) -> None:
    """Part b."""
    names = listed(tree, "presets")
    answers = tree.several([["flops", "--preset", name] for name in names])
    save(out / "b" / "flops.json", dict(zip(names, answers, strict=True)))


def numbers(tree: Tree, out: Path) -> None:
    """Part c: every method at keep 0.5, and at its own defaults, with random controls that copy their counts."""
    methods = ",".join(listed(tree, "methods"))

    def sweep(backbone: str, keep: Sequence[str]) -> tuple[str, Answer, Path]:
        name = f"{backbone}-{'keep' if keep else 'defaults'}"
        boxes = ["--dataset", "synthmotion_boxes", "--limit", "2"]  # a detector sees every frame of a video
        clips = boxes if backbone.startswith("vitdet") else ["--limit", "12"]
        folder = tree.scratch / name
        effort = ["--split", "ci", "--threads", "1", "--profile", "ci", "--device", tree.device, "--out", str(folder)]
        began = time.monotonic()
        answer = tree.vpbench("sweep", "--backbone", backbone, "--method", methods, *keep, *clips, *effort)
        print(f"  {name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
        return name, answer, folder

    embedded = [name for name in listed(tree, "backbones") if name.endswith("_embedded")]
    asked = [(backbone, keep) for backbone in embedded for keep in (["--keep", "0.5"], [])]
    sweeps = tree.at_once([lambda one=one: sweep(*one) for one in asked])  # type: ignore[misc]
    for name, answer, folder in sweeps:
        if answer["exit"] not in (0, 1):  # 1: cells were refused, which their rows say
            print(f"{name}: {answer}", file=sys.stderr)
        save(out / "c" / f"{name}.json", {"exit": answer["exit"], **tables_of(folder)})


def pictures(tree: Tree, out: Path, stored: Path) -> None:
    """Part d."""
    target, results = tree.scratch / "pictures", str(stored.resolve())
    target.mkdir()
    kinds = (list[str](), ["--metrics"], ["--against", "random"], ["--metrics", "--against", "random"])
    formats = ("console", "markdown", "csv", "latex")
    commands = [["table", results, *kind, "--format", form] for kind in kinds for form in formats]
    commands.append(["published", "--results", results, "--format", "csv"])  # all lines; each is counted, which is slow
    published = ["published", "--results", results, "--backbone", "videomae_s,vitdet_b_672"]
    commands += [[*published, "--format", form] for form in formats]
    for y in ([], ["--y", "agree"]):
        for size in ("paper", "slide"):
            folder = target / "-".join(["figures", size, *y[1:]])
            commands.append(["plot", results, *y, "--size", size, "--format", "svg", "--out", str(folder)])
    commands.append(["report", results, "--out", str(target / "report.html")])
    said = {}
    for command, answer in zip(commands, tree.several(commands), strict=True):
        said[" ".join(command)] = answer
    save(out / "d" / "said.json", json.loads(json.dumps(said).replace(str(target), "OUT")))
    shutil.copytree(target, out / "d" / "written")


def gates(tree: Tree, out: Path) -> None:
    """Part e."""
    junit = tree.scratch / "check.xml"
    commands = (["check", "--no-time", "--junit", str(junit)], ["verify", "tests/parity"])
    checked, verified = tree.at_once([lambda one=one: tree.vpbench(*one) for one in commands])  # type: ignore[misc]
    verdicts = re.sub(r' time="[^"]*"', "", junit.read_text()) if junit.exists() else ""
    save(out / "e" / "check.json", {"exit": checked["exit"], "out": checked["out"], "junit": verdicts})
    save(out / "e" / "verify.json", {"exit": verified["exit"], "out": verified["out"], "err": verified["err"]})


def listed(tree: Tree, kind: str) -> list[str]:
    (answer,) = tree.several([["ls", kind]])
    return [line.split()[0] for line in answer["out"].splitlines() if line.strip()]


def tables_of(folder: Path) -> dict[str, Any]:
    """Return the rows of a results folder by what they are of, floats written to the last bit.

    Predictions are found by `config_id`, or where tables go by it, by `prediction_id`; `results` holds both.
    """
    newest: dict[str, dict[str, Any]] = {}
    for row in sorted(rows_of(folder, "results"), key=lambda row: (row["status"] == "ok", row["timestamp_utc"])):
        newest[row["config_id"]] = row
    owners: dict[str, list[dict[str, Any]]] = {}
    for row in newest.values():
        for own in {row["config_id"], row.get("prediction_id")} - {None}:
            owners.setdefault(own, []).append(row)

    def cell(row: dict[str, Any]) -> str:
        copied = row.get("matched_to")
        counts = "" if copied is None else f" matched to ({', '.join(map(cell, owners.get(copied, []))) or 'unknown'})"
        return f"{row['method']} keep={row['keep_nominal']}{counts}"

    def named(table: str, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for row in rows_of(folder, table):
            cells = owners.get(row.get("prediction_id") or row["config_id"])
            for name in map(cell, cells) if cells else ["cell without a results row"]:
                yield " ".join([name, *(str(row[part]) for part in key.split())]), row

    found = {"results": numbered(((cell(row), row) for row in newest.values()), f"{SAME} {ALSO}")}
    for table, (key, columns) in TABLES.items():
        found[table] = numbered(named(table, key), columns)
    return found


def numbered(named: Iterable[tuple[str, dict[str, Any]]], columns: str) -> dict[str, dict[str, Any]]:
    """Number rows of one name in the order they are stored in: detections of a frame, or rows that are there twice."""
    seen: Counter[str] = Counter()
    found = {}
    for name, row in named:
        found[f"{name} #{seen[name]}"] = {c: exact(row[c]) if c in row else "no such column" for c in columns.split()}
        seen[name] += 1
    return dict(sorted(found.items()))


def rows_of(folder: Path, table: str) -> Iterator[dict[str, Any]]:
    """Read all part files of a table in order of their names; dot files are of writers that are still busy."""
    for path in sorted((folder / f"{table}.parquet").rglob("*.parquet")):
        if not path.name.startswith("."):
            yield from pq.ParquetFile(path).read().to_pylist()


def exact(value: Any) -> Any:
    """Return what JSON keeps to the last bit; content of files as its hash."""
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    return [exact(each) for each in value] if isinstance(value, list) else value


def save(path: Path, facts: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(facts, indent=0, default=str) + "\n")


def write(given: argparse.Namespace) -> int:
    if "d" in given.only and given.stored is None:
        raise SystemExit("part d draws a stored results folder; name it with --stored, or leave d out of --only")
    with tempfile.TemporaryDirectory() as scratch:
        tree = Tree(given.tree, Path(scratch), given.jobs, given.device)
        steps: dict[str, Callable[[], None]] = {
            name: lambda step=step: step(tree, given.out)  # type: ignore[misc]
            for name, step in (("a", plans), ("b", counts), ("c", numbers), ("e", gates))
        }
        steps["d"] = lambda: pictures(tree, given.out, given.stored)
        for part in given.only:
            shutil.rmtree(given.out / part, ignore_errors=True)
            began = time.monotonic()
            steps[part]()
            print(f"part {part}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    return 0


def compare(given: argparse.Namespace) -> int:
    """Name every difference between two folders of facts."""
    total = 0
    for part in given.only:
        one, other = (
            {str(path.relative_to(folder / part)): path for path in (folder / part).rglob("*") if path.is_file()}
            for folder in (given.one, given.other)
        )
        names = sorted({*one, *other} - (set() if given.ids else {"ids.json"}))
        found = [line for name in names for line in differences(name, one.get(name), other.get(name))]
        if not names:
            found = ["no facts in either folder"]
        for line in found[: given.most]:
            print(f"{part}: {line}")
        more = f", {len(found) - given.most} more than shown" if len(found) > given.most else ""
        print(f"{part}: {len(names)} files compared, {len(found)} differences{more}")
        total += len(found)
    return 1 if total else 0


def differences(name: str, one: Path | None, other: Path | None) -> Iterator[str]:
    """Yield a line per fact that differs, or that only one of two files knows."""
    if one is None or other is None:
        yield f"{name}: only in the {'second' if one is None else 'first'} folder"
    elif one.read_bytes() != other.read_bytes():
        if not name.endswith(".json"):
            changed = difflib.unified_diff(
                one.read_text(errors="replace").splitlines(), other.read_text(errors="replace").splitlines(), n=0
            )
            lines = [line[:200] for line in changed if line[:3] not in ("---", "+++")]
            yield f"{name}: {' | '.join(lines[:3]) or 'bytes differ'}"
            return
        left, right = (dict(leaves(json.loads(path.read_text()))) for path in (one, other))
        for key in dict.fromkeys([*left, *right]):
            missing = object()
            was, now = left.get(key, missing), right.get(key, missing)
            if was is missing or now is missing:
                yield f"{name}: {key}: only in the {'second' if was is missing else 'first'} folder"
            elif was != now:
                yield f"{name}: {key}: {shown(was, now)}"


def leaves(facts: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(facts, dict | list) and facts:
        for name, value in facts.items() if isinstance(facts, dict) else enumerate(facts):
            yield from leaves(value, f"{key} / {name}" if key else str(name))
    else:
        yield key, facts


def shown(was: Any, now: Any) -> str:
    """Return both values, or of long texts the first lines that differ."""
    if isinstance(was, str) and isinstance(now, str) and "\n" in was + now:
        changed = [line for line in difflib.ndiff(was.splitlines(), now.splitlines()) if line[0] in "+-"]
        return " | ".join(line[:200] for line in changed[:4])
    return f"{was!s:.300} -> {now!s:.300}"


def parts(text: str) -> str:
    chosen = text.replace(",", "")
    if not chosen or set(chosen) - set(PARTS):
        raise argparse.ArgumentTypeError(f"{text!r}: name parts of {', '.join(PARTS)}")
    return chosen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--only", type=parts, default=PARTS, help="parts, such as a,b,d (default: all)")
    commands = parser.add_subparsers(required=True)
    writing = commands.add_parser("write", parents=[shared], help="write the facts of a tree")
    writing.set_defaults(run=write)
    writing.add_argument("--tree", type=Path, default=Path(), help="checkout that is asked (default: here)")
    writing.add_argument("--out", type=Path, required=True, help="folder for the facts; chosen parts are replaced")
    writing.add_argument("--stored", type=Path, help="results folder that part d draws")
    writing.add_argument("--jobs", type=int, default=2, help="processes at a time, of one thread each (default: 2)")
    writing.add_argument("--device", default="cpu", help="where part c runs (default: cpu)")
    comparing = commands.add_parser("compare", parents=[shared], help="name all differences; exit code 1 if any")
    comparing.set_defaults(run=compare)
    comparing.add_argument("one", type=Path)
    comparing.add_argument("other", type=Path)
    comparing.add_argument("--ids", action="store_true", help="ids of part a have to be equal too")
    comparing.add_argument("--most", type=int, default=20, help="lines printed per part (default: 20)")
    given = parser.parse_args()
    return int(given.run(given))


if __name__ == "__main__":
    sys.exit(main())
