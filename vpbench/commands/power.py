"""`vpbench power`: which loss so many videos can rule out, and how many it takes."""

from pathlib import Path
from typing import Annotated

import typer

from vpbench.commands.options import Results, stored, warn
from vpbench.errors import NothingMeasured, UsageError

#: shares of answers that change, in per cent, where neither options nor results say one
_SHARES = (1.0, 2.0, 5.0, 10.0)
#: margins and numbers beyond which the odds take minutes to compute
_LEAST, _MOST = 0.01, 1_000_000_000


def power(
    results: Results = None,
    clips: Annotated[int | None, typer.Option(help="labelled videos (default: those of RESULTS)")] = None,
    cells: Annotated[
        int | None, typer.Option(help="settings compared at once (default: those of RESULTS, or 1)")
    ] = None,
    margin: Annotated[float, typer.Option(help="the loss to rule out, in points")] = 1.0,
    changed: Annotated[
        float | None,
        typer.Option(
            help="share of videos, in %, that dense and a setting answer differently (default: as in RESULTS)"
        ),
    ] = None,
) -> None:
    """Say which loss so many videos can rule out, for all settings at once, and how many it takes for a margin."""
    from vpbench.rows.statistics import power as statistics

    if not _LEAST <= margin < 100:
        raise UsageError(f"--margin {margin:g}: give a loss between {_LEAST:g} and 100 points")
    if any(given is not None and not 1 <= given <= _MOST for given in (clips, cells)):
        raise UsageError(f"--clips and --cells: give whole numbers from 1 to {_MOST:,}")
    if changed is not None and not 0 <= changed <= 100:
        raise UsageError(f"--changed {changed:g}: give a share in %, from 0 to 100")
    for label, videos, among, shares in _asked(results, clips, cells, changed):
        heading = f"{label}: " if label else ""
        many = f"{videos:,} video{'s' * (videos != 1)}, {among:,} setting{'s' * (among != 1)}"
        typer.echo(f"{heading}{many} compared at once")
        for share in shares:
            typer.echo(statistics.report(videos, share / 100, among, margin))


def _asked(
    results: Path | None, clips: int | None, cells: int | None, changed: float | None
) -> list[tuple[str, int, int, tuple[float, ...]]]:
    """Return what to answer: a label, videos, settings and shares of changed answers in per cent, for each context."""
    shares = _SHARES if changed is None else (changed,)
    if results is None and clips is not None:
        return [("", clips, cells or 1, shares)]
    from vpbench.rows.contexts import contexts, records
    from vpbench.rows.statistics.power import seen

    store, rows = stored(results)
    warn(store)
    known = [(label, found) for label, group in contexts(rows) if (found := seen(records(group))) is not None]
    if not known:
        raise NothingMeasured(
            "no setting there has a difference to dense in labelled videos: give --clips and --changed"
        )
    return [
        (label, clips or videos, cells or among, (100 * share,) if changed is None else shares)
        for label, (videos, among, share) in known
    ]
