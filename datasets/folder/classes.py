"""The classes of a user's videos: which there are, in the order of the outputs, and which label is which."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from vpbench.data.lists.paths import control_character, loose, same
from vpbench.data.lists.records import is_whole
from vpbench.data.lists.text import read_text
from vpbench.datasets.folder.items import Item, Items
from vpbench.errors import UsageError, near_matches

#: so many examples are told
SHOWN = 3
_NUMBER_NAME = re.compile(r"([0-9]{1,6})[\s,;]+(\S.*)")
_NAME_NUMBER = re.compile(r"(.*[^\s,;])[\s,;]+([0-9]{1,6})")


class Classes:
    """Names in the order of the outputs; `label` tells the number of what a folder or a list says."""

    def __init__(self, names: Sequence[str], where: str, *, numbers: bool) -> None:
        """Take names from `where`; `numbers`: labels that are numbers are places among them."""
        self.names, self.where, self.numbers = tuple(names), where, numbers
        self._exact = {same(name): place for place, name in enumerate(names)}
        keys = [loose(name) for name in names]
        # names that differ in nothing but signs are told apart by these
        self._loose = {key: place for place, key in enumerate(keys) if keys.count(key) == 1} if names else {}

    def label(self, text: str) -> int | None:
        """Return the number of a class by its name or number; None where there is none."""
        if self.numbers and is_whole(text):
            return int(text) if int(text) < len(self.names) else None
        return self._exact.get(same(text), self._loose.get(loose(text)))

    def spellings(self, items: Sequence[Item]) -> Iterator[tuple[int, str]]:
        """Yield the number of videos of each class that they spell in several ways, and a line that says how."""
        if self.numbers:
            return
        spelled: dict[int, Counter[str]] = defaultdict(Counter)
        for item in items:
            if (place := self.label(item.label)) is not None:
                spelled[place][item.label] += 1
        for place, counts in spelled.items():
            if len(counts) > 1:
                said = ", ".join(
                    f"{text!r} ({count} video{'s' * (count != 1)})" for text, count in sorted(counts.items())
                )
                yield (
                    counts.total(),
                    f"{said}: all are class {place} ({self.names[place]}) of {self.where}; give them one name, or each "
                    "an output of its own",
                )


def classes_of(found: Items, file: Path | None, offered: Callable[[], Sequence[str]]) -> Classes:
    """Return the classes: those of `--classes FILE`, of the checkpoint, of the list, or what the labels are, sorted.

    Raises UsageError that says how, with examples, where these contradict each other.
    """
    labels = sorted({item.label for item in found.items})
    whole = [label for label in labels if is_whole(label)]
    known = _known(file, tuple(offered()))
    exact = set() if known is None else {same(name) for name in known[0]}
    if found.listed and 0 < len(whole) < len(labels) and not exact.issuperset(map(same, labels)):
        number, name = (next(i for i in found.items if is_whole(i.label) == kind) for kind in (True, False))
        raise UsageError(
            f"{name.where}: label {name.label[:40]!r} is a name, that of {number.where} a number ({number.label}); "
            "give all as names or all as numbers"
        )
    own = _own_numbers(found.items)
    if known is not None:
        names, where = known
        classes = Classes(names, where, numbers=len(whole) == len(labels) and not exact.issuperset(map(same, labels)))
    elif own:
        names = [own.get(number, str(number)) for number in range(max(own) + 1)]
        classes = Classes(names, "the list", numbers=False)
    elif found.listed and whole:
        names = [str(number) for number in range(max(map(int, labels)) + 1)]
        classes = Classes(names, "the numbers in the list", numbers=True)
    else:
        _refuse_two_orders(labels)
        classes = Classes(labels, "the folders" if not found.listed else "the list", numbers=False)
    _compare(found.items, own, classes)
    return classes


def _known(file: Path | None, offered: tuple[str, ...]) -> tuple[Sequence[str], str] | None:
    """Return the names that somebody gave and who did; raises UsageError where file and checkpoint differ."""
    if file is None:
        return (offered, "the weights") if offered else None
    names = read_classes(file)
    if offered and len(offered) != len(names):
        raise UsageError(
            f"{file}: {len(names)} classes ({_some(names)}), but the weights name {len(offered)} ({_some(offered)}); "
            "give the classes of these weights"
        )
    for place, (name, other) in enumerate(zip(names, offered, strict=bool(offered)) if offered else ()):
        if loose(name) != loose(other):
            raise UsageError(
                f"{file}: class {place} is {name!r}, but {other!r} in the weights; give the classes of these weights "
                "in their order"
            )
    return names, str(file)


def _own_numbers(items: Sequence[Item]) -> dict[int, str]:
    """Return the names by number of a list that has both; raises UsageError where it numbers a class twice."""
    names: dict[int, tuple[str, Item]] = {}
    numbers: dict[str, tuple[int, Item]] = {}
    for item in items:
        if item.number is None:
            continue
        if not is_whole(item.number):
            raise UsageError(f"{item.where}: {item.number[:20]!r} is no number of a class; fill in that column")
        number = int(item.number)
        name, first = names.setdefault(number, (item.label, item))
        other, earlier = numbers.setdefault(item.label, (number, item))
        if name != item.label:
            raise UsageError(f"{item.where}: class {number} is {item.label!r}, but {name!r} in {first.where}; mend one")
        if other != number:
            raise UsageError(
                f"{item.where}: {item.label!r} is class {number}, but {other} in {earlier.where}; mend one"
            )
    return {number: name for number, (name, _) in names.items()}


def _refuse_two_orders(labels: Sequence[str]) -> None:
    if all(map(is_whole, labels)) and sorted(labels) != sorted(labels, key=int):
        raise UsageError(
            f"class folders are numbers ({_some(labels)}), whose order as text is not that of the numbers; give the "
            "names in the order of the outputs with --classes FILE"
        )


def _compare(items: Sequence[Item], own: Mapping[int, str], classes: Classes) -> None:
    unknown = {item.label: item for item in items if classes.label(item.label) is None}
    if unknown:
        first = next(iter(unknown.values()))
        total = len({item.label for item in items})
        if classes.numbers:
            raise UsageError(
                f"{first.where}: label {first.label} is outside 0 to {len(classes.names) - 1}, the classes of "
                f"{classes.where} ({_some(classes.names)}); labels are counted from 0"
            )
        close = near_matches(first.label, classes.names).partition(" (known")[0].removeprefix("; ")
        raise UsageError(
            f"{len(unknown)} of {total} classes of the videos ({_some(list(unknown))}) are none of the "
            f"{len(classes.names)} of {classes.where} ({_some(classes.names)}){f': {close}' if close else ''}; rename "
            "them, or give --classes FILE with these names in the order of the outputs"
        )
    for number, name in own.items():
        if (place := classes.label(name)) != number:
            raise UsageError(
                f"class {name!r} has number {number} in the list, but {place} in {classes.where}; mend one of them"
            )


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:SHOWN])) + (", ..." if len(names) > SHOWN else "")


def read_classes(file: Path) -> list[str]:
    """Read names of classes: a line each, numbered or not, or JSON (a list, or a table of names or of numbers).

    Raises UsageError for anything else, and where a name comes twice.
    """
    text = read_text(file)
    names = _from_json(file, text) if text.lstrip()[:1] in ("[", "{") else _from_lines(file, text)
    for name in names:
        if not name.strip() or control_character(name) is not None:
            raise UsageError(f"{file}: {name[:40]!r} is no name of a class; give one in each line")
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if not names or twice is not None:
        what = "no names in it" if twice is None else f"{twice!r} comes twice"
        raise UsageError(f"{file}: {what}; give a name in each line, in the order of the outputs")
    return names


def _from_json(file: Path, text: str) -> list[str]:
    try:
        found = json.loads(text)
        if isinstance(found, dict):
            found = found.get("id2label", found)
            numbered = {int(k): v for k, v in found.items()} if all(map(is_whole, found)) else None
            numbered = {int(v): k for k, v in found.items()} if numbered is None else numbered
            found = _in_order(file, numbered)
        if isinstance(found, list) and all(isinstance(name, str) for name in found):
            return found
    except (ValueError, TypeError, AttributeError, RecursionError):
        pass  # said below, whatever it was
    raise UsageError(f'{file}: not a list of names, nor a table like {{"0": "jump", "1": "run"}}; give one')


def _from_lines(file: Path, text: str) -> list[str]:
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    body = lines[1:] if lines and re.fullmatch(r"(id|label|class|index|name|[,;\t ])+", lines[0].lower()) else lines
    for form, number, name in ((_NUMBER_NAME, 1, 2), (_NAME_NUMBER, 2, 1)):
        found = [form.fullmatch(line) for line in body]
        if body and all(found):
            numbered = {int(match[number]): match[name].strip('"') for match in found if match is not None}
            if len(numbered) == len(body) and min(numbered) in (0, 1) and max(numbered) - min(numbered) < len(body):
                return _in_order(file, {key - min(numbered): value for key, value in numbered.items()})
    return [line.strip('"') for line in (body if len(body) < len(lines) and "," in lines[0] else lines)]


def _in_order(file: Path, numbered: Mapping[int, str]) -> list[str]:
    if sorted(numbered) != list(range(len(numbered))):
        raise UsageError(f"{file}: its classes are not numbered from 0 to {len(numbered) - 1}; number all of them")
    return [numbered[number] for number in range(len(numbered))]
