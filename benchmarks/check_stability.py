"""Does the gate cry wolf, and does it sleep? `vpbench check` many times beside busy loops, and with planted slowdowns.

Unchanged: every run must pass. Planted: one method's stored time is divided by 1.3, as if it now took 30 % longer;
every run must fail, on that method alone.

    python benchmarks/check_stability.py --runs 20 --busy 1 --planted 5
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vpbench.commands.check.baseline import COMMITTED

#: method of the planted slowdown: short forwards, where noise is largest
PLANTED = "videomae_embedded/tdiff"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20, help="runs on the unchanged tree")
    parser.add_argument("--planted", type=int, default=5, help="runs with a planted slowdown")
    parser.add_argument("--busy", type=int, default=1, help="processes that keep a core busy meanwhile")
    parser.add_argument("--backbone", default="", help="only these backbones, as in `vpbench check`")
    asked = parser.parse_args()
    narrowed = ["--backbone", asked.backbone] if asked.backbone else []
    print(f"{platform.processor() or platform.machine()}, {multiprocessing.cpu_count()} cores, {asked.busy} busy loops")
    with tempfile.TemporaryDirectory() as folder, busy(asked.busy):
        passed = sum(run(number, narrowed) == set() for number in range(asked.runs))
        slow = ["--baseline", str(slowed(Path(folder))), *narrowed]
        caught = sum(run(number, slow) == {PLANTED} for number in range(asked.planted))
    print(f"unchanged: {passed} of {asked.runs} passed; 30 % slower: {caught} of {asked.planted} caught")
    sys.exit(passed < asked.runs or caught < asked.planted)


def run(number: int, options: list[str]) -> set[str]:
    """Run the gate once in a process of its own; returns the cells that failed."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "vpbench", "check", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    failed = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("FAIL ")}
    last = done.stdout.splitlines()[-1] if done.stdout and not failed else done.stderr.strip()
    print(f"run {number}: exit {done.returncode}, {time.perf_counter() - began:.0f} s, {', '.join(failed) or last}")
    for line in done.stdout.splitlines() if failed else ():
        if line.startswith("        "):
            print(f"  {line.strip()}", flush=True)
    return failed if done.returncode in (0, 1) else {f"exit {done.returncode}"}


def slowed(folder: Path) -> Path:
    """Write a baseline in which one method was faster by 1.3 than it is."""
    content = json.loads(COMMITTED.read_text(encoding="utf-8"))
    content["cells"][PLANTED]["time"] /= 1.3
    path = folder / "slowed.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@contextmanager
def busy(number: int) -> Iterator[None]:
    """Keep so many cores busy for a while."""
    loops = [multiprocessing.Process(target=_spin, daemon=True) for _ in range(number)]
    for loop in loops:
        loop.start()
    try:
        yield
    finally:
        for loop in loops:
            loop.terminate()


def _spin() -> None:
    while True:
        pass


if __name__ == "__main__":
    main()
