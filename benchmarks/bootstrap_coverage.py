"""Do 95 % intervals hold the truth 95 times in 100: of differences, of speed-ups, of Pareto metrics?

    python benchmarks/bootstrap_coverage.py

*Differences.* Each trial draws a data set of 500 videos (and, with several clips per video, also one of 500 clips) on
which dense and a method disagree about 5 % of the clips on average, and asks `rows.statistics.paired` for its interval.
Differences are cut to a fixed number of clips by nature, so truths on and off that lattice are both tried. Where clips
share a video, a clip follows its video's fate with probability one half, else its own.

*Speed-ups.* Rounds whose logarithms vary by 3 %, in processes that vary by 1 % themselves (a single one does not).

*Metrics.* A method of eight settings and random selection of six, on 500 videos: accuracy that falls steeply, one that
is flat over many settings and so has many fronts, and one between. Answers of different settings are correlated, as
hard clips are hard for all. Costs are counted, or timed in 40 rounds. The truth is the same metric of the true
accuracies and costs. Of speed-ups at a loss it is that of the fastest setting that loses less, shown or not: what is
shown may fall short of it, and an interval that begins above it, a false claim, is all that counts as a miss.

Exits with 1 if a coverage lies outside 93 to 97 %, or of claims of speed-ups at a loss under 97 %. Lines in brackets
are there to be seen to fail: a bootstrap that ignores the videos, a percentile bootstrap of three processes, the area
under the front of the luckiest settings, and speed-ups of those that merely came out at a loss so small.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vpbench.measure import machine
from vpbench.rows.statistics import bootstrap, intervals, paired, pareto
from vpbench.rows.statistics.bootstrap import Estimate, PerClip, Point, Rounds, resample
from vpbench.rows.statistics.intervals import Interval
from vpbench.rows.statistics.pareto import Curve

LOWEST, HIGHEST = 93.0, 97.0
SHARED = 0.5


@dataclass(frozen=True)
class Case:
    """Videos and clips of each; shares of the clips that a method loses and gains against dense."""

    name: str
    videos: int
    clips: tuple[int, ...]
    lost: float
    gained: float
    by_video: bool = True


CASES = (
    Case("one clip per video, no difference", 500, (1,), 0.025, 0.025),
    Case("one clip per video", 500, (1,), 0.03, 0.02),
    Case("one clip per video, off the lattice", 500, (1,), 0.0295, 0.0205),
    Case("one clip per video, mostly lost", 500, (1,), 0.04, 0.01),
    Case("4 clips per video", 500, (4,), 0.03, 0.02),
    Case("1 to 7 clips per video", 500, (1, 2, 3, 4, 5, 6, 7), 0.03, 0.02),
    Case("4 clips per video, 500 clips in all", 125, (4,), 0.03, 0.02),
    Case("(4 clips per video, videos ignored)", 500, (4,), 0.03, 0.02, by_video=False),
)


def draw(case: Case, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw who is right on each clip, dense and method, and the clips' videos."""
    video = np.repeat(np.arange(case.videos), rng.choice(case.clips, case.videos))
    own, shared = rng.random(len(video)), rng.random(case.videos)[video]
    follows = rng.random(len(video)) < SHARED if case.clips != (1,) else np.zeros(len(video), bool)
    fate = np.where(follows, shared, own)
    lost, gained = fate < case.lost, fate > 1 - case.gained
    # on the clips that both get right or wrong, which of the two changes no difference
    return ~gained, ~lost, video if case.by_video else np.arange(len(video))


def coverage(case: Case, trials: int) -> tuple[float, float, float, float]:
    """Return in per cent: intervals that hold the truth, those above it, those below it; and the mean half-width."""
    truth, above, below, half = 100 * (case.gained - case.lost), 0, 0, 0.0
    rng = np.random.default_rng(0)
    for trial in range(trials):
        found = paired.paired_difference(*draw(case, rng), seed=trial).delta_pp
        above += found.lo > truth + 1e-9
        below += found.hi < truth - 1e-9
        half += (found.hi - found.lo) / 2 / trials
    return 100 * (1 - (above + below) / trials), 100 * above / trials, 100 * below / trials, half


def paired_lines(trials: int) -> Iterator[Line]:
    for case in CASES:
        share, above, below, half = coverage(case, trials)
        text = f"{100 * (case.gained - case.lost):>9.1f}{half:>12.2f}"
        yield Line(case.name, text, share, trials, above, below, meant=case.by_video)


def speed_lines(trials: int) -> Iterator[Line]:
    """Speed-ups of 2 in processes of 40 rounds each."""
    for processes in (1, 3, 5, 10):
        rng, hits = np.random.default_rng(processes), Hits(2.0)
        for trial in range(trials if processes > 1 else trials // 4):
            process = np.repeat(np.arange(processes), 40)
            hits.add(intervals.median_interval(rounds(rng, 2.0, process), process, seed=trial, resamples=1000))
        yield hits.line(f"speed-up, {processes} process{'es' * (processes > 1)}")
    rng, hits = np.random.default_rng(3), Hits(2.0)
    process = np.repeat(np.arange(3), 40)
    for _ in range(trials // 4):
        logs = np.log([np.median(part) for part in rounds(rng, 2.0, process).reshape(3, 40)])
        drawn = np.exp(np.median(logs[rng.integers(3, size=(1000, 3))], axis=1))
        hits.add(Interval(float(np.exp(logs.mean())), *map(float, np.quantile(drawn, (0.025, 0.975)))))
    yield hits.line("(speed-up, 3 processes, percentiles)", meant=False)


def rounds(rng: np.random.Generator, speedup: float, process: np.ndarray) -> np.ndarray:
    """Draw the ratios of rounds; a single process does not vary."""
    number = int(process.max()) + 1
    own = rng.normal(0, 0.01, number) if number > 1 else np.zeros(1)
    return speedup * np.exp(own[process] + rng.normal(0, 0.03, len(process)))


COSTS = np.array([0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95])
RANDOM_COSTS = np.array([0.2, 0.3, 0.45, 0.6, 0.75, 0.9])
#: shares of all clips that each setting loses; half as many are gained, but for the steep curve
SHAPES = {
    "steep": (0.30, 0.22, 0.16, 0.11, 0.08, 0.05, 0.03, 0.02),
    "flat": (0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05),
    "between": (0.16, 0.09, 0.06, 0.045, 0.04, 0.04, 0.04, 0.04),
    "nothing lost": (0.10, 0.05, 0.01, 0.004, 0.002, 0.002, 0.002, 0.002),
}
RANDOM_LOST = (0.40, 0.31, 0.22, 0.15, 0.10, 0.05)
DENSE, VIDEOS, ROUNDS = 0.85, 500, 40


def gained(shape: str, lost: np.ndarray) -> np.ndarray:
    return {"steep": 0.01, "flat": 0.9, "between": 0.6, "nothing lost": 0.9}[shape] * np.minimum(lost, 0.05)


def answers(rng: np.random.Generator, lost: np.ndarray, won: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draw who is right, dense `[n]` and settings `[n, P]`; half of the fates are shared by all settings."""
    dense = rng.random(VIDEOS) < DENSE
    size = (VIDEOS, len(lost))
    fate = np.where(rng.random(size) < 0.5, rng.random((VIDEOS, 1)), rng.random(size))
    return dense, np.where(dense[:, None], fate >= lost / DENSE, fate < won / (1 - DENSE))


def truth(costs: np.ndarray, lost: np.ndarray, won: np.ndarray) -> Curve:
    """Return the curve of true values, dense at its end, twice: as measured and as a resample."""
    accuracy = 100 * (DENSE + np.append(won - lost, 0))
    rows = [np.tile(each, (2, 1)) for each in (np.append(costs, 1.0), accuracy, np.append(lost, 0.0))]
    return Curve(rows[0], rows[1], np.full(2, 100 * DENSE), rows[2], np.full(len(accuracy), float(VIDEOS)))


def metric_lines(trials: int) -> Iterator[Line]:
    for number, shape in enumerate(SHAPES):
        for timed in (False, True):
            yield from _metrics(shape, timed, trials, np.random.default_rng([number, timed]))


def _metrics(shape: str, timed: bool, trials: int, rng: np.random.Generator) -> Iterator[Line]:
    lost, other = np.array(SHAPES[shape]), np.array(RANDOM_LOST)
    won, other_won = gained(shape, lost), np.full(len(other), 0.01)
    own, control = truth(COSTS, lost, won), truth(RANDOM_COSTS, other, other_won)
    true = {name: each.value for name, each in bootstrap.summary(own, control, pareto.shared_low([own])).items()}
    true |= {f"speedup_at_{loss:g}pp": fastest(loss, lost - won) for loss in pareto.ISO_LOSSES_PP}
    hits = {name: Hits(value) for name, value in true.items() if value is not None}
    lucky, picked = Hits(float(front_volume(own)[0])), Hits(fastest(1.0, lost - won))
    one, costs = np.ones(VIDEOS), [*COSTS, *RANDOM_COSTS]
    end = Rounds(np.ones(1), np.zeros(1)) if timed else PerClip(one, one)
    for trial in range(trials):
        dense, right = answers(rng, np.append(lost, other), np.append(won, other_won))
        cost = [
            Rounds(rounds(rng, 1 / c, np.zeros(ROUNDS, int)), np.zeros(ROUNDS)) if timed else PerClip(c * one, one)
            for c in costs
        ]
        points = [Point(q.astype(float), c) for q, c in zip(right.T, cost, strict=True)]
        last = Point(dense.astype(float), end)
        curves = {"own": [*points[: len(COSTS)], last], "random": [*points[len(COSTS) :], last]}
        made = resample(curves, dense.astype(float), np.arange(VIDEOS), seed=trial, resamples=1000)
        found = bootstrap.summary(made["own"], made["random"], pareto.shared_low([made["own"]]))
        for name in hits:
            hits[name].add(found[name])
        lucky.add(bootstrap.estimate(front_volume(made["own"])))
        picked.add(bootstrap.estimate(lucky_speedup(made["own"], 1.0)))
    for name, each in hits.items():
        yield each.line(f"{name}, {shape}, {'time' if timed else 'GMACs'}", claims=name.startswith("speedup"))
    if not timed:
        yield lucky.line(f"(hypervolume of the front, {shape})", meant=False)
        yield picked.line(f"(speed-up, came out within 1 pp, {shape})", meant=False, claims=True)


def front_volume(curve: Curve) -> np.ndarray:
    """Return the hypervolume under the front of the points as measured."""
    order = np.argsort(curve.cost, axis=1, kind="stable")
    x, a = (np.take_along_axis(values, order, axis=1) for values in (curve.cost, curve.accuracy))
    levels = np.maximum.accumulate(np.concatenate([curve.dense[:, None] - 10, a], axis=1), axis=1)
    return (np.maximum(1 - x, 0) * np.diff(levels, axis=1)).sum(axis=1) / 10


def fastest(loss_pp: float, lost: np.ndarray) -> float:
    """Return the speed-up of the fastest setting that loses less than so much, dense among them."""
    return float(max([1.0, *(1 / COSTS[100 * lost < loss_pp - 1e-9])]))


def lucky_speedup(curve: Curve, loss_pp: float) -> np.ndarray:
    """Return the largest speed-up among the points that came out within a loss."""
    within = curve.accuracy >= curve.dense[:, None] - loss_pp - 1e-9
    return np.where(within, 1 / curve.cost, 1.0).max(axis=1)


class Hits:
    """Intervals of one truth, as they come."""

    def __init__(self, truth: float) -> None:
        self.truth, self.number, self.above, self.below, self.half = truth, 0, 0, 0, 0.0

    def add(self, found: Interval | Estimate) -> None:
        """Count an interval; a metric without one counts as a miss in either direction."""
        self.number += 1
        if found.lo is None or found.hi is None:
            self.above += 1
            return
        self.above += found.lo > self.truth + 1e-9
        self.below += found.hi < self.truth - 1e-9
        self.half += (found.hi - found.lo) / 2

    def line(self, name: str, *, meant: bool = True, claims: bool = False) -> Line:
        above, below = (100 * each / self.number for each in (self.above, self.below))
        text = f"{self.truth:>9.4g}{self.half / self.number:>12.3g}"
        return Line(name, text, 100 - above - below * (not claims), self.number, above, below, meant, claims)


@dataclass(frozen=True)
class Line:
    """Coverage in per cent, of so many trials; `meant`: to be right; `claims`: only intervals above miss."""

    name: str
    text: str
    share: float
    trials: int
    above: float
    below: float
    meant: bool = True
    claims: bool = False

    @property
    def missed(self) -> bool:
        return self.meant and not (HIGHEST if self.claims else LOWEST) <= self.share <= (
            100 if self.claims else HIGHEST
        )

    def __str__(self) -> str:
        error = 1.96 * math.sqrt(max(0.0, self.share * (100 - self.share)) / self.trials)
        return f"{self.name:<42}{self.text}{self.share:>10.1f}{error:>6.1f}{self.above:>7.1f}{self.below:>7.1f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000, help="of differences and speed-ups (default: 2000)")
    parser.add_argument("--metric-trials", type=int, default=1000, help="of each shape and cost (default: 1000)")
    given = parser.parse_args()
    found = machine.snapshot()
    facts = {"machine": found.device_name, "commit": found.git_commit, "numpy": np.__version__}
    print(json.dumps(facts | {"trials": given.trials, "metric_trials": given.metric_trials}))
    print(f"{'':<42}{'truth':>9}{'half-width':>12}{'coverage':>10}{'+-':>6}{'above':>7}{'below':>7}")
    missed = []
    parts = (paired_lines(given.trials), speed_lines(given.trials), metric_lines(given.metric_trials))
    for line in itertools.chain(*parts):
        print(line, flush=True)
        missed += [f"{line.name}: {line.share:.1f} %"] if line.missed else []
    print("missed: " + "; ".join(missed) if missed else f"all within {LOWEST:g} to {HIGHEST:g} %")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
