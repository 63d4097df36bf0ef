"""What a checkpoint calls its outputs, where it says so; the text is untrusted, and shown as it can be printed."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

#: what transformers writes where nobody named the classes
_NAMELESS = re.compile(r"LABEL_[0-9]+")


def class_names(tree: Mapping[Any, Any]) -> tuple[str, ...]:
    """Return the names in the order of the outputs, empty where a checkpoint has none.

    Places: `id2label` (transformers, also as JSON text), `class_to_idx` (torchvision), `class_names`, `classes`, and
    `meta.CLASSES` or `meta.dataset_meta.classes` (mmcv, mmengine).
    """
    meta = _mapping(tree.get("meta"))
    places = (tree.get("id2label"), _mapping(tree.get("config")).get("id2label"), _turned(tree.get("class_to_idx")))
    more = (tree.get("class_names"), tree.get("classes"), meta.get("CLASSES"))
    last = _mapping(meta.get("dataset_meta"))
    for found in (*places, *more, last.get("classes"), last.get("CLASSES")):
        names = _names(found)
        if names and not all(_NAMELESS.fullmatch(name) for name in names):
            return names
    return ()


def _names(found: Any) -> tuple[str, ...]:
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except (ValueError, RecursionError):
            return ()
    if isinstance(found, Mapping):
        try:
            numbered = {int(number): name for number, name in found.items()}
        except (TypeError, ValueError):
            return ()
        if sorted(numbered) != list(range(len(numbered))):
            return ()
        found = [numbered[number] for number in range(len(numbered))]
    if not isinstance(found, Sequence) or not all(isinstance(name, str) for name in found):
        return ()
    return tuple(name if name.isprintable() else repr(name) for name in found)


def _turned(found: Any) -> dict[Any, Any] | None:
    """Return the names by number of a table of numbers by name."""
    if not isinstance(found, Mapping) or not all(isinstance(number, int) for number in found.values()):
        return None
    turned = {number: name for name, number in found.items()}
    return turned if len(turned) == len(found) else None


def _mapping(found: Any) -> Mapping[Any, Any]:
    return found if isinstance(found, Mapping) else {}
