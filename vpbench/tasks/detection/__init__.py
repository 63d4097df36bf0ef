"""Videos with boxes: objects found frame by frame, timed from pixels to boxes, scored by average precision."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import torch

from vpbench.api import Pruner
from vpbench.data.video import DecodeError
from vpbench.errors import UsageError
from vpbench.measure.rounds import Walk
from vpbench.plan import Cell, Setting
from vpbench.rows import fates
from vpbench.rows.schema import Result
from vpbench.tasks.attach import attach, pruner_of
from vpbench.tasks.detection import score
from vpbench.tasks.detection.follow import Follower, Found, Lanes, Look
from vpbench.tasks.detection.predict import Frames, predict
from vpbench.tasks.detection.session import DetectionSession, annotated, check, config_of, digest, load_detector
from vpbench.tasks.detection.walk import FrameWalk, Window, window_length, windows
from vpbench.tasks.detection.watched import as_seen, watched_frames
from vpbench.tasks.task import Attached, Configuration, Pass, Predicted, Read, Seen, Stored, Task


class Detection(Task):
    """Cells that find objects in the same frames."""

    name = "detection"
    unit = "frames"
    tables = ("detections", "clips")
    unread = "clips"
    stage_rounds = 5  # a window has many frames

    def __init__(self, session: DetectionSession) -> None:
        self.session, self.setting = session, session.setting
        self.items, self.setup_s, self.kept = list(session.videos), session.setup_s, {}
        config = session.config
        self.seen = Seen(
            self.name,
            session.frames,
            digest(session.videos),
            None,
            1,
            session.dataset.decoder,
            config.frames,
            config.stride,
            config.side,
            config.tokens,
            sum(p.numel() for p in session.backbone.parameters()),
            config.classes,
        )

    @classmethod
    def digest(cls, setting: Setting) -> str:
        """Return the digest of frames and boxes."""
        config_of(setting)  # its mistakes are named before large sets are read
        return digest(annotated(setting)[1])

    @classmethod
    def calibration_digest(cls, setting: Setting) -> str:
        """Return nothing: no method derives its parameters from frames."""
        return ""

    @classmethod
    def look(cls, setting: Setting) -> tuple[int, Mapping[str, int]]:
        """Return nothing: what is odd about boxes is counted with the detections."""
        return 0, {}

    @classmethod
    def check(cls, settings: Sequence[Setting]) -> None:
        """Look at the options, and at the tensors and classes of the weights."""
        for setting in settings:
            cls._refuse_options(setting)
        check(settings[0])

    @classmethod
    def _refuse_options(cls, setting: Setting) -> None:
        if setting.mode not in cls.modes:
            raise UsageError(
                f"mode {setting.mode} is not there for detectors: what is kept of a frame, and how many proposals it "
                "has, follows from the one before on the host; leave --mode out"
            )
        if setting.train_step:
            raise UsageError("--train-step times the training of classifiers; leave it out for detectors")
        if setting.max_batch and not setting.device.startswith("cuda"):
            raise UsageError("--max-batch is for CUDA devices: a host that runs out of memory kills processes")

    @classmethod
    def open(cls, setting: Setting) -> "Detection":
        """Load annotations and weights."""
        cls._refuse_options(setting)
        return cls(DetectionSession(setting))

    @classmethod
    def alone(
        cls, setting: Setting, configurations: Mapping[str, Configuration], inputs: Sequence[Any]
    ) -> dict[str, Walk]:
        """Build the detector and the walks of configurations over windows."""
        model = load_detector(setting)
        return {
            name: FrameWalk(model, pruner_of(each.method, model, None), inputs) for name, each in configurations.items()
        }

    def steps(self, item: str) -> int:
        """Return the frames of a video."""
        return sum(len(segment.frames) for segment in self.session.videos[item])

    @classmethod
    def changed(cls, setting: Setting, stored: pd.DataFrame) -> set[str]:
        """Return nothing: of the files of frames nothing is stored."""
        return set()

    def attach(self, cell: Cell, frozen: Mapping[str, Any] | None = None) -> Attached:
        """Attach a method to the detector."""
        return attach(cell, self.session.backbone, (), self.kept, frozen)

    def read(self, items: Collection[str]) -> Iterator[Read]:
        """Open videos; their frames are decoded as the first cell comes by."""
        for video_id in (video_id for video_id in self.items if video_id in items):
            segments = self.session.videos[video_id]
            yield Read(video_id, Frames(self.session, video_id, segments))

    def predict(self, dense: Attached, cells: Sequence[Attached], reads: Sequence[Read]) -> Iterator[Predicted]:
        """Find objects in all frames of the videos."""
        return predict(self.session, dense, cells, reads)

    def inputs(self, cells: Sequence[Attached]) -> Sequence[Sequence[Window]]:
        """Decode windows of frames spread over the split."""
        return windows(self.session, window_length([cell.pruner.period for cell in cells]))

    def timed(self, inputs: Sequence[Sequence[Window]]) -> Sequence[str]:
        """Return nothing: what was predicted of these frames is no help, see `FrameWalk.macs`."""
        return ()

    def walk(
        self, cell: Attached, inputs: Sequence[Sequence[Window]], known: Mapping[str, int], batch: int | None = None
    ) -> Walk:
        """Return a cell's way through windows."""
        return FrameWalk(self.session.backbone, cell.pruner, inputs)

    def least(self, inputs: Sequence[Sequence[Window]]) -> Sequence[Sequence[Window]]:
        """Return a dense frame and the one after it, in a batch of segments."""
        return [[window[:2] for window in inputs[0]]]

    def enlarged(self, inputs: Sequence[Sequence[Window]], size: int) -> Sequence[Sequence[Window]]:
        """Return so many windows in lockstep, of two frames each."""
        every = [window[:2] for batch in inputs for window in batch]
        return [[every[k % len(every)] for k in range(size)]]

    def through(self, pruner: Pruner, items: Sequence[str]) -> Pass:
        """Decode the frames of videos one by one and fetch their boxes; decoding is what the model waits for."""
        done, waited = 0, 0.0
        for video_id in items:
            lanes = Lanes(Follower(self.session.backbone, pruner), self.setting.batch)
            frames = Frames(self.session, video_id, self.session.videos[video_id])
            segment = None
            with torch.inference_mode():
                for own, _, look in frames:
                    if isinstance(look, Look):
                        done += _fetched(lanes.add(look, own is not segment))
                        segment = own
                done += _fetched(lanes.flush())
            waited += sum(frames.decode_ms.values()) / 1e3
        return Pass(done, waited)

    def samples_to_show(self) -> Sequence[fates.Sample]:
        """Read the first frames of the first videos."""
        found = []
        for video_id, segments in list(self.session.videos.items())[: fates.CLIPS]:
            try:
                looks = [self.session.look(frame) for frame in segments[0].frames[: fates.FRAMES]]
            except DecodeError:
                continue  # said in the pass before, and counted there
            found.append(fates.Sample(video_id, video_id, as_seen(self.session.backbone, looks), looks))
        return found

    def fate(self, cell: Attached, sample: fates.Sample) -> fates.Fate:
        """Follow the tokens of consecutive frames."""
        return watched_frames(self.session.backbone, sample.given, cell.pruner).fate

    def close(self) -> None:
        """Nothing reads ahead here."""

    @classmethod
    def score(cls, setting: Setting, seen: Seen, own: Stored, dense: Stored, control: Stored | None) -> Result:
        """Return precision, tokens and operations."""
        return score.score(setting, own, dense, control)


def _fetched(found: Sequence[Found]) -> int:
    """Bring boxes to the host, as whoever wants to use them does; returns how many frames they are of."""
    for each in found:
        each.detections.boxes.cpu()
    return len(found)
