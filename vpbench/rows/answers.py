"""Which videos each configuration got right, side by side, so that any two can be compared video by video."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vpbench.errors import NothingMeasured
from vpbench.rows import kinds
from vpbench.rows.contexts import MEASURED
from vpbench.rows.schema import Result
from vpbench.rows.statistics import paired as statistics_paired

UNKNOWN = -1


class Answers:
    """Answers of some configurations to the same videos.

    videos: rows of the videos table, of these configurations and others. `column`: `correct`, or `agree` (with dense).
    `ids [V]` names the videos that any of the configurations answered.
    """

    def __init__(
        self, configs: Sequence[str], videos: pd.DataFrame, column: Literal["correct", "agree"] = "correct"
    ) -> None:
        self._line = {name: number for number, name in enumerate(dict.fromkeys(configs))}
        own = videos[videos["config_id"].isin(list(self._line)) & videos[column].notna()]
        place, names = pd.factorize(own["video_id"])
        self.ids: NDArray[np.str_] = np.asarray(names, dtype=str)
        self._right = np.full((len(self._line), len(self.ids)), UNKNOWN, np.int8)
        line = own["config_id"].map(self._line).to_numpy(dtype=np.intp)
        # of a video that was answered twice the last answer counts
        self._right[line, place] = own[column].to_numpy(dtype=bool)

    def of(self, config_id: str) -> NDArray[np.int8]:
        """Return 1, 0 or `UNKNOWN` for each video, `[V]`. Raises KeyError for a configuration not asked for."""
        return self._right[self._line[config_id]]

    def paired(self, reference: str, own: str) -> statistics_paired.PairedDifference | None:
        """Compare two configurations on the videos that both answered; None where there is none."""
        before, after = self.of(reference), self.of(own)
        both = (before != UNKNOWN) & (after != UNKNOWN)
        if not both.any():
            return None
        return statistics_paired.paired_difference(before[both] == 1, after[both] == 1, self.ids[both])


def answered(rows: Sequence[Result]) -> tuple[list[Result], Result]:
    """Return the rows of a context whose answers were right or wrong, and the newest dense one of them.

    Raises NothingMeasured without labels, trained weights or dense, and for detectors.
    """
    found = [row for row in rows if row["status"] in MEASURED and row["top1"] is not None]
    dense = [row for row in found if row["method"] == "dense"]
    if dense:
        return found, max(dense, key=lambda row: row["timestamp_utc"])
    if rows and kinds.detects(rows[0]):
        raise NothingMeasured("detectors have no answer per video that is right or wrong")
    raise NothingMeasured("dense was not measured" if found else "no labels or no trained weights")
