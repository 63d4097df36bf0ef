"""Which loss so many videos can rule out, and how many videos it takes: the bounds of `losses`, asked beforehand.

All of it supposes that a share q of the videos is answered differently by dense and by a setting, that as many are
gained as lost, and that videos are independent.
"""

import math
from collections.abc import Sequence
from statistics import median

import numpy as np

from vpbench.rows.contexts import judged
from vpbench.rows.schema import Result
from vpbench.rows.statistics import controls, losses
from vpbench.rows.statistics.intervals import Ints, critical
from vpbench.rows.statistics.paired import paired_score, paired_score_bound

#: how often a plan should succeed
CHANCE = 0.8
#: of so many answers the chance that half of them are gained is taken from a normal distribution (off by 1e-5 there)
_MANY = 10_000
#: terms of a binomial distribution further out than so many standard deviations do not count
_FAR = 9


def ruled_out_pp(videos: int, changed: float, among: int = 1) -> float:
    """Return the bound of the loss, in points, where exactly as many of the `changed` share were gained as lost."""
    half = changed * videos / 2
    return -100 * float(paired_score_bound(half, half, videos, critical(among)))


def videos_needed(margin_pp: float, changed: float, among: int = 1) -> int:
    """Return how many videos it takes that this bound is below a margin: even odds, where nothing is lost."""
    # the score grows with the root of the number of videos, whose shares stay the same
    one = float(paired_score(changed / 2, changed / 2, 1, -margin_pp / 100))
    return math.floor((critical(among) / one) ** 2) + 1


def chance(margin_pp: float, videos: int, changed: float, among: int = 1) -> float:
    """Return how likely it is that a loss of a margin is ruled out where nothing is lost, over all outcomes."""
    changes, found = _binomial(videos, changed), 0.0
    least = _fewest_gained(np.array([number for number, _ in changes]), videos, margin_pp, critical(among))
    for (number, likely), enough in zip(changes, least.tolist(), strict=True):
        found += likely * _at_least(enough, number)
    return found


def _at_least(gained: int, changed: int) -> float:
    """Return how likely it is that so many of the changed answers are gains, where gains and losses are even odds."""
    if changed > _MANY:
        return math.erfc((gained - 0.5 - changed / 2) / math.sqrt(changed / 2)) / 2
    return sum(share for number, share in _binomial(changed, 0.5) if number >= gained)


def videos_for_chance(margin_pp: float, changed: float, among: int = 1) -> int:
    """Return how many videos it takes to rule a margin out in `CHANCE` of the cases where nothing is lost."""
    low = high = videos_needed(margin_pp, changed, among)
    while chance(margin_pp, high, changed, among) < CHANCE:
        low, high = high, 2 * high
    while high - low > max(1, high // 500):  # whole numbers make the chance a saw: nothing finer is to be had
        middle = (low + high) // 2
        low, high = (low, middle) if chance(margin_pp, middle, changed, among) >= CHANCE else (middle, high)
    return high


def _fewest_gained(changed: Ints, videos: int, margin_pp: float, away: float) -> Ints:
    """Return how many of so many changed answers must be gains to rule a margin out; one more than all if none do."""
    low, high = np.full_like(changed, -1), changed + 1
    while (high - low > 1).any():
        middle = np.clip((low + high) // 2, 0, changed)
        passes = paired_score(changed - middle, middle, videos, -margin_pp / 100) > away
        closed = high - low <= 1
        low, high = np.where(passes | closed, low, middle), np.where(passes & ~closed, middle, high)
    return high


def _binomial(n: int, share: float) -> Sequence[tuple[int, float]]:
    """Return the outcomes of a binomial distribution that count, with their probabilities."""
    if share in (0, 1) or n == 0:
        return [(round(n * share), 1.0)]
    far = _FAR * math.sqrt(n * share * (1 - share)) + _FAR
    first, last = max(0, math.floor(n * share - far)), min(n, math.ceil(n * share + far))
    whole = math.lgamma(n + 1)
    logs = [
        whole - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(share) + (n - k) * math.log1p(-share)
        for k in range(first, last + 1)
    ]
    return [(first + i, math.exp(value)) for i, value in enumerate(logs)]


def seen(rows: Sequence[Result]) -> tuple[int, int, float] | None:
    """Return of the rows of a context: videos, settings compared, and the median share of changed answers; or None."""
    settings = [row for row in rows if row["disc_b"] is not None and row["method"] != "dense" and judged(row)]
    settings = [row for row in settings if not controls.is_control(row)] or settings
    if not settings:
        return None
    changed = median((row["disc_b"] + row["disc_c"]) / judged(row) for row in settings)
    return min(judged(row) for row in settings), losses.comparisons(rows)[controls.is_control(settings[0])], changed


def line(rows: Sequence[Result], margin_pp: float = losses.EPSILON_PP) -> str | None:
    """Say which loss the rows of a context can rule out, and what it would take to rule out a margin."""
    known = seen(rows)
    if known is None:
        return None
    videos, among, changed = known
    settings = f"{among} settings at once" if among > 1 else "one setting"
    return (
        f"resolution: {videos} videos rule out a loss of {_rounded(ruled_out_pp(videos, changed, among))} or more for "
        f"{settings} where {_changes(changed, ' (the median here)')}; "
        f"for {margin_pp:g} pp it takes {videos_needed(margin_pp, changed, among):,} videos for even odds "
        "(`vpbench power`)"
    )


def _changes(changed: float, known_from: str = "") -> str:
    if not changed:
        return f"no answer changes{known_from}"
    share = f"{100 * changed:.2g}" if changed < 0.1 else f"{100 * changed:.0f}"
    return f"{share} % of the answers change{known_from}, half of them for the better"


def report(videos: int, changed: float, among: int, margin_pp: float) -> str:
    """Say in three lines what can be ruled out, what a margin takes, and how likely that is with these videos."""
    sure = videos_for_chance(margin_pp, changed, among)
    return (
        f"  {_changes(changed)}:\n"
        f"    ruled out is a loss of {_rounded(ruled_out_pp(videos, changed, among))} or more\n"
        f"    {margin_pp:g} pp: {videos_needed(margin_pp, changed, among):,} videos for even odds, {sure:,} for "
        f"{CHANCE:.0%}; with these the odds are {chance(margin_pp, videos, changed, among):.0%}"
    )


def _rounded(points: float) -> str:
    """Write a bound, never below itself."""
    return f"{math.ceil(10 * points - 1e-9) / 10:.1f} pp"
