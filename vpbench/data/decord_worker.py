"""Run decord in a process of its own that is killed when it hangs.

decord 0.6.0 hangs for ever on some stream-copied clips, where neither a signal handler nor an exception can reach it;
only killing its process helps. This module imports neither torch nor decord, so that the process starts quickly.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Callable, Sequence
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpbench.errors import UsageError

#: seconds one request may take
DEADLINE_S = 20.0
#: seconds the process may take to start and import decord
START_S = 60.0
#: a path and the indices wanted, "length" or "seconds"; None alone closes the video that is open
Request = tuple[str, list[int] | str] | None


class DecordFailed(Exception):
    """Why decord gave no answer: one line, without the path."""


class Worker:
    """A decord process, started at the first request and again after it was killed; not for several threads at once."""

    def __init__(self, target: Callable[[Connection], None], deadline_s: float = DEADLINE_S) -> None:
        self.target, self.deadline_s = target, deadline_s
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None

    def length(self, path: str) -> tuple[int, float | None]:
        """Return the number of frames decord sees and the average frames per second, None where it knows none.

        Raises DecordFailed, UsageError if there is no decord.
        """
        frames, fps = self._ask((path, "length"))
        return int(frames), float(fps) if fps > 0 else None

    def seconds(self, path: str) -> NDArray[np.float64]:
        """Return when decord says each frame is shown, `[n]`, in seconds after the first one; raises DecordFailed."""
        return np.asarray(self._ask((path, "seconds")), dtype=np.float64)

    def frames(self, path: str, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Return frames `[n, H, W, 3]`, uint8 RGB; raises DecordFailed, UsageError if there is no decord."""
        return np.asarray(self._ask((path, list(indices))), dtype=np.uint8)

    def close_video(self) -> None:
        """Close the open video: an idle decord reader goes on decoding in the background."""
        if self._process is None:
            return
        # the frames have been handed over; a worker that fails here has been killed and harms nobody
        with contextlib.suppress(DecordFailed):
            self._ask(None)

    def stop(self) -> None:
        """Kill the process, if there is one; the next request starts another."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None

    def _ask(self, request: Request) -> Any:
        if self._process is None or not self._process.is_alive() or self._pipe is None:
            self._pipe = self._start()
        try:
            self._pipe.send(request)
            good, answer = self._receive(self._pipe, self.deadline_s)
        except (EOFError, OSError) as error:
            self.stop()
            raise DecordFailed("decord's process died; --decoder pyav reads without it") from error
        except BaseException:
            self.stop()  # an answer still on its way (after Ctrl-C, say) would be taken for that to the next request
            raise
        if not good:
            raise DecordFailed(answer)
        return answer

    @staticmethod
    def _receive(pipe: Connection, seconds: float) -> tuple[bool, Any]:
        if not pipe.poll(seconds):
            raise DecordFailed(
                f"no answer from decord within {seconds:g} s, its process was killed; try --decoder pyav"
            )
        good, answer = pipe.recv()
        return good, answer

    def _start(self) -> Connection:
        self.stop()
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=self.target, args=(other,), daemon=True)
        self._process.start()
        other.close()
        try:
            good, answer = self._receive(self._pipe, START_S)
        except (EOFError, OSError) as error:
            self.stop()
            raise UsageError(
                "decord's process ended while starting; use --decoder pyav (a script of your own must start its work "
                "under `if __name__ == '__main__':`)"
            ) from error
        except BaseException:
            self.stop()
            raise
        if not good:
            self.stop()
            raise UsageError(f"decord cannot be used here ({answer}); use --decoder pyav")
        return self._pipe


def shared() -> Worker:
    """Return the one worker of this process; it ends with the interpreter."""
    return _worker_of(os.getpid())  # a fork must not talk to the worker of its parent


@cache
def _worker_of(process: int) -> Worker:
    worker = Worker(serve)
    atexit.register(worker.stop)
    return worker


def announce(pipe: Connection, reason: str | None = None) -> None:
    """Tell the parent that the worker is ready, or the reason why it is not."""
    pipe.send((reason is None, reason))


def serve(pipe: Connection) -> None:
    """Answer requests, in the worker, with `(True, answer)` or `(False, reason)` until the parent goes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent kills the worker itself
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        import decord
    except (ImportError, OSError) as error:  # no build for this platform, or its libraries do not load
        announce(pipe, one_line(error))
        return
    announce(pipe)
    _silence()
    opened: tuple[str, Any] | None = None
    with contextlib.suppress(EOFError):  # the parent has gone
        while True:
            request: Request = pipe.recv()
            try:
                if request is None or opened is None or opened[0] != request[0]:
                    opened = None  # two open readers would both decode in the background
                if request is None:
                    answer = None
                else:
                    path, wanted = request
                    opened = opened or (path, decord.VideoReader(path, num_threads=1))
                    answer = _answer(opened[1], wanted)
                pipe.send((True, answer))
            except Exception as error:  # whatever decord raises crosses as text; the parent raises it
                opened = None
                pipe.send((False, f"decord: {one_line(error)}"))


def _answer(reader: Any, wanted: list[int] | str) -> Any:
    if wanted == "length":
        return len(reader), reader.get_avg_fps()
    if wanted == "seconds":
        shown = reader.get_frame_timestamp(range(len(reader)))[:, 0]
        # float32, exact to 0.2 ms after an hour: rounded up, so that a part from 0.12 s on has the frame shown then
        return shown.astype(np.float64) - float(shown[0]) + 2 * np.spacing(shown)
    return reader.get_batch(wanted).asnumpy()


def one_line(error: Exception) -> str:
    """Return what an exception says without decord's source positions and stack trace."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r"^\[[\d:]+\] \S+:\d+: ", "", first)[:200]


def _silence() -> None:
    """Drop what decord's libraries print: its reasons come as exceptions, and ours is the one line."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _end_with_parent() -> None:
    """End even while decord hangs, should the parent be killed without a chance to clean up."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)
