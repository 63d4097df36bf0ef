"""Draws golden rows, and reads from figures what is in them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from golden_rows import Row, frame, sweep

from vpbench.render.figures import catalog
from vpbench.rows.contexts import records

STAGES = ("embed", "attention", "mlp", "scoring", "gather", "restore", "head", "rest")


def clips(config_id: str) -> pd.DataFrame:
    """Return what clips of a golden cell kept: rlt follows their content, sta drops half after two of four blocks."""
    method, keep = config_id.rsplit("-", 1)
    whole = 512 if keep == "None" else round(512 * float(keep))
    each = [whole + n for n in range(-20, 21)] if method == "rlt" else [whole] * 41
    layers = [[512, 512, n, n] if method == "sta" else [n] * 4 for n in each]
    return pd.DataFrame({"tokens_layer": [None, *layers]})


def nothing(config_id: str) -> pd.DataFrame:
    """Return the clips of a cell whose clips are not there."""
    return pd.DataFrame({"tokens_layer": []})


def timed(rows: list[Row]) -> list[Row]:
    """Add what rows know of clips per second, whole passes and stages; a method scores for 4 ms and gathers for 1."""
    for row in rows:
        wall, prunes = row["wall_ms_p50"], row["method"] != "dense"
        parts = dict.fromkeys(STAGES, 0.0) | {"attention": wall, "mlp": 10.0, "scoring": 4.0 * prunes, "gather": prunes}
        row |= {f"stage_{name}_ms": float(value) for name, value in parts.items()}
        row |= {"stage_total_ms": sum(parts.values()), "stage_dense_ms": 50.0, "n_stage_rounds": 15}
        row |= {"clips_per_s": 900 / wall, "e2e_clips_per_s": 1e3 / (wall + 10)}
    return rows


def figures(rows: list[Row], *names: str, y: str | None = None, page: str = "paper", **asked: Any) -> dict[str, Any]:
    """Return figures of comparable rows, or the reasons why there are none."""
    return catalog.figures(records(frame(rows)), clips, catalog.Request(names, quality=y, page=page, **asked))


def full() -> list[Row]:
    """Return a sweep whose rows know everything."""
    return timed(sweep())


def lines(axis: Any) -> dict[str, list[float]]:
    """Return the x of every labelled line."""
    return {line.get_label(): list(line.get_xdata()) for line in axis.get_lines()}


def text(figure: Any) -> str:
    """Return all words in a figure."""
    words = (each.get_text() for each in figure.findobj(lambda o: hasattr(o, "get_text")))
    return " ".join(" ".join(words).replace("\n", " ").split())


def bars(axis: Any) -> list[Any]:
    """Return both ends `[2, 2]` of all bars of intervals that have a length."""
    own = [line.get_xydata().reshape(-1, 3, 2)[:, :2] for line in axis.get_lines() if line.get_gid() == "bars"]
    return [segment for line in own for segment in line if np.ptp(segment, axis=0).max() > 0]
