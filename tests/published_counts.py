"""Counts of all published settings, made anew; run this file to write them down."""

from __future__ import annotations

import json

from vpbench.commands.published import counts
from vpbench.commands.published.lines import lines
from vpbench.rows import published


def anew() -> dict[str, counts.Pair]:
    """Count every setting that a figure stands for."""
    found: dict[str, counts.Pair] = {}
    lines(published.figures(), None, found)
    return found


if __name__ == "__main__":
    text = ",\n".join(f"{json.dumps(key)}: {json.dumps(pair)}" for key, pair in sorted(anew().items()))
    counts.FILE.write_text(f"{{\n{text}\n}}\n", encoding="utf-8")
