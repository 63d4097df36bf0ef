"""From the stored rows of one context to the resampled curves of its methods."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from vpbench.errors import NothingMeasured
from vpbench.rows.answers import UNKNOWN, Answers
from vpbench.rows.names import Names, own_params
from vpbench.rows.schema import Result
from vpbench.rows.statistics.bootstrap import PerClip, Point, Rounds, resample
from vpbench.rows.statistics.intervals import RESAMPLES
from vpbench.rows.statistics.pareto import Curve, Floats
from vpbench.rows.statistics.rounds import StoredRounds

Cost = Literal["gmacs", "time"]
#: one setting of a method: its row, or one row for each seed
Seeds = tuple[Result, ...]
#: points resampled at once: each takes 80 kB and as much again for its cost
_AT_ONCE = 256
#: above so many points in a context fewer resamples are drawn: ends of intervals then vary by a tenth of their width
_MANY, FEWER = 2000, 1000


@dataclass(frozen=True)
class Line:
    """The settings of a method that make one curve; `name` also tells it from other variants of the method."""

    name: str
    method: str
    settings: tuple[Seeds, ...]


def lines(rows: Sequence[Result]) -> list[Line]:
    """Group the rows of a context into curves, dense left out, sorted by name; seeds of one setting are one point."""
    names, by_id = Names(rows), {row["config_id"]: row for row in rows}
    found: dict[tuple[str, str], dict[str, list[Result]]] = {}
    for row in rows:
        if row["method"] != "dense":
            own = found.setdefault((f"{row['method']} {names.variant(row)}".rstrip(), row["method"]), {})
            own.setdefault(_without_seed(row, by_id), []).append(row)
    return [
        Line(name, method, tuple(tuple(seeds) for seeds in own.values()))
        for (name, method), own in sorted(found.items())
    ]


def _without_seed(row: Result, by_id: Mapping[str, Result]) -> str:
    target = by_id.get(row["matched_to"], row)
    return (
        f"{row['matched_to'] is None} {target['method']} {target['keep_nominal']} {sorted(own_params(target).items())}"
    )


class Stored:
    """What is stored of the rows of one context, ready to be resampled; all curves rest on the same videos.

    `quality`: `top1`, or without labels `agree`. `videos [n]`: those that dense and all of `rows` answered. `rows`:
    those with answers. Clips tell how the cost of methods that follow the content varies; without them counted costs
    are the means of the rows. Raises NothingMeasured where there is nothing to make curves from.
    """

    def __init__(
        self, rows: Sequence[Result], videos: pd.DataFrame, samples: pd.DataFrame, clips: pd.DataFrame | None
    ) -> None:
        labelled = any(row["top1"] is not None for row in rows)
        self.quality = "top1" if labelled else "agree"
        answers = Answers([row["config_id"] for row in rows], videos, "correct" if labelled else "agree")
        self.rows = [row for row in rows if (answers.of(row["config_id"]) != UNKNOWN).any()]
        dense = [row for row in self.rows if row["method"] == "dense"]
        if not dense:
            raise NothingMeasured("dense was not measured, or its answers are not stored")
        self._dense = max(dense, key=lambda row: row["timestamp_utc"])["config_id"]
        lines = np.stack([answers.of(row["config_id"]) for row in self.rows])
        common = (lines != UNKNOWN).all(axis=0)
        if not common.any():
            raise NothingMeasured("no video was answered by all")
        self.videos = answers.ids[common]
        self._right = {row["config_id"]: line for row, line in zip(self.rows, lines[:, common] == 1, strict=True)}
        self._rounds = StoredRounds(samples, [row["config_id"] for row in dense])
        self._macs = {} if clips is None else _macs(list(self._right), clips, self.videos)

    def end(self, cost: Cost) -> Point:
        """Return dense, where every curve ends: not to prune is always a choice."""
        one = np.ones(len(self.videos))
        own: PerClip | Rounds = PerClip(one, one) if cost == "gmacs" else Rounds(np.ones(1), np.zeros(1))
        return Point(self._right[self._dense].astype(np.float64), own)

    def point(self, seeds: Seeds, cost: Cost) -> Point | None:
        """Return one setting, its quality the mean over seeds; None where the samples of its rounds are missing."""
        quality = np.mean([self._right[row["config_id"]] for row in seeds], axis=0)
        if cost == "gmacs":
            own = np.mean([self._clip_macs(row) for row in seeds], axis=0)
            return Point(quality, PerClip(own[0], own[1]))
        timed = [rounds for row in seeds if (rounds := self._rounds.against_dense(row)) is not None]
        if len(timed) < len(seeds):
            return None
        return Point(quality, _together(timed))

    def resampled(self, curves: Mapping[str, Sequence[Point]]) -> dict[str, Curve]:
        """Return the curves in the same resamples of videos and rounds, whatever the order."""
        dense, found = self._right[self._dense].astype(np.float64), dict[str, Curve]()
        resamples = RESAMPLES if sum(map(len, curves.values())) <= _MANY else FEWER
        for part in _parts(curves):
            found |= resample(part, dense, self.videos, resamples=resamples)
        return found

    def _clip_macs(self, row: Result) -> tuple[Floats, Floats]:
        own, dense = self._macs.get(row["config_id"]), self._macs.get(self._dense)
        if own is None or dense is None:
            whole = np.ones(len(self.videos))
            return row["gmacs_executed"] * whole, row["gmacs_dense"] * whole
        return own, dense


def _together(timed: Sequence[Rounds]) -> Rounds:
    """Join the rounds of several seeds; those of one process stay together, those of two seeds do not."""
    if len(timed) == 1:
        return timed[0]
    seeds = [np.full(len(each.ratio), number) for number, each in enumerate(timed)]
    process = np.stack([np.concatenate(seeds), np.concatenate([each.process for each in timed])], axis=1)
    labels = np.unique(process, axis=0, return_inverse=True)[1].reshape(-1)
    return Rounds(np.concatenate([each.ratio for each in timed]), labels)


def _parts(curves: Mapping[str, Sequence[Point]]) -> Iterator[dict[str, Sequence[Point]]]:
    part: dict[str, Sequence[Point]] = {}
    for name, points in curves.items():
        if part and sum(map(len, part.values())) + len(points) > _AT_ONCE:
            yield part
            part = {}
        part[name] = points
    if part:
        yield part


def _macs(configs: Sequence[str], clips: pd.DataFrame, videos: Sequence[str] | np.ndarray) -> dict[str, Floats]:
    """Sum multiply-accumulates over the views of each video, `[n]`; only configurations that have all videos."""
    own = clips[clips["config_id"].isin(configs) & clips["video_id"].isin(list(videos)) & clips["macs"].notna()]
    sums = own.groupby(["config_id", "video_id"], observed=True)["macs"].sum()
    table = sums.astype("float64").unstack().reindex(columns=list(videos))
    whole = table[table.notna().all(axis=1)]
    return {str(name): line for name, line in zip(whole.index, whole.to_numpy(dtype=np.float64), strict=True)}
