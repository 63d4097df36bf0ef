"""Where the time of a forward goes: exclusive wall-clock of its stages, in rounds of their own.

What takes part says so itself: a class names in `timed_as` the stage that each of its functions is. Only while rounds
run are these functions wrapped, so that nothing is added to any other measurement.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from vpbench.measure.clock import collector_off

#: `scoring`: whatever a method does but for moving tokens (what it asks of attention is in `attention`); `gather`:
#: moving tokens, by index or merged; `restore`: putting them back in place
STAGES = ("embed", "attention", "mlp", "scoring", "gather", "restore", "head")
#: what no stage took
REST = "rest"
#: rounds of single forwards
ROUNDS = 15

_ABSENT = object()


@dataclass(frozen=True)
class Split:
    """One forward: nanoseconds of every stage and of the rest, which together are all of it."""

    ns: Mapping[str, int]

    @property
    def total_ns(self) -> int:
        """Nanoseconds of the whole forward, the stopwatch's own included."""
        return sum(self.ns.values())


class Stopwatch:
    """Charges time to the stage that runs; one inside another is charged alone, and the outer one goes on after it.

    Before each turn `synchronize` waits for the device, so that a stage is charged its own kernels.
    """

    def __init__(self, synchronize: Callable[[], None]) -> None:
        self._synchronize = synchronize
        self._running: list[str] = []
        self._ns: dict[str, int] = {}
        self._last = 0

    def split(self, call: Callable[[], object]) -> Split:
        """Run `call`, and return where its time went."""
        self._ns, self._running = dict.fromkeys((*STAGES, REST), 0), [REST]
        self._synchronize()
        self._last = time.perf_counter_ns()
        output = call()
        self._turn()
        del output  # held until here, so that freeing it is not timed
        self._running = []
        return Split(self._ns)

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function`, charged to a stage while `split` runs."""

        def run(*arguments: Any, **named: Any) -> Any:
            if not self._running:
                return function(*arguments, **named)
            self._turn()
            self._running.append(stage)
            try:
                return function(*arguments, **named)
            finally:
                self._turn()
                self._running.pop()

        return run

    def _turn(self) -> None:
        self._synchronize()
        now = time.perf_counter_ns()
        self._ns[self._running[-1]] += now - self._last
        self._last = now


@contextmanager
def watched(owners: Iterable[object], synchronize: Callable[[], None]) -> Iterator[Stopwatch]:
    """Let a stopwatch see the functions that `owners` (objects, or classes for all their instances) name in `timed_as`.

    Everything is as it was afterwards. Raises ValueError for a stage that there is not.
    """
    watch, before = Stopwatch(synchronize), list[tuple[object, str, object]]()
    try:
        for owner in owners:
            for name, stage in getattr(owner, "timed_as", {}).items():
                if stage not in STAGES:
                    raise ValueError(f"{owner!r} times {name} as {stage!r}, which is none of {', '.join(STAGES)}")
                before.append((owner, name, vars(owner).get(name, _ABSENT)))
                _set(owner, name, watch.timed(stage, getattr(owner, name)))
        yield watch
    finally:
        for owner, name, value in reversed(before):
            _set(owner, name, value)


def _set(owner: object, name: str, value: object) -> None:
    """Set or remove an attribute, past the guards of frozen classes and modules."""
    guard: Any = type if isinstance(owner, type) else object
    if value is _ABSENT:
        guard.__delattr__(owner, name)
    else:
        guard.__setattr__(owner, name, value)


def time_stages(
    forwards: Mapping[str, Callable[[int], object]],
    owners: Mapping[str, Sequence[object]],
    rounds: int,
    rng: np.random.Generator,
    synchronize: Callable[[], None],
) -> dict[str, list[Split]]:
    """Run every forward once per round in a fresh random order, and return where the time of each went, by its name.

    A forward gets the number of the round, the same for all, and may choose its clip by it; one round goes first that
    does not count. `owners` hold, by the same names, all that takes part in a forward. The clock is the host's;
    stopping it between stages adds to the total, on an accelerator far more than on a CPU, since nothing is queued
    ahead any more: compare shares, and totals only with each other.
    """
    found: dict[str, list[Split]] = {name: [] for name in forwards}
    names = list(forwards)
    for number in range(1 + rounds):
        for which in rng.permutation(len(names)).tolist():
            name = names[which]
            with watched(owners[name], synchronize) as watch, collector_off():
                split = watch.split(lambda name=name, number=number: forwards[name](number))  # type: ignore[misc]
            if number:
                found[name].append(split)
    return found


def columns(own: Sequence[Split] | None, dense: Sequence[Split] | None, clips: int) -> dict[str, float | int]:
    """Return the columns of the results table, milliseconds per clip; empty where none were asked for.

    The total is the median over rounds. A stage has the share of it that is the median of its shares in the rounds,
    these made to sum to 1: medians of milliseconds would not sum to any total. `dense`: the splits of dense in the same
    rounds; `clips`: of a forward.
    """
    if own is None or dense is None:
        return {}
    total, whole = (float(np.median([split.total_ns for split in splits])) / 1e6 / clips for splits in (own, dense))
    names = (*STAGES, REST)
    shares = np.median([[split.ns[name] / split.total_ns for name in names] for split in own], axis=0)
    stages = total * shares / shares.sum()
    return {
        **{f"stage_{name}_ms": float(ms) for name, ms in zip(names, stages, strict=True)},
        "stage_total_ms": total,
        "stage_dense_ms": whole,
        "n_stage_rounds": len(own),
    }
