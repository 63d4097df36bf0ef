"""Frame rates, sizes, durations and codecs of many videos in a line each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from vpbench.commands.data.probe import Probe

#: so many different values are named; the rest is counted
NAMED = 5


def summary(probes: Sequence[Probe]) -> dict[str, str]:
    """Describe the videos that could be read."""
    sound = [probe for probe in probes if probe.error is None]
    if not sound:
        return {}
    return {
        "frame rate": _most_common("unknown" if each.fps is None else f"{each.fps:.4g}/s" for each in sound),
        "size": _most_common(f"{each.width}x{each.height}" for each in sound),
        "frames": spread([float(each.frames) for each in sound if each.frames is not None], ""),
        "duration": spread([each.seconds for each in sound if each.seconds is not None], " s"),
        "codec": _most_common(each.codec or "unknown" for each in sound),
    }


def spread(values: Sequence[float], unit: str) -> str:
    """Return the smallest, the middle and the largest of some values."""
    if not values:
        return "unknown"
    ordered = sorted(values)
    low, middle, high = (f"{value:.4g}" for value in (ordered[0], ordered[len(ordered) // 2], ordered[-1]))
    return f"{low} to {high}{unit}, median {middle}{unit}"


def _most_common(values: Iterable[str]) -> str:
    counts = Counter(values)
    named = [f"{value} ({count})" for value, count in counts.most_common(NAMED)]
    rest = sum(counts.values()) - sum(count for _, count in counts.most_common(NAMED))
    return ", ".join(named) + (f" and {len(counts) - NAMED} others ({rest})" if rest else "")
