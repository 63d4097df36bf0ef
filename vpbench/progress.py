"""Progress of long work: a bar with rate and time left on a terminal, plain lines elsewhere. Always on stderr."""

import shutil
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

LINE_EVERY_S = 10.0


class Task(Protocol):
    """One piece of long work."""

    def advance(self, steps: int = 1, said: str = "") -> None:
        """Say that `steps` more are done, and what else there is to say of them."""


@contextmanager
def task(name: str, total: int, unit: str, done: int = 0) -> Iterator[Task]:
    """Show the progress of `total` steps called `unit` while the block runs; so many had been `done` before."""
    if not sys.stderr.isatty():
        yield _Lines(name, total, unit, done)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
    rate = TextColumn("{task.fields[rate]}")
    more = TextColumn("{task.fields[said]}")
    with Progress(*columns, rate, TimeRemainingColumn(), more, console=Console(stderr=True)) as bars:
        number = bars.add_task(name, total=total, completed=done, rate="", said="")
        began = time.monotonic()

        class Bar:
            def advance(self, steps: int = 1, said: str = "") -> None:
                new = bars.tasks[0].completed + steps - done
                rate = f"{new / max(time.monotonic() - began, 1e-9):.1f}/s"
                bars.update(number, advance=steps, rate=rate, said=said)

        yield Bar()


def fold(text: str, indent: int, stream: TextIO) -> str:
    """Break a line at words where a stream is a terminal and narrower; what follows is set in."""
    width = shutil.get_terminal_size().columns
    if not stream.isatty() or len(text) <= width:
        return text
    return textwrap.fill(text, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


def say(text: str) -> None:
    """Print one line of news to stderr, broken at words where that is a narrower terminal."""
    print(fold(text, 2, sys.stderr), file=sys.stderr, flush=True)


class _Lines:
    def __init__(self, name: str, total: int, unit: str, done: int) -> None:
        self.name, self.total, self.unit, self.before = name, total, unit, done
        self.done, self.began, self.last = done, time.monotonic(), time.monotonic()

    def advance(self, steps: int = 1, said: str = "") -> None:
        if steps == 0:
            return
        self.done += steps
        now = time.monotonic()
        if self.done < self.total and now - self.last < LINE_EVERY_S:
            return
        self.last = now
        rate = (self.done - self.before) / max(now - self.began, 1e-9)
        left = (self.total - self.done) / rate
        more = f", {said}" if said else ""
        say(f"{self.name}: {self.done}/{self.total} {self.unit}, {rate:.1f}/s, {left:.0f} s left{more}")
