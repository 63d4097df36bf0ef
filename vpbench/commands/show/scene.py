"""What is shown: the frames of one clip, and what each method makes of its tokens."""

import abc
import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vpbench.errors import UsageError
from vpbench.plan import Cell
from vpbench.render.pictures.draw import Pixels
from vpbench.render.pictures.page import Mark
from vpbench.rows.fates import Fate

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Seen:
    """What one method made of the clip: its tokens' fate, what it rated them by, and what was found, slot by slot."""

    label: str
    fate: Fate
    values: dict[str, Floats] = field(default_factory=dict)
    marks: Sequence[Sequence[Mark]] = ()


class Scene(abc.ABC):
    """One clip, whole, on the backbone that it is shown on.

    `frames` uint8 `[T, H, W, 3]`; `truth`: what is annotated, slot by slot, where boxes are. `height`: of pictures in
    pixels, about, that small frames are enlarged to.
    """

    height = 128

    clip_id: str
    frames: Pixels
    header: str
    truth: Sequence[Sequence[Mark]] = ()

    @abc.abstractmethod
    def see(self, cell: Cell, *, values: bool) -> Seen:
        """Run a method on the clip; raises UsageError, with the reason, where it cannot run or be drawn."""

    @abc.abstractmethod
    def titles(self, slots: int) -> list[str]:
        """Name the frames of each slot."""

    def gradient(self, *, by_label: bool) -> tuple[Floats, str]:
        """Return how much a class depends on each token, and which one; raises UsageError where there is no such."""
        raise UsageError("gradient norms are defined for a plain stream of tokens (VideoMAE); leave --gradnorm out")


def chosen(name: str, listed: Callable[[], Sequence[str]], what: str) -> str | Path:
    """Return the path of a file or folder that is there, or the id that is meant, by itself or by its number.

    listed: gives the ids, of which a file needs none; what: is in that list, for the message. Raises UsageError, with
    near matches, where nothing is meant.
    """
    if Path(name).exists():
        return Path(name)
    known = listed()
    if name in known:
        return name
    if name.isdecimal():
        if int(name) < len(known):
            return known[int(name)]
        raise UsageError(f"there is no video number {name}: {what} has {len(known)}, numbered from 0")
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else f", such as {known[0]!r}" if known else ""
    if Path(name).suffix or "/" in name:
        raise UsageError(f"{name}: no such file, and no video of {what}{hint}")
    raise UsageError(f"no video {name!r} in {what}{hint}; give an id, a number below {len(known)}, or a file")
