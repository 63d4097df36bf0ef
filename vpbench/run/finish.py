"""Rows of the results table, from what was predicted and timed: the only writer of results; loads no network.

It can be run again at any time, after a mend in statistics too: what was measured stays as it is.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from functools import cached_property

import pandas as pd
import pyarrow.compute as pc

from vpbench.errors import VpbenchError
from vpbench.measure.busy import launch_bound
from vpbench.plan.manifest import Frozen, Manifest, Run, every
from vpbench.progress import say
from vpbench.rows.contexts import plain
from vpbench.rows.schema import Result, WorkRow
from vpbench.rows.store import Store
from vpbench.run import columns
from vpbench.tasks import task_named
from vpbench.tasks.task import Seen, Stored

#: the scope of detectors without pyramid and head
_TRANSFORMER = "transformer"
#: rows of clips or frames that are at hand at once, as far as one cell has not more
_ROWS = 500_000
#: items that are named, where many are missing
_NAMED = 3


def finish(store: Store, manifest: Manifest, config_ids: Collection[str]) -> list[Result]:
    """Derive and write the rows of these cells of a group; return them."""
    group = _Group(store, manifest)
    rows = []
    for cell in (cell for cell in manifest.cells if cell.config_id in config_ids):
        row = group.row(cell)
        if row["status"] not in ("ok", "refused"):
            say(f"{cell.label}: {row['status']}: {row['error']}")
        # one part a cell: whoever finishes it again replaces it
        store.write("results", cell.config_id, [row])
        rows.append(row)
    return rows


def finish_all(store: Store) -> list[Result]:
    """Derive the rows of all groups of a results folder anew."""
    return [row for manifest in every(store.folder) for row in finish(store, manifest, _ids(manifest.cells))]


def lacking(store: Store) -> dict[str, str]:
    """Return, by its label, what is planned of a cell and not predicted, of groups of which anything is predicted."""
    found = dict[str, str]()
    for manifest in every(store.folder):
        group, total = _Group(store, manifest), sum(map(len, manifest.shards))
        own = {cell.label: group.lacking(cell) for cell in group.able()}
        if any(len(items) < total for items in own.values()):
            found |= {label: f"{named(items)} of {total}" for label, items in own.items() if items}
    return found


def untimed(store: Store, rows: Sequence[Result]) -> int:
    """Count the rows without times of groups that were planned with some."""
    timed = {cell.config_id for manifest in every(store.folder) if manifest.block for cell in manifest.cells}
    return sum(row["status"] == "ok" and row["config_id"] in timed and not row.get("n_rounds") for row in rows)


def named(items: Sequence[str]) -> str:
    """Name a few of many items."""
    more = ", ..." if len(items) > _NAMED else ""
    return f"{len(items)} items ({', '.join(items[:_NAMED])}{more})"


def _ids(cells: Iterable[Frozen]) -> set[str]:
    return {cell.config_id for cell in cells}


class _Group:
    """What is stored of one group of cells, read as it is asked for."""

    def __init__(self, store: Store, manifest: Manifest) -> None:
        self.store, self.manifest = store, manifest
        self.task = task_named(manifest.seen["task"])
        self._predicted: dict[str, Stored] = {}
        self._rounds: dict[str, columns.Rounds] = {}

    def row(self, cell: Frozen) -> Result:
        """Return the row of a cell, whatever happened to it."""
        base = columns.common(self.manifest, cell) | {"timestamp_utc": self._when(cell)}
        if cell.status != "ok":
            return base | {"status": cell.status, "error": cell.error}
        if (failure := self._failure(cell)) is not None:
            return base | failure
        try:
            quality, cost = self._quality(cell), self._time(cell)
        except VpbenchError as error:
            return base | {"status": "failed", "error": str(error)}
        if not quality and not cost:
            return base | (self._failure(cell, shards=True) or {"status": "failed", "error": self._nothing(cell)})
        row: Result = {**base, "status": "ok", **quality, **cost}
        ragged = base["batch_size"] > 1 and row.get("tokens_kept_p5") != row.get("tokens_kept_p95")
        return row | {"attn_impl": self.manifest.kernels["ragged" if ragged else "equal"], "setup_s": cell.setup_s}

    def able(self) -> list[Frozen]:
        """Return the cells that can run, and did not fail as far as they did."""
        well = [cell for cell in self.manifest.cells if cell.status == "ok" and self._failure(cell) is None]
        return [cell for cell in well if self._failure(cell, shards=True) is None]

    def lacking(self, cell: Frozen) -> list[str]:
        """Return the items that are planned and not there of a cell."""
        there = self._counts(cell)
        return [item for shard in self.manifest.shards for item, rows in shard.items() if there.get(item, 0) < rows]

    def _counts(self, cell: Frozen) -> dict[str, int]:
        """Return how many videos or frames are there of each item."""
        there = self.store.read(self.task.unread, columns=("video_id",), only={cell.prediction_id})
        return dict(Counter(there["video_id"].tolist()))

    def _nothing(self, cell: Frozen) -> str:
        lacking, total = self.lacking(cell), sum(map(len, self.manifest.shards))
        if not 0 < len(lacking) < total:
            return "nothing of it has been measured; run the same command, or a worker, again"
        return f"{named(lacking)} of {total} are not predicted yet; run the same command, or a worker, again"

    @cached_property
    def _work(self) -> pd.DataFrame:
        ids = {cell.config_id for cell in self.manifest.cells}
        return self.store.read("work", only=ids).sort_values("timestamp_utc", kind="stable")

    @cached_property
    def _work_rows(self) -> list[WorkRow]:
        return plain(self._work)

    def _of(self, cell: Frozen, kind: str) -> list[WorkRow]:
        return [row for row in self._work_rows if (row["config_id"], row["kind"]) == (cell.config_id, kind)]

    def _when(self, cell: Frozen) -> datetime:
        """Return when a cell was measured last, or else written down first; it is never stamped anew."""
        for table in (self._work, self.store.read("results", cell.config_id, columns=("config_id", "timestamp_utc"))):
            own = table[table["config_id"] == cell.config_id]
            if len(own):
                return own["timestamp_utc"].iloc[-1].to_pydatetime()
        return datetime.now(UTC)

    def _failure(self, cell: Frozen, shards: bool = False) -> Result | None:
        """Return what went wrong with a cell at last; with `shards`, in any of the shards that workers did."""
        notes = [row for row in self._of(cell, "predicted") if (row["found"] is not None) == shards]
        for row in notes if shards else [*notes[-1:], *self._of(cell, "memory")[-1:]]:
            if row["status"] != "ok":
                return {"status": row["status"], "error": row["error"]}
        return None

    def _stored(self, prediction_id: str) -> Stored:
        if prediction_id not in self._predicted:
            dense = self.manifest.dense.prediction_id
            self._predicted = {dense: self._predicted[dense]} if dense in self._predicted else {}
            self._load(self._together(prediction_id))
        return self._predicted[prediction_id]

    def _together(self, prediction_id: str) -> list[str]:
        """Return what is read together: each part of the tables is opened once for all of it."""
        seen = self.manifest.seen
        ids = list(dict.fromkeys(cell.prediction_id for cell in self.manifest.cells))
        at = ids.index(prediction_id)
        return ids[at : at + max(1, _ROWS // max(1, seen["expected"] * seen["views"]))]

    def _load(self, ids: Sequence[str]) -> None:
        # detections are read by who scores them: they are too many to be at hand
        names = [table for table in self.task.tables if table != "detections"]
        read = {name: self.store.read_arrow(name, only=set(ids)) for name in names}
        for each in ids:
            own = {name: table.filter(pc.equal(table["prediction_id"], each)) for name, table in read.items()}
            tables = {name: table.to_pandas(types_mapper=pd.ArrowDtype) for name, table in own.items()}
            self._predicted.setdefault(each, Stored(tables, self.store.folder, each))

    def _quality(self, cell: Frozen) -> Result:
        """Return columns of quality, tokens and operations; empty where not everything has been predicted."""
        own, dense = self._stored(cell.prediction_id), self._stored(self.manifest.dense.prediction_id)
        unread = own[self.task.unread]
        key = "clip_id" if "clip_id" in unread else "video_id"
        if len(unread) > self.manifest.seen["expected"] or unread[key].duplicated().any():
            raise VpbenchError(
                f"{len(unread)} {self.task.unit} are there where {self.manifest.seen['expected']} are planned; delete "
                f"the parts of {self.store.folder} that no worker wrote, and run `vpbench finish` again"
            )
        if min(len(unread), len(dense[self.task.unread])) < self.manifest.seen["expected"]:
            return {}
        if replaced := _other_files(unread, dense[self.task.unread]):
            raise VpbenchError(
                f"{replaced} {self.task.unit} were other files when it was measured than when dense was; run it again"
            )
        if unread["error"].notna().all():
            raise VpbenchError(f"none of the {len(unread)} {self.task.unit} could be read ({unread['error'].iloc[0]})")
        control = self.manifest.control(cell)
        other = None if control is None else self._stored(control.prediction_id)
        if other is not None and len(other[self.task.unread]) < self.manifest.seen["expected"]:
            other = None
        seen = Seen(**self.manifest.seen)
        row = self.task.score(self.manifest.shared(), seen, own, dense, other)
        return row | {"predicted_batch": self._other_batch(own["clips"])}

    def _other_batch(self, clips: pd.DataFrame) -> int | None:
        """Return the batch that quality was measured at, where it is not that of the times."""
        batches = clips["batch"].dropna()
        own = self.manifest.setting["batch"]
        return None if batches.empty or int(batches.iloc[0]) == own else int(batches.iloc[0])

    def _time(self, cell: Frozen) -> Result:
        """Return columns of time and memory; empty where no rounds were timed."""
        timed = self._of(cell, "rounds")
        if not timed:
            return {}
        block = timed[-1]["block"]
        rounds = self._block(block)
        row = columns.time(rounds, cell.config_id)
        if self.manifest.seen["task"] == "detection":
            row |= columns.transformer(rounds, cell.config_id, _TRANSFORMER)
        if self.manifest.shared().train_step:
            row |= columns.training(rounds, cell.config_id)
        run = self.manifest.runs[cell.run_id]
        row["noisy"] = bool(row["noisy"] or _disturbed(run, row["load_before"]))
        samples = self.store.read("samples", f"{block}-e2e", only={cell.config_id})
        row |= columns.passes(samples)
        stages = [each for each in self._of(cell, "stages") if each["block"] == block]
        row |= columns.found([*stages[-1:], *self._of(cell, "memory")[-1:]])
        return row | {"launch_bound": launch_bound(row["wall_ms_p50"], row.get("gpu_busy_ms"))}

    def _block(self, block: str) -> columns.Rounds:
        if block not in self._rounds:
            samples = self.store.read("samples", f"{block}-")
            samples = samples[samples["scope"] != "e2e"]
            if samples["device_id"].nunique() > 1:
                raise VpbenchError(
                    f"its block was timed on two devices at once; delete {block}-* in samples.parquet and work.parquet "
                    "and time it again"
                )
            work = self._work[self._work["block"] == block]
            self._rounds[block] = columns.Rounds(samples, work, self.manifest.dense.config_id)
        return self._rounds[block]


def _disturbed(run: Run, busy: float | None) -> bool:
    """Say whether others kept the machine busy before the rounds, or it was not fit to begin with."""
    return run.noisy or (busy is not None and busy > 0.2 * run.machine["cores"])


def _other_files(own: pd.DataFrame, dense: pd.DataFrame) -> int:
    """Count the videos whose files were not the same ones for a cell and for dense, as far as that is known."""
    if "file_bytes" not in own:
        return 0
    names = ["video_id", "file_bytes", "file_mtime_ns", "file_digest"]
    both = own[names].merge(dense[names], on="video_id", suffixes=("", "_dense")).dropna(subset=["file_bytes"])
    both = both.dropna(subset=["file_bytes_dense"])
    size = both["file_bytes"] == both["file_bytes_dense"]
    content = (both["file_digest"] == both["file_digest_dense"]).fillna(False)
    return int((~(size & ((both["file_mtime_ns"] == both["file_mtime_ns_dense"]) | content))).sum())
