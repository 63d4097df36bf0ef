"""What the user typed, for records and rows."""

from __future__ import annotations

import shlex
import sys


def as_typed() -> str:
    """Return the command as typed."""
    return shlex.join(["vpbench", *sys.argv[1:]])
