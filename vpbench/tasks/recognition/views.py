"""What the views of a video say together: one prediction per video, as the protocol averages."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from vpbench.data import Video
from vpbench.rows.schema import VideoRow
from vpbench.tasks.recognition.questions import Question


class Averages:
    """Sums over the views of each video, in 64 bits, so that their order changes nothing that is printed."""

    def __init__(self, questions: Sequence[Question], average: Literal["probabilities", "logits"]) -> None:
        self.questions, self.average = questions, average
        self._sums: dict[str, Tensor] = {}
        self._views: dict[str, int] = {}

    def add(self, video_id: str, logits: Tensor) -> None:
        """Add one view's logits `[outputs]`."""
        wide = logits.double()
        if self.average == "probabilities":
            wide = torch.cat([wide[question.start : question.stop].softmax(0) for question in self.questions])
        self._sums[video_id] = self._sums.get(video_id, torch.zeros_like(wide)) + wide
        self._views[video_id] = self.views(video_id) + 1

    def views(self, video_id: str) -> int:
        """Return how many views have been added."""
        return self._views.get(video_id, 0)

    def probabilities(self, video_id: str) -> list[Tensor]:
        """Return the averaged probabilities, `[classes]` for each question."""
        mean = self._sums[video_id] / self._views[video_id]
        parts = [mean[question.start : question.stop] for question in self.questions]
        return [part.softmax(0) for part in parts] if self.average == "logits" else parts


def video_row(video: Video, own: Averages, dense: Averages, labelled: bool) -> VideoRow:
    """Return a video's row of the `videos` table, compared with dense; with `labelled`, whether it is right."""
    mine, reference = own.probabilities(video.video_id), dense.probabilities(video.video_id)
    divergence = sum(_divergence(q, p) for q, p in zip(reference, mine, strict=True))
    answers = [int(p.argmax()) for p in mine]
    truth = [question.label(video) for question in own.questions]
    row: VideoRow = {
        "video_id": video.video_id,
        "views": own.views(video.video_id),
        "label": truth[0],
        "pred": answers[0],
        "top5": mine[0].topk(min(5, len(mine[0]))).indices.tolist(),
        "correct": answers[0] == truth[0] if labelled else None,
        "kl": max(0.0, divergence),
        "agree": answers == [int(q.argmax()) for q in reference],
    }
    if len(own.questions) > 1:
        row |= {"noun_label": truth[1], "noun_pred": answers[1]}
        row |= {"noun_correct": answers[1] == truth[1] if labelled else None}
    return row


def _divergence(reference: Tensor, other: Tensor) -> float:
    """Return KL(reference || other) in nats."""
    return float(torch.special.xlogy(reference, reference / other.clamp(min=torch.finfo(other.dtype).tiny)).sum())
