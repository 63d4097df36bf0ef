"""What do workers keep that are killed? kill -9 of one of several `sweep --shard i/n` at random moments, begun again.

    python benchmarks/kill_shards.py --kills 50 --between 2,7 --out FOLDER

After each kill the Parquet files are read from outside: rows that are there, rows lost, torn files, rows that lie there
twice, and seconds from the victim's last part to its kill, which have to be worked again. At the end the workers may go
on, `vpbench finish` derives the rows, and all of them have to be there, once. Rows computed again are counted over all
parts. Exits with 1 if a row is lost, doubled or torn, or where more than one part's worth of work is done again.
"""

from __future__ import annotations

import argparse
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vpbench.rows.store import Store
from vpbench.run.work import SETTLE_S

SWEEP = (
    "--backbone videomae_embedded --method dense,random,rlt,tdiff,tome --keep 0.5,0.75 --limit 120 --profile ci "
    "--threads 1 --only predict"
)


@dataclass
class Parts:
    """The parts of `videos` as they lie there: by name the rows of each, and files that cannot be read."""

    rows: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    torn: list[str] = field(default_factory=list)

    @property
    def keys(self) -> Counter[tuple[str, str]]:
        """How often each prediction of a video lies there."""
        return Counter(key for rows in self.rows.values() for key in rows)


def read(out: Path) -> Parts:
    found = Parts()
    for table in ("clips", "videos"):
        for path in sorted(out.glob(f"{table}.parquet/[!.]*.parquet")):
            try:
                rows = pq.ParquetFile(pa.OSFile(str(path))).read(["prediction_id", "video_id"]).to_pylist()
            except (OSError, pa.ArrowException) as error:
                found.torn.append(f"{path.name}: {error}")
                continue
            if table == "videos":  # written last: it makes the part whole
                found.rows[path.stem] = [(row["prediction_id"], row["video_id"]) for row in rows]
    return found


class Worker:
    """One of several workers, in a process group of its own."""

    def __init__(self, number: int, of: int, sweep: str, out: Path, log: Path) -> None:
        command = [sys.executable, "-m", "vpbench", "sweep", *shlex.split(sweep), "--out", str(out)]
        with log.open("ab") as said:
            self.process = subprocess.Popen(
                [*command, "--shard", f"{number}/{of}"], stdout=said, stderr=said, start_new_session=True
            )
        self.began = time.time()

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="results folder, which must not be there yet")
    parser.add_argument("--kills", type=int, default=10, help="how often (default: 10)")
    parser.add_argument("--workers", type=int, default=2, help="how many work at once (default: 2)")
    parser.add_argument("--between", default="2,7", help="seconds from one kill to the next, LEAST,MOST")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (default: 0)")
    parser.add_argument("--sweep", default=SWEEP, help=f"options of the sweep (default: {SWEEP})")
    given = parser.parse_args()
    if given.out.exists():
        raise SystemExit(f"{given.out} is there already; name a new folder")
    least, most = (float(value) for value in given.between.split(","))
    log, draw, problems = given.out.resolve().with_suffix(".log"), random.Random(given.seed), list[str]()
    plan = [sys.executable, "-m", "vpbench", "plan", *shlex.split(given.sweep), "--out", str(given.out)]
    print(subprocess.run(plan, capture_output=True, text=True, check=True).stdout.strip(), flush=True)
    workers = [Worker(number, given.workers, given.sweep, given.out, log) for number in range(given.workers)]
    before, kills, lost_s = Parts(), 0, list[float]()
    print(
        "".join(f"{name:>12}" for name in ("kill", "worker", "ran s", "rows", "lost rows", "torn", "twice", "lost s"))
    )
    while kills < given.kills:
        time.sleep(draw.uniform(least, most))
        number = draw.randrange(given.workers)
        if workers[number].process.poll() is not None:
            print(f"a worker ended by itself before the last kill: exit code {workers[number].process.returncode}")
            break
        workers[number].kill()
        now, kills, found = time.time(), kills + 1, read(given.out)
        own = [path.stat().st_mtime for path in given.out.glob("videos.parquet/[!.]*.parquet")]
        lost = now - max([workers[number].began, *(each for each in own if each <= now)])
        lost_s.append(lost)
        gone = sum(not found.keys[key] for key in before.keys)
        twice = sum(count - 1 for count in found.keys.values())
        ran = now - workers[number].began
        cells = (kills, number, f"{ran:.1f}", len(found.keys), gone, len(found.torn), twice, f"{lost:.1f}")
        print("".join(f"{cell:>12}" for cell in cells), flush=True)
        problems += [f"kill {kills}: {gone} rows lost"] * bool(gone) + [f"torn: {name}" for name in found.torn]
        workers[number] = Worker(number, given.workers, given.sweep, given.out, log)
        before = found
    codes = [worker.process.wait() for worker in workers]
    problems += [f"a worker ended with exit code {code}; see {log}" for code in codes if code]
    finish = [sys.executable, "-m", "vpbench", "finish", str(given.out)]
    finished = subprocess.run(finish, capture_output=True, text=True, check=False)
    problems += [f"vpbench finish: {finished.stdout.strip()} {finished.stderr.strip()}"] * bool(finished.returncode)
    found, store = read(given.out), Store(given.out, writable=False)
    again = sum(count - 1 for count in found.keys.values())
    rows, results = store.read("videos"), store.read("results")
    doubled = int(rows.duplicated(["prediction_id", "video_id"]).sum())
    expected = len(results) * int(results["n_expected"].iloc[0])
    problems += [f"{len(found.keys)} of {expected} rows"] * (len(found.keys) != expected) + store.problems
    problems += [f"{doubled} rows are there twice to readers"] * bool(doubled)
    problems += [
        f"{name}: {state}" for name, state in zip(results["method"], results["status"], strict=True) if state != "ok"
    ]
    problems += [f"{again} rows were written twice"] * bool(again)
    print(
        f"{kills} kills, {expected} rows: {sum('lost' in each for each in problems)} times lost, {doubled} doubled, "
        f"{len(found.torn)} torn; {again} written twice; of a part that was not written yet at most "
        f"{max(lost_s, default=0):.1f} s were lost (a part is {SETTLE_S:g} s at most, and a tenth of a short run)"
    )
    for problem in problems:
        print(problem)
    print(f"{len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
