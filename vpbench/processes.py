"""Processes that work for this one: `call` (once), `each` (many items), `Server` (stays). None outlives this process.

Every process has a pipe of its own, so that its death tells what it was at. They are not daemons, since those may start
no processes, and decord is one of a reader's; they end with whoever began them, even where that is killed.
"""

import contextlib
import gc
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from itertools import islice
from multiprocessing import util
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from typing import Any, Generic, Literal, TypeVar

from vpbench.errors import VpbenchError

Item = TypeVar("Item")
Result = TypeVar("Result")
T = TypeVar("T")

#: `spawn`: a new interpreter, which imports what its work needs; `forkserver`: forked from a server that has imported
#: PRELOADED but never used it, so that it costs a fraction of a second (on Windows, which has none: as `spawn`)
Start = Literal["spawn", "forkserver"]
#: what takes long to import of that which networks need. Nothing here may start a thread, since threads do not survive
#: a fork, and nothing be of this package: the server does not look for it where this process found it
PRELOADED = ("torch", "pydantic", "av")

_Call = tuple[Callable[..., T], tuple[object, ...]]

# starting and joining look at all children of this process, and two threads that wait for one child confuse each other;
# reentrant, since starting one may collect another as garbage
_CHILDREN = threading.RLock()


class Died(Exception):
    """A process ended without an answer, or while `starting`; `how`: exit code or signal."""

    def __init__(self, how: str, starting: bool = False) -> None:
        hint = " while starting; a script of your own must start its work under `if __name__ == '__main__':`"
        super().__init__(f"its process died with {how}{hint if starting else ''}")
        self.how, self.starting = how, starting


class Late(Exception):
    """A process gave no answer by its deadline and was killed."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no result after {seconds:g} s; process stopped")
        self.seconds = seconds


class Failed(Exception):
    """What the work raised, in one line, if that was no VpbenchError; `trace` says where."""

    def __init__(self, reason: str, trace: str) -> None:
        super().__init__(reason, trace)
        self.reason, self.trace = reason, trace

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True)
class Lost:
    """There is no result, for this reason; `trace`: where the work raised, empty where its process died."""

    reason: str
    trace: str = ""


def default_workers() -> int:
    """Return how many processes read files unless told otherwise: the cores, but not so many that the disk suffers."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(16, usable))


def call(function: Callable[..., T], *args: object, name: str, deadline_s: float = 600.0) -> T:
    """Return `function(*args)`, computed in a fresh process; both are picklable, the function at the top of a module.

    Nothing that this process has done before is seen there. Threads must be set by the function: torch's thread pools
    do not survive a fork. Raises VpbenchError that starts with `name` if the function raises, its process dies, or
    takes longer than `deadline_s` seconds.
    """
    if sys.platform == "win32":
        raise VpbenchError(f"{name}: fresh processes need a fork server, which Windows lacks; use Linux or macOS")
    server: Server[tuple[Callable[..., T], tuple[object, ...]], T] = Server(
        _apply, start="forkserver", start_s=deadline_s
    )
    try:
        return server.ask((function, args), deadline_s)
    except (VpbenchError, Failed, Died, Late) as error:
        raise VpbenchError(f"{name}: {error}") from None
    finally:
        server.close()


def each(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    *,
    start: Start = "spawn",
    setup: Callable[[], object] | None = None,
) -> Iterator[tuple[Item, Result | Lost]]:
    """Yield each item with what `work` makes of it, in the order in which they are done; see `Pool`."""
    with contextlib.closing(Pool(work, workers, start=start, setup=setup)) as pool:
        yield from pool.each(items)


class Server(Generic[Item, Result]):
    """A process that answers requests with `work`: begun at the first one, and anew after it has died or was killed.

    `setup` runs in it before the first request, and may take `start_s` seconds with all imports. Both are importable,
    requests and answers picklable. One thread asks; any may close.
    """

    def __init__(
        self,
        work: Callable[[Item], Result],
        *,
        start: Start = "spawn",
        setup: Callable[[], object] | None = None,
        start_s: float | None = None,
    ) -> None:
        self._work, self._setup, self._start, self._start_s = work, setup, start, start_s
        self._pipe: Connection | None = None
        #: the process, if there is one
        self._held: list[BaseProcess] = []
        self.closed = False
        # before this process waits for its children at its end, which wait for requests
        util.Finalize(self, _kill, args=(self._held,), exitpriority=10)

    @property
    def alive(self) -> bool:
        """Whether there is a process."""
        with _CHILDREN:
            return any(process.is_alive() for process in self._held)

    def ask(self, request: Item, deadline_s: float | None = None) -> Result:
        """Return the answer; raises Died, Late, Failed, and what `work` or `setup` raise if it is a VpbenchError."""
        pipe = self._begin()
        good, answer = self._answer(pipe, deadline_s, request)
        if good:
            return answer
        raise answer

    def close(self) -> None:
        """End the process for good, whatever it is at: a request on its way raises Died."""
        with _CHILDREN:
            self.closed = True
            _kill(self._held)
            for process in self._held:
                process.join()

    def _begin(self) -> Connection:
        if self._pipe is not None and self.alive:
            return self._pipe
        self._stop()
        context = _context(self._start)
        self._pipe, other = context.Pipe()
        process = context.Process(target=_serve, args=(other, self._work, self._setup))  # type: ignore[attr-defined]
        with _CHILDREN:
            if self.closed:
                raise Died("a stop by its owner")
            process.start()
            self._held.append(process)
        other.close()  # or the end of the process would not end the pipe
        good, reason = self._answer(self._pipe, self._start_s)
        if not good:
            self._stop()
            raise reason
        return self._pipe

    def _answer(self, pipe: Connection, seconds: float | None, *request: Item) -> tuple[bool, Any]:
        """Send a request, if one is given (the first answer says that the process is ready), and wait."""
        try:
            for each in request:
                pipe.send(each)
            return self._receive(pipe, seconds)
        except (EOFError, OSError):
            raise Died(self._stop(grace_s=1.0), starting=not request) from None
        except BaseException:
            self._stop()  # an answer still on its way (after Ctrl-C, say) would be taken for that to the next request
            raise

    @staticmethod
    def _receive(pipe: Connection, seconds: float | None) -> tuple[bool, Any]:
        if seconds is not None and not pipe.poll(seconds):
            raise Late(seconds)
        good, answer = pipe.recv()
        return good, answer

    def _stop(self, grace_s: float = 0.0) -> str:
        """End the process; returns how it ended, to know which it is given a moment if it is about to end itself."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        with _CHILDREN:
            if not self._held:
                return "a stop by its owner"
            process = self._held.pop()
            process.join(grace_s)
            process.kill()
            process.join()
            return _cause(process.exitcode)


class Pool(Generic[Item, Result]):
    """As many processes as there are workers, begun when there is work for them and kept until `close`.

    A worker that dies costs the item it was at. `again`, where given, is told of that item and of how the worker died,
    and the item is tried once more; it is called in a thread. `work` and `setup` are as in `Server`.
    """

    def __init__(
        self,
        work: Callable[[Item], Result],
        workers: int,
        *,
        start: Start = "spawn",
        setup: Callable[[], object] | None = None,
        again: Callable[[Item, str], None] | None = None,
    ) -> None:
        self.workers = workers
        self._server: Callable[[], Server[Item, Result]] = lambda: Server(work, start=start, setup=setup)
        self._again = again
        self._tasks: _Tasks[Item, Result] = SimpleQueue()
        self._servers: list[Server[Item, Result]] = []
        self._threads: list[threading.Thread] = []
        self._end = util.Finalize(self, _end, args=(self._servers, self._tasks), exitpriority=20)

    def each(self, items: Iterable[Item], *, ahead: int | None = None) -> Iterator[tuple[Item, Result | Lost]]:
        """Yield each item with what `work` makes of it; items are taken from their iterator as work begins.

        With `ahead` in the order asked, that many on their way; else in the order in which they are done, one per
        worker. Raises what `work` raises if it is a VpbenchError; of other errors a result is `Lost`.
        """
        under_way: dict[Future[Result | Lost], Item] = {}
        waiting = iter(items)

        def fill() -> None:
            for item in islice(waiting, (ahead or self.workers) - len(under_way)):
                under_way[self._submit(item)] = item

        try:
            fill()
            while under_way:
                next_ones = under_way if ahead else wait(under_way, return_when=FIRST_COMPLETED).done
                future = next(iter(next_ones))
                answer = future.result()
                item = under_way.pop(future)
                del future, next_ones  # or they would hold the answer for as long as the next one takes
                fill()
                yield item, answer
        finally:
            for future in under_way:
                future.cancel()

    def close(self) -> None:
        """End the workers, whatever they are at."""
        self._end()
        for thread in self._threads:
            thread.join()

    def _submit(self, item: Item) -> Future[Result | Lost]:
        if not self._end.still_active():
            raise RuntimeError("this pool is closed")
        future: Future[Result | Lost] = Future()
        self._tasks.put((item, future))
        if len(self._threads) < self.workers:
            server = self._server()
            self._servers.append(server)
            # a thread of its own waits for each worker, so that results are taken while this one computes
            thread = threading.Thread(target=_work_off, args=(server, self._tasks, self._again), daemon=True)
            self._threads.append(thread)
            thread.start()
        return future


_Tasks = SimpleQueue[tuple[Item, "Future[Result | Lost]"] | None]


def _work_off(
    server: Server[Item, Result], tasks: "_Tasks[Item, Result]", again: Callable[[Item, str], None] | None
) -> None:
    """Hand tasks to one worker until there is a None; in a thread, which must not know the pool that may be dropped."""
    while (task := tasks.get()) is not None:
        _work(server, *task, again)
        del task  # or the last result would be held as long as there is nothing to do


def _work(
    server: Server[Item, Result], item: Item, future: Future[Result | Lost], again: Callable[[Item, str], None] | None
) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        try:
            answer: Result | Lost = server.ask(item)
        except Died as error:
            if again is None or server.closed:
                raise
            again(item, error.how)
            answer = server.ask(item)
    except Failed as error:
        answer = Lost(error.reason, error.trace)
    except Died as error:
        if server.closed:
            future.set_exception(error)
            return
        answer = Lost(str(error))
    except BaseException as error:  # whoever waits for the result raises it
        future.set_exception(error)
        return
    future.set_result(answer)


def _end(servers: Sequence[Server[Any, Any]], tasks: "_Tasks[Any, Any]") -> None:
    for server in servers:
        server.close()
    for _ in servers:
        tasks.put(None)


def _context(start: Start) -> BaseContext:
    if start == "spawn" or sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(list(PRELOADED))
    return found


def _kill(held: Sequence[BaseProcess]) -> None:
    for process in held:
        process.kill()


def _cause(exit_code: int | None) -> str:
    if exit_code == -9:
        return "signal SIGKILL, perhaps for lack of memory"
    if exit_code is not None and exit_code < 0:
        return f"signal {signal.Signals(-exit_code).name}"
    return f"exit code {exit_code}"


def _serve(pipe: Connection, work: Callable[[Any], Any], setup: Callable[[], object] | None) -> None:
    """Answer, in the process, until whoever began it goes."""
    gc.freeze()  # what the server has imported is no garbage; to look through it during imports takes longer than these
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its own itself
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, OSError):
        pipe.send(_tried(setup or _nothing))
        while True:
            pipe.send(_tried(work, pipe.recv()))


def _tried(work: Callable[..., object], *request: object) -> tuple[bool, object]:
    try:
        return True, work(*request)
    except VpbenchError as error:
        return False, error
    except Exception as error:  # crosses as text, since not every error can be pickled
        lines = str(error).splitlines() or [""]
        return False, Failed(f"{type(error).__name__}: {lines[0][:200]}", traceback.format_exc())


def _nothing() -> None:
    pass


def _apply(request: _Call[T]) -> T:
    function, args = request
    return function(*args)


def _end_with_parent() -> None:
    """End even in the middle of something, should the parent be killed: whoever runs the command again is alone."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)
