from __future__ import annotations

import numpy as np
import pytest
from golden_rows import correctness, frame, video_rows

from vpbench.rows.answers import UNKNOWN, Answers
from vpbench.rows.statistics import paired

VIDEOS = frame([*video_rows(), *video_rows("rlt", 0.4)], "videos")


def test_pairs_are_those_of_the_same_videos() -> None:
    answers = Answers(["dense-None", "rlt-0.4"], VIDEOS)
    found = answers.paired("dense-None", "rlt-0.4")
    assert found == paired.paired_difference(correctness("dense", None), correctness("rlt", 0.4), np.arange(300))


def test_order_and_repeated_answers_do_not_matter() -> None:
    answers = Answers(["rlt-0.4", "dense-None"], VIDEOS.sample(frac=1, random_state=1))
    assert answers.paired("dense-None", "rlt-0.4") == Answers(["dense-None", "rlt-0.4"], VIDEOS).paired(
        "dense-None", "rlt-0.4"
    )
    again = frame([*video_rows()[:1], *[row | {"correct": False} for row in video_rows()[:1]]], "videos")
    assert Answers(["dense-None"], again).of("dense-None").tolist() == [0], "the last answer counts"


def test_videos_that_only_one_answered_are_left_out() -> None:
    part = frame([*video_rows(), *video_rows("rlt", 0.4)[:100]], "videos")
    answers = Answers(["dense-None", "rlt-0.4", "gone"], part)
    found = answers.paired("dense-None", "rlt-0.4")
    assert found is not None
    assert found.n == 100
    assert (answers.of("rlt-0.4") == UNKNOWN).sum() == 200
    assert answers.paired("dense-None", "gone") is None
    with pytest.raises(KeyError):
        answers.of("not asked for")
