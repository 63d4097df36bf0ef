"""The loop of every training: resume, identity, log, record. A recipe's own module says what a step is.

Files are written whole or not at all. A run that is stopped or killed, at any moment, goes on from its last checkpoint
to the same weights.
"""

import abc
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, Generic, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from vpbench.backbones import loading
from vpbench.backbones.checkpoints import places
from vpbench.errors import UsageError, VpbenchError
from vpbench.progress import say

#: seconds of training that a stopped run loses at most, besides the step it was in
SAVE_EVERY_S = 60.0
M = TypeVar("M")
R = TypeVar("R")
N = TypeVar("N", bound=nn.Module)
#: one entry of the log, or facts of a record
Entry = dict[str, Any]


@dataclass(frozen=True)
class Job(Generic[M, R]):
    """One run: what is trained from which weights, behind which method, by which recipe, and where it is kept."""

    backbone: str
    weights: str
    method: M
    recipe: R
    out: Path
    device: str = "cpu"
    #: optimiser steps in which the whole schedule is gone through; None: the recipe's
    steps: int | None = None

    @cached_property
    def weights_sha256(self) -> str:
        """Digest of the weights that training starts from, or `random`; raises UsageError if they cannot be read."""
        return loading.weights_digest(self.backbone, self.weights)


@dataclass
class State(Generic[N]):
    """Everything that goes on from one step to the next; saved, so that a killed run resumes."""

    model: N
    #: what is trained beside the model: a head that is dropped afterwards, or a method's own part
    extra: nn.Module
    optimizers: list[torch.optim.Optimizer]
    generator: torch.Generator = field(default_factory=torch.Generator)
    step: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    #: of the steps since the last entry of the log
    losses: list[dict[str, float]] = field(default_factory=list)
    log: list[Entry] = field(default_factory=list)

    def save(self, path: Path, identity: str) -> None:
        """Write a checkpoint without frozen parameters; `identity` says whose it is."""
        content = {
            "identity": identity,
            **{name: _trained(part) for name, part in self._parts().items()},
            "optimizers": [each.state_dict() for each in self.optimizers],
            "generator": self.generator.get_state(),
            "counts": json.dumps([self.step, self.seconds, self.cpu_s, self.losses, self.log]),
        }
        with whole(path) as temporary:
            torch.save(content, temporary)

    def load(self, path: Path, identity: str) -> None:
        """Continue from a checkpoint; raises UsageError if it is another run's, or cannot be read."""
        try:
            content = torch.load(path, weights_only=True, map_location="cpu")
            if content["identity"] != identity:
                raise UsageError(f"{path} belongs to a run with other settings; give another --out")
            for name, part in self._parts().items():
                part.load_state_dict({**part.state_dict(), **content[name]})
            for optimizer, saved in zip(self.optimizers, content["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            self.generator.set_state(content["generator"])
            self.step, self.seconds, self.cpu_s, self.losses, self.log = json.loads(content["counts"])
        except UsageError:
            raise
        except Exception as error:  # whatever a file that is not ours makes the loader raise
            raise UsageError(f"{path} is no checkpoint of this training; remove it or give another --out") from error

    def _parts(self) -> dict[str, nn.Module]:
        return {"model": self.model, "extra": self.extra}


def _trained(part: nn.Module) -> dict[str, Tensor]:
    frozen = {name for name, parameter in part.named_parameters() if not parameter.requires_grad}
    return {name: tensor for name, tensor in part.state_dict().items() if name not in frozen}


@dataclass(frozen=True)
class Outcome:
    """What a finished training leaves: weights, and what its record says before and after their digest."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    facts: Entry
    results: Entry


@dataclass
class Training(abc.ABC, Generic[M, R, N]):
    """What a recipe adds to the loop. `steps`: of the whole run; `data`: what tells its data from others."""

    #: what follows the backbone in the names of the file of weights, and of its log and record
    suffixes: ClassVar[tuple[str, str]] = ("", "")

    job: Job[M, R]
    state: State[N]
    steps: int
    data: str

    @abc.abstractmethod
    def step(self) -> dict[str, float]:
        """Take the step `state.step` on data that state and recipe alone decide; returns the losses by name."""

    def due(self, step: int) -> bool:
        """Whether the log gets an entry after `step` steps: every hundred of them, and at the end."""
        return step == self.steps or (step > 0 and step % 100 == 0)

    @abc.abstractmethod
    def entry(self, losses: dict[str, float]) -> Entry:
        """Return what the log says now; `losses` are means since the last entry, none before the first step."""

    @abc.abstractmethod
    def outcome(self) -> Outcome:
        """Return what is written once all steps are done."""

    def identity(self) -> str:
        """Return what makes two runs the same, as text: all but the folder and the device."""
        job = self.job
        start = {"backbone": job.backbone, "weights_sha256": job.weights_sha256, "data": self.data}
        return json.dumps({**start, "steps": self.steps, "method": repr(job.method), "recipe": repr(job.recipe)})


def run(training: Training[M, R, N], command: str) -> Path:
    """Train, resuming from `out/checkpoint.pt` if it is there; returns the safetensors file, log and record beside it.

    `command` is what made it, for the record. Raises UsageError for a checkpoint of other settings, weights or data.
    """
    state, checkpoint, identity = training.state, training.job.out / "checkpoint.pt", training.identity()
    if checkpoint.exists():
        state.load(checkpoint, identity)
        say(f"resuming at step {state.step}")
    try:
        for _ in _saves(training):
            state.save(checkpoint, identity)
    except KeyboardInterrupt:
        say(f"stopped in step {state.step + 1} of {training.steps}; the same command goes on from the last checkpoint")
        raise
    return _write(training, command)


def _saves(training: Training[M, R, N]) -> Iterator[None]:
    """Take all steps that are left and keep the log; yields whenever the state is to be saved."""
    state = training.state
    saved = time.monotonic()
    began, cpu = saved - state.seconds, time.process_time() - state.cpu_s
    if not state.log and training.due(0):
        _note(training)
    while state.step < training.steps:
        state.losses.append(training.step())
        state.step += 1
        state.seconds, state.cpu_s = time.monotonic() - began, time.process_time() - cpu
        due = training.due(state.step)
        if due:
            _note(training)
        if due or time.monotonic() - saved >= SAVE_EVERY_S:
            yield
            saved = time.monotonic()


def _note(training: Training[M, R, N]) -> None:
    state = training.state
    names = state.losses[0] if state.losses else ()
    state.log.append(training.entry({name: fmean(each[name] for each in state.losses) for name in names}))
    state.losses = []
    say(json.dumps(state.log[-1]))


def _write(training: Training[M, R, N], command: str) -> Path:
    outcome = training.outcome()
    weights, beside = (training.job.out / f"{training.job.backbone}{suffix}" for suffix in training.suffixes)
    path = weights.with_name(f"{weights.name}.safetensors")
    with whole(path) as temporary:
        save_file(outcome.tensors, temporary, metadata=outcome.metadata)
    log = "".join(json.dumps(entry) + "\n" for entry in training.state.log)
    write_text(beside.with_name(f"{beside.name}.log.jsonl"), log)
    made = {"torch": torch.__version__, "sha256": places.digest(path)}
    said = {"command": command, **outcome.facts, **made, **outcome.results}
    write_text(beside.with_name(f"{beside.name}.json"), json.dumps(said, indent=1) + "\n")
    return path


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all; raises VpbenchError if it cannot be written."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a temporary file that becomes `path` when the block ends; raises VpbenchError if it cannot be written."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise VpbenchError(f"{path} cannot be written: {str(error).splitlines()[0]}") from error
