"""Work in processes: one that crashes its worker costs that item, and Ctrl-C ends all of them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from typing import Any, Generic, TypeVar

from vpbench.errors import VpbenchError

T = TypeVar("T")


def call(function: Callable[..., T], *args: object, name: str, deadline_s: float = 600.0) -> T:
    """Return `function(*args)`, computed in a fresh process; both are picklable, the function at the top of a module.

    Threads must be set by the function: torch's thread pools do not survive a fork. The process is forked from a server
    that has imported torch but never used it, so it costs a fraction of a second. Raises VpbenchError that starts with
    `name` if the function raises, its process dies, or takes longer than `deadline_s` seconds.
    """
    if sys.platform == "win32":
        raise VpbenchError(f"{name}: fresh processes need a fork server, which Windows lacks; use Linux or macOS")
    receiver, sender = context().Pipe(duplex=False)
    child = context().Process(target=_child, args=(sender, function, args), daemon=True)  # type: ignore[attr-defined]
    try:
        child.start()
        sender.close()  # or the end of the child would not end the pipe
        good, answer = _receive(receiver, child, name, deadline_s)
    finally:
        receiver.close()
        if child.pid is not None:
            child.kill()
            child.join()
    if not good:
        raise VpbenchError(f"{name}: {answer}")
    return answer


def context() -> BaseContext:
    """Return what starts processes: a server that has imported torch, or on Windows, which has none, the slow way."""
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["torch"])
    return found


def _receive(  # type: ignore[no-untyped-def]
    receiver: Connection, child: multiprocessing.process.BaseProcess, name: str, deadline_s: float
):
    if not receiver.poll(deadline_s):
        raise VpbenchError(f"{name}: no result after {deadline_s:g} s; process stopped")
    try:
        return receiver.recv()
    except EOFError:
        child.join()
        cause = " (killed, perhaps for lack of memory)" if child.exitcode == -9 else ""
        raise VpbenchError(f"{name}: its process died with exit code {child.exitcode}{cause}") from None


def _child(sender: Connection, function: Callable[..., T], args: tuple[object, ...]) -> None:
    try:
        answer: tuple[bool, object] = True, function(*args)
    except Exception as error:  # crosses the process boundary as text; the parent raises it
        answer = False, f"{type(error).__name__}: {error}"
    sender.send(answer)
    sender.close()


Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Lost:
    """There is no result, for this reason."""

    reason: str


def default_workers() -> int:
    """Return how many processes read files unless told otherwise: the cores, but not so many that the disk suffers."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(16, usable))


def each(work: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[tuple[Item, Result | Lost]]:
    """Yield each item with what `work` makes of it, in the order in which they are done.

    `work` must be importable and `items` picklable. Raises what `work` raises if it is a VpbenchError.
    """
    waiting, busy, idle = deque(items), dict[Connection, tuple[_Worker[Item], Item]](), list[_Worker[Item]]()

    def hand_out() -> None:
        while waiting and len(busy) < workers:
            worker = idle.pop() if idle else _Worker(work)
            item = waiting.popleft()
            busy[worker.pipe] = worker, item
            # one that died while idle is found out by its closed pipe, like any other
            with contextlib.suppress(OSError):
                worker.pipe.send(item)

    try:
        hand_out()
        while busy:
            for ready in wait(list(busy)):
                assert isinstance(ready, Connection)
                worker, item = busy[ready]
                answer = worker.answer()
                del busy[ready]  # not before: an error must find it there, to be stopped with the others
                if not isinstance(answer, _Died):
                    idle.append(worker)
                hand_out()
                yield item, answer if not isinstance(answer, _Died) else Lost(answer.reason)
    finally:
        for worker in [*idle, *(worker for worker, _ in busy.values())]:
            worker.stop()


class _Died(Lost):
    """The worker itself is gone."""


class _Worker(Generic[Item]):
    """A process with a pipe of its own, so that its death tells which item it was at."""

    def __init__(self, work: Callable[[Item], Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        # not a daemon: those may have no children, and decord is run in one
        self._process = context.Process(target=_serve, args=(other, work))
        self._process.start()
        other.close()

    def answer(self) -> Any:
        """Return the result of the item given last; raises VpbenchError if that is what came of it."""
        try:
            answer = self.pipe.recv()
        except (EOFError, OSError):
            self.stop()
            return _Died(f"the process that worked on it died ({_cause(self._process.exitcode)})")
        if isinstance(answer, VpbenchError):
            raise answer
        return answer

    def stop(self) -> None:
        """End the process, whatever it is at."""
        self.pipe.close()
        self._process.terminate()
        self._process.join()


def _cause(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"signal {signal.Signals(-exit_code).name}"
    return f"exit code {exit_code}"


def _serve(pipe: Connection, work: Callable[[Any], Any]) -> None:
    """Answer, in the worker, until the parent goes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers itself
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, OSError):
        while True:
            item = pipe.recv()
            try:
                answer = work(item)
            except VpbenchError as error:
                answer = error
            except Exception as error:  # whatever a file provokes is that file's fault, said in one line
                lines = str(error).splitlines() or [""]
                answer = Lost(f"{type(error).__name__}: {lines[0][:200]}")
            pipe.send(answer)


def _end_with_parent() -> None:
    """End even in the middle of a file, should the parent be killed: whoever runs the command again is then alone."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)
