"""What decord may do, for processes that start quickly: nothing heavy is imported here."""

from __future__ import annotations

import os
import time

from vpbench.data.decord_worker import Request, one_line
from vpbench.errors import UsageError


def ready() -> None:
    pass


def hangs(request: Request) -> tuple[int, float]:
    """Hang or die on one file and answer for every other with the last number in its name."""
    assert request is not None
    if request[0] == "hang":
        time.sleep(1000)
    if request[0] == "die":
        os._exit(0)
    return int(request[0][-1]), 25.0


def has_no_decord() -> None:
    raise UsageError(f"decord cannot be used here ({one_line(ImportError('no module named decord'))}); --decoder pyav")


def dies() -> None:
    os._exit(3)
