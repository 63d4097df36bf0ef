"""First pass: what each cell predicts, with one decode of every video for all of its views and all cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from vpbench.api import Clip, Output, Video
from vpbench.data.feed import Loaded
from vpbench.progress import Task, say
from vpbench.rows.schema import Row
from vpbench.rows.store import Store
from vpbench.tasks.attach import Attached
from vpbench.tasks.recognition.session import Session, batch_for
from vpbench.tasks.recognition.views import Averages, video_row
from vpbench.tasks.recognition.walk import macs_of

#: videos per part file: what a killed run loses at most
CHUNK = 50


@dataclass
class Reading:
    """What it took to get at the clips: milliseconds per clip, video by video; cached ones took none."""

    decode_ms: list[float] = field(default_factory=list)
    preprocess_ms: list[float] = field(default_factory=list)

    def add(self, loaded: Loaded) -> None:
        """Count a video that was decoded."""
        if loaded.clips and not loaded.cached:
            self.decode_ms.append(loaded.decode_ms / len(loaded.clips))
            self.preprocess_ms.append(loaded.preprocess_ms / len(loaded.clips))

    def columns(self) -> Row:
        """Return the medians as columns of the results table; null where nothing was decoded."""
        found = {"decode_ms": self.decode_ms, "preprocess_ms": self.preprocess_ms}
        return {name: float(np.median(values)) if values else None for name, values in found.items()}


def measure(
    session: Session, cells: Sequence[Attached], store: Store, run_id: str, repeat: Callable[[str], bool], task: Task
) -> Row:
    """Write one row per cell and view and one per cell and video, in part files of `CHUNK` videos.

    Parts that exist are left alone, unless `repeat` says so of one of their videos, by id. `cells` starts with dense,
    which the others are compared with. A cell that fails is marked and left out from there on. Returns the columns of
    decoding and preprocessing.
    """
    starts = range(0, len(session.videos), CHUNK)
    missing = {start: _missing(session, cells, store, start, repeat) for start in starts}
    wanted = (video for start in starts if missing[start] for video in _videos(session, start))
    stream, reading = session.feed.stream(wanted), Reading()
    for start in starts:
        videos = _videos(session, start)
        if missing[start]:
            part = _Part(session, cells[0], [c for c in missing[start] if c.error is None])
            part.run(_counted(islice(stream, len(videos)), session, reading, task))
            part.write(store, run_id, start)
        else:
            task.advance(len(videos))
    return reading.columns()


def part_name(ready: Attached, start: int) -> str:
    """Name of the part files that hold a cell's rows of the videos from number `start` on."""
    return f"{ready.cell.config_id}-{start:06d}"


def kept_of(tokens_layer: Sequence[int]) -> int:
    """Tokens per layer, averaged over the layers and rounded: what a random control of the same cost keeps."""
    return round(sum(tokens_layer) / len(tokens_layer))


def _videos(session: Session, start: int) -> Sequence[Video]:
    return session.videos[start : start + CHUNK]


def _missing(
    session: Session, cells: Sequence[Attached], store: Store, start: int, repeat: Callable[[str], bool]
) -> list[Attached]:
    """List the cells whose part is not there yet."""
    again = any(repeat(video.video_id) for video in _videos(session, start))
    return [
        c for c in cells if again or not all(store.has(table, part_name(c, start)) for table in ("clips", "videos"))
    ]


def _counted(found: Iterable[Loaded], session: Session, reading: Reading, task: Task) -> Iterator[Loaded]:
    """Pass videos on; count them, say which are unreadable, and lay aside the clips that will be timed."""
    for loaded in found:
        if loaded.error is not None:
            say(f"unreadable, counted as failed: {loaded.error}")
        reading.add(loaded)
        session.lay_aside(loaded)
        yield loaded
        task.advance()


@dataclass
class _Part:
    """The rows of one part file of each cell."""

    session: Session
    dense: Attached
    todo: list[Attached]

    def __post_init__(self) -> None:
        kinds = {ready.cell.config_id: ready for ready in (self.dense, *self.todo)}
        self.averages = {name: Averages(self.session.heads, self.session.protocol.average) for name in kinds}
        self.clips: dict[str, list[Row]] = {name: [] for name in kinds}
        self.loaded: list[Loaded] = []

    def run(self, found: Iterable[Loaded]) -> None:
        """Predict everything, batch after batch, across videos."""
        pending: list[Clip] = []
        size = self.session.setting.batch
        for loaded in found:
            self.loaded.append(replace(loaded, clips=()))
            pending += loaded.clips
            while len(pending) >= size:
                self._predict(pending[:size])
                del pending[:size]
        if pending:
            self._predict(pending)

    def write(self, store: Store, run_id: str, start: int) -> None:
        """Write the rows of the cells that are still well."""
        for ready in (ready for ready in self.todo if ready.error is None):
            own = {"run_id": run_id, "config_id": ready.cell.config_id}
            store.write("clips", part_name(ready, start), [own | row for row in self.clips[ready.cell.config_id]])
            store.write("videos", part_name(ready, start), [own | self._video(ready, each) for each in self.loaded])

    def _predict(self, clips: Sequence[Clip]) -> None:
        """Run all cells on one batch. Without dense there is nothing to compare with: then no cell has a result."""
        if self.dense.error is not None:
            return
        session = self.session
        batch = batch_for(session.backbone, clips, session.setting.device)
        try:
            with torch.inference_mode():
                reference = session.forward(batch, self.dense.pruner)
        except Exception as error:
            for ready in (self.dense, *self.todo):
                ready.fail(error)
            return
        _add(self.averages[self.dense.cell.config_id], clips, reference.logits)
        for ready in (ready for ready in self.todo if ready.error is None):
            config_id = ready.cell.config_id
            try:
                with torch.inference_mode():
                    out = reference if ready is self.dense else session.forward(batch, ready.pruner)
                found = _rows(session, ready, clips, out, reference.logits)
            except Exception as error:  # one method's failure must not end the others: it becomes its row's status
                ready.fail(error)
                continue
            if ready is not self.dense:
                _add(self.averages[config_id], clips, out.logits)
            session.kept.setdefault(config_id, {}).update({r["clip_id"]: kept_of(r["tokens_layer"]) for r in found})
            self.clips[config_id] += found

    def _video(self, ready: Attached, loaded: Loaded) -> Row:
        if loaded.error is not None:
            return {"video_id": loaded.video.video_id, "label": loaded.video.label, "error": loaded.error}
        labelled = self.session.setting.weights != "random"
        own, dense = (self.averages[each.cell.config_id] for each in (ready, self.dense))
        # nothing was decoded of what came from the cache: null, not 0
        spent = {} if loaded.cached else {"decode_ms": loaded.decode_ms, "preprocess_ms": loaded.preprocess_ms}
        return video_row(loaded.video, own, dense, labelled) | spent


def _add(averages: Averages, clips: Sequence[Clip], logits: Tensor) -> None:
    for clip, found in zip(clips, logits.cpu(), strict=True):
        averages.add(clip.video_id, found)


def _rows(session: Session, ready: Attached, clips: Sequence[Clip], out: Output, dense: Tensor) -> list[Row]:
    logits, reference = out.logits.float().cpu(), dense.float().cpu()
    if not logits.isfinite().all():
        raise ArithmeticError("the logits hold NaN or infinity")
    head = slice(session.heads[0].start, session.heads[0].stop)
    log_p, log_q = reference[:, head].log_softmax(-1), logits[:, head].log_softmax(-1)
    kl = (log_p.exp() * (log_p - log_q)).sum(-1).clamp(min=0)
    rel = (logits - reference).norm(dim=-1) / reference.norm(dim=-1)
    top = log_q.topk(min(5, log_q.shape[1]), dim=-1).indices
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
            "macs": macs_of(ready.pruner, out, i),
            "padding_macs": out.padding[i] if out.padding else 0,
            "kl": float(kl[i]),
            "logit_rel_l2": float(rel[i]),
            "agree": bool(top[i, 0] == log_p[i].argmax()),
        }
        for i, clip in enumerate(clips)
    ]
