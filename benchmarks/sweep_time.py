"""How long does a sweep take, and how much of that is not forwards that a result needs? This tree beside another.

    python benchmarks/sweep_time.py --base DIR --repeats 2

Each tree runs the same sweep into a new folder, in turn. A result needs one forward of every clip by every cell, and
the timed rounds; their time is taken from the rounds that were stored. The rest is loading, decoding, calibration,
warm-up, memory, writing, and work done twice.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent.parent
SWEEP = "sweep --method random,rlt,sta,tdiff,tome,topk --keep 0.3,0.6 --split ci --profile ci"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, help="another checkout, to take turns with")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--limit", type=int, default=40, help="clips")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    trees = {"here": HERE} | ({"base": given.base.resolve()} if given.base else {})
    took: dict[str, list[float]] = {name: [] for name in trees}
    for turn in range(given.repeats):
        for name, tree in trees.items():
            with tempfile.TemporaryDirectory() as folder:
                seconds = swept(tree, Path(folder), given.limit, given.threads)
                needed, cells = forwards_s(Path(folder))
            took[name].append(seconds)
            rest = 100 * (1 - needed / seconds)
            said = f"{seconds:.1f} s, {cells} cells, {needed:.1f} s of forwards, {rest:.0f} % else"
            print(f"turn {turn + 1}, {name}: {said}")
    if given.base:
        print(f"base / here: {np.median(np.array(took['base']) / np.array(took['here'])):.2f}")
    return 0


def swept(tree: Path, out: Path, limit: int, threads: int) -> float:
    """Run the sweep of a tree; returns seconds."""
    command = [sys.executable, "-m", "vpbench", *SWEEP.split(), "--limit", str(limit), "--threads", str(threads)]
    environment = os.environ | {"PYTHONPATH": str(tree)}
    began = time.perf_counter()
    done = subprocess.run([*command, "--out", str(out)], cwd=tree, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{tree}: {done.stderr[-2000:]}")
    return time.perf_counter() - began


def forwards_s(out: Path) -> tuple[float, int]:
    """Return seconds of forwards that the results of a sweep need, and how many cells there are."""
    samples = pq.read_table(out / "samples.parquet").to_pandas()
    results = pq.read_table(out / "results.parquet").to_pandas().drop_duplicates("config_id")
    timed = samples.loc[samples["scope"] == "model", "wall_ns"].sum() / 1e9
    predicted = (results["wall_ms_p50"] * results["n_clips"]).sum() / 1e3
    return float(timed + predicted), len(results)


if __name__ == "__main__":
    sys.exit(main())
