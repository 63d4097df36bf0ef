"""Stand between a backbone and a pruner's sites for a while."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

#: gets what the method's own site is, then what the site was asked; answers in its place
Stand = Callable[..., Any]


@contextmanager
def standing_in(pruner: object, stands: Mapping[str, Stand]) -> Iterator[None]:
    """Let `stands` answer at the sites they are named by; the pruner is left as it was.

    Sites are replaced on the object itself, so that a backbone which asks for its type still sees the method's own. A
    site that the pruner does not have is left out.
    """
    before = dict(vars(pruner))
    own = {site: getattr(pruner, site) for site in stands if hasattr(pruner, site)}
    for site, asked in own.items():
        setattr(pruner, site, partial(stands[site], asked))
    try:
        yield
    finally:
        for site in own:
            if site in before:
                setattr(pruner, site, before[site])
            else:
                delattr(pruner, site)
