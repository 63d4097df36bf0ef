"""All that is to be known of a GPU, by one command: tests, controls of the clock, and every method at every setting.

    python benchmarks/gpu.py                      on a machine with CUDA: half an hour at most; again, it goes on
    python benchmarks/gpu.py --backbones videomae_b --dtypes amp --minutes 10
    python benchmarks/gpu.py --out out/rehearsal  without CUDA: a rehearsal on the CPU, with embedded backbones

In turn: the tests that need CUDA, the overhead of the harness, dense against itself, then the grid: every method at
half of its tokens on each backbone, with random weights and clips of the embedded videos, resized; batches of 1, 8 and
32; amp, bf16, fp32; eager, then compiled (`compile_dynamic` where clips keep different numbers of tokens, `compile` on
grids; detectors are not compiled). What is worth most comes first. Each step is a process of its own that is stopped
when its time is up; what it has measured is kept, and the next call goes on from there. Into `results/<machine>/` go
`gpu.md`, the table, and what tests and controls printed; rows themselves lie in `out/gpu/<machine>`, where `vpbench
table` and `vpbench report` read them. Exits with 1 if a test or a control failed, with 3 if something is left to do.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from vpbench import registry
from vpbench.api.method import load_method
from vpbench.measure import machine
from vpbench.rows.contexts import records
from vpbench.rows.schema import Result
from vpbench.rows.store import Store, latest

ROOT = Path(__file__).resolve().parent.parent
FULL = ("videomae_b", "mvit_b_16x4", "videoswin_b", "vivit_b_k400", "vitdet_b_672", "videomae_l")
EMBEDDED = tuple(f"{family}_embedded" for family in ("videomae", "mvit", "videoswin", "vivit", "vitdet"))
DTYPES = ("amp", "bf16", "fp32")
#: modes by the flow of tokens; the first is measured for all settings before the second
MODES = {"stream": ("eager", "compile_dynamic"), "steps": ("eager", "compile_dynamic"), "grid": ("eager", "compile"),
         "frames": ("eager",)}  # fmt: skip
#: the share of tokens that methods keep
KEEP = 0.5
#: seconds that a stopped process has to write down what it knows
GRACE_S = 20.0
FAILED, LEFT = 1, 3


@dataclass(frozen=True)
class Scale:
    """How much is measured: on a GPU, or in a rehearsal.

    `limit`: videos; `rounds`, `repetitions`: of both controls; `step_s`: seconds that a step of the grid may take.
    """

    device: str
    backbones: Sequence[str]
    batches: Sequence[int]
    limit: int
    rounds: int
    repetitions: int
    threads: int
    step_s: float


ON_GPU = Scale("cuda", FULL, (1, 8, 32), 32, 100, 10, 2, 240.0)
ON_CPU = Scale("cpu", EMBEDDED, (1, 2), 2, 10, 1, 1, 240.0)


@dataclass(frozen=True)
class Step:
    """One process, given as what Python is to run; `kept`: what it prints is a result, in a file of its own."""

    name: str
    command: Sequence[str]
    limit_s: float
    kept: bool = False

    @property
    def key(self) -> str:
        """What is asked for in full: the same step with other methods or batches is another."""
        return " ".join(self.command)


@dataclass
class Progress:
    """Which steps have ended, and how, in a file beside the rows."""

    file: Path
    ended: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.file.exists():
            self.ended = json.loads(self.file.read_text(encoding="utf-8"))

    def end(self, step: Step, code: int) -> None:
        """Note that a step has ended by itself."""
        self.ended[step.key] = code
        self.file.write_text(json.dumps(self.ended, indent=1), encoding="utf-8")


def main() -> int:
    given = _arguments()
    # shells start what runs in the background deaf to it, and steps are stopped by it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    on_gpu = torch.cuda.is_available()
    scale = ON_GPU if on_gpu else ON_CPU
    if not on_gpu:
        say("no CUDA here: a rehearsal on the CPU, with embedded backbones; its numbers say nothing of GPUs")
    name = slug(machine.snapshot(scale.device).device_name)
    rows = ROOT / "out" / ("gpu" if on_gpu else "gpu-rehearsal") / name
    out = given.out or (ROOT / "results" / name if on_gpu else rows)
    steps = [*controls(scale), *grid(scale, given, rows)]
    progress = Progress(rows / "steps.json")
    rows.mkdir(parents=True, exist_ok=True)
    try:
        work_through(steps, progress, time.monotonic() + 60 * given.minutes, rows, out)
    except KeyboardInterrupt:
        say("stopped")
    finally:
        out.mkdir(parents=True, exist_ok=True)
        (out / "gpu.md").write_text(report(rows, scale.device, steps, progress), encoding="utf-8")
        say(f"wrote {out / 'gpu.md'}")
    left = [step.name for step in steps if step.key not in progress.ended]
    if left:
        say(f"{len(left)} of {len(steps)} steps are left; the same command goes on: {', '.join(left)}")
    failed = failures(steps, progress, rows)
    if failed:
        say(f"failed: {', '.join(failed)}; see {out / 'gpu.md'} and {rows / 'logs'}")
    return FAILED if failed else LEFT if left else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    listed = {"type": lambda text: tuple(text.split(","))}
    parser.add_argument("--minutes", type=float, default=30.0, help="after which all is stopped (default: 30)")
    parser.add_argument("--backbones", **listed, help="names, separated by commas")
    parser.add_argument("--methods", **listed, help="names, separated by commas (default: all that there are)")
    parser.add_argument("--dtypes", **listed, default=DTYPES, help=f"default: {','.join(DTYPES)}")
    parser.add_argument("--batches", **listed, help="default: 1,8,32; 1,2 on a CPU")
    parser.add_argument("--modes", **listed, help="default: eager, and compiled where that is possible")
    parser.add_argument("--out", type=Path, help="where texts go (default: results/<machine>)")
    return parser.parse_args()


def slug(device_name: str) -> str:
    """Return a machine's name as folders are called."""
    return re.sub(r"[^a-z0-9]+", "-", device_name.lower()).strip("-")


def say(text: str) -> None:
    print(text, flush=True)


def controls(scale: Scale) -> Iterator[Step]:
    """Yield tests, overhead of the harness, and dense against itself."""
    yield Step("gpu_tests", ("-m", "pytest", "-v", "-rs", "-n", "0", "tests/cuda"), 420, kept=True)
    shared = ("--device", scale.device, "--threads", str(scale.threads))
    overhead = (*shared, "--rounds", str(scale.rounds))
    yield Step("gpu_overhead", ("benchmarks/harness_overhead.py", *overhead), 120, kept=True)
    twice = (*shared, "--profile", "ci", "--quiet", str(scale.repetitions), "--loaded", "0")
    yield Step("gpu_aa_control", ("benchmarks/aa_control.py", *twice), 180, kept=True)


def grid(scale: Scale, given: argparse.Namespace, rows: Path) -> Iterator[Step]:
    """Yield a sweep for each mode, precision and backbone: eager before compiled, amp before the others."""
    backbones = given.backbones or scale.backbones
    for place in range(2):
        for dtype in given.dtypes:
            for backbone in backbones:
                modes = MODES[registry.backbone(backbone).flow]
                if place < len(modes) and modes[place] in (given.modes or modes):
                    yield _sweep(scale, given, rows, backbone, dtype, modes[place])


def _sweep(scale: Scale, given: argparse.Namespace, rows: Path, backbone: str, dtype: str, mode: str) -> Step:
    entry = registry.backbone(backbone)
    detects = entry.task == "detection"
    methods = [name for name in methods_of(entry.flow) if given.methods is None or name in given.methods]
    batches = given.batches or tuple(map(str, scale.batches))
    limit = -(-scale.limit // 4) if detects else scale.limit  # a video has four windows of frames
    options = {
        "method": ",".join(["dense", *methods]), "keep": str(KEEP), "backbone": backbone, "weights": "random",
        "dataset": "synthmotion_boxes" if detects else "synthmotion", "split": "ci", "limit": str(limit),
        "dtype": dtype, "mode": mode, "batch": ",".join(batches), "device": scale.device, "profile": "survey",
        "threads": str(scale.threads), "out": str(rows),
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return Step(f"{backbone}-{dtype}-{mode}", ("-m", "vpbench", "sweep", *words), scale.step_s)


def methods_of(flow: str) -> list[str]:
    """Return the methods that can prune a flow of tokens, but for controls, which come along."""
    kinds = {name: load_method(name) for name in registry.names("methods")}
    brought = {"dense", "random", *(control for kind in kinds.values() for control in kind.controls)}
    return [name for name, kind in kinds.items() if flow in kind.flows and name not in brought]


def work_through(steps: Sequence[Step], progress: Progress, until: float, rows: Path, out: Path) -> None:
    """Run the steps that have not ended yet, as long as there is time."""
    for number, step in enumerate(steps, 1):
        if step.key in progress.ended:
            continue
        left = until - time.monotonic() - GRACE_S
        if left <= 0:
            return
        began, log = time.monotonic(), rows / "logs" / f"{step.name}.txt"
        code = run(step, min(step.limit_s, left), log)
        took = f"{time.monotonic() - began:.0f} s"
        if code is None:
            say(f"{number:3} of {len(steps)}  {step.name}: stopped after {took}, goes on next time")
            continue
        progress.end(step, code)
        if step.kept:
            out.mkdir(parents=True, exist_ok=True)
            (out / f"{step.name}.txt").write_text(log.read_text(encoding="utf-8"), encoding="utf-8")
        say(f"{number:3} of {len(steps)}  {step.name}: exit code {code}, {took}")


def run(step: Step, seconds: float, log: Path) -> int | None:
    """Run one process, all that it prints into `log`; returns its exit code, None where it was stopped."""
    log.parent.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with log.open("w", encoding="utf-8") as written:
        # a group of its own, so that no worker outlives it
        process = subprocess.Popen(
            (sys.executable, *step.command), cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, stdout=written,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGINT)
            return _ended(process)
        except KeyboardInterrupt:
            os.killpg(process.pid, signal.SIGINT)
            _ended(process)
            raise


def _ended(process: subprocess.Popen[bytes]) -> None:
    """Wait for what was asked to stop; it is killed where it does not."""
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def measured(rows: Path) -> pd.DataFrame:
    """Return the newest rows of all cells."""
    return latest(Store(rows, writable=False).read("results"))


def failures(steps: Sequence[Step], progress: Progress, rows: Path) -> list[str]:
    """Name steps and cells that failed; methods that a backbone refuses, and what does not fit a GPU, are findings."""
    found = [step.name for step in steps if progress.ended.get(step.key, 0) > (0 if step.kept else 1)]
    table = measured(rows)
    bad = table[table["status"].isin(["failed", "incomplete"])]
    names = zip(bad["method"], bad["backbone"], bad["dtype"], bad["exec_mode"], bad["batch_size"], strict=True)
    return [*found, *(" ".join(map(str, each)) for each in names)]


def report(rows: Path, device: str, steps: Sequence[Step], progress: Progress) -> str:
    """Return what was measured as Markdown: a table for each backbone, precision and mode."""
    found = machine.snapshot(device)
    ended = sum(step.key in progress.ended for step in steps)
    lines = [
        f"# {found.device_name}",
        "",
        f"`benchmarks/gpu.py` at commit {(found.git_commit or 'unknown')[:12]}, torch {found.torch_version}, CUDA "
        f"{found.cuda_version or '-'}, driver {found.driver or '-'}; {ended} of {len(steps)} steps have ended. Random "
        f"weights, clips of the embedded videos resized, methods at keep {KEEP:g}. Of each batch: milliseconds per "
        "clip (per frame on detectors), and speed-up over dense with its 95 % interval. GMACs: of dense over the "
        "method's. `!`: noisy; `L`: the GPU waits for the host (`launch_bound`).",
        "",
        *(f"- `{step.name}`: {_outcome(step, progress, rows)}" for step in steps if step.kept),
    ]
    results = measured(rows)
    for (backbone, dtype, mode), part in results.groupby(["backbone", "dtype", "exec_mode"], sort=False):
        lines += ["", f"## {backbone}, {dtype}, {mode}", "", *_table(records(part))]
    return "\n".join([*lines, ""])


def _outcome(step: Step, progress: Progress, rows: Path) -> str:
    """Return how a step ended, and the last line that it printed: how many tests were skipped, what was missed."""
    code = progress.ended.get(step.key)
    if code is None:
        return "not yet"
    printed = (rows / "logs" / f"{step.name}.txt").read_text(encoding="utf-8").split("\n")
    last = next((line for line in reversed(printed) if line.strip()), "nothing printed")
    return f"{'failed' if code else 'done'} (exit code {code}): {last.strip(' =')}"


def _table(rows: Sequence[Result]) -> list[str]:
    batches = sorted({row["batch_size"] for row in rows})
    cells: dict[str, dict[int, Result]] = {}
    # of a setting that was measured in other ways too, such as other threads, the newest row counts
    for row in sorted(rows, key=lambda row: (row["method"] != "dense", row["method"], row["timestamp_utc"])):
        cells.setdefault(row["method"], {})[row["batch_size"]] = row
    lines = ["| method | GMACs | " + " | ".join(f"batch {batch}" for batch in batches) + " |"]
    lines.append("|---" * (2 + len(batches)) + "|")
    for method, own in cells.items():
        lines.append(f"| {method} | {_saved(own)} | " + " | ".join(_cell(own.get(batch)) for batch in batches) + " |")
    reasons = {f"{row['method']}: {row['status']}: {row['error']}" for row in rows if row["status"] != "ok"}
    return [*lines, *([""] * bool(reasons)), *(f"- {reason}" for reason in sorted(reasons))]


def _saved(own: dict[int, Result]) -> str:
    known: Any = next((row for row in own.values() if row["gmacs_executed"]), None)
    return "" if known is None else f"{known['gmacs_dense'] / known['gmacs_executed']:.2f}"


def _cell(row: Result | None) -> str:
    if row is None:
        return ""
    if row["wall_ms_p50"] is None:
        return row["status"]
    marks = "!" * bool(row["noisy"]) + "L" * bool(row["launch_bound"])
    interval = f"{row['speedup']:.2f} [{row['speedup_ci_lo']:.2f}, {row['speedup_ci_hi']:.2f}]"
    return f"{row['wall_ms_p50']:.2f} ms, {interval} {marks}".rstrip()


if __name__ == "__main__":
    sys.exit(main())
