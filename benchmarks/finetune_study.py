"""What fine-tuning with a method recovers, and for whom: embedded VideoMAE, off the shelf against fine-tuned.

    python benchmarks/finetune_study.py --out FOLDER [--steps 100] [--seeds 3] [--table FILE.md]

Dense, random, tdiff, rlt and tome at keep 0.2 and 0.4. Each is fine-tuned by the recipe `embedded` for the same number
of steps from the embedded weights, once per seed, and evaluated on the test split as it was trained. So is the
fine-tuning without a method, behind every method: what more training alone would have bought. A run that was stopped
goes on. `--only METHOD` does one method's first cell, to see how long one takes.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vpbench.rows.contexts import records
from vpbench.rows.schema import Result
from vpbench.rows.statistics import weights
from vpbench.rows.statistics.intervals import Interval
from vpbench.rows.store import Store, latest

METHODS, KEEPS = ("random", "tdiff", "rlt", "tome"), (0.2, 0.4)
BACKBONE = "videomae_embedded"
#: method and keep ratio; dense has none
Cell = tuple[str, float | None]
CELLS: tuple[Cell, ...] = (("dense", None), *((method, keep) for method in METHODS for keep in KEEPS))


def vpbench(*words: str | Path) -> None:
    command = [sys.executable, "-m", "vpbench", *map(str, words)]
    print(shlex.join(["vpbench", *command[3:]]), flush=True)
    subprocess.run(command, check=True)


def name_of(cell: Cell, seed: int) -> str:
    method, keep = cell
    return f"{method}{'' if keep is None else f'_{keep:g}'}_{seed}"


def trained(cell: Cell, seed: int, asked: argparse.Namespace) -> Path:
    """Fine-tune one cell from one seed; returns its weights."""
    method, keep = cell
    out = asked.out / "train" / name_of(cell, seed)
    file = out / f"{BACKBONE}.finetuned.safetensors"
    if not file.exists():
        ratio = () if keep is None else ("--keep", f"{keep:g}")
        numbers = ("--steps", str(asked.steps), "--set", f"recipe.seed={seed}")
        vpbench("train", "finetune", "--backbone", BACKBONE, "--method", method, *ratio, *numbers, "--out", out)
    return file


def evaluated(cells: Sequence[Cell], file: Path | None, asked: argparse.Namespace) -> None:
    """Predict the test split with cells of the same weights (None: as they come)."""
    given = () if file is None else ("--weights", file)
    keeps = sorted({keep for _, keep in cells if keep is not None})
    methods = dict.fromkeys(method for method, _ in cells)
    ratios = ("--keep", ",".join(f"{keep:g}" for keep in keeps)) if keeps else ()
    where = ("--out", asked.out / "results", "--only", "predict")
    vpbench("sweep", "--backbone", BACKBONE, "--method", ",".join(methods), *ratios, *given, *where)


def right_of(rows: Sequence[Result], store: Store, ids: list[str]) -> NDArray[np.bool_]:
    """Return what rows have right of the same videos, `[rows, videos]`."""
    found = []
    for row in rows:
        videos = store.read("videos", only={row["prediction_id"]}).drop_duplicates("video_id").set_index("video_id")
        if not ids:
            ids += sorted(videos.index)
        found.append(videos["correct"].reindex(ids).to_numpy(dtype=bool))
    return np.stack(found)


def written(interval: Interval, form: str) -> str:
    return f"{interval.value:{form}} [{interval.lo:{form}}, {interval.hi:{form}}]"


def table(digests: dict[str, list[str]], asked: argparse.Namespace) -> str:
    """Write what each cell gets right off the shelf, behind dense fine-tuning, and fine-tuned itself."""
    store, ids = Store(asked.out / "results", writable=False), list[str]()
    rows = records(latest(store.read("results")))

    def of(cell: Cell, weights_of: Sequence[str]) -> NDArray[np.bool_]:
        own = [row for row in rows if (row["method"], row["keep_nominal"]) == cell and row["matched_to"] is None]
        return right_of([row for digest in weights_of for row in own if row["weights_sha256"] == digest], store, ids)

    head = ("method", "keep", "off the shelf, %", "dense fine-tuned, %", "fine-tuned with it, %", "gain, pp")
    lines = ["| " + " | ".join((*head, "of which by the method, pp")) + " |", "|---|" + "---:|" * len(head)]
    for cell in CELLS:
        shelf, dense, own = of(cell, digests["shelf"]), of(cell, digests["dense"]), of(cell, digests[name_of(cell, -1)])
        numbers = [written(weights.mean(each), ".1f") for each in (shelf, dense, own)]
        gains = [written(weights.gain(before, own), "+.1f") for before in (shelf, dense)]
        keep = "" if cell[1] is None else f"{cell[1]:g}"
        lines.append("| " + " | ".join((cell[0], keep, *numbers, *gains)) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", help="a method: its first cell, one seed, and its times")
    parser.add_argument("--table", type=Path)
    asked = parser.parse_args()
    if asked.only:
        cell, began = next(cell for cell in CELLS if cell[0] == asked.only), time.monotonic()
        file, between = trained(cell, 0, asked), time.monotonic()
        evaluated([cell], file, asked)
        print(f"{between - began:.0f} s of training, {time.monotonic() - between:.0f} s of evaluation")
        return
    from vpbench.backbones import loading

    evaluated(CELLS, None, asked)
    digests = {"shelf": [loading.weights_digest(BACKBONE, "embedded")], "dense": []}
    for cell in CELLS:
        digests[name_of(cell, -1)] = []
        for seed in range(asked.seeds):
            file = trained(cell, seed, asked)
            evaluated(CELLS if cell[0] == "dense" else [cell], file, asked)
            digests[name_of(cell, -1)].append(loading.weights_digest(BACKBONE, str(file)))
    digests["dense"] = digests[name_of(("dense", None), -1)]
    found = table(digests, asked)
    print(found)
    if asked.table:
        asked.table.write_text(found)


if __name__ == "__main__":
    main()
