"""All in this process: the executor that is taken where nothing is said."""

from dataclasses import dataclass

from vpbench.rows.store import Store
from vpbench.run.group import Only, Outcome, run_all
from vpbench.run.resolve import Job


@dataclass(frozen=True)
class Inline:
    """Measures one group after the other; with `force` also what has been measured."""

    force: bool = False

    def __call__(self, job: Job, only: Only | None) -> Outcome:
        """Measure all, and derive rows as blocks end."""
        return run_all(job.groups, job.known, Store(job.asked.out), job.command, self.force, only)
