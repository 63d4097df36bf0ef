"""A clip that is classified."""

from dataclasses import replace
from pathlib import Path

import torch

from vpbench.api import Video
from vpbench.backbones.videomae.gradients import gradient_norms
from vpbench.backbones.videomae.network import VideoMAE
from vpbench.commands.show.scene import Floats, Scene, Seen, chosen
from vpbench.errors import UsageError, VpbenchError
from vpbench.measure.watch.clips import as_seen, watched
from vpbench.plan import Cell, Setting
from vpbench.tasks.attach import attach
from vpbench.tasks.recognition.session import Session, batch_for


class ClipScene(Scene):
    """One view of a video of the dataset, or of a video file; a file has no label."""

    def __init__(self, setting: Setting, name: str, view: int) -> None:
        self.session = Session(setting)
        found = chosen(name, lambda: [v.video_id for v in self.session.listed], f"{setting.dataset} {setting.split}")
        self.labelled = isinstance(found, str)
        if isinstance(found, Path):
            video = Video(found.stem, found, -1)
        else:
            video = next(video for video in self.session.videos if video.video_id == found)
        loaded = self.session.feed.loader.load(video)
        if loaded.error is not None:
            raise VpbenchError(loaded.error)
        if not 0 <= view < len(loaded.clips):
            raise UsageError(f"--view {view}: protocol {setting.protocol} has views 0 to {len(loaded.clips) - 1}")
        clip = loaded.clips[view]
        batch = batch_for(self.session.backbone, [clip], setting.device)
        self.batch = batch if self.labelled else replace(batch, labels=None)
        self.clip_id, self.frames = clip.clip_id, as_seen(clip)
        self.header = f"{clip.clip_id} on {setting.backbone}, {setting.weights} weights"

    def see(self, cell: Cell, *, values: bool) -> Seen:
        """Follow the tokens of one clip."""
        ready = attach(cell, self.session.backbone, self.session.calibration, {})
        try:
            found = watched(self.session.backbone, self.batch, ready.pruner, values=values)
        except UsageError as error:
            raise UsageError(f"{cell.label} cannot be shown: {error}") from error
        # first of all, since long labels are cut
        method = f"{cell.method} ({ready.pruner.caveat})" if ready.pruner.caveat else cell.method
        return Seen(method + cell.label.removeprefix(cell.method), found.fate, found.values)

    def titles(self, slots: int) -> list[str]:
        """Name the frames of each tubelet."""
        length = len(self.frames) // slots
        firsts = range(0, slots * length, length)
        return [f"frames {n}-{n + length - 1}" if length > 1 else f"frame {n}" for n in firsts]

    def gradient(self, *, by_label: bool) -> tuple[Floats, str]:
        """Return the norms of the predicted class's gradient, or of the label's."""
        model = self.session.backbone
        if not isinstance(model, VideoMAE):
            return super().gradient(by_label=by_label)
        labels = self.batch.labels
        if by_label and (labels is None or self.session.setting.weights == "random"):
            raise UsageError("--gradnorm label needs a labelled video and trained weights; use --gradnorm predicted")
        target = torch.tensor(labels, device=self.batch.pixels.device) if by_label else None
        norms, classes = gradient_norms(model, self.batch, target)
        grid, names = model.grid, self.session.dataset.classes
        number = int(classes[0])
        known = self.session.setting.weights != "random" and number < len(names)
        shape = (grid.slots, grid.rows, grid.cols)
        return norms[0].float().cpu().numpy().reshape(shape), names[number] if known else f"class {number}"
