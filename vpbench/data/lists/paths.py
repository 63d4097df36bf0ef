"""Paths and names as lists hold them: written on any system, composed or decomposed, with blanks of any kind."""

import itertools
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path, PureWindowsPath

_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


def is_absolute(path: str) -> bool:
    """Tell whether a listed path is absolute on the system that it was written for."""
    return path.startswith("/") or (_is_windows(path) and bool(PureWindowsPath(path).anchor))


def parts_of(path: str) -> tuple[str, ...]:
    """Return the folders and the name in a listed path, without drive or root: `D:\\a\\b.mp4` is `a`, `b.mp4`."""
    if _is_windows(path):
        found = PureWindowsPath(path)
        return tuple(part for part in found.parts if part != found.anchor)
    return tuple(part for part in path.split("/") if part not in ("", "."))


def _is_windows(path: str) -> bool:
    return "\\" in path or _DRIVE.match(path) is not None


def same(text: str) -> str:
    """Return what names have in common that look alike: composed characters, and plain single blanks.

    A Mac decomposes accents and puts U+202F into the names of its recordings; lists are typed with plain blanks.
    """
    return text if text.isascii() and "  " not in text else " ".join(unicodedata.normalize("NFKC", text).split())


def loose(name: str) -> str:
    """Return what copies of a folder or class keep of its name: letters and digits, in small letters."""
    plain = same(name).casefold()
    return "".join(char for char in plain if char.isalnum()) or plain


def control_character(text: str) -> str | None:
    """Name the first character that would act upon a terminal or end a line, as `U+001B`; None without one."""
    found = next((char for char in text if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")), None)
    return None if found is None else f"U+{ord(found):04X}"


def below(paths: Iterable[str], root: Path) -> list[str]:
    """Return listed paths as they are below the root, with `/` and composed characters.

    Absolute ones lose the root where they lie in it, else the folders that all of them share: they are of another
    computer, and what is above its root is not known.
    """
    listed = list(paths)
    tops = [tuple(Path(os.path.abspath(root)).parts[1:]), tuple(root.resolve().parts[1:])]
    foreign = [parts_of(path)[:-1] for path in listed if is_absolute(path) and not _under(parts_of(path), tops)]
    # the first and the last in order differ where any two of them do
    ends = zip(min(foreign), max(foreign), strict=False) if foreign else ()
    shared = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], ends))
    found = []
    for path in listed:
        parts = parts_of(path)
        if is_absolute(path):
            parts = parts[_under(parts, tops) or shared :]
        found.append(unicodedata.normalize("NFC", "/".join(parts)))
    return found


def _under(parts: tuple[str, ...], tops: Sequence[tuple[str, ...]]) -> int:
    """Return how many parts name the root that a path lies in; 0 where it lies in none."""
    return next((len(top) for top in tops if parts[: len(top)] == top), 0)
