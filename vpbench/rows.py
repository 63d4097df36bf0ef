"""Turn what was measured into rows of the `results` table."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import torch

import vpbench
from vpbench import checkpoints, end_to_end, registry
from vpbench.api import manifest_digest
from vpbench.attention import kernel_name
from vpbench.heads import Head
from vpbench.measure import stages
from vpbench.measure.machine import Machine
from vpbench.plan import Cell, Digests, Setting
from vpbench.schema import SCHEMA_VERSION
from vpbench.session import DTYPES, Candidate, Ready, Session
from vpbench.statistics import stats
from vpbench.timing import TWIN, Timed

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
    """What all cells of a group see and run on: how many videos or frames are expected, what they are, and the network.

    `task`: recognition or detection. `digest`: of the list of what is seen. `parameters`: of the network.
    `protocol`: how views are cut from videos, and how many there are; none on detectors.
    """

    task: str
    expected: int
    digest: str
    protocol: str | None
    views: int
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
        session.protocol.name,
        session.views,
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
        "protocol": seen.protocol,
        "workers": setting.workers,
        "views": seen.views,
        "frames": seen.frames,
        "stride": seen.stride,
        "resolution": seen.resolution,
        "clip_list_sha256": seen.digest,
        "decoder": seen.decoder,
        "device": setting.device,
        "device_name": machine.device_name,
        "n_threads": setting.threads,
        "n_interop_threads": torch.get_num_interop_threads(),
        "dtype": setting.dtype,
        "matmul_precision": "highest",
        "attn_impl": _kernel(setting, ragged=False),
        "exec_mode": setting.mode,
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


@dataclasses.dataclass(frozen=True)
class Predicted:
    """What one configuration predicted: its rows of the `clips` table and of the `videos` table."""

    clips: pd.DataFrame
    videos: pd.DataFrame


def finished(
    base: Row, ready: Ready, own: Predicted, dense: Predicted, timed: Timed, dense_id: str, setup_s: float
) -> Row:
    """Row of a cell that was measured; `setup_s`: what the backbone took before its method was attached."""
    row = {
        **base,
        **outcome(ready, own.videos, "video_id", "videos"),
        "n_clips": len(own.clips),
        "n_videos": int(own.videos["error"].isna().sum()),
        "caveat": ready.pruner.caveat or None,
        **cost(own.clips, dense.clips),
        "logit_rel_l2": float(own.clips["logit_rel_l2"].astype(float).mean()),
        **_quality(_read(own.videos), _read(dense.videos)),
        **time(timed, ready.cell.config_id, dense_id),
        "h2d_ms": timed.h2d_ms,
        "setup_s": setup_s + ready.setup_s,
        **end_to_end.columns(timed.passes.get(ready.cell.config_id, ())),
    }
    ragged = base["batch_size"] > 1 and row["tokens_kept_p5"] != row["tokens_kept_p95"]
    return {**row, "attn_impl": _kernel(ready.cell.setting, ragged)}


def outcome(ready: Candidate, seen: pd.DataFrame, name: str, unit: str) -> Row:
    """Columns of parameters and of what could be read: rows of `seen`, called `unit`, named by its column `name`."""
    broken = seen[seen["error"].notna()]
    failures = [{"video": v, "reason": e} for v, e in zip(broken[name], broken["error"], strict=True)]
    few = len(broken) <= FAILED_SHARE * len(seen)
    return {
        "method_params": json.dumps(_params(ready)),
        "status": "ok" if few else "incomplete",
        "error": None if few else f"{len(broken)} of {len(seen)} {unit} unreadable",
        "n_clips": len(seen) - len(broken),
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


def _quality(videos: pd.DataFrame, dense: pd.DataFrame) -> Row:
    row: Row = {"agree": float(videos["agree"].astype(float).mean()), "kl": float(videos["kl"].astype(float).mean())}
    if videos["correct"].isna().any():
        return row
    right = videos["correct"].to_numpy(dtype=bool)
    in_top5 = [label in top for label, top in zip(videos["label"], videos["top5"], strict=True)]
    paired = stats.paired_difference(
        dense.set_index("video_id").loc[videos["video_id"], "correct"].to_numpy(dtype=bool),
        right,
        videos["video_id"].to_numpy(dtype=str),
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


def by_head(heads: Sequence[Head], videos: pd.DataFrame) -> Row:
    """Columns of verbs, nouns and actions (both right), where that is what videos are labelled with."""
    read = _read(videos)
    if heads[0].answers == "class" or read["correct"].isna().any():
        return {}
    first = read["correct"].to_numpy(dtype=bool)
    row: Row = {f"{heads[0].answers}_top1": float(100 * first.mean())}
    if len(heads) > 1:
        second = read["noun_correct"].to_numpy(dtype=bool)
        row |= {"noun_top1": float(100 * second.mean()), "action_top1": float(100 * (first & second).mean())}
    return row


def time(timed: Timed, config_id: str, dense_id: str) -> Row:
    """Columns of time of one configuration, against dense in the same rounds."""
    wall, dense, twin = (timed.wall_ns(name) for name in (config_id, dense_id, TWIN))
    process = timed.process(config_id)
    per_clip = wall / 1e6 / timed.clips_per_call
    middle = stats.median_interval(per_clip, process)
    speed, control = stats.speedup(dense, wall, process), stats.speedup(dense, twin, process)
    macs_ratio = timed.macs_of(dense_id) / timed.macs_of(config_id)
    slowest = stats.quantile_interval(per_clip, 0.99) if timed.clips_per_call == 1 else None
    held_back = [s.held_back for s in timed.samples if s.name == config_id]
    slowed = any(s.held_back and not s.dropped for s in timed.samples)
    recompiles = timed.recompiles.get(config_id, 0)
    gpu = [s.gpu_ns for s in timed.of(config_id) if s.gpu_ns is not None]
    gpu_ms = float(np.median(gpu) / 1e6 / timed.clips_per_call) if gpu else None
    return {
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
        "launch_bound": None if gpu_ms is None else middle.value > 1.1 * gpu_ms,
        "clips_per_s": float(1e3 / per_clip.mean()),
        "n_rounds": len(wall),
        "n_process": len(np.unique(process)),
        "n_dropped": len(held_back) - len(wall),
        "throttled": any(held_back),
        "pinned": ",".join(map(str, timed.pinned)) or None,
        "compile_s": timed.compile_s.get(config_id),
        "recompiles": recompiles,
        "speedup": speed.value,
        "speedup_ci_lo": speed.lo,
        "speedup_ci_hi": speed.hi,
        "aa_ratio": control.value,
        "aa_ci_lo": control.lo,
        "aa_ci_hi": control.hi,
        # paired by round: each round's clip has its own token count, hence its own ratio of multiply-accumulates
        "efficiency": float(np.median(dense / wall / macs_ratio)),
        "noisy": not control.lo <= 1 <= control.hi
        or (control.hi - control.lo) / 2 > stats.AA_HALF_WIDTH
        or slowed
        or recompiles > 0,
        **stages.columns(timed.stages.get(config_id), timed.stages.get(dense_id), timed.clips_per_call),
    }


def samples(run_id: str, timed: Timed, dense_id: str) -> Mapping[str, Sequence[Row]]:
    """Raw samples by configuration, for the samples table; the twin is stored as `<dense id>-aa`."""
    found: dict[str, list[Row]] = {}

    def add(name: str, row: Row) -> None:
        own = f"{dense_id}-{TWIN}" if name == TWIN else name
        fixed = {"run_id": run_id, "config_id": own, "process": 0, "dropped": False}
        found.setdefault(own, []).append(fixed | row)

    for s in timed.samples:
        times = {"wall_ns": s.wall_ns, "gpu_ns": s.gpu_ns, "clips": timed.clips_per_call}
        state = {"sm_mhz": s.sm_mhz, "temp_c": s.temp_c, "dropped": s.dropped}
        add(s.name, {"process": s.process, "round": s.round, "order": s.order, "scope": "model"} | times | state)
    for name, passes in timed.passes.items():
        for p in passes:
            times = {"wall_ns": p.wall_ns, "gpu_ns": None, "clips": p.clips}
            add(name, {"round": p.number, "order": p.order, "scope": "e2e"} | times)
    return found
