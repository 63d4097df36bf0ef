"""A table of counts of a detector's frame, beside published figures."""

from collections.abc import Iterator, Sequence

from vpbench.backbones.vitdet.costs import head_macs, pyramid_macs
from vpbench.commands.flops.clips import printed
from vpbench.errors import UsageError
from vpbench.plan import Cell
from vpbench.tasks.detection.count import (
    DENSE_SHARE,
    FIRST_SHARE,
    LAST_SHARE,
    PERIOD,
    Counts,
    FrameCount,
    counts,
    detector,
)


def report(cells: Sequence[Cell], tokens: Sequence[int], preset: str) -> Iterator[str]:
    """Yield a table of the cells' counts, dense first, with the published figures of the preset and the detector."""
    if tokens:
        raise UsageError("--tokens is for methods whose count follows the clip; on detectors give --keep or --set")
    name, model = cells[0].setting.backbone, detector(cells[0].setting)
    config = model.config
    found = list(dict.fromkeys(counts(model, cell) for cell in cells))
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
    if any(each.pruned and each.last is None for each in found):
        yield f"without resets: {100 * FIRST_SHARE:.2f} % of the frames dense, the first of each segment"
    yield (
        f"on top, in every frame: {pyramid_macs(config) / 1e9:.2f} for the pyramid, "
        f"{head_macs(config, 0) / 1e9:.2f} to {head_macs(config) / 1e9:.2f} for the head, by the number of proposals"
    )
    yield from printed(name, preset)


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
