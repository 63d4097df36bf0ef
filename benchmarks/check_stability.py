"""Does the gate cry wolf, and does it sleep? `vpbench check` many times on an unchanged tree, and on planted faults.

Unchanged: every run must pass, beside busy loops, with other threads, and with the kernels of another CPU.
Planted: a token more, 0.1 % of the multiply-accumulates, two clips' answers, each in the baseline that a tree is held
to, which is the same as a fault in the tree; and, in a copy of the checkout, a method that takes 30 % longer, held to
the commit without that. Every run must fail on that cell alone.

    python benchmarks/check_stability.py unchanged --runs 20 --busy 1
    python benchmarks/check_stability.py unchanged --runs 10 --environment ATEN_CPU_CAPABILITY=default
    python benchmarks/check_stability.py planted --runs 20
    python benchmarks/check_stability.py slower --runs 20
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vpbench import CHECKOUT
from vpbench.commands.check.baseline import COMMITTED

#: the cell with planted faults: short forwards, where noise is largest
BACKBONE, METHOD = "videomae_embedded", "tdiff"
PLANTED = f"{BACKBONE}/{METHOD}"
#: share by which it is made slower
SLOWER = 0.30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("unchanged", "planted", "slower"))
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--busy", type=int, default=0, help="processes that keep a core busy meanwhile")
    parser.add_argument("--backbone", default="", help="only these backbones, as in `vpbench check`")
    parser.add_argument("--environment", action="append", default=[], help="NAME=VALUE, for the gate")
    asked = parser.parse_args()
    environment = os.environ | dict(each.split("=", 1) for each in asked.environment)
    said = ", ".join([f"{multiprocessing.cpu_count()} cores", f"{asked.busy} busy loops", *asked.environment])
    print(f"{asked.what}: {said}", flush=True)
    with tempfile.TemporaryDirectory() as folder, busy(asked.busy):
        good = sum(KINDS[asked.what](Path(folder), number, asked, environment) for number in range(asked.runs))
    print(f"{asked.what}: {good} of {asked.runs} as they must be")
    sys.exit(good < asked.runs)


def unchanged(folder: Path, number: int, asked: argparse.Namespace, environment: dict[str, str]) -> bool:
    narrowed = ["--backbone", asked.backbone] if asked.backbone else []
    return gate(CHECKOUT, number, narrowed, environment) == set()


def planted(folder: Path, number: int, asked: argparse.Namespace, environment: dict[str, str]) -> bool:
    name, plant = FAULTS[number % len(FAULTS)]
    content = json.loads(COMMITTED.read_text(encoding="utf-8"))
    plant(content["cells"][PLANTED]["clips"], number)
    path = folder / "planted.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    print(f"{name}:", end=" ")
    only = ["--backbone", BACKBONE, "--method", f"dense,{METHOD},rlt"]
    return gate(CHECKOUT, number, ["--no-time", "--baseline", str(path), *only], environment) == {PLANTED}


def a_token_more(clips: dict[str, Any], number: int) -> None:
    clip = clips[sorted(clips)[number % len(clips)]]
    clip["tokens"] = [[attention + 1, mlp + 1] for attention, mlp in clip["tokens"]]


def macs(clips: dict[str, Any], number: int) -> None:
    for clip in clips.values():
        clip["macs"] = round(clip["macs"] * 1.001)


def two_answers(clips: dict[str, Any], number: int) -> None:
    for name in sorted(clips)[number % 3 : number % 3 + 2]:
        values = clips[name]["values"]
        best = max(range(len(values)), key=values.__getitem__)
        other = (best + 1) % len(values)
        values[best], values[other] = values[other], values[best]


FAULTS: tuple[tuple[str, Callable[[dict[str, Any], int], None]], ...] = (
    ("a token more", a_token_more), ("0.1 % of the MACs", macs), ("two answers", two_answers)
)  # fmt: skip


def slower(folder: Path, number: int, asked: argparse.Namespace, environment: dict[str, str]) -> bool:
    tree = folder / "tree"
    if not tree.exists():
        subprocess.run(["git", "clone", "-q", str(CHECKOUT), str(tree)], check=True)
        _slow_down(tree / "methods" / f"{METHOD}.py", SLOWER * _takes_s())
    only = ["--only-time", "--against", "HEAD", "--backbone", BACKBONE, "--method", f"{METHOD},rlt,tome"]
    return gate(tree, number, only, environment | {"PYTHONPATH": str(tree)}) == {PLANTED}


def _takes_s() -> float:
    """Return the seconds that the method takes for a clip, in its fastest of some rounds."""
    import torch

    from vpbench.commands.check.cells import Cells
    from vpbench.measure.rounds import MODEL

    cells = Cells(BACKBONE)
    call = cells.walk(cells.attach(METHOD, None)).scopes[MODEL]
    took = []
    with torch.inference_mode():
        for number in range(30):
            began = time.perf_counter()
            call(number)
            took.append(time.perf_counter() - began)
    return min(took)


def _slow_down(file: Path, seconds: float) -> None:
    """Let a method do nothing for so long in each forward."""
    text = file.read_text(encoding="utf-8")
    site = text.index("    def video(self")
    body = text.index(":\n", text.index("->", site)) + 2
    wait = f"        import time\n        until = time.perf_counter() + {seconds!r}\n"
    wait += "        while time.perf_counter() < until:\n            pass\n"
    file.write_text(text[:body] + wait + text[body:], encoding="utf-8")


KINDS = {"unchanged": unchanged, "planted": planted, "slower": slower}


def gate(tree: Path, number: int, options: list[str], environment: dict[str, str]) -> set[str]:
    """Run the gate of a tree once in a process of its own; returns the cells that failed."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "vpbench", "check", *options]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    failed = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("FAIL ")}
    last = done.stdout.splitlines()[-1] if done.stdout and not failed else done.stderr.strip()
    print(f"run {number}: exit {done.returncode}, {time.perf_counter() - began:.0f} s, {', '.join(failed) or last}")
    for line in done.stdout.splitlines() if failed else ():
        if line.startswith("        "):
            print(f"  {line.strip()}", flush=True)
    return failed if done.returncode in (0, 1) else {f"exit {done.returncode}"}


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
