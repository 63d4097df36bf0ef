"""Columns of quality of a cell, from its stored clips and videos."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from vpbench.plan import Setting
from vpbench.rows.schema import Result
from vpbench.rows.statistics.paired import paired_difference
from vpbench.tasks.cost import cost, outcome, readable
from vpbench.tasks.recognition.questions import Question
from vpbench.tasks.recognition.session import stored_questions
from vpbench.tasks.task import Seen, Stored


def score(setting: Setting, seen: Seen, own: Stored, dense: Stored) -> Result:
    """Return what follows from the predictions of one cell and of dense on the same videos."""
    clips, videos = own["clips"], own["videos"]
    questions = stored_questions(setting, seen.outputs)
    return {
        **outcome(videos, "video_id", "videos"),
        "n_clips": len(clips),
        "n_videos": int(videos["error"].isna().sum()),
        **cost(clips, dense["clips"]),
        "logit_rel_l2": float(clips["logit_rel_l2"].astype(float).mean()),
        **quality(readable(videos), readable(dense["videos"])),
        **by_question(questions, videos),
        **_reading(videos),
    }


def _reading(videos: pd.DataFrame) -> Result:
    """Return milliseconds per clip to decode and to cut, medians over videos; null where nothing was decoded."""
    per_clip = [(videos[name] / videos["views"]).dropna() for name in ("decode_ms", "preprocess_ms")]
    decode, cut = (float(values.astype(float).median()) if len(values) else None for values in per_clip)
    return {"decode_ms": decode, "preprocess_ms": cut}


def quality(videos: pd.DataFrame, dense: pd.DataFrame) -> Result:
    """Columns of accuracy and of agreement with dense, over videos that could be read."""
    row: Result = {"agree": float(videos["agree"].astype(float).mean()), "kl": float(videos["kl"].astype(float).mean())}
    if videos["correct"].isna().any():
        return row
    right = videos["correct"].to_numpy(dtype=bool)
    in_top5 = [label in top for label, top in zip(videos["label"], videos["top5"], strict=True)]
    paired = paired_difference(
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


def by_question(questions: Sequence[Question], videos: pd.DataFrame) -> Result:
    """Columns of verbs, nouns and actions (both right), where that is what videos are labelled with."""
    read = readable(videos)
    if questions[0].answers == "class" or read["correct"].isna().any():
        return {}
    first = read["correct"].to_numpy(dtype=bool)
    top1 = float(100 * first.mean())
    row: Result = {"verb_top1": top1} if questions[0].answers == "verb" else {"noun_top1": top1}
    if len(questions) > 1:
        second = read["noun_correct"].to_numpy(dtype=bool)
        row |= {"noun_top1": float(100 * second.mean()), "action_top1": float(100 * (first & second).mean())}
    return row
