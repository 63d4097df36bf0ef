"""Keep the threads of this process on as many processors as they are, one per core, while something is timed."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

TOPOLOGY = Path("/sys/devices/system/cpu")
TASKS = Path("/proc/self/task")


def choose(usable: Sequence[int], threads: int, topology: Path = TOPOLOGY) -> tuple[int, ...]:
    """Return `threads` of the usable processors: one of each core first, their second hardware threads after that."""
    cores: dict[str, list[int]] = {}
    for cpu in sorted(usable):
        siblings = topology / f"cpu{cpu}" / "topology" / "thread_siblings_list"
        cores.setdefault(siblings.read_text().strip() if siblings.is_file() else str(cpu), []).append(cpu)
    deepest = max(len(core) for core in cores.values())
    in_order = [core[level] for level in range(deepest) for core in cores.values() if level < len(core)]
    return tuple(in_order[:threads])


@contextmanager
def pinned(threads: int, device: str = "cpu") -> Iterator[tuple[int, ...]]:
    """Pin all threads of this process to `choose(...)` of its processors, and yield these; then undo it.

    Nothing is pinned (and nothing yielded) for other devices, off Linux, and where there are no more processors than
    threads.
    """
    usable = os.sched_getaffinity(0) if sys.platform == "linux" and device == "cpu" else set[int]()
    if len(usable) <= threads:
        yield ()
        return
    chosen = choose(sorted(usable), threads)
    _move(set(chosen))
    try:
        yield chosen
    finally:
        _move(usable)


def _move(processors: set[int]) -> None:
    # threads of OpenMP were started before: each has a mask of its own
    for task in TASKS.iterdir():
        try:
            os.sched_setaffinity(int(task.name), processors)
        except ProcessLookupError:
            continue  # a thread that has just ended
