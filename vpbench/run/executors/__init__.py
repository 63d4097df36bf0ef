"""Where a request is measured. Whoever asks calls an executor, and learns of no difference but that of time."""

from typing import Protocol

from vpbench.run.group import Only, Outcome
from vpbench.run.resolve import Job


class Executor(Protocol):
    """Does what is not done yet of a request. There is one file for each; none knows another but Ray its workers."""

    def __call__(self, job: Job, only: Only | None) -> Outcome | None:
        """Return what came of it; None where others may still be at work, so that there are no rows yet."""
