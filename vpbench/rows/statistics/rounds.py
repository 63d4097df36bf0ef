"""The rounds of the samples table, found again for the rows of the results table that were made from them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vpbench.rows.schema import Row
from vpbench.rows.statistics import intervals
from vpbench.rows.statistics.bootstrap import Rounds


@dataclass(frozen=True)
class _Series:
    """One configuration in one block: process and round `[k]`, and wall-clock `[k]`."""

    process: NDArray[np.int64]
    number: NDArray[np.int64]
    wall: NDArray[np.float64]

    def beside(self, other: _Series) -> bool:
        same = np.array_equal(self.process, other.process) and np.array_equal(self.number, other.number)
        return same and bool((self.wall > 0).all())


class StoredRounds:
    """Rounds by row. Dense is timed in every block of a run under one name, and samples do not name their block.

    The block of a row is that whose median ratio is the row's speed-up, which was computed from it.
    """

    def __init__(self, samples: pd.DataFrame, dense: Iterable[str]) -> None:
        self._dense = list(dict.fromkeys(dense))
        kept = samples[(samples["scope"] == "model") & ~samples["dropped"].astype(bool)]
        columns = [kept[name].to_numpy(dtype=np.int64) for name in ("process", "round")]
        wall = kept["wall_ns"].to_numpy(dtype=np.float64)
        owners = kept["run_id"].astype(str) + "/" + kept["config_id"].astype(str)
        self._series = {
            str(owner): list(_blocks(columns[0][at], columns[1][at], wall[at]))
            for owner, at in kept.groupby(owners.to_numpy(), sort=False).indices.items()
        }

    def against_dense(self, row: Row) -> Rounds | None:
        """Return dense's time over the row's own, round by round; None where the samples of the row are not there."""
        found = self._block(row)
        return None if found is None else Rounds(found[0].wall / found[1].wall, found[1].process)

    def speedup(self, row: Row, reference: Row) -> intervals.Interval | None:
        """Return the speed-up over another row with its 95 % interval; None unless both were timed side by side."""
        own, other = self._block(row), self._block(reference)
        if own is None or other is None or own[0] is not other[0]:
            return None
        return intervals.speedup(other[1].wall, own[1].wall, own[1].process)

    def _block(self, row: Row) -> tuple[_Series, _Series] | None:
        """Return the rounds of dense and of the row, in the block that the row comes from."""
        if row["speedup"] is None:
            return None
        for own in self._series.get(f"{row['run_id']}/{row['config_id']}", []):
            for name in self._dense:
                for dense in self._series.get(f"{row['run_id']}/{name}", []):
                    if own.beside(dense) and math.isclose(np.median(dense.wall / own.wall), row["speedup"]):
                        return dense, own
        return None


def _blocks(process: NDArray[np.int64], number: NDArray[np.int64], wall: NDArray[np.float64]) -> Iterable[_Series]:
    """Cut the samples of one configuration of a run where its rounds begin anew: in another block."""
    order = process * (int(number.max()) + 1) + number
    starts = [0, *(np.flatnonzero(np.diff(order) <= 0) + 1).tolist(), len(order)]
    for first, last in itertools.pairwise(starts):
        yield _Series(process[first:last], number[first:last], wall[first:last])
