"""How much faster are two workers than one, on two idle cores? A quality pass of each, from its first part to its last.

    python benchmarks/two_workers.py --out FOLDER

Exits with 1 where two are not 1.7 times as fast. Starting Python and loading the network, which each worker does at the
same time, are left out: they are seconds of what is to take hours.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path

from vpbench.rows.store import Store

SWEEP = (
    "--backbone videomae_embedded --method random,rlt,sta,tdiff --keep 0.4 --limit 120 --threads 1 --profile ci "
    "--only predict"
)
LEAST = 1.7


def took(out: Path, workers: int) -> float:
    """Have so many workers do the pass; returns the seconds that the busiest of them was at its shards."""
    command = [sys.executable, "-m", "vpbench"]
    subprocess.run([*command, "plan", *shlex.split(SWEEP), "--out", str(out)], check=True, capture_output=True)
    sweep = [*command, "sweep", *shlex.split(SWEEP), "--out", str(out)]
    started = [
        subprocess.Popen(
            [*sweep, "--shard", f"{number}/{workers}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for number in range(workers)
    ]
    if codes := [code for code in (each.wait() for each in started) if code]:
        raise SystemExit(f"workers ended with exit codes {codes}")
    store = Store(out, writable=False)
    # the name of a part ends with its worker and shard, and a shard's note says how long it took
    owner = {name.split("-", 3)[3]: name.split("-")[2] for name in store.parts("videos")}
    busy = dict.fromkeys(owner.values(), 0.0)
    for name in store.parts("work"):
        [told] = set(store.read("work", parts={name})["found"])
        busy[owner[name.removesuffix("-predicted")]] += json.loads(told)["seconds"]
    return max(busy.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the results folders of both")
    given = parser.parse_args()
    one, two = (took(given.out / str(workers), workers) for workers in (1, 2))
    print(f"one worker {one:.1f} s, the busier of two {two:.1f} s: {one / two:.2f} times as fast")
    return 0 if one / two >= LEAST else 1


if __name__ == "__main__":
    sys.exit(main())
