"""Third pass on a dataset of boxes: ms per frame in interleaved rounds beside dense, and peak memory.

A round takes every configuration through the same frames of a segment, from a dense frame on, and through a whole
number of its periods where that can be: then dense frames have the share of the time that they have in long segments.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch

from vpbench.api import FramePruner
from vpbench.backbones.vitdet.network import Segments, ViTDet
from vpbench.backbones.vitdet.windows import Queries, SquareWindows
from vpbench.data.boxes import Frame
from vpbench.data.video.reader import DecodeError
from vpbench.measure import clock, machine, memory, stages
from vpbench.measure.rounds import TWIN, Timed
from vpbench.progress import Task
from vpbench.rows.schema import Row
from vpbench.tasks.detection.follow import Follower, Found, Look
from vpbench.tasks.detection.predict import frame_row
from vpbench.tasks.detection.session import DetectionSession, FrameReady, peak_job

#: rounds of a block, at least; each is of a window of frames, or of a batch of windows
ROUNDS = 10
#: rounds in which the time of stages is told apart; a window has many frames
STAGE_ROUNDS = 5
#: windows that rounds walk through
WINDOWS = 4
#: frames of a window: so many where segments begin anew after fewer, and at most the second number
SHORTEST, LONGEST = 8, 32
#: end of the names of configurations that run without pyramid and head
TRANSFORMER = "-transformer"
#: classes, besides modules and pruners, whose functions are stages of a frame
PARTS = (Segments, SquareWindows, Queries)
Window = Sequence[Look]


def window_length(periods: Sequence[int]) -> int:
    """Return frames that hold whole periods of all configurations, if that is not too many.

    Where one is dense only once in a segment (period 0), as many as can be: segments are longer still.
    """
    if 0 in periods:
        return LONGEST
    common = math.lcm(*periods)
    return min(LONGEST, common * max(1, -(-SHORTEST // common)))


def windows(session: DetectionSession, length: int) -> list[list[Window]]:
    """Decode batches of windows of one size, spread over the split; shorter windows where no segment is so long."""
    length = min(length, max(len(s.frames) for each in session.videos.values() for s in each))
    segments = [s for each in session.videos.values() for s in each if len(s.frames) >= length]
    places = [s.frames[i : i + length] for s in segments for i in range(0, len(s.frames) - length + 1, length)]
    batch = session.setting.batch
    by_size: dict[torch.Size, list[Window]] = {}
    for number in dict.fromkeys(np.linspace(0, len(places) - 1, WINDOWS * batch).round().astype(int).tolist()):
        if window := _decoded(session, places[number]):
            by_size.setdefault(window[0].pixels.shape, []).append(window)
    found = [each[i : i + batch] for each in by_size.values() for i in range(0, len(each), batch)]
    # a smaller batch would be another configuration; only where nothing else is there, it has to do
    return [each for each in found if len(each) == batch] or found[:1]


def _decoded(session: DetectionSession, frames: Sequence[Frame]) -> Window | None:
    try:
        window = [session.look(frame) for frame in frames]
    except DecodeError:
        return None  # the first pass has already recorded it as a failure
    return window if len({look.pixels.shape for look in window}) == 1 else None


class _Walk:
    """A configuration that goes through windows, and what it found there."""

    def __init__(self, model: ViTDet, pruner: FramePruner, batches: Sequence[Sequence[Window]]) -> None:
        self.follower, self.batches = Follower(model, pruner), batches
        self.seen: dict[int, list[list[Found]]] = {}

    def __call__(self, number: int) -> None:
        """Go through a window, from pixels on the device to boxes."""
        place = number % len(self.batches)
        self.seen[place] = list(self.follower.walk(self.batches[place]))

    def transformer(self, number: int) -> None:
        """Go through a window without pyramid and head: boxes that guide the next frame are those found before."""
        place = number % len(self.batches)
        batch = self.batches[place]
        self.follower.start([window[0] for window in batch])
        for looks, found in zip(zip(*batch, strict=True), self.seen[place], strict=True):
            pixels = torch.stack([look.pixels for look in looks])
            self.follower.transform(pixels, [each.detections for each in found])


def time_block(
    session: DetectionSession,
    dense: FrameReady,
    cells: Sequence[FrameReady],
    batches: Sequence[Sequence[Window]],
    task: Task,
) -> Timed:
    """Time dense, dense again under another name, and `cells`, each once per round in random order.

    All but the second dense are also timed without pyramid and head, under their names with `TRANSFORMER`.
    """
    setting, profile = session.setting, session.setting.effort
    pruners = {dense.cell.config_id: dense.pruner, TWIN: dense.pruner, **{c.cell.config_id: c.pruner for c in cells}}
    walks = {name: _Walk(session.model, pruner, batches) for name, pruner in pruners.items()}
    synchronize = clock.synchronizer(setting.device)
    # the order of rounds is seeded by the block's content, so that a repeated run repeats it
    seed = zlib.crc32(",".join(pruners).encode())
    busy_before = machine.busy_cores()
    variants: dict[str, Callable[[int], object]] = dict(walks)
    variants |= {f"{name}{TRANSFORMER}": walk.transformer for name, walk in walks.items() if name != TWIN}
    with torch.inference_mode():
        for walk in walks.values():
            for number in range(len(batches)):
                walk(number)
        settled = {
            name: clock.warm_up(
                _first(variant), synchronize, min_seconds=profile.warm_up_s, max_seconds=profile.warm_up_max_s
            )
            for name, variant in variants.items()
        }
        samples = clock.time_rounds(
            variants,
            ROUNDS,
            np.random.default_rng(seed),
            synchronize,
            min_seconds=profile.seconds,
            device=setting.device,
            on_round=lambda number: task.advance() if number < ROUNDS else None,
        )
    rounds = 1 + max(s.round for s in samples)
    macs = {r.cell.config_id: _macs(session, r.pruner, walks[r.cell.config_id], rounds) for r in (dense, *cells)}
    frames = len(batches[0]) * len(batches[0][0])
    busy_after = machine.busy_cores()
    own = {name: walk for name, walk in walks.items() if name != TWIN}
    split = _split(session.model, own, seed, synchronize) if setting.stages else {}
    return Timed(samples, frames, settled, macs, busy_before, busy_after, stages=split)


def _split(
    model: ViTDet, walks: Mapping[str, _Walk], seed: int, synchronize: Callable[[], None]
) -> dict[str, list[stages.Split]]:
    """Say where the time of every configuration's frames goes, in rounds of their own over the same windows."""
    parts = {name: (*model.modules(), *PARTS, walk.follower.pruner) for name, walk in walks.items()}
    with torch.inference_mode():
        return stages.time_stages(walks, parts, STAGE_ROUNDS, np.random.default_rng(seed), synchronize)


def _first(variant: Callable[[int], object]) -> Callable[[int], object]:
    return lambda _: variant(0)


def _macs(session: DetectionSession, pruner: FramePruner, walk: _Walk, rounds: int) -> list[int]:
    def of(steps: list[list[Found]]) -> Iterator[int]:
        for found in (found for step in steps for found in step):
            yield frame_row(session.config, pruner, found)["macs"]

    per_batch = [sum(of(walk.seen[place])) for place in range(len(walk.batches))]
    return [per_batch[number % len(per_batch)] for number in range(rounds)]


def peak_memory(session: DetectionSession, ready: FrameReady, batches: Sequence[Sequence[Window]]) -> Row:
    """Return the memory columns of one cell over a dense frame and the one after it, in batches of segments."""
    setting, groups = session.setting, [window[:2] for window in batches[0]]
    if setting.device.startswith("cuda"):
        follower = Follower(session.model, ready.pruner)
        with torch.inference_mode():
            peak = memory.cuda_peak(lambda: list(follower.walk(groups)), setting.device)
        return {
            "mem_weights_mb": peak.weights_mb,
            "mem_peak_alloc_mb": peak.peak_alloc_mb,
            "mem_peak_reserved_mb": peak.peak_reserved_mb,
            "mem_device_mb": peak.device_mb,
        }
    plain = [[(look.video_id, look.number, look.pixels.numpy(), look.scale) for look in group] for group in groups]
    host = memory.measure_peak(peak_job, setting, ready.method, plain, name=ready.cell.label)
    return {"mem_weights_mb": host.weights_mb, "mem_peak_rss_mb": host.peak_mb}
