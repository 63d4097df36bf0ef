"""How long a GPU really works: its kernels alone, without the gaps in which it waits for the host to launch more.

Two events around a call say nothing about that: the first passes before any kernel is there, so what they enclose is
nearly the wall clock, gaps included.
"""

from collections.abc import Callable, Iterable

#: a GPU waits for its host where calls take more than this many times as long as its kernels
LAUNCH_BOUND = 1.1
#: calls that are watched, at most: to read what the profiler saw of one takes longer than the call
WATCHED = 10


def launch_bound(wall_ms: float, busy_ms: float | None) -> bool | None:
    """Say whether the host, which launches kernels, sets the pace; None where nobody knows how long these take."""
    return None if busy_ms is None else wall_ms > LAUNCH_BOUND * busy_ms


def busy_ms(call: Callable[[int], object], calls: int, synchronize: Callable[[], None]) -> float | None:
    """Return the milliseconds of a call in which any kernel or copy runs on a GPU, on average over some of `calls`.

    Run it after warm-up, and apart from all that is timed: to be watched slows launches down, but no kernel. None where
    torch's profiler sees no kernels.
    """
    from torch.profiler import ProfilerActivity, profile

    numbers = range(0, calls, -(-calls // WATCHED))
    synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        for number in numbers:
            call(number)
        synchronize()
    spans = [
        (event.time_range.start, event.time_range.end)
        for event in seen.events() or ()
        if event.device_type.name == "CUDA" and not event.is_user_annotation
    ]
    return covered(spans) / 1e3 / len(numbers) if spans else None


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Return the length of what spans cover together; where they overlap, as on two streams, it counts once."""
    total, end = 0.0, float("-inf")
    for first, last in sorted(spans):
        total += max(0.0, last - max(first, end))
        end = max(end, last)
    return total
