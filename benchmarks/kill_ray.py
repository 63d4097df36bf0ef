"""What does `--executor ray` keep when its driver is killed, then a node? On three nodes of a local cluster.

    python benchmarks/kill_ray.py --out FOLDER

Both die in mid-run, by kill -9; the driver is begun again after its death. Exits with 1 if a row is lost or doubled, or
where the command does not end well.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from ray.cluster_utils import Cluster

from vpbench.rows.store import Store

SWEEP = (
    "--backbone videomae_embedded --method rlt,sta --set sta.r=8 --limit 150 --threads 1 --profile ci --only predict"
)


def rows(folder: Path, least: int, longest_s: float = 300) -> int:
    """Wait until so many rows are there; returns how many are."""
    until = time.monotonic() + longest_s
    while time.monotonic() < until:
        there = len(Store(folder, writable=False).read("videos", columns=("video_id",))) if folder.is_dir() else 0
        if there >= least:
            return there
        time.sleep(0.2)
    raise SystemExit(f"not even {least} rows after {longest_s:g} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="results folder, which must not be there yet")
    parser.add_argument("--sweep", default=SWEEP, help=f"options of the sweep (default: {SWEEP})")
    given = parser.parse_args()
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    command = [sys.executable, "-m", "vpbench", "sweep", *shlex.split(given.sweep), "--executor", "ray"]
    log, there = given.out.resolve().with_suffix(".log").open("wb"), os.environ | {"RAY_ADDRESS": cluster.address}

    def begun() -> subprocess.Popen[bytes]:
        return subprocess.Popen([*command, "--out", str(given.out)], env=there, stdout=log, stderr=log)

    driver = begun()
    before = rows(given.out, 20)
    driver.kill()
    driver.wait()
    kept = rows(given.out, 0)
    print(f"driver killed at {kept} rows, {max(0, before - kept)} lost", flush=True)
    driver = begun()
    before = rows(given.out, kept + 100)
    cluster.remove_node(nodes[0], allow_graceful=False)
    after = rows(given.out, 0)
    print(f"node killed at {before} rows, {max(0, before - after)} lost", flush=True)
    code = driver.wait()
    found = Store(given.out, writable=False)
    videos, results = found.read("videos"), found.read("results")
    doubled = int(videos.duplicated(["prediction_id", "video_id"]).sum())
    expected = int(results["n_expected"].sum())
    print(f"exit code {code}: {len(videos)} of {expected} rows, {doubled} doubled, {len(found.problems)} torn files")
    cluster.shutdown()
    return 0 if (code, len(videos), doubled, len(found.problems)) == (0, expected, 0, 0) else 1


if __name__ == "__main__":
    sys.exit(main())
