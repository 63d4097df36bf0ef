"""Watch a pruner at its sites while a backbone runs, and note which tokens are left after each."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor

from vpbench.api import Pruner, Selection, Tokens
from vpbench.commands.check.facts import written
from vpbench.measure.watch.sites import standing_in

#: sites whose answer says which tokens are left
SITES = ("video", "after_attention", "after_block", "frame")


@contextmanager
def recording(pruner: Pruner) -> Iterator[dict[str, str]]:
    """Yield the sets by site, which fill while the pruner is in use; it is left as it was."""
    seen: dict[str, str] = {}
    with standing_in(pruner, {site: partial(_watched, site, seen) for site in SITES}):
        yield seen


def whole_numbers(record: dict[str, Tensor]) -> dict[str, str]:
    """Return the whole-numbered ones of a pruner's intermediate values: slices and windows that it chose."""
    return {
        name: " ".join(map(str, value.flatten().tolist()))
        for name, value in record.items()
        if not value.is_floating_point()
    }


def _watched(site: str, seen: dict[str, str], asked: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    result = asked(*arguments, **named)
    if (sets := _sets(result, arguments)) is not None:
        block = f" {arguments[0]}" if isinstance(arguments[0], int) else ""
        seen[site + block] = "/".join(filter(None, [seen.get(site + block, ""), ".".join(map(written, sets))]))
    return result


def _sets(result: Any, arguments: Sequence[Any]) -> list[list[int]] | None:
    """Return the positions of each sequence that a site left, or None where it left all as they were."""
    if isinstance(result, Selection):
        return [each.tolist() for each in result.index.split(result.lengths)]
    if isinstance(result, Tokens):
        given = next((each for each in arguments if isinstance(each, Tokens)), None)
        unchanged = given is not None and result.index is given.index
        return None if unchanged else [each.tolist() for each in result.split(result.index)]
    if isinstance(result, Tensor):
        return result.tolist()
    return None
