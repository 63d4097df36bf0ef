"""Errors meant for the user: one line that says what, where and what to do."""

import difflib
from collections.abc import Iterable

#: what lies in a file's place where it was not fetched, by its first bytes, and what to do about it
_NOT_FETCHED = (
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself; run git lfs pull"),
    *(
        (mark, "a web page, not the file; download it again, logged in where that is needed")
        for mark in (b"<!doctype", b"<html", b"<head", b"<?xml", b"<error")
    ),
)


class VpbenchError(Exception):
    """A failure explained in one line; the command line prints it and exits with `exit_code`."""

    exit_code = 1


class UsageError(VpbenchError):
    """The request itself is wrong (unknown name, value out of range)."""

    exit_code = 2


class NothingMeasured(VpbenchError):
    """The request was understood but left nothing to measure, draw or compare."""

    exit_code = 3


def near_matches(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'? known: ...`, to be appended to an "unknown name" message."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=2, cutoff=0.5)
    hint = f"; did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
    return f"{hint} (known: {', '.join(names) or 'none'})"


def unusable(device: str, error: BaseException) -> UsageError:
    """Return the error for a device on which torch refuses to work."""
    said = str(error).splitlines()[0]
    if "not compiled with CUDA" in said:
        said = "this torch is built without CUDA; install one that has it, or give --device cpu"
    elif "Expected one of" in said:  # a list of all kinds that torch knows anywhere
        said = "there is no such kind; give cpu, cuda or cuda:N"
    return UsageError(f"device {device!r} cannot be used: {said}")


def not_fetched(head: bytes) -> str:
    """Say by its first bytes what a file is instead of itself, and what to do; empty where they do not tell."""
    if not head:
        return "the file is empty; fetch it again"
    return next((said for mark, said in _NOT_FETCHED if head.lstrip().lower().startswith(mark)), "")


def explain(error: BaseException) -> str:
    """Say an error in one line: our own as they are, others with their type."""
    return str(error) if isinstance(error, VpbenchError) else f"{type(error).__name__}: {error}".splitlines()[0]
