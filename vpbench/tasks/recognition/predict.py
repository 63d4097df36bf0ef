"""What each cell answers on videos that were read: all of their views, compared with dense."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vpbench.api import Clip, Output, Pruner, Video
from vpbench.data.feed import Loaded
from vpbench.rows.schema import ClipRow, VideoRow
from vpbench.tasks.recognition import motion
from vpbench.tasks.recognition.motion import Motion
from vpbench.tasks.recognition.session import Session, batch_for
from vpbench.tasks.recognition.views import Averages, video_row
from vpbench.tasks.task import Attached, Predicted, Read, kept_of

#: clips that are predicted together, or as many as are timed together where that is more: what a clip gets does not
#: depend on its neighbours, and on two cores pruned clips take 0.6 to 0.8 of the time they take one by one
TOGETHER = 8


def predict(session: Session, dense: Attached, cells: Sequence[Attached], reads: Sequence[Read]) -> Iterator[Predicted]:
    """Yield what each cell says of each video, cell after cell, in batches across the videos; see `Task.predict`."""
    clips = [clip for read in reads for clip in read.given.clips]
    reference = _answers(session, dense, clips)
    if reference is None:
        for cell in cells:
            cell.fail(RuntimeError(dense.error or "dense failed"))
        return
    whole, moved = _averages(session, clips, reference), motion.of(clips, session.backbone.grid)
    for cell in cells:
        answers = reference if cell is dense else _answers(session, cell, clips)
        if answers is None:
            continue
        try:
            pairs = zip(clips, answers, reference, strict=True)
            found = [_row(session, cell, *each, moved.get(each[0].clip_id)) for each in pairs]
        except Exception as error:  # one method's failure must not end the others: it becomes its row's status
            cell.fail(error)
            continue
        counts = session.kept.setdefault(cell.cell.prediction_id, {})
        counts.update({row["clip_id"]: kept_of(row["tokens_layer"]) for row in found})
        own = whole if cell is dense else _averages(session, clips, answers)
        for read in reads:
            rows = [row for row in found if row["video_id"] == read.item]
            yield Predicted(cell, read.item, {"clips": rows, "videos": [_video(session, read, own, whole)]})


def macs_of(pruner: Pruner, out: Output, clip: int) -> int:
    """Multiply-accumulates of one clip of a batch: the backbone's closed form plus the method's own products."""
    return out.macs[clip] + pruner.macs(tuple(c.attention[clip] for c in out.counts))


@dataclass(frozen=True)
class _Answer:
    """What came of one clip: its logits `[outputs]` on the host, its place in the output of a batch, and its size."""

    logits: Tensor
    out: Output
    place: int
    batch: int


def _answers(session: Session, cell: Attached, clips: Sequence[Clip]) -> list[_Answer] | None:
    """Run one cell on clips, batch after batch; None, and the cell marked, where it fails."""
    found, own = list[_Answer](), session.setting.batch
    # what was compiled or recorded holds for the shape of one batch
    size = max(own, TOGETHER) if session.setting.mode == "eager" else own
    while len(found) < len(clips):
        part = clips[len(found) : len(found) + size]
        try:
            batch = batch_for(session.backbone, part, session.setting.device)
            with torch.inference_mode():
                out = session.forward(batch, cell.pruner)
            found += [_Answer(logits, out, place, size) for place, logits in enumerate(out.logits.cpu())]
        except torch.OutOfMemoryError as error:
            if size == own:
                cell.fail(error)
                return None
            size = own  # what is timed has to fit, no more than that
        except Exception as error:
            cell.fail(error)
            return None
    return found


def _averages(session: Session, clips: Sequence[Clip], answers: Sequence[_Answer]) -> Averages:
    averages = Averages(session.questions, session.protocol.average)
    for clip, answer in zip(clips, answers, strict=True):
        averages.add(clip.video_id, answer.logits)
    return averages


def _video(session: Session, read: Read, own: Averages, dense: Averages) -> VideoRow:
    loaded: Loaded = read.given
    row: VideoRow = {"video_id": read.item, "label_name": _named(session, loaded.video)}
    if read.state is not None:
        state = read.state
        row |= {"file_bytes": state.size, "file_mtime_ns": state.changed_ns, "file_digest": state.content}
    if loaded.error is not None:
        return row | {"label": loaded.video.label, "error": loaded.error}
    labelled = session.setting.weights != "random"
    # nothing was decoded of what came from the cache: null, not 0
    spent: VideoRow = {} if loaded.cached else {"decode_ms": loaded.decode_ms, "preprocess_ms": loaded.preprocess_ms}
    return row | video_row(loaded.video, own, dense, labelled) | spent


def _named(session: Session, video: Video) -> str | None:
    """Return the name of a video's label, None where it has none."""
    names = session.dataset.nouns if session.questions[0].answers == "noun" else session.dataset.classes
    return names[video.label] if 0 <= video.label < len(names) else None


def _row(
    session: Session, cell: Attached, clip: Clip, answer: _Answer, dense: _Answer, moved: Motion | None
) -> ClipRow:
    logits, reference = answer.logits.float()[None], dense.logits.float()[None]
    if not logits.isfinite().all():
        raise ArithmeticError("the logits hold NaN or infinity")
    question = slice(session.questions[0].start, session.questions[0].stop)
    log_p, log_q = reference[:, question].log_softmax(-1), logits[:, question].log_softmax(-1)
    kl = (log_p.exp() * (log_p - log_q)).sum(-1).clamp(min=0)
    rel = (logits - reference).norm(dim=-1) / reference.norm(dim=-1)
    top = log_q.topk(min(5, log_q.shape[1]), dim=-1).indices
    out, i = answer.out, answer.place
    return {
        "clip_id": clip.clip_id,
        "video_id": clip.video_id,
        "view": clip.view,
        "batch": answer.batch,
        "label": clip.label,
        "pred": int(top[0, 0]),
        "top5": top[0].tolist(),
        "correct": None if session.setting.weights == "random" else bool(top[0, 0] == clip.label),
        "tokens_in": out.counts[0].attention[i],
        "tokens_layer": [c.attention[i] for c in out.counts],
        "macs": macs_of(cell.pruner, out, i),
        "padding_macs": out.padding[i] if out.padding else 0,
        "kl": float(kl[0]),
        "logit_rel_l2": float(rel[0]),
        "agree": bool(top[0, 0] == log_p[0].argmax()),
        "motion": moved and moved.motion,
        "still": moved and moved.still,
    }
