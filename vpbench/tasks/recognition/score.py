"""Columns of quality of a cell, from its stored clips and videos."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from vpbench.api import manifest_digest
from vpbench.measure.rounds import Timed
from vpbench.rows.schema import Row
from vpbench.rows.statistics import paired as statistics_paired
from vpbench.tasks.attach import Attached
from vpbench.tasks.columns import kernel, time
from vpbench.tasks.cost import cost, readable
from vpbench.tasks.recognition import end_to_end
from vpbench.tasks.recognition.questions import Head
from vpbench.tasks.recognition.session import Session
from vpbench.tasks.task import Seen, outcome


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


@dataclasses.dataclass(frozen=True)
class Predicted:
    """What one configuration predicted: its rows of the `clips` table and of the `videos` table."""

    clips: pd.DataFrame
    videos: pd.DataFrame


def finished(
    base: Row, ready: Attached, own: Predicted, dense: Predicted, timed: Timed, dense_id: str, setup_s: float
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
        **quality(readable(own.videos), readable(dense.videos)),
        **time(timed, ready.cell.config_id, dense_id),
        "h2d_ms": timed.h2d_ms,
        "setup_s": setup_s + ready.setup_s,
        **end_to_end.columns(timed.passes.get(ready.cell.config_id, ())),
    }
    ragged = base["batch_size"] > 1 and row["tokens_kept_p5"] != row["tokens_kept_p95"]
    return {**row, "attn_impl": kernel(ready.cell.setting, ragged)}


def quality(videos: pd.DataFrame, dense: pd.DataFrame) -> Row:
    """Columns of accuracy and of agreement with dense, over videos that could be read."""
    row: Row = {"agree": float(videos["agree"].astype(float).mean()), "kl": float(videos["kl"].astype(float).mean())}
    if videos["correct"].isna().any():
        return row
    right = videos["correct"].to_numpy(dtype=bool)
    in_top5 = [label in top for label, top in zip(videos["label"], videos["top5"], strict=True)]
    paired = statistics_paired.paired_difference(
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
    read = readable(videos)
    if heads[0].answers == "class" or read["correct"].isna().any():
        return {}
    first = read["correct"].to_numpy(dtype=bool)
    row: Row = {f"{heads[0].answers}_top1": float(100 * first.mean())}
    if len(heads) > 1:
        second = read["noun_correct"].to_numpy(dtype=bool)
        row |= {"noun_top1": float(100 * second.mean()), "action_top1": float(100 * (first & second).mean())}
    return row
