"""Columns of the results table that are alike for all tasks: what was run on what, and how long it took."""

import json
from collections.abc import Sequence

import numpy as np
import pandas as pd

import vpbench
from vpbench.measure.rounds import MODEL, TRAIN, TWIN
from vpbench.plan.manifest import Frozen, Manifest
from vpbench.rows.contexts import plain
from vpbench.rows.schema import SCHEMA_VERSION, Result, WorkRow
from vpbench.rows.statistics import intervals


def common(manifest: Manifest, cell: Frozen) -> Result:
    """Columns known before anything is measured: identity, model, data, execution."""
    setting, seen, run = manifest.shared(), manifest.seen, manifest.runs[cell.run_id]
    machine = run.machine
    one = setting.batch == 1
    return {
        "run_id": cell.run_id,
        "config_id": cell.config_id,
        "prediction_id": cell.prediction_id,
        "task": seen["task"],
        "schema_version": SCHEMA_VERSION,
        "profile": setting.profile,
        "command": run.command,
        "method": cell.method,
        "method_version": cell.version,
        "method_params": json.dumps(cell.given if cell.parameters is None else cell.parameters),
        "keep_nominal": cell.keep,
        "training_free": cell.training_free,
        "weights_kind": manifest.weights_kind,
        "weights_sha256": manifest.weights,
        "weights_key": manifest.weights_key,
        "seed": setting.seed,
        "reference": cell.method if cell.method in ("dense", "random") else "method",
        "caveat": cell.caveat,
        "matched_to": cell.match,
        "backbone": setting.backbone,
        "backbone_params_m": seen["parameters"] / 1e6,
        "dataset": setting.dataset,
        "split": setting.split,
        "n_clips": 0,
        "n_expected": seen["expected"],
        "n_failed": 0,
        "protocol": seen["protocol"],
        "workers": setting.workers,
        "views": seen["views"],
        "frames": seen["frames"],
        "stride": seen["stride"],
        "resolution": seen["resolution"],
        "clip_list_sha256": seen["digest"],
        "problems": seen.get("problems"),
        "costs": seen.get("costs"),
        "positions": seen.get("positions"),
        "decoder": seen["decoder"],
        "device": setting.device,
        "device_name": machine["device_name"],
        "n_threads": setting.threads,
        "n_interop_threads": machine["interop_threads"],
        "dtype": setting.dtype,
        "matmul_precision": "highest",
        "attn_impl": manifest.kernels["equal"],
        "exec_mode": setting.mode,
        "batching": "single" if one else "lockstep" if seen["task"] == "detection" else "packed_loop",
        "batch_size": setting.batch,
        "scenario": "latency" if one else "throughput",
        "torch_version": machine["torch_version"],
        "cuda_version": machine["cuda_version"],
        "driver": machine["driver"],
        "git_commit": machine["git_commit"],
        "lib_versions": json.dumps({"vpbench": vpbench.__version__, **machine["libraries"]}),
        "tokens_dense": seen["tokens"],
        "notes": cell.reference,
    }


class Rounds:
    """The rounds of one block: samples as they are stored, and what is known of each configuration."""

    def __init__(self, samples: pd.DataFrame, work: pd.DataFrame, dense_id: str) -> None:
        kept = samples.sort_values(["process", "round"], kind="stable")
        self._series = {(str(c), str(s)): rows for (c, s), rows in kept.groupby(["config_id", "scope"], sort=False)}
        self._facts: dict[str, list[WorkRow]] = {}
        timed: list[WorkRow] = plain(work[work["kind"] == "rounds"])
        for row in timed:
            self._facts.setdefault(row["config_id"], []).append(row)
        self.dense_id = dense_id

    def of(self, config_id: str, scope: str = MODEL) -> pd.DataFrame:
        """Return the samples of one configuration that count, in the order of processes and rounds."""
        rows = self._series[config_id, scope]
        return rows[~rows["dropped"].astype(bool)]

    def wall(self, config_id: str, scope: str = MODEL) -> np.ndarray:
        """Nanoseconds of each round, `[rounds]`."""
        return self.of(config_id, scope)["wall_ns"].to_numpy(dtype=np.float64)

    def twin(self) -> np.ndarray:
        """Nanoseconds of the second dense."""
        return self.wall(f"{self.dense_id}-{TWIN}")

    def macs(self, config_id: str) -> np.ndarray:
        """Multiply-accumulates of each round, `[rounds]`."""
        each = np.array(self._facts[config_id][0]["macs"], dtype=np.float64)
        return each[self.of(config_id)["round"].to_numpy(dtype=int) % len(each)]

    def facts(self, config_id: str) -> list[WorkRow]:
        """Return what each process knew of a configuration."""
        return self._facts[config_id]

    def held_back(self, config_id: str) -> tuple[int, bool, bool]:
        """Return rounds that were dropped, whether any was held back, and whether any of these still counts."""
        rows = self._series[config_id, MODEL]
        held, dropped = rows["held_back"].fillna(False).astype(bool), rows["dropped"].astype(bool)
        return int(dropped.sum()), bool(held.any()), bool((held & ~dropped).any())


def time(rounds: Rounds, config_id: str) -> Result:
    """Columns of time of one configuration, against dense in the same rounds."""
    wall, dense, twin = rounds.wall(config_id), rounds.wall(rounds.dense_id), rounds.twin()
    facts, rows = rounds.facts(config_id), rounds.of(config_id)
    units, process = facts[0]["units"], rows["process"].to_numpy(dtype=int)
    per_clip = wall / 1e6 / units
    middle = intervals.median_interval(per_clip, process)
    speed, control = intervals.speedup(dense, wall, process), intervals.speedup(dense, twin, process)
    slowest = intervals.quantile_interval(per_clip, 0.99) if units == 1 else None
    dropped, held, slowed = rounds.held_back(config_id)
    compiled = [row["compile_s"] for row in facts if row["compile_s"] is not None]
    recompiles = sum(row["recompiles"] or 0 for row in facts)
    gpu = rows["gpu_ns"].dropna().to_numpy(dtype=np.float64)
    gpu_ms = float(np.median(gpu) / 1e6 / units) if len(gpu) else None
    copied = [row["h2d_ms"] for row in facts if row["h2d_ms"] is not None]
    return {
        **found(facts),
        "block": facts[0]["block"],
        "wall_ms_p50": middle.value,
        "wall_ms_ci_lo": middle.lo,
        "wall_ms_ci_hi": middle.hi,
        "wall_ms_p90": float(np.quantile(per_clip, 0.9)),
        "wall_ms_p99": slowest and slowest.value,
        "wall_ms_p99_ci_lo": slowest and slowest.lo,
        "wall_ms_p99_ci_hi": slowest and slowest.hi,
        "wall_ms_mean": float(per_clip.mean()),
        "wall_ms_min": float(per_clip.min()),
        "gpu_ms_p50": gpu_ms,
        "clips_per_s": float(1e3 / per_clip.mean()),
        "h2d_ms": float(np.median(copied)) if copied else None,
        "n_rounds": len(wall),
        "n_process": len(np.unique(process)),
        "n_dropped": dropped,
        "throttled": held,
        "pinned": facts[0]["pinned"],
        "compile_s": float(np.median(compiled)) if compiled else None,
        "recompiles": recompiles,
        "load_before": facts[0]["busy_before"],
        "load_after": facts[-1]["busy_after"],
        "speedup": speed.value,
        "speedup_ci_lo": speed.lo,
        "speedup_ci_hi": speed.hi,
        "aa_ratio": control.value,
        "aa_ci_lo": control.lo,
        "aa_ci_hi": control.hi,
        # paired by round: each round's clip has its own token count, hence its own ratio of multiply-accumulates
        "efficiency": float(np.median(dense / wall / (rounds.macs(rounds.dense_id) / rounds.macs(config_id)))),
        "noisy": not control.lo <= 1 <= control.hi
        or (control.hi - control.lo) / 2 > intervals.AA_HALF_WIDTH
        or slowed
        or recompiles > 0
        or any(row["settled"] is False for row in facts),
    }


def transformer(rounds: Rounds, config_id: str, scope: str) -> Result:
    """Columns of time of a detector without pyramid and head."""
    middle, faster = _of_scope(rounds, config_id, scope)
    return {
        "transformer_ms_p50": middle.value,
        "transformer_ms_ci_lo": middle.lo,
        "transformer_ms_ci_hi": middle.hi,
        "transformer_speedup": faster.value,
        "transformer_speedup_ci_lo": faster.lo,
        "transformer_speedup_ci_hi": faster.hi,
    }


def training(rounds: Rounds, config_id: str) -> Result:
    """Columns of time of training steps."""
    middle, faster = _of_scope(rounds, config_id, TRAIN)
    return {
        "train_ms_p50": middle.value,
        "train_ms_ci_lo": middle.lo,
        "train_ms_ci_hi": middle.hi,
        "train_speedup": faster.value,
        "train_speedup_ci_lo": faster.lo,
        "train_speedup_ci_hi": faster.hi,
    }


def _of_scope(rounds: Rounds, config_id: str, scope: str) -> tuple[intervals.Interval, intervals.Interval]:
    """Return the median of a scope's milliseconds per clip or frame, and of its speed-up."""
    wall, dense = rounds.wall(config_id, scope), rounds.wall(rounds.dense_id, scope)
    process = rounds.of(config_id, scope)["process"].to_numpy(dtype=int)
    middle = intervals.median_interval(wall / 1e6 / rounds.facts(config_id)[0]["units"], process)
    return middle, intervals.speedup(dense, wall, process)


def passes(samples: pd.DataFrame) -> Result:
    """Columns of passes from files to answers; empty without any."""
    clips, seconds = int(samples["clips"].sum()), float(samples["wall_ns"].sum()) / 1e9
    if not clips:
        return {}
    return {"e2e_clips_per_s": clips / seconds, "device_wait_frac": float(samples["waited_ns"].sum()) / 1e9 / seconds}


def found(work: Sequence[WorkRow]) -> Result:
    """Columns that pieces of work have found out by themselves: stages, memory, energy."""
    row: Result = {}
    for each in work:
        row |= json.loads(each["found"]) if each["found"] else {}
    return row
