"""What the gate's cells see, clip by clip or video by video, and what a cell does there."""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vpbench import registry
from vpbench.commands.check.facts import LABELS, Facts, rounded
from vpbench.commands.check.recorder import recording, whole_numbers
from vpbench.errors import VpbenchError
from vpbench.plan import options
from vpbench.run import resolve
from vpbench.tasks.detection import Detection
from vpbench.tasks.detection.follow import Follower
from vpbench.tasks.detection.predict import frame_row
from vpbench.tasks.recognition import Recognition
from vpbench.tasks.recognition.predict import macs_of
from vpbench.tasks.recognition.session import batch_for
from vpbench.tasks.task import Attached

Task = Recognition | Detection
#: a clip, as the only one of a batch, or the frames of a video as a detector takes them
Unit = Sequence[Any]


class Size(NamedTuple):
    """A dataset, its units that there are (some replace those that are nearly ties), and how many a cell takes."""

    dataset: str
    pool: int
    wanted: int


SIZES = {"recognition": Size("synthmotion", 12, 8), "detection": Size("synthmotion_boxes", 6, 4)}
#: frames of a video: past the next dense frame of methods that have one every 8, and as many for the clock
FRAMES, TIMED = 10, 8


def task_on(backbone: str) -> Task:
    """Load an embedded backbone with the first clips or videos of split `ci`."""
    kind = Detection if registry.backbone(backbone).task == "detection" else Recognition
    size = SIZES[kind.name]
    # one thread: how work is split between threads changes the order of sums
    asked = {"method": ("dense",), "backbone": backbone, "dataset": size.dataset, "split": "ci", "threads": 1}
    return kind.open(resolve.resolve(options(asked | {"limit": size.pool}))[0])


def clips_digest(task: Task) -> str:
    """Return the digest of what is seen: of frames and boxes, or of the ids, labels and files of clips.

    Not of a clip's pixels: those may differ in a bit between decoders.
    """
    if isinstance(task, Detection):
        return task.seen.digest
    found = hashlib.sha256(task.setting.protocol.encode())
    for video in task.session.videos:
        content = video.path.read_bytes() if video.path.is_file() else b""
        found.update(f"\n{video.video_id}\t{video.label}\t{hashlib.sha256(content).hexdigest()}".encode())
    return found.hexdigest()


def decoded(task: Task) -> dict[str, Unit]:
    """Decode all units, by id; raises VpbenchError for one that cannot be read."""
    if isinstance(task, Detection):
        firsts = {video: task.session.videos[video][0].frames[:FRAMES] for video in task.items}
        return {video: [task.session.look(frame) for frame in frames] for video, frames in firsts.items()}
    found = {}
    for read in task.read(task.items):
        if read.error is not None:
            raise VpbenchError(f"{read.error}; the gate needs all of its clips, restore the file")
        found[read.item] = read.given.clips
    return found


def facts_of(task: Task, cell: Attached, unit: Unit) -> dict[str, Facts]:
    """Run a cell on one unit; returns the facts of its clip or of its frames, by id."""
    return _of_frames(task, cell, unit) if isinstance(task, Detection) else _of_clip(task, cell, unit)


def _of_clip(task: Recognition, cell: Attached, unit: Unit) -> dict[str, Facts]:
    backbone, pruner = task.session.backbone, cell.pruner
    # on grids tokens have no index: what was chosen is in the method's record, which costs nothing there
    record: dict[str, Tensor] = {}
    pruner.record = record if backbone.flow == "grid" else None
    try:
        with recording(pruner) as sets, torch.inference_mode():
            out = backbone(batch_for(backbone, unit, "cpu"), pruner)
    finally:
        pruner.record = None
    tokens = tuple((counts.attention[0], counts.mlp[0]) for counts in out.counts)
    [values] = out.logits.tolist()
    return {unit[0].clip_id: Facts(tokens, macs_of(pruner, out, 0), sets | whole_numbers(record), rounded(values))}


def _of_frames(task: Detection, cell: Attached, unit: Unit) -> dict[str, Facts]:
    config, found = task.session.config, {}
    with recording(cell.pruner) as sets, torch.inference_mode():
        for [each] in Follower(task.session.backbone, cell.pruner).walk([unit]):
            row, seen = frame_row(config, cell.pruner, each), each.detections
            values = [*seen.scores.tolist(), *(seen.boxes / config.side).flatten().tolist()]
            answers = {LABELS: " ".join(map(str, seen.labels.tolist()))}
            tokens = tuple((n, n) for n in row["tokens_layer"])
            found[f"{each.look.video_id}/{each.look.number}"] = Facts(
                tokens, row["macs"], sets | answers, rounded(values)
            )
            sets.clear()
    return found
