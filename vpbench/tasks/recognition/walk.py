"""What the clock runs of clips: forwards from pixels on the device to logits, batch after batch."""

import copy
import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from vpbench.api import Classifier, Clip, ClipBatch, Pruner, Tokens
from vpbench.measure import clock
from vpbench.measure.execution import Forward
from vpbench.measure.rounds import MODEL, TRAIN, Call
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
        steps: "TrainingSteps | None" = None,
    ) -> None:
        self.forward, self.pruner, self.batches, self.known = forward, pruner, batches, known
        self.units, self.calls = len(batches[0].ids), len(batches)
        self.parts = (*backbone.modules(), pruner, Tokens)
        scopes: dict[str, Call] = {MODEL: self}
        if steps is not None:
            scopes[TRAIN] = lambda number: steps(batches[number % len(batches)], pruner)
        self.scopes: Mapping[str, Call] = scopes

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


class TrainingSteps:
    """Steps of training: forward, cross-entropy, backward and AdamW, on a copy of a network that all cells share.

    The rate is 0, so that the optimiser works as ever and weights stay as they are, for all cells. What training drops
    of itself, augmentation and reading are no part of it.
    """

    def __init__(self, backbone: Classifier) -> None:
        with torch.inference_mode(False):
            self.network = copy.deepcopy(backbone).requires_grad_(True)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=0.0, weight_decay=0.05)

    def __call__(self, batch: ClipBatch, pruner: Pruner) -> object:
        """Take one step; gradients are gone when it returns."""
        with torch.inference_mode(False), torch.enable_grad():
            logits = self.network(batch, pruner).logits
            loss = F.cross_entropy(logits.float(), torch.zeros(len(logits), dtype=torch.int64, device=logits.device))
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
        return loss


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
