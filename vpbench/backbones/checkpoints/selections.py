"""Selections of tokens that the settings of a training run name; the text is untrusted, so it is searched, not run."""

from __future__ import annotations

import re

# What a run's settings are at most; longer texts are cut, not refused, since nothing depends on them.
_LONGEST = 200_000
_NUMBER = r"[0-9]{1,6}(?:\.[0-9]{0,12})?"
_LIST = rf"[\[(][ \t\n]{{0,20}}(?:{_NUMBER}[ \t\n]{{0,20}},?[ \t\n]{{0,20}}){{1,32}}[\])]"
_ITEMS = rf"(?:\n[ \t]{{0,20}}-[ \t]{{1,4}}{_NUMBER}(?![^\n\r])){{1,32}}"
# YAML (`name: [0, 4]`, also with an item a line) and Python (`name=(0.5,)`, `name=0.5`, `'name': 0.5`)
_SETTING = re.compile(
    rf"(?<![A-Za-z0-9_])([A-Za-z][A-Za-z0-9_]{{2,39}})['\"]?[ \t]{{0,4}}[:=][ \t]{{0,4}}({_LIST}|{_ITEMS}|{_NUMBER})"
)


def selection(text: str) -> str:
    """Return the settings whose names say where and how many slices or tokens are kept, in one line; "" for none.

    These are names with "time" or "space" in them and "loc" or "ratio", in any case, whose values are numbers.
    """
    found = {
        name: ", ".join(re.findall(_NUMBER, value))
        for name, value in _SETTING.findall(text[:_LONGEST])
        if re.search("time|temporal|space|spatial", name, re.IGNORECASE) and re.search("loc|ratio", name, re.IGNORECASE)
    }
    return "; ".join(f"{name} {value}" for name, value in found.items())
