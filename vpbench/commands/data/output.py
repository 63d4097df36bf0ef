"""A folder that is being filled: by one run at a time, and its files appear whole or not at all."""

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from vpbench.errors import UsageError, VpbenchError

#: what is being written lies here, on the same disk, so that it can be moved in one step
PARTIAL = ".partial"
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """Make a folder one's own; yields where unfinished files go, and removes those that a killed run left.

    Raises UsageError if the folder cannot be written, or another run is filling it.
    """
    partial = folder / PARTIAL
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_locked(folder / ".lock"))
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
        except OSError as error:
            raise UsageError(
                f"{folder}: cannot write here ({error.strerror}); name another folder with --out"
            ) from error
        try:
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def temporary(partial: Path, ending: str = "") -> Path:
    """Return a new name for an unfinished file."""
    return partial / f"{os.getpid()}-{uuid.uuid4().hex}{ending}"


def finish(unfinished: Path, target: Path) -> None:
    """Move a file to its place, in one step; raises OSError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished.replace(target)


def write_text(partial: Path, target: Path, text: str) -> None:
    """Write a text file whole or not at all; raises VpbenchError."""
    unfinished = temporary(partial)
    with disk_errors(target):
        unfinished.write_text(text, encoding="utf-8", newline="")
        finish(unfinished, target)


@contextlib.contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Turn what the disk says while a file is written into a VpbenchError."""
    try:
        yield
    except OSError as error:
        advice = "free some space" if error.errno in _FULL else "make the folder writable"
        raise VpbenchError(
            f"{target}: cannot write ({error.strerror or error}); {advice} and run the same command again"
        ) from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that ends with this process, however it ends; raises UsageError if another process has it."""
    try:
        import fcntl
    except ImportError:  # not on this system: there, two runs into one folder are the user's own doing
        yield
        return
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"{path.parent}: another run is writing here; wait for it, or use another --out"
            ) from error
        except OSError:
            pass  # this disk knows no locks
        yield
