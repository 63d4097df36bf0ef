"""How long does `vpbench finish` take, and how much memory, on what a large sweep of many workers leaves behind?

    python benchmarks/finish_time.py --out FOLDER --videos 20000 --cells 40 --views 1 --parts 1000

Writes made-up predictions of so many videos, views and cells in so many parts into FOLDER, as workers do, unless it is
there, and derives the rows in a process of its own. Exits with 1 where a row is not `ok`.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from vpbench import plan
from vpbench.plan import manifest
from vpbench.plan.manifest import Frozen, Manifest, Run
from vpbench.processes import call
from vpbench.rows.schema import SCHEMAS
from vpbench.rows.store import Store
from vpbench.run.finish import finish_all

CLASSES, DEPTH, TOKENS = 400, 12, 1568


def planned(videos: int, cells: int, views: int) -> Manifest:
    """A plan of VideoMAE on as many videos, dense first."""
    asked = plan.options({"method": ("dense",), "backbone": "videomae_b"})
    setting = plan.setting(asked, threads=1)
    own = [f"{number:012x}" for number in range(cells)]
    frozen = [
        Frozen(
            "r", name, name, "rlt" if number else "dense", {}, number / cells or None, None, None, name, "0", True, "",
            parameters={},
        )
        for number, name in enumerate(own)
    ]  # fmt: skip
    machine = {"device_name": "made up", "torch_version": "", "cuda_version": None, "driver": None, "git_commit": None}
    run = Run("vpbench sweep", machine | {"interop_threads": 1, "cores": 1, "libraries": {}}, False)
    seen = {"task": "recognition", "expected": videos, "digest": "0", "protocol": "dense", "views": views}
    seen |= {
        "decoder": "pyav",
        "frames": 16,
        "stride": 4,
        "resolution": 224,
        "tokens": TOKENS,
        "parameters": 87_000_000,
    }
    items = {f"video{number:06d}": 1 for number in range(videos)}
    return Manifest(
        "r", {"r": run}, plan_fields(setting), seen | {"outputs": CLASSES}, "file", "0", {"equal": "", "ragged": ""},
        tuple(frozen), shards=manifest.cut(items),
    )  # fmt: skip


def plan_fields(setting: plan.Setting) -> dict[str, object]:
    return {name: getattr(setting, name) for name in plan.Setting.__dataclass_fields__}


def part_of(found: Manifest, videos: np.ndarray, views: int) -> dict[str, pa.Table]:
    """Rows of all cells on some videos: dense is right on most, others on fewer, and drop tokens."""
    tables: dict[str, list[pa.Table]] = {"clips": [], "videos": []}
    label = (videos * 7919) % CLASSES
    for number, cell in enumerate(found.cells):
        draw = np.random.default_rng(int(videos[0]) * 64 + number)
        pred = np.where(draw.random(len(videos)) < 0.8 - 0.002 * number, label, (label + 1) % CLASSES)
        names = [f"video{video:06d}" for video in videos]
        top5 = np.stack([(pred + k) % CLASSES for k in range(5)], axis=1).astype(np.int32)
        correct = pred == label
        shared = {"run_id": "r", "prediction_id": cell.prediction_id, "agree": True}
        tables["videos"].append(
            filled("videos", len(videos), shared | {
                "video_id": names, "views": views, "label": label, "pred": pred, "top5": list(top5), "correct": correct,
                "kl": draw.random(len(videos)), "decode_ms": 100.0, "preprocess_ms": 10.0,
            })
        )  # fmt: skip
        every = np.repeat(np.arange(len(videos)), views)
        kept = draw.integers(300, TOKENS, len(every)) if number else np.full(len(every), TOKENS)
        layers = np.concatenate([np.full((len(every), 1), TOKENS), np.repeat(kept[:, None], DEPTH - 1, 1)], axis=1)
        view = np.tile(np.arange(views), len(videos))
        tables["clips"].append(
            filled("clips", len(every), shared | {
                "clip_id": [f"{names[video]}@{v}" for video, v in zip(every, view, strict=True)],
                "video_id": [names[video] for video in every], "view": view, "batch": 8, "label": label[every],
                "pred": pred[every], "top5": list(top5[every]), "correct": correct[every], "tokens_in": TOKENS,
                "tokens_layer": list(layers.astype(np.int32)), "macs": layers.sum(axis=1) * 10**7, "padding_macs": 0,
                "kl": draw.random(len(every)), "logit_rel_l2": draw.random(len(every)),
            })
        )  # fmt: skip
    return {table: pa.concat_tables(pieces) for table, pieces in tables.items()}


def filled(table: str, rows: int, columns: dict[str, object]) -> pa.Table:
    """Columns of a table, single values repeated, nulls elsewhere."""
    found = []
    for field in SCHEMAS[table]:
        value = columns.get(field.name)
        if isinstance(value, np.ndarray | list):
            found.append(pa.array(value, field.type))
        else:
            found.append(pa.nulls(rows, field.type) if value is None else pa.array([value] * rows, field.type))
    return pa.table(found, schema=SCHEMAS[table])


def build(out: Path, videos: int, cells: int, views: int, parts: int) -> None:
    store, found = Store(out), planned(videos, cells, views)
    found.write(out)
    for number, own in enumerate(np.array_split(np.arange(videos), parts)):
        store.write_together(f"{number:020d}-00000-made-up", part_of(found, own, views))


def derived(out: Path) -> tuple[list[str], float, float]:
    """Derive all rows; returns their states, seconds, and the peak of memory in GiB."""
    began = time.perf_counter()
    rows = finish_all(Store(out))
    seconds = time.perf_counter() - began
    return [row["status"] for row in rows], seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the made-up results")
    for name, default in (("videos", 20_000), ("cells", 40), ("views", 1), ("parts", 1000)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default: {default}")
    given = parser.parse_args()
    if not given.out.exists():
        began = time.perf_counter()
        build(given.out, given.videos, given.cells, given.views, given.parts)
        print(f"{given.parts} parts written in {time.perf_counter() - began:.0f} s", flush=True)
    size = sum(path.stat().st_size for path in given.out.glob("*.parquet/*")) / 1e9
    states, seconds, peak = call(derived, given.out, name="finish", deadline_s=3600)
    print(
        f"{given.videos} videos x {given.cells} cells x {given.views} views, {given.parts} parts, {size:.2f} GB: "
        f"{seconds:.0f} s, peak of {peak:.2f} GiB"
    )
    return 0 if states == ["ok"] * given.cells else 1


if __name__ == "__main__":
    sys.exit(main())
