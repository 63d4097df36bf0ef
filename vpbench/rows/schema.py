"""The tables every result is kept in; their columns and units are explained in docs/measurement.md, section 8.

`results`, a row per configuration and batch, is derived from the others. `videos`, `clips`, `detections` and `fates`
hold what was predicted, by `prediction_id`; `samples` and `work` what was measured, by `config_id`. Missing is null,
never 0 or -1, and so is what older tables lack. Of older rows, which have `config_id` alone, both ids are the same.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, TypedDict, get_args

import pyarrow as pa

#: a row of any table, by column
Row = Mapping[str, Any]

SCHEMA_VERSION = 7
VERSION_KEY = b"vpbench.schema_version"
TABLE_KEY = b"vpbench.table"
Str = Annotated[str, pa.string()]
Bool = Annotated[bool, pa.bool_()]
I16 = Annotated[int, pa.int16()]
I32 = Annotated[int, pa.int32()]
I64 = Annotated[int, pa.int64()]
F32 = Annotated[float, pa.float32()]
F64 = Annotated[float, pa.float64()]
Time = Annotated[datetime, pa.timestamp("us", tz="UTC")]
I32s = Annotated[list[int], pa.list_(pa.int32())]
I64s = Annotated[list[int], pa.list_(pa.int64())]
Bytes = Annotated[bytes, pa.binary()]
BytesList = Annotated[list[bytes], pa.list_(pa.binary())]
#: behind what may be null; not None, since mypy cannot follow the filters that leave rows without nulls
Null = Any
# Rows are built in pieces, so no key is required: the store asks for what cannot be null. What a failed or skipped
# configuration cannot have (tokens kept, cost, time, memory, quality) must be nullable: its row is written as well.
Result = TypedDict("Result", {
    "run_id": Str, "config_id": Str, "prediction_id": Str | Null, "schema_version": I16, "timestamp_utc": Time,
    "status": Str, "error": Str | Null, "profile": Str, "command": Str, "task": Str | Null, "method": Str,
    "method_version": Str, "method_params": Str, "keep_nominal": F64 | Null, "training_free": Bool,
    "weights_kind": Str, "weights_sha256": Str | Null, "weights_key": Str | Null, "seed": I64, "reference": Str,
    "caveat": Str | Null, "matched_to": Str | Null, "backbone": Str, "backbone_params_m": F64, "dataset": Str,
    "split": Str, "n_clips": I64,
    "n_videos": I64 | Null, "n_expected": I64, "n_failed": I64, "failures": Str | Null, "protocol": Str | Null,
    "workers": I16 | Null, "views": I16, "frames": I16, "stride": I16, "resolution": I16, "clip_list_sha256": Str,
    "decoder": Str, "device": Str, "device_name": Str, "device_id": Str | Null,
    "n_threads": I16 | Null, "n_interop_threads": I16 | Null,
    "pinned": Str | Null, "dtype": Str, "matmul_precision": Str, "attn_impl": Str, "exec_mode": Str, "batching": Str,
    "batch_size": I32, "predicted_batch": I32 | Null, "scenario": Str, "block": Str | Null, "torch_version": Str,
    "cuda_version": Str | Null, "driver": Str | Null, "git_commit": Str | Null, "lib_versions": Str,
    "tokens_dense": I32, "tokens_kept_mean": F64 | Null, "tokens_kept_p5": F64 | Null, "tokens_kept_p95": F64 | Null,
    "keep_realised": F64 | Null, "pad_waste": F64 | Null, "gmacs_effective": F64 | Null, "gmacs_executed": F64 | Null,
    "gmacs_p95": F64 | Null, "gflops_executed": F64 | Null, "gmacs_dense": F64 | Null, "gmacs_transformer": F64 | Null,
    "gmacs_rgtp": F64 | Null, "costs": Str | Null, "wall_ms_p50": F64 | Null, "wall_ms_p90": F64 | Null,
    "wall_ms_p99": F64 | Null,
    "wall_ms_p99_ci_lo": F64 | Null, "wall_ms_p99_ci_hi": F64 | Null, "wall_ms_mean": F64 | Null,
    "wall_ms_min": F64 | Null, "wall_ms_ci_lo": F64 | Null, "wall_ms_ci_hi": F64 | Null, "gpu_ms_p50": F64 | Null,
    "clips_per_s": F64 | Null, "decode_ms": F64 | Null, "preprocess_ms": F64 | Null, "h2d_ms": F64 | Null,
    "e2e_clips_per_s": F64 | Null, "device_wait_frac": F64 | Null, "n_rounds": I32 | Null, "n_process": I16 | Null,
    "n_dropped": I32 | Null, "setup_s": F64 | Null, "compile_s": F64 | Null, "recompiles": I32 | Null,
    "stage_embed_ms": F64 | Null, "stage_attention_ms": F64 | Null, "stage_mlp_ms": F64 | Null,
    "stage_scoring_ms": F64 | Null, "stage_gather_ms": F64 | Null, "stage_restore_ms": F64 | Null,
    "stage_head_ms": F64 | Null, "stage_rest_ms": F64 | Null, "stage_total_ms": F64 | Null,
    "stage_dense_ms": F64 | Null, "n_stage_rounds": I32 | Null, "speedup": F64 | Null, "speedup_ci_lo": F64 | Null,
    "speedup_ci_hi": F64 | Null, "aa_ratio": F64 | Null, "aa_ci_lo": F64 | Null, "aa_ci_hi": F64 | Null,
    "efficiency": F64 | Null, "transformer_ms_p50": F64 | Null, "transformer_ms_ci_lo": F64 | Null,
    "transformer_ms_ci_hi": F64 | Null, "transformer_speedup": F64 | Null, "transformer_speedup_ci_lo": F64 | Null,
    "transformer_speedup_ci_hi": F64 | Null, "mem_weights_mb": F64 | Null, "mem_peak_alloc_mb": F64 | Null,
    "mem_peak_reserved_mb": F64 | Null, "mem_device_mb": F64 | Null, "mem_peak_rss_mb": F64 | Null,
    "max_batch": I32 | Null, "j_per_clip": F64 | Null, "j_per_clip_net": F64 | Null, "energy_source": Str | Null,
    "top1": F64 | Null, "top5": F64 | Null, "verb_top1": F64 | Null, "noun_top1": F64 | Null,
    "action_top1": F64 | Null, "map50": F64 | Null, "map50_ci_lo": F64 | Null, "map50_ci_hi": F64 | Null,
    "map": F64 | Null, "map_definition": Str | Null, "map50_slow": F64 | Null, "map50_medium": F64 | Null,
    "map50_fast": F64 | Null, "vs_random_pp": F64 | Null, "vs_random_ci_lo": F64 | Null, "vs_random_ci_hi": F64 | Null,
    "problems": Str | Null, "delta_pp": F64 | Null, "delta_ci_lo": F64 | Null, "delta_ci_hi": F64 | Null,
    "disc_b": I64 | Null, "disc_c": I64 | Null, "mcnemar_p": F64 | Null, "agree": F64 | Null, "kl": F64 | Null,
    "logit_rel_l2": F64 | Null, "noisy": Bool | Null, "launch_bound": Bool | Null, "load_before": F32 | Null,
    "load_after": F32 | Null, "throttled": Bool | Null, "gpu_busy_ms": F64 | Null, "notes": Str | Null,
    "positions": Str | Null,
    "train_ms_p50": F64 | Null, "train_ms_ci_lo": F64 | Null, "train_ms_ci_hi": F64 | Null,
    "train_speedup": F64 | Null, "train_speedup_ci_lo": F64 | Null, "train_speedup_ci_hi": F64 | Null,
    "mem_train_mb": F64 | Null,
}, total=False)  # fmt: skip
VideoRow = TypedDict("VideoRow", {
    "run_id": Str, "prediction_id": Str, "video_id": Str, "error": Str | Null, "file_bytes": I64 | Null,
    "file_mtime_ns": I64 | Null, "file_digest": Str | Null, "views": I16 | Null, "label": I32 | Null,
    "pred": I32 | Null, "top5": I32s | Null, "correct": Bool | Null, "noun_label": I32 | Null,
    "noun_pred": I32 | Null, "noun_correct": Bool | Null, "kl": F32 | Null, "agree": Bool | Null,
    "decode_ms": F32 | Null, "preprocess_ms": F32 | Null, "label_name": Str | Null,
}, total=False)  # fmt: skip
ClipRow = TypedDict("ClipRow", {
    "run_id": Str, "prediction_id": Str, "clip_id": Str, "video_id": Str, "view": I16, "batch": I32 | Null,
    "label": I32 | Null, "error": Str | Null, "pred": I32 | Null, "top5": I32s | Null, "correct": Bool | Null,
    "tokens_in": I32 | Null, "tokens_layer": I32s | Null, "macs": I64 | Null, "padding_macs": I64 | Null,
    "transformer_macs": I64 | Null, "rgtp_macs": I64 | Null, "broken": I32 | Null, "kl": F32 | Null,
    "logit_rel_l2": F32 | Null, "agree": Bool | Null, "decode_ms": F32 | Null, "motion": F32 | Null,
    "still": F32 | Null,
}, total=False)  # fmt: skip
DetectionRow = TypedDict("DetectionRow", {
    "prediction_id": Str, "video_id": Str, "frame": I32, "error": Str | Null, "label": I32 | Null, "score": F32 | Null,
    "x1": F32 | Null, "y1": F32 | Null, "x2": F32 | Null, "y2": F32 | Null,
}, total=False)  # fmt: skip
SampleRow = TypedDict("SampleRow", {
    "run_id": Str, "config_id": Str, "block": Str | Null, "process": I32, "round": I32, "order": I32, "scope": Str,
    "device_id": Str | Null,
    "wall_ns": I64, "gpu_ns": I64 | Null, "clips": I32, "sm_mhz": F32 | Null, "temp_c": F32 | Null,
    "held_back": Bool | Null, "waited_ns": I64 | Null, "dropped": Bool,
}, total=False)  # fmt: skip
# kind: predicted, rounds, stages, e2e, or memory (with energy); `found`: JSON of what only one kind has
WorkRow = TypedDict("WorkRow", {
    "run_id": Str, "config_id": Str, "block": Str | Null, "kind": Str, "process": I32, "timestamp_utc": Time,
    "status": Str, "error": Str | Null, "units": I32 | Null, "settled": Bool | Null, "busy_before": F32 | Null,
    "busy_after": F32 | Null, "pinned": Str | Null, "compile_s": F64 | Null, "recompiles": I32 | Null,
    "h2d_ms": F64 | Null, "macs": I64s | Null, "found": Str | Null,
}, total=False)  # fmt: skip
FateRow = TypedDict("FateRow", {
    "run_id": Str, "prediction_id": Str, "dense_id": Str, "clip_id": Str, "video_id": Str, "slots": I16, "rows": I16,
    "columns": I16, "tubelet_frames": I16, "tubelet_height": I16, "tubelet_width": I16, "stage": Str, "tokens": Bytes,
    "frames": BytesList | Null,
}, total=False)  # fmt: skip


def _schema(table: str, row: type) -> pa.Schema:
    fields = []
    for name, kind in row.__annotations__.items():
        plain, second = get_args(kind)
        fields.append(pa.field(name, get_args(plain)[1] if second is Null else second, nullable=second is Null))
    return pa.schema(fields, metadata={VERSION_KEY: str(SCHEMA_VERSION).encode(), TABLE_KEY: table.encode()})


SCHEMAS: dict[str, pa.Schema] = {table: _schema(table, row) for table, row in (
    ("results", Result), ("videos", VideoRow), ("clips", ClipRow), ("detections", DetectionRow),
    ("samples", SampleRow), ("work", WorkRow), ("fates", FateRow),
)}  # fmt: skip
#: tables of what was predicted: of a video's rows under one `prediction_id` the newest part holds all that counts
PREDICTED = ("videos", "clips", "detections", "fates")
