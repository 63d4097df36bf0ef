"""Cells of the gate that classify clips."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from vpbench.api import Backbone, ClipBatch
from vpbench.commands.check.bench import Bench
from vpbench.commands.check.facts import DIGITS, Facts, deviation
from vpbench.commands.check.recorder import recording, whole_numbers
from vpbench.errors import VpbenchError
from vpbench.tasks.recognition.predict import macs_of
from vpbench.tasks.recognition.session import Session, batch_for
from vpbench.tasks.task import Attached

#: clips that there are, and clips that a cell's baseline takes: the others replace those that are nearly ties
POOL, CLIPS = 12, 8
DATASET = "synthmotion"


class ClipBench(Bench):
    """An embedded backbone and the first embedded clips of split `ci`, run one by one."""

    def __init__(self, backbone: str) -> None:
        super().__init__(backbone, DATASET, POOL)
        self.session = Session(self.setting)
        self.calibration = self.session.calibration

    @property
    def network(self) -> Backbone:
        """The backbone."""
        return self.session.backbone

    @property
    def units(self) -> Sequence[str]:
        """Ids of the clips."""
        return list(self.batches)

    @property
    def wanted(self) -> int:
        """Clips that a cell takes."""
        return CLIPS

    @cached_property
    def batches(self) -> dict[str, ClipBatch]:
        """Decode the clips, each as a batch of its own, by id; raises VpbenchError for one that cannot be read."""
        found = {}
        for loaded in self.session.feed.stream(self.session.videos):
            if loaded.error is not None:
                raise VpbenchError(f"{loaded.error}; the gate needs all of its clips, restore the file")
            for clip in loaded.clips:
                found[clip.clip_id] = batch_for(self.session.backbone, [clip], "cpu")
        return found

    def clips_digest(self) -> str:
        """Return the digest of ids, labels and files, not of pixels: those may differ in a bit between decoders."""
        found = hashlib.sha256(self.setting.protocol.encode())
        for video in self.session.videos:
            content = video.path.read_bytes() if video.path.is_file() else b""
            found.update(f"\n{video.video_id}\t{video.label}\t{hashlib.sha256(content).hexdigest()}".encode())
        return found.hexdigest()

    def facts(self, candidate: Attached, unit: str) -> dict[str, Facts]:
        """Run a cell on one clip."""
        pruner = candidate.pruner
        # on grids tokens have no index: what was chosen is in the method's record, which costs nothing there
        record: dict[str, Tensor] | None = {} if self.session.backbone.flow == "grid" else None
        pruner.record = record
        try:
            with recording(pruner) as sets, torch.inference_mode():
                out = self.session.backbone(self.batches[unit], pruner)
        finally:
            pruner.record = None
        tokens = tuple((counts.attention[0], counts.mlp[0]) for counts in out.counts)
        values = tuple(float(f"{value:.{DIGITS}g}") for value in out.logits[0].tolist())
        return {unit: Facts(tokens, macs_of(pruner, out, 0), sets | whole_numbers(record or {}), values)}

    def kept_all(self, candidate: Attached, dense: Mapping[str, Facts]) -> float:
        """Return the largest deviation from dense's logits, as a share, on the first clip."""
        unit = self.units[0]
        return deviation(self.facts(candidate, unit)[unit].values, dense[unit].values)

    def agrees(self, found: Facts, dense: Facts) -> bool:
        """Compare the classes."""
        return _best(found) == _best(dense)

    def kl(self, found: Facts, dense: Facts) -> float | None:
        """Return KL(dense || cell) over the classes of the first question."""
        head = slice(self.session.questions[0].start, self.session.questions[0].stop)
        p, q = (torch.tensor(each.values, dtype=torch.float64)[head].log_softmax(0) for each in (dense, found))
        return max(0.0, float((p.exp() * (p - q)).sum()))

    def timed(self, candidate: Attached) -> Callable[[int], object]:
        """Return one forward of the first clip."""
        batch = self.batches[self.units[0]]
        return lambda _: self.session.backbone(batch, candidate.pruner)


def _best(facts: Facts) -> int:
    return max(range(len(facts.values)), key=facts.values.__getitem__)
