"""Turn what was measured into rows of the `results` table."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

import vpbench
from vpbench import checkpoints, registry, stats
from vpbench.api import manifest_digest
from vpbench.attention import kernel_name
from vpbench.measure.machine import Machine
from vpbench.plan import Cell, Digests, Setting
from vpbench.schema import SCHEMA_VERSION
from vpbench.session import DTYPES, Candidate, Ready, Session
from vpbench.timing import TWIN, Timed

#: an A/A interval wider than this, or one that excludes 1, marks the block as noisy (measurement protocol, section 7)
AA_HALF_WIDTH = 0.02
#: a run with a larger share of unreadable videos is incomplete
FAILED_SHARE = 0.01

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Run:
    """Facts that all rows of one invocation share."""

    run_id: str
    command: str
    digests: Digests
    before: Machine


@dataclasses.dataclass(frozen=True)
class Seen:
    """What all cells of a group see and run on: how many clips or frames are expected, what they are, and the network.

    `task`: recognition or detection. `digest`: of the list of what is seen. `parameters`: of the network.
    """

    task: str
    expected: int
    digest: str
    decoder: str
    frames: int
    stride: int
    resolution: int
    tokens: int
    parameters: int


def seen(session: Session) -> Seen:
    """Say what cells that classify clips see."""
    config = session.config
    return Seen(
        "recognition",
        len(session.videos),
        manifest_digest(session.videos),
        session.setting.decoder,
        config.frames,
        config.stride,
        config.height,
        session.backbone.grid.tokens,
        sum(p.numel() for p in session.backbone.parameters()),
    )


def common(run: Run, cell: Cell, seen: Seen) -> Row:
    """Columns known before anything is measured: identity, model, data, execution."""
    setting, machine = cell.setting, run.before
    kind = registry.load_method(cell.method)
    return {
        "run_id": run.run_id,
        "config_id": cell.config_id,
        "timestamp_utc": datetime.now(UTC),
        "task": seen.task,
        "schema_version": SCHEMA_VERSION,
        "profile": setting.profile,
        "command": run.command,
        "method": cell.method,
        "method_version": run.digests.code[cell.method][:12],
        "method_params": json.dumps(dict(cell.params)),
        "keep_nominal": cell.keep,
        "training_free": kind.training_free,
        "weights_kind": checkpoints.weights_kind(setting.weights),
        "weights_sha256": None if setting.weights == "random" else run.digests.weights,
        "seed": setting.seed,
        "reference": cell.method if cell.method in ("dense", "random") else "method",
        "matched_to": cell.match,
        "backbone": setting.backbone,
        "backbone_params_m": seen.parameters / 1e6,
        "dataset": setting.dataset,
        "split": setting.split,
        "n_clips": 0,
        "n_expected": seen.expected,
        "n_failed": 0,
        "views": 1,
        "frames": seen.frames,
        "stride": seen.stride,
        "resolution": seen.resolution,
        "clip_list_sha256": seen.digest,
        "decoder": seen.decoder,
        "device": setting.device,
        "device_name": machine.device_name,
        "n_threads": setting.threads,
        "dtype": setting.dtype,
        "matmul_precision": "highest",
        "attn_impl": _kernel(setting, ragged=False),
        "exec_mode": "eager",
        "batching": "single" if setting.batch == 1 else "packed_loop",
        "batch_size": setting.batch,
        "scenario": "latency" if setting.batch == 1 else "throughput",
        "torch_version": machine.torch_version,
        "cuda_version": machine.cuda_version,
        "driver": machine.driver,
        "git_commit": machine.git_commit,
        "lib_versions": json.dumps({"vpbench": vpbench.__version__, **machine.libraries}),
        "tokens_dense": seen.tokens,
        "notes": kind.reference,
    }


def failed(base: Row, status: str, error: str) -> Row:
    """Row of a cell that has no measurement: it says why."""
    return {**base, "status": status, "error": error}


def finished(base: Row, ready: Ready, clips: pd.DataFrame, dense: pd.DataFrame, timed: Timed, dense_id: str) -> Row:
    """Row of a cell that was measured. clips, dense: rows of the clips table of this cell and of dense."""
    row = {
        **base,
        **outcome(ready, clips, "video_id", "clips"),
        "caveat": ready.pruner.caveat or None,
        **cost(clips, dense),
        **_quality(_read(clips), _read(dense)),
        **time(timed, ready.cell.config_id, dense_id),
    }
    ragged = base["batch_size"] > 1 and row["tokens_kept_p5"] != row["tokens_kept_p95"]
    return {**row, "attn_impl": _kernel(ready.cell.setting, ragged)}


def outcome(ready: Candidate, clips: pd.DataFrame, name: str, unit: str) -> Row:
    """Columns of parameters and of what could be read; failures go by the column `name`, and are counted in `unit`."""
    broken = clips[clips["error"].notna()]
    failures = [{"video": v, "reason": e} for v, e in zip(broken[name], broken["error"], strict=True)]
    few = len(broken) <= FAILED_SHARE * len(clips)
    return {
        "method_params": json.dumps(_params(ready)),
        "status": "ok" if few else "incomplete",
        "error": None if few else f"{len(broken)} of {len(clips)} {unit} unreadable",
        "n_clips": len(clips) - len(broken),
        "n_failed": len(broken),
        "failures": json.dumps(failures) if failures else None,
    }


def cost(clips: pd.DataFrame, dense: pd.DataFrame) -> Row:
    """Columns of tokens and operations, over what could be read. clips, dense: as `finished` takes them."""
    return _tokens(_read(clips), _read(dense)) | _cost(_read(clips), _read(dense))


def _read(clips: pd.DataFrame) -> pd.DataFrame:
    return clips[clips["error"].isna()]


def _kernel(setting: Setting, ragged: bool) -> str:
    return kernel_name(setting.device, DTYPES[setting.dtype], ragged)


def _params(ready: Candidate) -> Row:
    if ready.cell.match is not None:
        return {"seed": getattr(ready.method, "seed", 0)}
    return dataclasses.asdict(ready.method)


def _tokens(clips: pd.DataFrame, dense: pd.DataFrame) -> Row:
    per_clip = np.array(clips["tokens_layer"].tolist(), dtype=np.float64).mean(axis=1)
    # a pyramid's layers have different tokens even when it is dense
    whole = np.array(dense["tokens_layer"].tolist(), dtype=np.float64).mean()
    low, high = np.quantile(per_clip, (0.05, 0.95))
    return {
        "tokens_kept_mean": float(per_clip.mean()),
        "tokens_kept_p5": float(low),
        "tokens_kept_p95": float(high),
        "keep_realised": float(per_clip.mean() / whole),
    }


def _cost(clips: pd.DataFrame, dense: pd.DataFrame) -> Row:
    macs = clips["macs"].to_numpy(dtype=np.float64)
    effective = float((macs - clips["padding_macs"].to_numpy(dtype=np.float64)).mean())
    return {
        "gmacs_effective": effective / 1e9,
        "gmacs_executed": float(macs.mean() / 1e9),
        "gmacs_p95": float(np.quantile(macs, 0.95) / 1e9),
        "gflops_executed": float(2 * macs.mean() / 1e9),
        "gmacs_dense": float(dense["macs"].to_numpy(dtype=np.float64).mean() / 1e9),
        "pad_waste": float(macs.mean()) / effective - 1,
    }


def _quality(clips: pd.DataFrame, dense: pd.DataFrame) -> Row:
    row: Row = {
        "agree": float(clips["agree"].astype(float).mean()),
        "kl": float(clips["kl"].astype(float).mean()),
        "logit_rel_l2": float(clips["logit_rel_l2"].astype(float).mean()),
    }
    if clips["correct"].isna().any():
        return row
    right = clips["correct"].to_numpy(dtype=bool)
    in_top5 = [label in top for label, top in zip(clips["label"], clips["top5"], strict=True)]
    paired = stats.paired_difference(
        dense.set_index("clip_id").loc[clips["clip_id"], "correct"].to_numpy(dtype=bool),
        right,
        clips["video_id"].to_numpy(dtype=str),
    )
    return {
        **row,
        "top1": float(100 * right.mean()),
        "top5": float(100 * np.mean(in_top5)),
        "delta_pp": paired.delta_pp.value,
        "delta_ci_lo": paired.delta_pp.lo,
        "delta_ci_hi": paired.delta_pp.hi,
        "disc_b": paired.b,
        "disc_c": paired.c,
        "mcnemar_p": paired.p_mid,
    }


def time(timed: Timed, config_id: str, dense_id: str) -> Row:
    """Columns of time of one configuration, against dense in the same rounds."""
    wall, dense, twin = (timed.wall_ns(name) for name in (config_id, dense_id, TWIN))
    process = np.zeros(len(wall), dtype=int)
    per_clip = wall / 1e6 / timed.clips_per_call
    middle = stats.median_interval(per_clip, process)
    speed, control = stats.speedup(dense, wall, process), stats.speedup(dense, twin, process)
    macs_ratio = np.array(timed.macs[dense_id]) / np.array(timed.macs[config_id])
    gpu = [s.gpu_ns for s in timed.samples if s.name == config_id and s.gpu_ns is not None]
    gpu_ms = float(np.median(gpu) / 1e6 / timed.clips_per_call) if gpu else None
    return {
        "wall_ms_p50": middle.value,
        "wall_ms_ci_lo": middle.lo,
        "wall_ms_ci_hi": middle.hi,
        "wall_ms_p90": float(np.quantile(per_clip, 0.9)),
        "wall_ms_mean": float(per_clip.mean()),
        "wall_ms_min": float(per_clip.min()),
        "gpu_ms_p50": gpu_ms,
        "launch_bound": None if gpu_ms is None else middle.value > 1.1 * gpu_ms,
        "clips_per_s": float(1e3 / per_clip.mean()),
        "n_rounds": len(wall),
        "n_process": 1,
        "n_dropped": 0,
        "recompiles": 0,
        "speedup": speed.value,
        "speedup_ci_lo": speed.lo,
        "speedup_ci_hi": speed.hi,
        "aa_ratio": control.value,
        "aa_ci_lo": control.lo,
        "aa_ci_hi": control.hi,
        # paired by round: each round's clip has its own token count, hence its own ratio of multiply-accumulates
        "efficiency": float(np.median(dense / wall / macs_ratio)),
        "noisy": not control.lo <= 1 <= control.hi or (control.hi - control.lo) / 2 > AA_HALF_WIDTH,
    }


def samples(run_id: str, timed: Timed, dense_id: str) -> Mapping[str, Sequence[Row]]:
    """Raw samples by configuration, for the samples table; the twin is stored as `<dense id>-aa`."""
    found: dict[str, list[Row]] = {}
    for s in timed.samples:
        name = f"{dense_id}-{TWIN}" if s.name == TWIN else s.name
        found.setdefault(name, []).append(
            {
                "run_id": run_id,
                "config_id": name,
                "process": 0,
                "round": s.round,
                "order": s.order,
                "scope": "model",
                "wall_ns": s.wall_ns,
                "gpu_ns": s.gpu_ns,
                "clips": timed.clips_per_call,
                "sm_mhz": None,
                "temp_c": None,
                "dropped": False,
            }
        )
    return found
