"""The tables every result is kept in; their columns and units are explained in docs/measurement.md, section 8.

`results`, a row per configuration and batch, is derived from the others. `videos`, `clips`, `detections` and `fates`
hold what was predicted, by `prediction_id`; `samples` and `work` what was measured, by `config_id`. Missing is null,
never 0 or -1, and so is what older tables lack. Of older rows, which have `config_id` alone, both ids are the same.
"""

from typing import Any

import pyarrow as pa

#: a row of any table, by column
Row = dict[str, Any]

SCHEMA_VERSION = 7
VERSION_KEY = b"vpbench.schema_version"
TABLE_KEY = b"vpbench.table"
_TYPES: dict[str, pa.DataType] = {
    "str": pa.string(),
    "bool": pa.bool_(),
    "i16": pa.int16(),
    "i32": pa.int32(),
    "i64": pa.int64(),
    "f32": pa.float32(),
    "f64": pa.float64(),
    "time": pa.timestamp("us", tz="UTC"),
    "list<i32>": pa.list_(pa.int32()),
    "list<i64>": pa.list_(pa.int64()),
    "bytes": pa.binary(),
    "list<bytes>": pa.list_(pa.binary()),
}
# `name type` with a `?` behind the type of a column that may be null. What a failed or skipped configuration cannot
# have (tokens kept, cost, time, memory, quality) must be nullable: its row is written all the same.
_COLUMNS = {
    "results": """
run_id str, config_id str, prediction_id str?, schema_version i16, timestamp_utc time, status str, error str?,
profile str, command str, task str?, method str, method_version str, method_params str, keep_nominal f64?,
training_free bool, weights_kind str, weights_sha256 str?, seed i64, reference str, caveat str?, matched_to str?,
backbone str, backbone_params_m f64, dataset str, split str, n_clips i64, n_videos i64?, n_expected i64, n_failed i64,
failures str?, protocol str?, workers i16?, views i16, frames i16, stride i16, resolution i16, clip_list_sha256 str,
decoder str, device str, device_name str, n_threads i16?, n_interop_threads i16?, pinned str?, dtype str,
matmul_precision str, attn_impl str, exec_mode str, batching str, batch_size i32, predicted_batch i32?, scenario str,
block str?, torch_version str, cuda_version str?, driver str?, git_commit str?, lib_versions str, tokens_dense i32,
tokens_kept_mean f64?, tokens_kept_p5 f64?, tokens_kept_p95 f64?, keep_realised f64?, pad_waste f64?,
gmacs_effective f64?, gmacs_executed f64?, gmacs_p95 f64?, gflops_executed f64?, gmacs_dense f64?,
gmacs_transformer f64?, gmacs_rgtp f64?, wall_ms_p50 f64?, wall_ms_p90 f64?, wall_ms_p99 f64?, wall_ms_p99_ci_lo f64?,
wall_ms_p99_ci_hi f64?, wall_ms_mean f64?, wall_ms_min f64?, wall_ms_ci_lo f64?, wall_ms_ci_hi f64?, gpu_ms_p50 f64?,
clips_per_s f64?, decode_ms f64?, preprocess_ms f64?, h2d_ms f64?, e2e_clips_per_s f64?, device_wait_frac f64?,
n_rounds i32?, n_process i16?, n_dropped i32?, setup_s f64?, compile_s f64?, recompiles i32?, stage_embed_ms f64?,
stage_attention_ms f64?, stage_mlp_ms f64?, stage_scoring_ms f64?, stage_gather_ms f64?, stage_restore_ms f64?,
stage_head_ms f64?, stage_rest_ms f64?, stage_total_ms f64?, stage_dense_ms f64?, n_stage_rounds i32?, speedup f64?,
speedup_ci_lo f64?, speedup_ci_hi f64?, aa_ratio f64?, aa_ci_lo f64?, aa_ci_hi f64?, efficiency f64?,
transformer_ms_p50 f64?, transformer_ms_ci_lo f64?, transformer_ms_ci_hi f64?, transformer_speedup f64?,
transformer_speedup_ci_lo f64?, transformer_speedup_ci_hi f64?, mem_weights_mb f64?, mem_peak_alloc_mb f64?,
mem_peak_reserved_mb f64?, mem_device_mb f64?, mem_peak_rss_mb f64?, max_batch i32?, j_per_clip f64?,
j_per_clip_net f64?, energy_source str?, top1 f64?, top5 f64?, verb_top1 f64?, noun_top1 f64?, action_top1 f64?,
map50 f64?, map50_ci_lo f64?, map50_ci_hi f64?, map f64?, map_definition str?, map50_slow f64?, map50_medium f64?,
map50_fast f64?, vs_random_pp f64?, vs_random_ci_lo f64?, vs_random_ci_hi f64?, problems str?, delta_pp f64?,
delta_ci_lo f64?, delta_ci_hi f64?, disc_b i64?, disc_c i64?, mcnemar_p f64?, agree f64?, kl f64?, logit_rel_l2 f64?,
noisy bool?, launch_bound bool?, load_before f32?, load_after f32?, throttled bool?, notes str?
""",
    "videos": """
run_id str, prediction_id str, video_id str, error str?, file_bytes i64?, file_mtime_ns i64?, views i16?, label i32?,
pred i32?, top5 list<i32>?, correct bool?, noun_label i32?, noun_pred i32?, noun_correct bool?, kl f32?, agree bool?,
decode_ms f32?, preprocess_ms f32?
""",
    "clips": """
run_id str, prediction_id str, clip_id str, video_id str, view i16, batch i32?, label i32?, error str?, pred i32?,
top5 list<i32>?, correct bool?, tokens_in i32?, tokens_layer list<i32>?, macs i64?, padding_macs i64?,
transformer_macs i64?, rgtp_macs i64?, broken i32?, kl f32?, logit_rel_l2 f32?, agree bool?, decode_ms f32?
""",
    "detections": """
prediction_id str, video_id str, frame i32, error str?, label i32?, score f32?, x1 f32?, y1 f32?, x2 f32?, y2 f32?
""",
    "samples": """
run_id str, config_id str, block str?, process i32, round i32, order i32, scope str, wall_ns i64, gpu_ns i64?,
clips i32, sm_mhz f32?, temp_c f32?, held_back bool?, waited_ns i64?, dropped bool
""",
    # kind: predicted, rounds, stages, e2e, or memory (with energy); `found`: JSON of what only one kind has
    "work": """
run_id str, config_id str, block str?, kind str, process i32, timestamp_utc time, status str, error str?, units i32?,
settled bool?, busy_before f32?, busy_after f32?, pinned str?, compile_s f64?, recompiles i32?, h2d_ms f64?,
macs list<i64>?, found str?
""",
    "fates": """
run_id str, prediction_id str, dense_id str, clip_id str, video_id str, slots i16, rows i16, columns i16,
tubelet_frames i16, tubelet_height i16, tubelet_width i16, stage str, tokens bytes, frames list<bytes>?
""",
}  # fmt: skip


def _schema(table: str, columns: str) -> pa.Schema:
    fields = []
    for column in columns.split(","):
        name, kind = column.split()
        fields.append(pa.field(name, _TYPES[kind.removesuffix("?")], nullable=kind.endswith("?")))
    return pa.schema(fields, metadata={VERSION_KEY: str(SCHEMA_VERSION).encode(), TABLE_KEY: table.encode()})


SCHEMAS: dict[str, pa.Schema] = {table: _schema(table, columns) for table, columns in _COLUMNS.items()}
#: tables of what was predicted: of a video's rows under one `prediction_id` the newest part holds all that counts
PREDICTED = ("videos", "clips", "detections", "fates")
