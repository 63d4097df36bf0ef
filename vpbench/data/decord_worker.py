"""Run decord in a process of its own that is killed when it hangs.

decord 0.6.0 hangs for ever on some stream-copied clips, where neither a signal handler nor an exception can reach it;
only killing its process helps. This module imports neither torch nor decord, so that the process starts quickly.
"""

import contextlib
import os
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpbench.errors import UsageError, VpbenchError
from vpbench.processes import Died, Late, Server

#: seconds one request may take
DEADLINE_S = 20.0
#: seconds the process may take to start and import decord
START_S = 60.0
#: a path and the indices wanted, "length" or "seconds"; None alone closes the video that is open
Request = tuple[str, list[int] | str] | None


class DecordFailed(VpbenchError):
    """Why decord gave no answer: one line, without the path."""


def answer(request: Request) -> Any:
    """Do what is asked, in the process; the video asked for last stays open. Raises DecordFailed."""
    global _opened
    try:
        if request is None or _opened is None or _opened[0] != request[0]:
            _opened = None  # two open readers would both decode in the background
        if request is None:
            return None
        import decord

        path, wanted = request
        _opened = _opened or (path, decord.VideoReader(path, num_threads=1))
        return _answer(_opened[1], wanted)
    except Exception as error:  # whatever decord raises is its reason
        _opened = None
        raise DecordFailed(f"decord: {one_line(error)}") from None


def load() -> None:
    """Import decord, in the process; raises UsageError where that cannot be."""
    try:
        import decord  # noqa: F401
    except (ImportError, OSError) as error:  # no build for this platform, or its libraries do not load
        raise UsageError(f"decord cannot be used here ({one_line(error)}); use --decoder pyav") from None
    # what its libraries print: its reasons come as exceptions, and ours is the one line
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


class Worker:
    """A decord process, started at the first request and again after it was killed; not for several threads at once."""

    def __init__(
        self, work: Callable[[Request], Any] = answer, setup: Callable[[], None] = load, deadline_s: float = DEADLINE_S
    ) -> None:
        self.deadline_s = deadline_s
        self._server = Server(work, setup=setup, start_s=START_S)

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
        if not self._server.alive:
            return
        # the frames have been handed over; a worker that fails here has been killed and harms nobody
        with contextlib.suppress(DecordFailed):
            self._ask(None)

    def close(self) -> None:
        """Kill the process, if there is one, for good."""
        self._server.close()

    def _ask(self, request: Request) -> Any:
        try:
            return self._server.ask(request, self.deadline_s)
        except Late as error:
            raise DecordFailed(
                f"no answer from decord within {error.seconds:g} s, its process was killed; try --decoder pyav"
            ) from None
        except Died as error:
            if not error.starting:
                raise DecordFailed("decord's process died; --decoder pyav reads without it") from None
            raise UsageError(
                "decord's process ended while starting; use --decoder pyav (a script of your own must start its work "
                "under `if __name__ == '__main__':`)"
            ) from None


def shared() -> Worker:
    """Return the one worker of this process; it ends with the interpreter."""
    return _worker_of(os.getpid())  # a fork must not talk to the worker of its parent


@cache
def _worker_of(process: int) -> Worker:
    return Worker()


#: in the process: the video that is open
_opened: tuple[str, Any] | None = None


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
