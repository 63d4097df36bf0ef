"""Turn what was measured into rows of the `results` table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
import torch

import vpbench
from vpbench.api.attention import kernel_name
from vpbench.api.method import load_method
from vpbench.backbones import loading
from vpbench.backbones.loading import DTYPES
from vpbench.measure import stages
from vpbench.measure.rounds import TWIN, Timed
from vpbench.plan import Cell, Setting
from vpbench.rows.schema import SCHEMA_VERSION, Row
from vpbench.rows.statistics import intervals
from vpbench.tasks.task import Run, Seen


def common(run: Run, cell: Cell, seen: Seen) -> Row:
    """Columns known before anything is measured: identity, model, data, execution."""
    setting, machine = cell.setting, run.before
    kind = load_method(cell.method)
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
        "weights_kind": loading.weights_kind(setting.weights),
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
        "attn_impl": kernel(setting, ragged=False),
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


def kernel(setting: Setting, ragged: bool) -> str:
    """Name the attention kernel that runs at a setting."""
    return kernel_name(setting.device, DTYPES[setting.dtype], ragged)


def time(timed: Timed, config_id: str, dense_id: str) -> Row:
    """Columns of time of one configuration, against dense in the same rounds."""
    wall, dense, twin = (timed.wall_ns(name) for name in (config_id, dense_id, TWIN))
    process = timed.process(config_id)
    per_clip = wall / 1e6 / timed.clips_per_call
    middle = intervals.median_interval(per_clip, process)
    speed, control = intervals.speedup(dense, wall, process), intervals.speedup(dense, twin, process)
    macs_ratio = timed.macs_of(dense_id) / timed.macs_of(config_id)
    slowest = intervals.quantile_interval(per_clip, 0.99) if timed.clips_per_call == 1 else None
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
        or (control.hi - control.lo) / 2 > intervals.AA_HALF_WIDTH
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
