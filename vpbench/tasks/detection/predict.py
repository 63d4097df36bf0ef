"""First pass on a dataset of boxes: what each cell finds, with one decode of every frame for all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from vpbench.api import Pruner
from vpbench.backbones.vitdet import ViTDetConfig
from vpbench.backbones.vitdet.costs import frame_macs, head_macs, published_frame_macs, pyramid_macs
from vpbench.data.boxes import Frame, Segment
from vpbench.data.video.reader import DecodeError
from vpbench.progress import Task, say
from vpbench.rows.schema import Row
from vpbench.rows.store import Store
from vpbench.tasks.attach import Attached
from vpbench.tasks.detection import stored
from vpbench.tasks.detection.follow import Follower, Found, Lanes, Look
from vpbench.tasks.detection.session import DetectionSession
from vpbench.tasks.detection.stored import FrameDetections


def measure(
    session: DetectionSession,
    cells: Sequence[Attached],
    store: Store,
    run_id: str,
    repeat: Callable[[str], bool],
    task: Task,
) -> list[float]:
    """Write detections and one row per frame of each cell, video by video.

    Videos that are there are left alone, unless `repeat` says so. A cell that fails is marked and left out from there
    on. Returns the decode times in ms per frame.
    """
    decode_ms: list[float] = []
    for video_id, segments in session.videos.items():
        again = repeat(video_id)
        todo = [c for c in cells if c.error is None and (again or not _done(store, c, video_id))]
        if not todo:
            task.advance(sum(len(segment.frames) for segment in segments))
            continue
        tracks = [_Track(ready, session) for ready in todo]
        _follow(session, segments, tracks, decode_ms, task)
        for track in tracks:
            track.end()
            if track.ready.error is None:
                _write(store, run_id, track, video_id)
    return decode_ms


def part_name(config_id: str, video_id: str) -> str:
    """Name of the part file that holds a cell's rows of one video."""
    return f"{config_id}-{video_id}"


def _done(store: Store, ready: Attached, video_id: str) -> bool:
    config_id = ready.cell.config_id
    there = stored.has(store.folder, config_id, video_id)
    return there and store.has("clips", part_name(config_id, video_id))


def _write(store: Store, run_id: str, track: _Track, video_id: str) -> None:
    """Write the detections, then the rows: where these are, the others are too."""
    config_id = track.ready.cell.config_id
    stored.write(store.folder, config_id, video_id, dict(sorted(track.found.items())))
    own = {"run_id": run_id, "config_id": config_id, "video_id": video_id, "view": 0}
    rows = [{**own, "clip_id": f"{video_id}/{number}", **row} for number, row in sorted(track.rows.items())]
    store.write("clips", part_name(config_id, video_id), rows)


def _follow(
    session: DetectionSession, segments: Sequence[Segment], tracks: Sequence[_Track], decode_ms: list[float], task: Task
) -> None:
    """Show the frames of one video to all cells; after one that cannot be read, or of another size, all begin anew."""
    for segment in segments:
        shape = None
        for frame in segment.frames:
            task.advance()
            look = _look(session, frame, decode_ms)
            if isinstance(look, DecodeError):
                for track in tracks:
                    track.miss(frame, look)
                shape = None
                continue
            for track in tracks:
                track.add(look, fresh=look.pixels.shape != shape)
            shape = look.pixels.shape


def _look(session: DetectionSession, frame: Frame, decode_ms: list[float]) -> Look | DecodeError:
    began = time.perf_counter()
    try:
        look = session.look(frame)
    except DecodeError as error:
        say(f"unreadable, counted as failed: {error}")
        return error
    decode_ms.append((time.perf_counter() - began) * 1e3)
    return look


@dataclass
class _Track:
    """One cell's way through one video."""

    ready: Attached
    session: DetectionSession
    found: dict[int, FrameDetections] = field(default_factory=dict)
    rows: dict[int, Row] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.lanes = Lanes(Follower(self.session.model, self.ready.pruner), self.session.setting.batch)

    def add(self, look: Look, fresh: bool) -> None:
        self._run(lambda: self.lanes.add(look, fresh))

    def end(self) -> None:
        self._run(self.lanes.flush)

    def miss(self, frame: Frame, error: DecodeError) -> None:
        self.found[frame.number] = FrameDetections.unreadable(str(error))
        self.rows[frame.number] = {"error": str(error)}

    def _run(self, frames: Callable[[], list[Found]]) -> None:
        if self.ready.error is not None:
            return
        try:
            with torch.inference_mode():
                done = frames()
            for each in done:
                self._keep(each)
        except Exception as error:  # one method's failure must not end the others: it becomes its row's status
            self.ready.fail(error)

    def _keep(self, each: Found) -> None:
        found, look = each.detections, each.look
        if found.broken and not found.proposals:
            raise ArithmeticError(f"frame {look.number} of {look.video_id}: the outputs hold NaN or infinity")
        self.found[look.number] = FrameDetections(
            found.labels.cpu().numpy(),
            found.scores.float().cpu().numpy(),
            (found.boxes.float() / look.scale).cpu().numpy(),
        )
        self.rows[look.number] = frame_row(self.session.config, self.ready.pruner, each)


def frame_row(config: ViTDetConfig, pruner: Pruner, each: Found) -> Row:
    """Return what a frame took: tokens that asked in each block's attention, and multiply-accumulates."""
    going = config.tokens if each.kept is None else each.kept
    transformer = frame_macs(config, each.kept) + pruner.frame_macs(each.kept, each.traced) + each.padding
    return {
        "tokens_in": config.tokens,
        "tokens_layer": [config.tokens, *(going for _ in range(config.depth - 1))],
        "macs": transformer + pyramid_macs(config) + head_macs(config, each.detections.proposals),
        "padding_macs": each.padding,
        "transformer_macs": transformer,
        "rgtp_macs": published_frame_macs(config, each.kept) + pruner.published_frame_macs(each.kept),
        "broken": each.detections.broken,
    }
