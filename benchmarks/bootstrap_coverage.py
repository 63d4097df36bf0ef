"""Does the 95 % interval of a paired difference hold the true difference 95 times in 100?

    python benchmarks/bootstrap_coverage.py --trials 4000

Each trial draws a data set of 500 videos (and, with several clips per video, also one of 500 clips) on which dense and
a method disagree about 5 % of the clips on average, and asks `vpbench.statistics.stats.paired_difference` for its
interval, with as many resamples as in tables. Differences are cut to a fixed number of clips by nature, so truths on
and off that lattice are both tried. Where clips share a video, a clip follows its video's fate with probability one
half, else its own. Exits with 1 if a coverage lies outside 93 to 97 %; the last line, which ignores the videos, is
there to be seen to fail.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import dataclass

import numpy as np

from vpbench.measure import machine
from vpbench.rows.statistics import intervals, paired

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
    Case("4 clips per video, videos ignored", 500, (4,), 0.03, 0.02, by_video=False),
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=4000)
    given = parser.parse_args()
    found = machine.snapshot()
    facts = {"machine": found.device_name, "commit": found.git_commit, "numpy": np.__version__}
    print(json.dumps(facts | {"trials": given.trials, "resamples": intervals.RESAMPLES}))
    print(f"{'':<38}{'truth, pp':>10}{'half-width':>12}{'coverage':>10}{'+-':>6}{'above':>7}{'below':>7}")
    missed = []
    for case in CASES:
        share, above, below, half = coverage(case, given.trials)
        error = 1.96 * math.sqrt(share * (100 - share) / given.trials)
        truth = 100 * (case.gained - case.lost)
        print(f"{case.name:<38}{truth:>10.1f}{half:>12.2f}{share:>10.1f}{error:>6.1f}{above:>7.1f}{below:>7.1f}",
              flush=True)  # fmt: skip
        if case.by_video and not LOWEST <= share <= HIGHEST:
            missed.append(f"{case.name}: {share:.1f} %")
    print("missed: " + "; ".join(missed) if missed else f"all within {LOWEST:g} to {HIGHEST:g} %")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
