"""Outputs of a pruned spatial encoder on disk, so that what follows it can be trained without running it again.

A folder of safetensors parts of `PART` videos each, `features [videos, views, steps, D]` and `labels`, and `parts.json`
with the digest of every part that is whole. A killed run goes on after the last of them.
"""

import json
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vpbench import plan
from vpbench.backbones.checkpoints import places
from vpbench.backbones.vivit.network import ViViT
from vpbench.commands.train.clips import TRAINING_CLIPS, MotionArrays, dataset_for, listed
from vpbench.commands.train.written import whole, write_text
from vpbench.data.feed import ViewLoader
from vpbench.data.protocols import catalog
from vpbench.data.protocols.shape import Shape
from vpbench.errors import UsageError, VpbenchError
from vpbench.methods.rgtp import Rgtp
from vpbench.plan import presets
from vpbench.progress import say, task

#: videos per file: what a killed run loses at most
PART = 64
LIST = "parts.json"
#: one video: its id, its label, and its views `[views, T, H, W, 3]`, uint8 or normalised
Labelled = tuple[str, int, Tensor]


@dataclass(frozen=True)
class Videos:
    """Labelled videos by number; `read` returns None, and has said why, for those that cannot be read."""

    count: int
    read: Callable[[int], Labelled | None]


def build(folder: Path, identity: str, videos: Videos, encode: Callable[[Tensor], Tensor]) -> Path:
    """Write the encoder's outputs for all videos; parts that are there, whole and of the same run are kept.

    `identity` names everything the outputs depend on. encode: views `[views, T, H, W, 3]` to `[views, steps, D]`.
    Raises UsageError if the folder is another run's, VpbenchError if it cannot be written or no video can be read.
    """
    known = _known(folder, identity)
    with task(f"spatial outputs, {folder.name}", videos.count, "videos") as progress:
        for start in range(0, videos.count, PART):
            name = f"{start:07d}.safetensors"
            numbers = range(start, min(start + PART, videos.count))
            if not _whole(folder / name, known.get(name)):
                digest = _write(folder / name, [videos.read(number) for number in numbers], encode)
                known[name] = digest
                write_text(folder / LIST, json.dumps({"identity": identity, "parts": known}, indent=1))
            progress.advance(len(numbers))
    if not any(known.values()):
        raise VpbenchError(f"none of the {videos.count} videos of {folder.name} can be read; see the messages above")
    return folder


@dataclass(frozen=True)
class Outputs:
    """Outputs of videos, `[videos, views, steps, D]` in parts, which are files mapped into memory, and their labels.

    What is not asked for is not read: those of Kinetics-400 are 24 GB.
    """

    parts: Sequence[Tensor]
    labels: Tensor

    @cached_property
    def _starts(self) -> list[int]:
        starts = [0]
        for part in self.parts:
            starts.append(starts[-1] + len(part))
        return starts

    def take(self, chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Read the outputs `[n, views, steps, D]` and the labels `[n]` of some videos."""
        places = [(bisect_right(self._starts, number) - 1, number) for number in chosen]
        found = [self.parts[part][number - self._starts[part]] for part, number in places]
        return torch.stack(found), self.labels[list(chosen)]

    def split(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Go through all videos, so many at a time."""
        every = range(len(self.labels))
        return (self.take(every[first : first + size]) for first in every[::size])


def load(folder: Path) -> Outputs:
    """Return all outputs (float32) and labels; raises UsageError for a part that is missing or not what was written."""
    names = json.loads((folder / LIST).read_text(encoding="utf-8"))["parts"]
    parts = []
    for name, digest in sorted(names.items()):
        if digest and not _whole(folder / name, digest):
            raise UsageError(f"{folder / name} is missing or damaged; the command that made it makes it again")
        parts += [load_file(folder / name)] if digest else []  # maps the file
    return Outputs([part["features"] for part in parts], torch.cat([part["labels"] for part in parts]))


def _known(folder: Path, identity: str) -> dict[str, str]:
    file = folder / LIST
    if not file.exists():
        return {}
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        theirs, parts = content["identity"], dict(content["parts"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{file} is not readable; remove the folder, or give another --out") from error
    if theirs != identity:
        raise UsageError(f"{folder} holds outputs of another encoder or other videos; give another --out")
    return parts


def _whole(path: Path, digest: str | None) -> bool:
    """Whether a part need not be made: it is as listed, or listed as empty because none of its videos can be read."""
    if digest == "":
        return True
    return digest is not None and path.exists() and places.digest(path) == digest


def _write(path: Path, found: Sequence[Labelled | None], encode: Callable[[Tensor], Tensor]) -> str:
    """Encode and write one part, whole or not at all; returns its digest, "" where none of its videos can be read."""
    readable = [video for video in found if video is not None]
    if not readable:
        return ""
    features = torch.stack([encode(views).float().cpu() for _, _, views in readable])
    content = {"features": features, "labels": torch.tensor([label for _, label, _ in readable])}
    with whole(path) as temporary:
        save_file(content, temporary)
        return places.digest(temporary)


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

    def name(self, *splits: str) -> str:
        """What tells the videos of these splits from others."""
        return f"{self.dataset} at {self.root or 'its place'}, {self.decoder}, {' and '.join(splits)}"

    def training(self, split: str) -> Videos:
        """Return the videos to train on; the embedded set's are generated. Raises UsageError if there are none."""
        if self.dataset != "synthmotion" or self.root is not None:
            return self.split(split)
        clips = MotionArrays.of("train", TRAINING_CLIPS)

        def read(number: int) -> Labelled:
            return str(number), int(clips.labels[number]), clips.frames[number][None]

        return Videos(len(clips.labels), read)

    def split(self, split: str) -> Videos:
        """Return the videos of a split; raises UsageError if there are none, or of classes the model does not know."""
        source = dataset_for(self.dataset, self.root, self.model)
        videos = listed(source, self.dataset, split)
        config = self.model.config
        protocol = catalog.find(catalog.default(source.protocol, self.protocol), seed=0)
        shape = Shape(config.frames, config.height, config.width, config.stride)
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
