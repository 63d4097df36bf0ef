"""Clips with one label per video: classified, timed from pixels to logits, scored by accuracy."""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import pandas as pd
import torch

from vpbench.api import Clip, ClipBatch, Pruner, Video, manifest_digest
from vpbench.backbones import loading
from vpbench.backbones.loading import load_backbone
from vpbench.data.feed import Feed
from vpbench.data.state import FileState, changed, state_of
from vpbench.errors import UsageError
from vpbench.measure.execution import MODES, forward_of
from vpbench.measure.rounds import Walk
from vpbench.measure.watch.clips import as_seen, watched
from vpbench.plan import Cell, Setting
from vpbench.progress import say
from vpbench.rows import fates
from vpbench.rows.schema import Result
from vpbench.tasks.attach import attach, pruner_of
from vpbench.tasks.recognition import score
from vpbench.tasks.recognition.predict import predict
from vpbench.tasks.recognition.session import Session, batch_for, listed, open_dataset, questions_of
from vpbench.tasks.recognition.walk import ClipWalk, TrainingSteps, batches_of
from vpbench.tasks.task import Attached, Configuration, Pass, Predicted, Read, Seen, Stored, Task


class Recognition(Task):
    """Cells that classify the same clips."""

    name = "recognition"
    unit = "videos"
    tables = ("clips", "videos")
    unread = "videos"
    modes = MODES

    def __init__(self, session: Session) -> None:
        self.session, self.setting = session, session.setting
        self.items = [video.video_id for video in session.videos]
        self.setup_s, self.kept = session.setup_s, session.kept
        self._batched: tuple[Sequence[Clip], Sequence[ClipBatch]] = ((), ())
        config = session.config
        self.seen = Seen(
            self.name,
            len(session.videos),
            manifest_digest(session.videos),
            session.protocol.name,
            session.views,
            self.setting.decoder,
            config.frames,
            config.stride,
            config.height,
            session.backbone.grid.tokens,
            sum(p.numel() for p in session.backbone.parameters()),
            config.classes,
            _json(session.dataset.problems(self.setting.split)),
            session.backbone.costs,
            session.backbone.repositioned,
        )

    @classmethod
    def digest(cls, setting: Setting) -> str:
        """Return the digest of the list of videos."""
        return manifest_digest(open_dataset(setting).videos(setting.split)[: setting.limit])

    @classmethod
    def calibration_digest(cls, setting: Setting) -> str:
        """Return the digest of the list of calibration videos, and of what is in them."""
        try:
            videos = open_dataset(setting).calibration()
        except UsageError:
            return ""  # said, with its reason, to the first method that looks at them
        states = [state_of(video, content=True) for video in videos]
        contents = [None if state is None else (state.size, state.content) for state in states]
        return hashlib.sha256(f"{manifest_digest(videos)} {contents}".encode()).hexdigest()

    @classmethod
    def look(cls, setting: Setting) -> tuple[int, Mapping[str, int]]:
        """Look at the list of videos, at whether any is there, and at the number of classes; notes are counted too."""
        dataset = open_dataset(setting)
        videos = listed(setting, dataset)
        if not any(video.path.exists() for video in videos):
            raise UsageError(
                f"{setting.dataset} {setting.split}: none of the {len(videos)} listed videos is in {dataset.root} "
                f"(first: {videos[0].path}); give the --root of these videos, or the list of those that are there"
            )
        outputs = loading.outputs(setting.backbone, setting.weights, setting.weights_key, setting.dataset)
        if outputs is not None:
            questions_of(setting, dataset, outputs.count)
        notes = len(dataset.remarks(setting.split))
        odd = dataset.problems(setting.split) | ({"note" if notes == 1 else "notes": notes} if notes else {})
        return len(dataset.videos(setting.split)), odd

    @classmethod
    def check(cls, settings: Sequence[Setting]) -> None:
        """Look at the options, at the tensors of the weights and at the size of clips."""
        for setting in settings:
            _refuse_options(setting)
        for setting in {setting.frames: setting for setting in settings}.values():
            loading.check(setting)

    @classmethod
    def open(cls, setting: Setting) -> "Recognition":
        """Load data and weights."""
        _refuse_options(setting)
        found = cls(Session(setting))
        if found.session.backbone.news:
            say(found.session.backbone.news)
        return found

    @classmethod
    def alone(
        cls, setting: Setting, configurations: Mapping[str, Configuration], inputs: Sequence[Any]
    ) -> dict[str, Walk]:
        """Build the backbone and the walks of configurations over clips."""
        backbone = load_backbone(setting)
        forward = forward_of(backbone, setting.mode, setting.device)
        batches, _ = batches_of(backbone, inputs, setting.batch, setting.device)
        steps = TrainingSteps(backbone) if setting.train_step else None
        pruners = {name: pruner_of(each.method, backbone, each.counts) for name, each in configurations.items()}
        return {name: ClipWalk(backbone, forward, pruner, batches, {}, steps) for name, pruner in pruners.items()}

    def steps(self, item: str) -> int:
        """Return one: videos are counted."""
        return 1

    @classmethod
    def changed(cls, setting: Setting, stored: pd.DataFrame) -> set[str]:
        """Return the videos whose files are others than those that were predicted."""
        known = stored[stored["file_bytes"].notna()][["video_id", "file_bytes", "file_mtime_ns", "file_digest"]]
        if known.empty:
            return set()
        videos = {video.video_id: video for video in open_dataset(setting).videos(setting.split)[: setting.limit]}
        found = set()
        for video_id, size, changed_ns, content in known.drop_duplicates().itertuples(index=False):
            state = FileState(int(size), int(changed_ns), None if pd.isna(content) else content)
            if video_id in videos and changed(videos[video_id], state):
                found.add(video_id)
        return found

    def attach(self, cell: Cell, frozen: Mapping[str, Any] | None = None) -> Attached:
        """Attach a method to the backbone."""
        return attach(cell, self.session.backbone, self.session.calibration, self.kept, frozen)

    def read(self, items: Collection[str]) -> Iterator[Read]:
        """Decode videos, all their views at once; what will be timed or shown is laid aside."""
        states = dict[str, FileState | None]()

        def handed_over() -> Iterator[Video]:
            for video in (video for video in self.session.videos if video.video_id in items):
                states[video.video_id] = state_of(video, content=True)
                yield video

        for loaded in self.session.feed.stream(handed_over()):
            self.session.lay_aside(loaded)
            yield Read(loaded.video.video_id, loaded, loaded.error, state=states.pop(loaded.video.video_id))

    def predict(self, dense: Attached, cells: Sequence[Attached], reads: Sequence[Read]) -> Iterator[Predicted]:
        """Classify all views of the videos."""
        return predict(self.session, dense, cells, reads)

    def inputs(self, cells: Sequence[Attached]) -> Sequence[Clip]:
        """Decode clips spread over the split."""
        return self.session.clips_to_time()

    def timed(self, inputs: Sequence[Clip]) -> Sequence[str]:
        """Return the ids of clips."""
        return [clip.clip_id for clip in inputs]

    def walk(self, cell: Attached, inputs: Sequence[Clip], known: Mapping[str, int], batch: int | None = None) -> Walk:
        """Return the forwards of one cell; all cells share the batches on the device."""
        session, size = self.session, batch or self.setting.batch
        if self._batched[0] is not inputs:
            batches, self.h2d_ms = batches_of(session.backbone, inputs, size, self.setting.device)
            self._batched = (inputs, batches)
        return ClipWalk(session.backbone, session.forward, cell.pruner, self._batched[1], known, self._steps)

    @cached_property
    def _steps(self) -> TrainingSteps | None:
        return TrainingSteps(self.session.backbone) if self.setting.train_step else None

    def least(self, inputs: Sequence[Clip]) -> Sequence[Clip]:
        """Return the first batch."""
        return inputs[: self.setting.batch]

    def enlarged(self, inputs: Sequence[Clip], size: int) -> Sequence[Clip]:
        """Return so many clips."""
        return [inputs[k % len(inputs)] for k in range(size)]

    def through(self, pruner: Pruner, items: Sequence[str]) -> Pass:
        """Decode, classify and fetch the logits of videos, with the workers that were asked for."""
        session, done = self.session, 0
        wanted = set(items)
        feed = Feed(replace(session.feed.loader, cache=None), self.setting.workers)

        def forward(clips: Sequence[Clip]) -> int:
            with torch.inference_mode():
                session.forward(batch_for(session.backbone, clips, self.setting.device), pruner).logits.cpu()
            return len(clips)

        try:
            pending: list[Clip] = []
            for loaded in feed.stream(video for video in session.videos if video.video_id in wanted):
                pending += loaded.clips
                while len(pending) >= self.setting.batch:
                    done += forward(pending[: self.setting.batch])
                    del pending[: self.setting.batch]
            done += forward(pending) if pending else 0
        finally:
            feed.close()
        return Pass(done, feed.waited_s)

    def samples_to_show(self) -> Sequence[fates.Sample]:
        """Read the first view of the first videos."""
        clips = self.session.clips_to_show()
        every = len(clips[0].pixels) // self.session.backbone.grid.slots if clips else 1
        return [fates.Sample(clip.clip_id, clip.video_id, as_seen(clip)[::every], clip) for clip in clips]

    def fate(self, cell: Attached, sample: fates.Sample) -> fates.Fate:
        """Follow the tokens of one clip."""
        batch = batch_for(self.session.backbone, [sample.given], self.setting.device)
        return watched(self.session.backbone, batch, cell.pruner).fate

    def close(self) -> None:
        """End the workers that read videos."""
        self.session.feed.close()

    @classmethod
    def score(cls, setting: Setting, seen: Seen, own: Stored, dense: Stored, control: Stored | None) -> Result:
        """Return accuracy, agreement, tokens and operations."""
        return score.score(setting, seen, own, dense)


def _json(problems: Mapping[str, int]) -> str | None:
    return json.dumps(dict(problems)) if problems else None


def _refuse_options(setting: Setting) -> None:
    if setting.max_batch and not setting.device.startswith("cuda"):
        raise UsageError("--max-batch is for CUDA devices: a host that runs out of memory kills processes")
    if setting.train_step and (setting.mode != "eager" or setting.dtype in ("fp16", "amp-fp16")):
        raise UsageError("training steps are timed in mode eager, in fp32, bf16 or amp (fp16 needs its losses scaled)")
    if setting.stages and setting.mode != "eager":
        raise UsageError(f"in mode {setting.mode} stages run into each other; time --stages in mode eager")
