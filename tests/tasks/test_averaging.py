"""One prediction per video out of its views, with two or one question asked of it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from vpbench.data import Dataset, Video
from vpbench.errors import UsageError
from vpbench.tasks.recognition.questions import Question, questions
from vpbench.tasks.recognition.views import Averages, video_row

CLASSES = (Question("class", 0, 2),)
VIDEO = Video("v", Path("v.mp4"), 1)
# one sure view for class 0, two unsure ones for class 1: probabilities (0.9, 0.1) and twice (0.3, 0.7)
LOGITS = [torch.tensor([math.log(p), math.log(1 - p)]) for p in (0.99, 0.3, 0.3)]


def filled(average: str, shown: list[torch.Tensor]) -> Averages:
    found = Averages(CLASSES, average)  # type: ignore[arg-type]
    for logits in shown:
        found.add("v", logits)
    return found


def test_probabilities_are_averaged_after_the_softmax() -> None:
    (found,) = filled("probabilities", LOGITS).probabilities("v")
    assert found.tolist() == pytest.approx([(0.99 + 0.3 + 0.3) / 3, (0.01 + 0.7 + 0.7) / 3])


def test_logits_are_averaged_before_it() -> None:
    (found,) = filled("logits", LOGITS).probabilities("v")
    odds = (0.99 / 0.01 * (0.3 / 0.7) ** 2) ** (1 / 3)
    assert found.tolist() == pytest.approx([odds / (1 + odds), 1 / (1 + odds)])


def test_the_order_of_views_changes_nothing() -> None:
    one, other = (filled("probabilities", shown).probabilities("v")[0] for shown in (LOGITS, LOGITS[::-1]))
    assert torch.allclose(one, other, rtol=0, atol=1e-15)


def test_a_row_compares_with_dense() -> None:
    dense, own = filled("probabilities", LOGITS), filled("probabilities", [torch.tensor([0.0, math.log(3)])])
    row = video_row(VIDEO, own, dense, labelled=True)
    assert (row["pred"], row["correct"], row["agree"], row["views"]) == (1, True, False, 1)
    q = (0.99 + 0.6) / 3
    assert row["kl"] == pytest.approx(q * math.log(q / 0.25) + (1 - q) * math.log((1 - q) / 0.75))
    assert video_row(VIDEO, dense, dense, labelled=True)["kl"] == 0
    assert video_row(VIDEO, own, dense, labelled=False)["correct"] is None


def test_verbs_and_nouns_have_a_softmax_each() -> None:
    both = (Question("verb", 0, 2), Question("noun", 2, 5))
    found = Averages(both, "probabilities")
    found.add("v", torch.tensor([0.0, math.log(3), math.log(2), 0.0, 0.0]))
    verb, noun = found.probabilities("v")
    assert verb.tolist() == pytest.approx([0.25, 0.75])
    assert noun.tolist() == pytest.approx([0.5, 0.25, 0.25])
    row = video_row(Video("v", Path(), 1, noun=2), found, found, labelled=True)
    assert (row["correct"], row["noun_pred"], row["noun_label"], row["noun_correct"]) == (True, 0, 2, False)


class Kitchen(Dataset):
    classes = ("cut", "wash")
    nouns = ("cup", "knife", "pan")
    splits = ("validation",)

    def videos(self, split: str) -> list[Video]:
        return []

    def calibration(self) -> list[Video]:
        return []


def test_the_number_of_outputs_tells_what_they_answer() -> None:
    kitchen = Kitchen()
    video = Video("v", Path(), 1, noun=2)
    assert [(h.answers, h.label(video)) for h in questions(kitchen, 2)] == [("verb", 1)]
    assert [(h.answers, h.label(video)) for h in questions(kitchen, 3)] == [("noun", 2)]
    assert [(h.answers, h.start, h.stop) for h in questions(kitchen, 5)] == [("verb", 0, 2), ("noun", 2, 5)]
    with pytest.raises(UsageError, match="2 or 3 or 5"):
        questions(kitchen, 400)
