"""Errors meant for the user: one line that says what, where and what to do."""

import difflib
from collections.abc import Iterable


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
    return UsageError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}")


def explain(error: BaseException) -> str:
    """Say an error in one line: our own as they are, others with their type."""
    return str(error) if isinstance(error, VpbenchError) else f"{type(error).__name__}: {error}".splitlines()[0]
