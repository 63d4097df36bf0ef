"""What tables say about the way from files to the model: whether reading videos, not the model, sets the pace."""

from collections.abc import Sequence

from vpbench.rows.schema import Result

#: from this share of waiting on, reading sets the pace
WAITS = 0.5


def lines(rows: Sequence[Result]) -> list[str]:
    """Compare reading with the model, clip by clip, and say what whole passes from files to answers gave."""
    return [*_per_clip(rows), *_passes(rows)]


def _per_clip(rows: Sequence[Result]) -> list[str]:
    dense = next((r for r in rows if r["method"] == "dense" and r["decode_ms"] is not None), None)
    if dense is None or dense["preprocess_ms"] is None or dense["wall_ms_p50"] is None:
        return []
    reading, fastest = dense["decode_ms"] + dense["preprocess_ms"], min(r["wall_ms_p50"] or 1e9 for r in rows)
    line = (
        f"one process decodes a clip in {dense['decode_ms']:.1f} ms and cuts it in {dense['preprocess_ms']:.1f} ms; "
        f"the model takes {dense['wall_ms_p50']:.1f} ms dense, {fastest:.1f} ms at its fastest"
    )
    if reading > fastest:
        line += f": it takes {-(-reading // fastest):.0f} workers to keep up with that"
    return [line]


def _passes(rows: Sequence[Result]) -> list[str]:
    timed = [r for r in rows if r["e2e_clips_per_s"] is not None]
    dense = next((r for r in timed if r["method"] == "dense"), None)
    if dense is None:
        return []
    best = max(timed, key=lambda r: float(r["e2e_clips_per_s"]))
    line = (
        f"from files to answers, {dense['workers']} workers: dense {dense['e2e_clips_per_s']:.1f} clips/s, the fastest "
        f"({best['method']}) {best['e2e_clips_per_s']:.1f}"
    )
    waits = max(float(r["device_wait_frac"]) for r in timed)
    if waits >= WAITS:
        line += f"; the model waits up to {waits:.0%} of the time: reading is the bottleneck, pruning cannot help"
    return [line]
