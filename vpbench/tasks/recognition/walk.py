"""What the clock runs of clips: forwards from pixels on the device to logits, batch after batch."""

import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from vpbench.api import Classifier, Clip, ClipBatch, Pruner, Tokens
from vpbench.measure import clock
from vpbench.measure.execution import Forward
from vpbench.measure.rounds import MODEL, Call
from vpbench.tasks.recognition.predict import macs_of
from vpbench.tasks.recognition.session import batch_for


class ClipWalk:
    """One configuration that goes through batches of clips in turn; see `measure.rounds.Walk`."""

    def __init__(
        self,
        backbone: Classifier,
        forward: Forward,
        pruner: Pruner,
        batches: Sequence[ClipBatch],
        known: Mapping[str, int],
    ) -> None:
        self.forward, self.pruner, self.batches, self.known = forward, pruner, batches, known
        self.units, self.calls = len(batches[0].ids), len(batches)
        self.parts = (*backbone.modules(), pruner, Tokens)
        self.scopes: Mapping[str, Call] = {MODEL: self}

    def __call__(self, number: int) -> object:
        """Classify a batch."""
        return self.forward(self.batches[number % len(self.batches)], self.pruner)

    def macs(self) -> Sequence[int]:
        """Return the multiply-accumulates of each batch: as stored, or as found on a walk of their own."""
        return [self._counted(number) if cost is None else sum(cost) for number, cost in enumerate(self._costs())]

    def unlike(self) -> Sequence[int]:
        """Return a batch of each cost: clips of equal cost have equal shapes."""
        costs = self._costs()
        return [] if None in costs else [costs.index(cost) for cost in dict.fromkeys(costs)]

    def _costs(self) -> list[tuple[int, ...] | None]:
        return [self._known(batch) for batch in self.batches]

    def _known(self, batch: ClipBatch) -> tuple[int, ...] | None:
        found = tuple(self.known.get(clip_id, -1) for clip_id in batch.ids)
        return None if -1 in found else found

    def _counted(self, number: int) -> int:
        with torch.inference_mode():
            out = self.forward(self.batches[number], self.pruner)
        return sum(macs_of(self.pruner, out, place) for place in range(self.units))


def batches_of(
    backbone: Classifier, clips: Sequence[Clip], size: int, device: str
) -> tuple[list[ClipBatch], float | None]:
    """Return clips as batches on the device (whole ones, or the one there is), and ms per clip to copy them there."""
    synchronize, found, took = clock.synchronizer(device), list[ClipBatch](), list[float]()
    for at in range(0, len(clips), size):
        part = clips[at : at + size]
        synchronize()
        began = time.perf_counter()
        found.append(batch_for(backbone, part, device))
        synchronize()
        took.append(1e3 * (time.perf_counter() - began) / len(part))
    whole = [batch for batch in found if len(batch.ids) == size]
    return whole or found, float(np.median(took)) if device.startswith("cuda") else None
