"""First pass: what each cell predicts, clip by clip, with one decode of every video for all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vpbench.api import Clip, Output, Video
from vpbench.progress import Task, say
from vpbench.session import Ready, Session
from vpbench.store import Store
from vpbench.video import DecodeError

#: videos per part file: what a killed run loses at most
CHUNK = 50

Row = dict[str, Any]


def measure(
    session: Session, cells: Sequence[Ready], store: Store, run_id: str, repeat: Callable[[str], bool], task: Task
) -> list[float]:
    """Write one row per cell and clip, in part files of `CHUNK` videos.

    Parts that exist are left alone, unless `repeat` says so of one of their videos, by id. `cells` starts with dense,
    which the others are compared with. A cell that fails is marked and left out from there on. Returns the decode times
    in ms per clip.
    """
    decode_ms: list[float] = []
    for start in range(0, len(session.videos), CHUNK):
        videos = session.videos[start : start + CHUNK]
        again = any(repeat(video.video_id) for video in videos)
        todo = [c for c in cells if c.error is None and (again or not store.has("clips", part_name(c, start)))]
        if todo:
            clips, failed = _decode(session, videos, decode_ms)
            rows = _predict(session, cells[0], todo, clips, task)
            for ready in (ready for ready in todo if ready.error is None):
                own = {"run_id": run_id, "config_id": ready.cell.config_id}
                found = [*rows[ready.cell.config_id], *failed]
                store.write("clips", part_name(ready, start), [{**own, **row} for row in found])
        task.advance(len(videos) - (len(clips) if todo else 0))
    return decode_ms


def part_name(ready: Ready, start: int) -> str:
    """Name of the part file that holds a cell's rows of the videos from number `start` on."""
    return f"{ready.cell.config_id}-{start:06d}"


def _decode(session: Session, videos: Sequence[Video], decode_ms: list[float]) -> tuple[list[Clip], list[Row]]:
    clips: list[Clip] = []
    failed: list[Row] = []
    for video in videos:
        began = time.perf_counter()
        try:
            found = session.clips(video)
        except DecodeError as error:
            say(f"unreadable, counted as failed: {error}")
            failed.append(
                {
                    "clip_id": video.video_id,
                    "video_id": video.video_id,
                    "view": 0,
                    "label": video.label,
                    "error": str(error),
                }
            )
            continue
        decode_ms.append((time.perf_counter() - began) * 1e3 / len(found))
        clips += found
    return clips, failed


def _predict(
    session: Session, dense: Ready, todo: Sequence[Ready], clips: Sequence[Clip], task: Task
) -> dict[str, list[Row]]:
    """Run all cells on the same clips; returns the rows of each."""
    rows: dict[str, list[Row]] = {ready.cell.config_id: [] for ready in todo}
    for part, batch in session.batches(clips):
        try:
            with torch.inference_mode():
                reference = session.backbone(batch, dense.pruner)
        except Exception as error:  # without dense there is nothing to compare with: no cell has a result
            for ready in (dense, *todo):
                ready.fail(error)
            break
        for ready in (ready for ready in todo if ready.error is None):
            try:
                with torch.inference_mode():
                    out = reference if ready is dense else session.backbone(batch, ready.pruner)
                found = _rows(session, ready, part, out, reference.logits)
            except Exception as error:  # one method's failure must not end the others: it becomes its row's status
                ready.fail(error)
                continue
            config_id = ready.cell.config_id
            session.kept.setdefault(config_id, {}).update({r["clip_id"]: kept_of(r["tokens_layer"]) for r in found})
            rows[config_id] += found
        task.advance(len(part))
    return rows


def kept_of(tokens_layer: Sequence[int]) -> int:
    """Tokens per layer, averaged over the layers and rounded: what a random control of the same cost keeps."""
    return round(sum(tokens_layer) / len(tokens_layer))


def _rows(session: Session, ready: Ready, clips: Sequence[Clip], out: Output, dense: Tensor) -> list[Row]:
    logits, reference = out.logits.float().cpu(), dense.float().cpu()
    if not logits.isfinite().all():
        raise ArithmeticError("the logits hold NaN or infinity")
    log_p, log_q = reference.log_softmax(-1), logits.log_softmax(-1)
    kl = (log_p.exp() * (log_p - log_q)).sum(-1).clamp(min=0)
    rel = (logits - reference).norm(dim=-1) / reference.norm(dim=-1)
    top = logits.topk(min(5, logits.shape[1]), dim=-1).indices
    return [
        {
            "clip_id": clip.clip_id,
            "video_id": clip.video_id,
            "view": clip.view,
            "label": clip.label,
            "pred": int(top[i, 0]),
            "top5": top[i].tolist(),
            "correct": None if session.setting.weights == "random" else bool(top[i, 0] == clip.label),
            "tokens_in": out.counts[0].attention[i],
            "tokens_layer": [c.attention[i] for c in out.counts],
            "macs": clip_macs(ready, out, i),
            "padding_macs": out.padding[i] if out.padding else 0,
            "kl": float(kl[i]),
            "logit_rel_l2": float(rel[i]),
            "agree": bool(top[i, 0] == reference[i].argmax()),
        }
        for i, clip in enumerate(clips)
    ]


def clip_macs(ready: Ready, out: Output, clip: int) -> int:
    """Multiply-accumulates of one clip of a batch: the backbone's closed form plus the method's own products."""
    return out.macs[clip] + ready.pruner.macs(tuple(c.attention[clip] for c in out.counts))
