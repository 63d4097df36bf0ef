"""Call a function in a process of its own, so that nothing this process has done before is seen by what it measures."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from typing import TypeVar

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
