"""What differs between a cell's baseline and what it does now, in words: where, how much, and what that hints at."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vpbench.commands.check.facts import TOLERANCE, Facts, Measured, Stored, deviation, positions

#: tokens of a set that are named one by one
_NAMED = 5
#: what each kind of difference hints at, the first that applies
_HINTS = {
    "broken": "the method no longer runs here; run it alone to see where it fails: vpbench run --method {method}",
    "gone": "if that is meant, take it out of the baseline: vpbench check --update",
    "missing": "add it with vpbench check --update --method {method}; --strict wants all cells in the baseline",
    "parameters": "a default changed; if that is meant: vpbench check --update --method {method}",
    "tokens": "the selection keeps another number of tokens: a threshold, a ratio, a rounding, or where it prunes",
    "sets": "as many tokens, but others: scores, their order, ties, or what scores are made of",
    "macs": "the same tokens at another cost: the closed form of the method's or the backbone's multiply-accumulates",
    "logits": "the same tokens, other numbers: what is done with tokens that stay (merging, sizes, pooling)",
    "fidelity": "further from dense than the bound allows",
    "keep-all": "work is left that changes the result although every token stays",
    "time": "the same work takes longer: a slower operation, a copy, a wait, or work that is repeated",
}
_DENSE = "dense on {backbone} changed too: look at the backbone first, not at the method"


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it was: its kind (a key of the hints) and a line that says where and what."""

    kind: str
    text: str


def compare(found: Measured, stored: Stored) -> list[Difference]:
    """List all differences of a cell but those of time."""
    return [*compare_clips(found, stored), *_fidelity(found, stored), *_kept_all(found, stored)]


def compare_clips(found: Measured | Stored, stored: Stored) -> list[Difference]:
    """List the differences in parameters, then those of each stored clip."""
    differences = list(_parameters(found.params, stored.params))
    for name, expected in stored.clips.items():
        differences += _clip(name, found.clips[name], expected)
    return differences


def hint(differences: Sequence[Difference], key: str, dense_failed: bool) -> str:
    """Say in a line what to look at first."""
    backbone, _, method = key.partition("/")
    own = {difference.kind for difference in differences}
    causes = [text for kind, text in _HINTS.items() if kind in own]
    if dense_failed and method != "dense" and own & {"tokens", "sets", "macs", "logits", "fidelity"}:
        causes.insert(0, _DENSE)
    return causes[0].format(backbone=backbone, method=method) if causes else ""


def _parameters(found: Mapping[str, Any], stored: Mapping[str, Any]) -> Iterator[Difference]:
    for name in dict.fromkeys([*stored, *found]):
        if found.get(name) != stored.get(name) or (name in found) != (name in stored):
            expected, now = (repr(each[name]) if name in each else "none" for each in (stored, found))
            yield Difference("parameters", f"parameter {name}: expected {expected}, found {now}")


def _clip(name: str, found: Facts, expected: Facts) -> Iterator[Difference]:
    """Name the first layer and the first site that differ: what follows them differs as a consequence."""
    where = f"clip {name}"
    if found.tokens != expected.tokens:
        yield Difference("tokens", f"{where}, {_first_block(found.tokens, expected.tokens)}")
    if found.sets != expected.sets:
        yield Difference("sets", f"{where}, {_first_site(found.sets, expected.sets)}")
    if found.macs != expected.macs:
        change = 100 * (found.macs / expected.macs - 1)
        yield Difference("macs", f"{where}: expected {expected.macs} MACs, found {found.macs} ({change:+.2f} %)")
    off = deviation(found.values, expected.values)
    if len(found.values) != len(expected.values):
        counts = f"expected {len(expected.values)} outputs, found {len(found.values)}"
        yield Difference("logits", f"{where}: {counts}")
    elif off > TOLERANCE:
        worst = max(range(len(expected.values)), key=lambda i: abs(found.values[i] - expected.values[i]))
        values = f"output {worst}: expected {expected.values[worst]:g}, found {found.values[worst]:g}"
        yield Difference("logits", f"{where}, {values}, off by {off:.1e} of the largest (allowed {TOLERANCE:.0e})")


def _first_block(found: Sequence[tuple[int, int]], expected: Sequence[tuple[int, int]]) -> str:
    if len(found) != len(expected):
        return f"blocks: expected {len(expected)}, found {len(found)}"
    block = next(i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b)
    part = "attention" if found[block][0] != expected[block][0] else "MLP"
    which = 0 if part == "attention" else 1
    return f"block {block}, {part}: expected {expected[block][which]} tokens, found {found[block][which]}"


def _first_site(found: Mapping[str, str], expected: Mapping[str, str]) -> str:
    site = next(s for s in dict.fromkeys([*expected, *found]) if found.get(s) != expected.get(s))
    if site not in found or site not in expected:
        expected_one = "a selection, found none" if site in expected else "no selection, found one"
        return f"site {site}: expected {expected_one}"
    return f"site {site}: {_swapped(found[site], expected[site])}"


def _swapped(found: str, expected: str) -> str:
    """Name the tokens that went and came, sequence by sequence; other numbers as they are."""
    if not (found.startswith("x") and expected.startswith("x")):
        return f"expected {expected}, found {found}"
    ours, theirs = (text.replace("/", ".").split(".") for text in (found, expected))
    if len(ours) != len(theirs):
        return f"expected {len(theirs)} sequences, found {len(ours)}"
    number = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
    now, before = positions(ours[number]), positions(theirs[number])
    sequence = f"sequence {number}, " if len(ours) > 1 else ""
    return f"{sequence}expected token {_some(before - now)}, found {_some(now - before)}"


def _some(tokens: set[int]) -> str:
    shown = sorted(tokens)[:_NAMED]
    more = f" and {len(tokens) - _NAMED} more" if len(tokens) > _NAMED else ""
    return (", ".join(map(str, shown)) + more) or "none in its place"


def _fidelity(found: Measured, stored: Stored) -> Iterator[Difference]:
    if found.agree < stored.agree_at_least:
        expected = f"expected at least {stored.agree_at_least:.3f}, found {found.agree:.3f}"
        yield Difference("fidelity", f"agreement with dense: {expected}")
    if stored.kl_at_most is not None and (found.kl is None or not found.kl <= stored.kl_at_most):
        yield Difference("fidelity", f"KL to dense: expected at most {stored.kl_at_most:.4g}, found {found.kl}")


def kept_all(found: Measured) -> Iterator[Difference]:
    """Compare the method that keeps everything with dense: the one thing that needs no baseline."""
    if found.kept_all is not None and not found.kept_all <= TOLERANCE:
        text = f"keeping everything: off dense by {found.kept_all:.1e} of the largest output"
        yield Difference("keep-all", f"{text} (allowed {TOLERANCE:.0e})")


def _kept_all(found: Measured, stored: Stored) -> Iterator[Difference]:
    if stored.keeps_all and found.kept_all is None:
        yield Difference("keep-all", "keeping everything: the method could, and now refuses to")
    if stored.keeps_all:
        yield from kept_all(found)
