"""The rounds of the samples table, found again for the rows of the results table that were made from them."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vpbench.rows.schema import Result
from vpbench.rows.statistics import intervals
from vpbench.rows.statistics.bootstrap import Rounds


@dataclass(frozen=True)
class _Series:
    """One configuration in one block: process and round `[k]`, and wall-clock `[k]`."""

    process: NDArray[np.int64]
    number: NDArray[np.int64]
    wall: NDArray[np.float64]

    def beside(self, other: "_Series") -> bool:
        same = np.array_equal(self.process, other.process) and np.array_equal(self.number, other.number)
        return same and bool((self.wall > 0).all())


class StoredRounds:
    """Rounds by row. Configurations of one block were timed side by side; dense was in every block.

    Rows of older tables do not name their block, but their samples do, by run.
    """

    def __init__(self, samples: pd.DataFrame, dense: Iterable[str]) -> None:
        self._dense = list(dict.fromkeys(dense))
        known = (samples["scope"] == "model") & samples["block"].notna() & ~samples["dropped"].astype(bool)
        kept = samples[known].sort_values(["process", "round"], kind="stable")
        process, number = (kept[name].to_numpy(dtype=np.int64) for name in ("process", "round"))
        wall = kept["wall_ns"].to_numpy(dtype=np.float64)
        owners = kept["block"].astype(str) + "/" + kept["config_id"].astype(str)
        self._blocks: dict[str, list[str]] = {}
        for block, config_id in kept[["block", "config_id"]].drop_duplicates().itertuples(index=False):
            self._blocks.setdefault(str(config_id), []).append(str(block))
        self._series = {
            str(owner): _Series(process[at], number[at], wall[at])
            for owner, at in kept.groupby(owners.to_numpy(), sort=False).indices.items()
        }

    def against_dense(self, row: Result) -> Rounds | None:
        """Return dense's time over the row's own, round by round; None where the samples of the row are not there."""
        own = self._of(row, row["config_id"])
        dense = next((found for name in self._dense if (found := self._of(row, name)) is not None), None)
        if own is None or dense is None or not own.beside(dense):
            return None
        return Rounds(dense.wall / own.wall, own.process)

    def speedup(self, row: Result, reference: Result) -> intervals.Interval | None:
        """Return the speed-up over another row with its 95 % interval; None unless both were timed side by side."""
        # dense and controls may have a row of another block, and still have been timed in this one
        own, other = self._of(row, row["config_id"]), self._of(row, reference["config_id"])
        if own is None or other is None or not own.beside(other):
            return None
        return intervals.speedup(other.wall, own.wall, own.process)

    def _of(self, row: Result, config_id: str) -> _Series | None:
        """Return the rounds of a configuration in the block that a row comes from."""
        block = row["block"]
        if block is None:
            named = self._blocks.get(row["config_id"], [])
            block = next((name for name in named if name.startswith(f"{row['run_id']}-")), None)
        return self._series.get(f"{block}/{config_id}")
