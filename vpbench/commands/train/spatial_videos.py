"""Which pruning a temporal encoder is trained behind, and on which videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from vpbench import plan
from vpbench.backbones.vivit.network import ViViT
from vpbench.commands.train import embedded
from vpbench.commands.train.spatial_cache import Labelled, Videos
from vpbench.data.feed import ViewLoader
from vpbench.data.protocols import catalog
from vpbench.data.protocols import shape as protocols_shape
from vpbench.data.sources import load_dataset
from vpbench.errors import UsageError
from vpbench.methods.rgtp import Rgtp
from vpbench.plan import presets
from vpbench.progress import say


def method(preset: str | None, assignments: Sequence[str]) -> Rgtp:
    """Return RGTP with a preset's parameters and `name=value` after it; raises UsageError for unknown ones."""
    given = presets.find(preset) if preset else {"method": ("rgtp",)}
    asked = plan.options({**given, "set": (*given.get("set", ()), *assignments)}, preset or "options")
    chosen = plan.parameter_sets("rgtp", asked.set)
    if len(chosen) != 1:
        raise UsageError("one pruning at a time: give each parameter one value")
    return Rgtp(**dict(chosen[0]))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Source:
    """Videos of a dataset as a model takes them."""

    dataset: str
    root: Path | None
    decoder: str
    model: ViViT
    #: the protocol of views that the backbone was published with
    protocol: str | None

    @property
    def name(self) -> str:
        """What tells these videos from others."""
        return f"{self.dataset} at {self.root or 'its place'}, {self.decoder}"

    def training(self, split: str) -> Videos:
        """Return the videos to train on; the embedded set's are generated. Raises UsageError if there are none."""
        if self.dataset == "synthmotion" and self.root is None:
            numbers = embedded.Recipe(steps=0)
            embedded.prepare(numbers)
            frames, _, labels = embedded.load_arrays("train", numbers.train_clips)

            def read(number: int) -> Labelled:
                return str(number), int(labels[number]), torch.as_tensor(frames[number])[None]

            return Videos(len(labels), read)
        return self.split(split)

    def split(self, split: str) -> Videos:
        """Return the videos of a split; raises UsageError if there are none, or of classes the model does not know."""
        source = load_dataset(self.dataset)(self.root)
        if self.model.config.classes != len(source.classes):
            raise UsageError(
                f"the weights know {self.model.config.classes} classes, {self.dataset} has {len(source.classes)}"
            )
        videos = source.videos(split)
        if not videos:
            raise UsageError(f"{self.dataset} split {split!r} holds no videos")
        config = self.model.config
        protocol = catalog.find(catalog.default(source.protocol, self.protocol), seed=0)
        shape = protocols_shape.Shape(config.frames, config.height, config.width, config.stride)
        loader = ViewLoader(protocol, shape, self.decoder)

        def read(number: int) -> Labelled | None:
            loaded = loader.load(videos[number])
            if loaded.error is not None:
                say(f"unreadable, left out: {loaded.error}")
                return None
            views = torch.stack([torch.from_numpy(clip.pixels) for clip in loaded.clips])
            views = self.model.normalise(views) if views.is_floating_point() else views
            return loaded.video.video_id, loaded.video.label, views

        return Videos(len(videos), read)
