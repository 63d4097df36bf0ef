"""Which labels the outputs of a backbone stand for: one class per video, or verbs and nouns (EPIC-Kitchens-100)."""

from dataclasses import dataclass
from typing import Literal

from vpbench.data import Dataset, Video
from vpbench.errors import UsageError

#: so many classes are named in errors
NAMED = 5


@dataclass(frozen=True)
class Question:
    """Outputs `start` to `stop` answer one question; softmax runs over them alone."""

    answers: Literal["class", "verb", "noun"]
    start: int
    stop: int

    def label(self, video: Video) -> int:
        """Return the true answer for a video; -1 for one without a noun."""
        if self.answers != "noun":
            return video.label
        return -1 if video.noun is None else video.noun


def questions(dataset: Dataset, outputs: int) -> tuple[Question, ...]:
    """Tell from their number what the outputs are: classes, or verbs, nouns, or verbs followed by nouns.

    Raises UsageError for a number that fits none of them.
    """
    verbs, nouns = len(dataset.classes), len(dataset.nouns)
    if not nouns:
        fitting: dict[int, tuple[Question, ...]] = {verbs: (Question("class", 0, verbs),)}
    else:
        verb, noun = Question("verb", 0, verbs), Question("noun", 0, nouns)
        fitting = {verbs: (verb,), nouns: (noun,), verbs + nouns: (verb, Question("noun", verbs, verbs + nouns))}
    if outputs not in fitting:
        known = " or ".join(str(count) for count in fitting)
        some = f"{', '.join(dataset.classes[:NAMED])}{', ...' if verbs > NAMED else ''}"
        raise UsageError(f"{outputs} classes, but the dataset has {known} ({some}); {dataset.remedy}")
    return fitting[outputs]
