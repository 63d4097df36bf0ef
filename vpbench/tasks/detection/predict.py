"""What each cell finds in the frames of a video, one cell after the other."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from vpbench.api import Pruner
from vpbench.backbones.vitdet import ViTDetConfig
from vpbench.backbones.vitdet.costs import embedding_macs, frame_macs, head_macs, published_frame_macs, pyramid_macs
from vpbench.data.boxes import Frame, Segment
from vpbench.data.video import DecodeError
from vpbench.progress import say
from vpbench.rows.schema import ClipRow
from vpbench.tasks.detection.follow import Follower, Found, Lanes, Layer, Look
from vpbench.tasks.detection.session import DetectionSession
from vpbench.tasks.detection.stored import FrameDetections, table_of
from vpbench.tasks.task import Attached, Predicted, Read

#: bytes of a video's frames that are kept for the next cell; of larger ones each cell decodes its own
KEPT_BYTES = 256_000_000


class Frames:
    """The frames of a video as the detector takes them, decoded once where they are small enough to be kept."""

    def __init__(self, session: DetectionSession, video_id: str, segments: Sequence[Segment]) -> None:
        self.session, self.video_id, self.segments = session, video_id, segments
        self.decode_ms: dict[int, float] = {}
        self._kept: dict[int, Look | DecodeError] = {}
        self._bytes = 0

    def __iter__(self) -> Iterator[tuple[Segment, Frame, Look | DecodeError]]:
        """Yield each frame with what can be seen in it, or why it cannot be read."""
        for segment in self.segments:
            for frame in segment.frames:
                yield segment, frame, self._kept.get(frame.number) or self._look(frame)

    def _look(self, frame: Frame) -> Look | DecodeError:
        began, known = time.perf_counter(), frame.number in self.decode_ms
        try:
            look: Look | DecodeError = self.session.look(frame)
        except DecodeError as error:
            look = error
            if not known:
                say(f"unreadable, counted as failed: {error}")
        self.decode_ms.setdefault(frame.number, 1e3 * (time.perf_counter() - began))
        size = 0 if isinstance(look, DecodeError) else look.pixels.nbytes
        if self._bytes + size <= KEPT_BYTES:
            self._kept[frame.number] = look
            self._bytes += size
        return look


def predict(
    session: DetectionSession, dense: Attached, cells: Sequence[Attached], reads: Sequence[Read]
) -> Iterator[Predicted]:
    """Yield what each cell finds in each video; see `Task.predict`. Nothing is compared with dense here."""
    if dense.error is not None:
        for cell in cells:
            cell.fail(RuntimeError(dense.error))
        return
    for read in reads:
        for cell in cells:
            track = _Track(cell, session, read.given)
            track.run()
            if cell.error is None:
                yield Predicted(cell, read.item, track.tables())


@dataclass
class _Track:
    """One cell's way through one video."""

    cell: Attached
    session: DetectionSession
    frames: Frames
    found: dict[int, FrameDetections] = field(default_factory=dict)
    rows: dict[int, ClipRow] = field(default_factory=dict)

    def run(self) -> None:
        """Look at all frames; after one that cannot be read, or of another size, all begins anew."""
        lanes = Lanes(Follower(self.session.backbone, self.cell.pruner), self.session.setting.batch)
        segment, shape = None, None
        try:
            with torch.inference_mode():
                for own, frame, look in self.frames:
                    shape = shape if own is segment else None
                    segment = own
                    if isinstance(look, DecodeError):
                        self._miss(frame, look)
                        shape = None
                        continue
                    self._keep(lanes.add(look, fresh=look.pixels.shape != shape))
                    shape = look.pixels.shape
                self._keep(lanes.flush())
        except Exception as error:  # one method's failure must not end the others: it becomes its row's status
            self.cell.fail(error)

    def tables(self) -> dict[str, object]:
        """Return detections, and a row for each frame."""
        video_id = self.frames.video_id
        found = table_of(self.cell.cell.prediction_id, video_id, dict(sorted(self.found.items())))
        own: ClipRow = {"video_id": video_id, "view": 0, "batch": self.session.setting.batch}
        rows: list[ClipRow] = [
            {**own, "clip_id": f"{video_id}/{number}", "decode_ms": self.frames.decode_ms.get(number), **row}
            for number, row in sorted(self.rows.items())
        ]
        return {"detections": found, "clips": rows}

    def _miss(self, frame: Frame, error: DecodeError) -> None:
        self.found[frame.number] = FrameDetections.unreadable(str(error))
        self.rows[frame.number] = {"error": str(error)}

    def _keep(self, done: Sequence[Found]) -> None:
        for each in done:
            found, look = each.detections, each.look
            if found.broken and not found.proposals:
                raise ArithmeticError(f"frame {look.number} of {look.video_id}: the outputs hold NaN or infinity")
            self.found[look.number] = FrameDetections(
                found.labels.cpu().numpy(),
                found.scores.float().cpu().numpy(),
                (found.boxes.float() / look.scale).cpu().numpy(),
            )
            self.rows[look.number] = frame_row(self.session.config, self.cell.pruner, each)


def frame_row(config: ViTDetConfig, pruner: Pruner, each: Found) -> ClipRow:
    """Return what a frame took: tokens that asked in each block's attention, and multiply-accumulates."""
    going = config.tokens if each.kept is None else each.kept
    published = published_frame_macs(config, each.kept) + pruner.published_frame_macs(each.kept)
    if each.layers:
        published = published_ran_macs(config, each.layers)
    transformer = transformer_macs(config, pruner, each)
    return {
        "tokens_in": config.tokens,
        "tokens_layer": [n for n, _, _ in each.layers] or [config.tokens, *(going for _ in range(config.depth - 1))],
        "macs": transformer + pyramid_macs(config) + head_macs(config, each.detections.proposals),
        "padding_macs": each.padding,
        "transformer_macs": transformer,
        "rgtp_macs": published,
        "broken": each.detections.broken,
    }


def transformer_macs(config: ViTDetConfig, pruner: Pruner, each: Found) -> int:
    """Multiply-accumulates of transformer and method in one frame."""
    if each.layers:
        return ran_macs(config, each.layers) + each.padding
    return frame_macs(config, each.kept) + pruner.frame_macs(each.kept, each.traced) + each.padding


def ran_macs(config: ViTDetConfig, layers: Sequence[Layer]) -> int:
    """Multiply-accumulates of a frame whose blocks a method ran, without queries that fill up windows."""
    return embedding_macs(config) + sum(macs for _, macs, _ in layers)


def published_ran_macs(config: ViTDetConfig, layers: Sequence[Layer]) -> int:
    """Count the same in RGTP's way: without the patch embedding, with the additions of positions."""
    return config.tokens * config.dim + sum(counted for _, _, counted in layers)
