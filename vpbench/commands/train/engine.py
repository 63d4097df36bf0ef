"""What trainings use of Lightning Fabric: mixed precision, gradients summed over processes, batches accumulated."""

import logging
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from vpbench.errors import UsageError, unusable

#: what a loss consists of, by name, and what else is told of a batch
Losses = dict[str, Tensor]


def place() -> tuple[int, int]:
    """Return the number of this process among those that `torchrun` started, and how many they are: (0, 1) without."""
    if not torch.distributed.is_torchelastic_launched():
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def here() -> int:
    """Return how many processes of one training share this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if torch.distributed.is_torchelastic_launched() else 1


def first_here() -> bool:
    """Whether this process is the first one of a training on its machine."""
    return not torch.distributed.is_torchelastic_launched() or os.environ["LOCAL_RANK"] == "0"


class Engine:
    """A module whose forward gives losses, and its optimisers, on a device, alone or as one of several processes.

    Processes average their gradients; the first one, which `leads`, writes.
    """

    def __init__(
        self, device: str, bf16: bool, learner: nn.Module, optimizers: Sequence[torch.optim.Optimizer]
    ) -> None:
        """Raises UsageError where Fabric is not installed, and for a device that cannot be used."""
        try:
            from lightning_fabric import Fabric
            from lightning_fabric.plugins import MixedPrecision, Precision
            from lightning_fabric.plugins.environments.lightning import LightningEnvironment
            from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
        except ImportError as error:
            raise UsageError('training needs Lightning Fabric; pip install "vpbench[train]"') from error

        class Autocast(MixedPrecision):
            """Autocast as torch has it: Fabric would round what is given as well, pixels and targets."""

            def convert_input(self, data: Any) -> Any:
                return data

        try:
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError) as error:
            raise unusable(device, error) from error
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # whom it uses, said by each process
        self.rank, self.processes = place()
        kind, _, number = device.partition(":")
        several = self.processes > 1
        self.fabric = Fabric(
            accelerator=kind,
            devices=here() if several else [int(number)] if number else 1,
            num_nodes=self.processes // here(),
            strategy="ddp" if several else "auto",
            plugins=[
                TorchElasticEnvironment() if several else LightningEnvironment(),
                Autocast("bf16-mixed", kind) if bf16 else Precision(),
            ],
        )
        self.fabric.launch()
        self.learner, *self.optimizers = self.fabric.setup(learner, *optimizers)

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def losses(self, batch: Sequence[Tensor]) -> Losses:
        """Run the module on a batch, in the precision that was asked for."""
        found: Losses = self.learner(*(self.fabric.to_device(each) for each in batch))
        return found

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss."""
        self.fabric.backward(loss)

    def apart(self, enabled: bool) -> AbstractContextManager[Any]:
        """Leave the gradients of processes apart, as all batches of a step but the last one can be."""
        return self.fabric.no_backward_sync(self.learner, enabled=enabled)

    def summed(self, values: Sequence[float]) -> list[float]:
        """Add up numbers over all processes."""
        if self.processes == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        found = self.fabric.all_reduce(self.fabric.to_device(total), reduce_op="sum")
        return [float(each) for each in found]
