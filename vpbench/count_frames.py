"""Count multiply-accumulates of a detector's frames, dense and pruned, without weights and without data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vpbench import published
from vpbench.api import FramePruner
from vpbench.backbones.vitdet_config import ViTDetConfig
from vpbench.backbones.vitdet_macs import frame_macs, head_macs, published_frame_macs, pyramid_macs
from vpbench.count import said
from vpbench.errors import UsageError
from vpbench.plan import Cell
from vpbench.tasks.detection_cells import attach, config_of

#: share of dense frames where every `PERIOD`-th of a segment is one, in the segments of ImageNet VID's validation
DENSE_SHARE, PERIOD = 0.1266, 8
#: share, at least, of frames just before a dense one: each of the 555 segments of these 176126 frames has one less
LAST_SHARE = DENSE_SHARE - 555 / 176126


@dataclass(frozen=True)
class FrameCount:
    """Multiply-accumulates of one frame: the transformer's and the method's, as they run here and in RGTP's way."""

    ours: float
    rgtp: float

    def mixed(self, other: FrameCount, share: float) -> FrameCount:
        """Return the mean of frames of which `share` are like this one and the rest like the other."""
        rest = 1 - share
        return FrameCount(share * self.ours + rest * other.ours, share * self.rgtp + rest * other.rgtp)


@dataclass(frozen=True)
class Counts:
    """What one cell's frames cost; `mean` of VID's validation frames is None where the share of dense ones is unknown.

    `kept`: tokens that go on in a pruned frame; None, like `pruned`, where no frame is. `last`: a pruned frame just
    before a dense one, which guides none; None like `pruned`, or where only a segment's first frame is dense.
    """

    label: str
    kept: int | None
    dense: FrameCount
    pruned: FrameCount | None
    last: FrameCount | None
    mean: FrameCount | None


def counts(cell: Cell) -> Counts:
    """Count one cell; raises UsageError where the method cannot run on the detector."""
    config = config_of(cell.setting)
    method, pruner = attach(cell, config)
    if pruner.period == 1:
        whole = frame_count(config, pruner, None)
        return Counts(cell.label, None, whole, None, None, whole)
    kept = method.kept(config)
    if kept is None:
        raise UsageError(f"{cell.label} follows the content of frames and has to be measured with `vpbench run`")
    dense, pruned = frame_count(config, pruner, None), frame_count(config, pruner, kept)
    last = frame_count(config, pruner, kept, guides=False) if pruner.period else None
    mean = None
    if pruner.period == PERIOD and last is not None:
        mean = dense.mixed(last.mixed(pruned, LAST_SHARE / (1 - DENSE_SHARE)), DENSE_SHARE)
    return Counts(cell.label, kept, dense, pruned, last, mean)


def frame_count(config: ViTDetConfig, pruner: FramePruner, kept: int | None, guides: bool = True) -> FrameCount:
    """Count one frame of which `kept` tokens go on (None: all); `guides`: whether the next frame is pruned."""
    return FrameCount(
        frame_macs(config, kept) + pruner.macs(kept, traced=guides),
        published_frame_macs(config, kept) + pruner.published_macs(kept),
    )


def report(cells: Sequence[Cell], tokens: Sequence[int], preset: str) -> Iterator[str]:
    """Yield a table of the cells' counts, dense first, with the published figures of the preset and the detector."""
    if tokens:
        raise UsageError("--tokens is for methods whose count follows the clip; on detectors give --keep or --set")
    name, config = cells[0].setting.backbone, config_of(cells[0].setting)
    found = list(dict.fromkeys(counts(cell) for cell in cells))
    yield f"{name}: the transformer and the method, per frame, GMACs (multiply-accumulates / 1e9)"
    yield from _table(found)
    yield (
        "RGTP's way: without the patch embedding, with additions of biases, residuals and positions; all windows and "
        "all queries' positions, rollout by whole maps and in every frame"
    )
    if any(each.last != each.pruned and each.last for each in found):
        yield (
            "ours: frames that guide the next; the last before a dense one guides none and has no rollout, "
            f"{100 * LAST_SHARE:.2f} % of the frames in the mean"
        )
    yield (
        f"mean: {100 * DENSE_SHARE:.2f} % of the frames dense, as where every {PERIOD}th frame of a segment is, in "
        "ImageNet VID's validation videos"
    )
    yield (
        f"on top, in every frame: {pyramid_macs(config) / 1e9:.2f} for the pyramid, "
        f"{head_macs(config, 0) / 1e9:.2f} to {head_macs(config) / 1e9:.2f} for the head, by the number of proposals"
    )
    for figure in published.figures():
        cost = figure.metric.startswith("gmacs_per_") and figure.backbone == name
        if figure.preset == preset != "" or (cost and figure.method == "dense"):
            yield "published: " + said(figure)


def _table(found: Sequence[Counts]) -> Iterator[str]:
    wide = max(len(each.label) for each in found)
    yield " " * wide + "     tokens          dense frame         pruned frame                 mean"
    yield " " * wide + "       kept     ours  RGTP's way     ours  RGTP's way     ours  RGTP's way"
    for each in found:
        kept = "all" if each.kept is None else str(each.kept)
        cells = "".join(_pair(one) for one in (each.dense, each.pruned, each.mean))
        yield f"{each.label:<{wide}}{kept:>11}{cells}".rstrip()


def _pair(count: FrameCount | None) -> str:
    return " " * 21 if count is None else f"{count.ours / 1e9:>9.2f}{count.rgtp / 1e9:>12.2f}"
