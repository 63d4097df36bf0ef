"""What the benchmarks of full-size backbones share: real clips, interleaved rounds, and where lost time went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from vpbench.api import Classifier, Clip, ClipBatch, Pruner
from vpbench.data.protocols.spatial import Bilinear
from vpbench.data.video import decode, open_reader
from vpbench.data.video.reader import frame_indices
from vpbench.measure import clock, stages
from vpbench.rows.statistics import intervals


def windows(paths: Sequence[Path], frames: int, stride: int) -> list[Clip]:
    """Cut each video into windows of frames `stride` apart, one after another, 224 x 224."""
    clips, centre = [], Bilinear(1)
    for path in paths:
        with open_reader(path, "pyav") as reader:
            total = len(reader)
        for start in range(0, max(total - frames * stride, 0) + 1, frames * stride):
            indices = [start + i for i in frame_indices(total - start, frames, stride)]
            (pixels,) = centre.crops(centre.resized(decode(path, indices, "pyav"), 224, 224), 224, 224)
            clips.append(Clip(f"{path.stem}-{start}", path.stem, 0, 0, pixels))
    return clips


def macs(model: Classifier, pruner: Pruner, batch: ClipBatch) -> int:
    """Multiply-accumulates of one clip, the method's own included."""
    out = model(batch, pruner)
    return int(out.macs[0]) + pruner.macs(tuple(c.attention[0] for c in out.counts))


def speed(
    model: Classifier, pruners: Mapping[str, Pruner], batches: Sequence[ClipBatch], rounds: int, least: float
) -> list[str]:
    """Time interleaved rounds of dense (twice) and all pruners; print speed-ups beside ratios of multiply-accumulates.

    Returns what turns less than `least` of its ratio into speed.
    """

    def walk(pruner: Pruner) -> Callable[[int], object]:
        return lambda number: model(batches[number % len(batches)], pruner)

    variants = {name: walk(pruner) for name, pruner in (*pruners.items(), ("dense again", pruners["dense"]))}
    for variant in variants.values():
        variant(0)
    synchronize = clock.synchronizer("cpu")
    samples = clock.time_rounds(variants, rounds, np.random.default_rng(0), synchronize)
    wall = {name: np.array([s.wall_ns for s in samples if s.name == name], float) for name in variants}
    cost = {name: np.resize([macs(model, p, b) for b in batches], rounds) for name, p in pruners.items()}
    missed = []
    print(f"{'':<12}{'ms/clip':>9}{'GMACs':>8}{'speed-up':>10}  {'95 % interval':<16}{'MACs ratio':>11}{'of it':>7}")
    for name, times in wall.items():
        own = cost.get(name, cost["dense"])
        gain = intervals.speedup(wall["dense"], times, np.zeros(rounds, int))
        total, ratio = wall["dense"].sum() / times.sum(), cost["dense"].sum() / own.sum()
        print(
            f"{name:<12}{np.median(times) / 1e6 / len(batches[0].ids):>9.0f}{own.mean() / 1e9:>8.1f}{total:>10.2f}  "
            f"{f'[{gain.lo:.2f}, {gain.hi:.2f}]':<16}{ratio:>11.2f}{total / ratio:>7.2f}"
        )
        if not name.startswith("dense") and total / ratio < least:
            missed.append(f"{name} turns {total / ratio:.2f} of the ratio into speed")
    return missed


def print_losses(
    runs: Sequence[Callable[[int], object]], owners: Sequence[Sequence[object]], ratio: float, rounds: int
) -> None:
    """Print where the time went that a pruned run takes beyond dense divided by the ratio of multiply-accumulates.

    runs: dense and pruned; owners: all that takes part in each, see `stages.watched`. A stage's loss is what it takes
    in a pruned run beyond its share, one `ratio`-th, of what it takes in a dense one.
    """
    spent: list[Counter[str]] = [Counter(), Counter()]
    for number in range(rounds):
        for run, parts, total in zip(runs, owners, spent, strict=True):
            with stages.watched(parts, clock.synchronizer("cpu")) as stopwatch:
                total.update(stopwatch.split(partial(run, number)).ns)
    whole_dense, whole = (total.total() for total in spent)
    lost = whole - whole_dense / ratio
    print(
        f"of {whole / 1e6 / rounds:.0f} ms pruned, {lost / 1e6 / rounds:.0f} beyond dense / ratio, {lost / whole:.1%}"
    )
    for stage, took in spent[1].items():
        if took:
            own = took - spent[0][stage] / ratio
            print(f"  {stage:<20}{took / whole:>7.1%} of the time, {own / whole:>6.1%} lost")
