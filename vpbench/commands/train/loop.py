"""The loop of every training: steps, resume, identity, log, record. A recipe's own module says what is learnt.

Files are written whole or not at all. A run that is stopped or killed, at any moment, goes on from its last checkpoint
to the same weights.
"""

import abc
import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vpbench.backbones import loading
from vpbench.backbones.checkpoints import places
from vpbench.commands.train.engine import Engine, Losses, place
from vpbench.commands.train.recipe import Recipe
from vpbench.commands.train.written import whole, write_text
from vpbench.errors import UsageError, VpbenchError
from vpbench.progress import say, task

#: seconds of training that a stopped run loses at most, besides the step it was in
SAVE_EVERY_S = 60.0
M = TypeVar("M")
R = TypeVar("R", bound=Recipe)
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
    #: the model's weights averaged over steps, where a recipe wants that; trained by nobody
    average: nn.Module = field(default_factory=nn.Identity)
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

    def broken(self) -> str | None:
        """Return the name of a trained tensor that holds no numbers any more, None where all do."""
        named = (each for part in (self.model, self.extra) for each in part.named_parameters())
        return next((name for name, p in named if p.requires_grad and not bool(p.isfinite().all())), None)

    def _parts(self) -> dict[str, nn.Module]:
        return {"model": self.model, "extra": self.extra, "average": self.average}


def _trained(part: nn.Module) -> dict[str, Tensor]:
    frozen = {name for name, parameter in part.named_parameters() if not parameter.requires_grad}
    return {name: tensor for name, tensor in part.state_dict().items() if name not in frozen}


class Batch(NamedTuple):
    """What losses are asked of, and how many clips (frames, videos) of the batch are in it; none: it counts nothing."""

    given: tuple[Tensor, ...]
    clips: int


@dataclass(frozen=True)
class Outcome:
    """What a finished training leaves: weights, and what its record says before and after their digest."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    facts: Entry
    results: Entry
    #: texts that are written beside the weights, by their files' names
    texts: Mapping[str, str] = field(default_factory=dict)


class _Learner(nn.Module):
    """All that is trained as one module, whose forward is the losses of a batch."""

    def __init__(self, training: "Training[Any, Any, Any]") -> None:
        super().__init__()
        self.parts = nn.ModuleList([training.state.model, training.state.extra])
        self._losses = training.losses

    def forward(self, *given: Tensor) -> Losses:
        return self._losses(*given)


@dataclass
class Training(abc.ABC, Generic[M, R, N]):
    """What a recipe adds to the loop. `steps`: of the whole run; `data`: what tells its data from others."""

    #: what follows the backbone in the names of the file of weights, and of its log and record
    suffixes: ClassVar[tuple[str, str]] = ("", "")
    #: whether several processes can share its batches
    shared: ClassVar[bool] = False

    job: Job[M, R]
    state: State[N]
    steps: int
    data: str

    @abc.abstractmethod
    def batch(self, number: int) -> Batch:
        """Return batch `number` of the run, or this process's part of it; state and recipe alone decide what it is."""

    @abc.abstractmethod
    def losses(self, *given: Tensor) -> Losses:
        """Return the losses of a batch by name, means over its clips, and what else is told of it."""

    @abc.abstractmethod
    def rate(self, group: Mapping[str, Any]) -> float:
        """Return the learning rate of the optimiser's parameters `group` at this step."""

    def total(self, losses: Losses) -> Tensor:
        """Return what goes down."""
        return losses["loss"]

    def clipped(self) -> list[nn.Parameter]:
        """Return the parameters whose gradients are clipped together."""
        return [*self.state.model.parameters(), *self.state.extra.parameters()]

    def stepped(self) -> None:
        """Do what is to be done once the weights have moved."""

    @abc.abstractmethod
    def entry(self, losses: dict[str, float]) -> Entry:
        """Return what the log says now; `losses` are means since the last entry, none before the first step."""

    @abc.abstractmethod
    def outcome(self) -> Outcome:
        """Return what is written once all steps are done."""

    def finished(self) -> None:
        """Do what is to be done once all is written."""

    def due(self, step: int) -> bool:
        """Whether the log gets an entry after `step` steps: every hundred of them, and at the end."""
        return step == self.steps or (step > 0 and step % 100 == 0)

    def identity(self) -> str:
        """Return what makes two runs the same, as text: all but the folder and the device."""
        job = self.job
        start = {"backbone": job.backbone, "weights_sha256": job.weights_sha256, "data": self.data}
        return json.dumps({**start, "steps": self.steps, "method": repr(job.method), "recipe": repr(job.recipe)})

    @property
    def weights(self) -> Path:
        """Where the weights are written."""
        return self.job.out / f"{self.job.backbone}{self.suffixes[0]}.safetensors"

    @property
    def checkpoint(self) -> Path:
        """Where the state is kept."""
        return self.job.out / "checkpoint.pt"

    @property
    def beside(self) -> Path:
        """What the names of log and record begin with."""
        return self.job.out / f"{self.job.backbone}{self.suffixes[1]}"

    @cached_property
    def engine(self) -> Engine:
        """What runs it; raises UsageError where several processes were started for what only one can do."""
        if place()[1] > 1 and not self.shared:
            raise UsageError("this training runs in one process; start it without torchrun")
        return Engine(self.job.device, self.job.recipe.bf16, _Learner(self), self.state.optimizers)

    def step(self) -> dict[str, float]:
        """Take the step `state.step`; returns the losses by name. Raises VpbenchError where they are no numbers."""
        recipe, number = self.job.recipe, self.state.step
        for optimizer in self.state.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.rate(group)
            optimizer.zero_grad()
        found: dict[str, float] = {}
        for part in range(recipe.accumulate):
            with self.engine.apart(part < recipe.accumulate - 1):
                for name, value in self._learned(number * recipe.accumulate + part).items():
                    found[name] = found.get(name, 0.0) + value
        if recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_([p for p in self.clipped() if p.grad is not None], recipe.clip_norm)
        for optimizer in self.engine.optimizers:
            optimizer.step()
        self.stepped()
        return found

    def _learned(self, number: int) -> dict[str, float]:
        """Add the gradients of batch `number`; returns its losses by their share in the step."""
        engine, recipe = self.engine, self.job.recipe
        batch = self.batch(number)
        # of noise and of what is dropped, whenever a run is resumed; each process has its own
        torch.manual_seed(recipe.seed + number + 1_000_003 * engine.rank)
        losses = engine.losses(batch.given)
        [clips] = engine.summed([batch.clips])
        if not clips:
            raise VpbenchError("none of the videos of a batch can be read; see the messages above")
        # processes average their gradients, and their parts of the batch may differ
        weight = batch.clips * engine.processes / clips / recipe.accumulate
        engine.backward(self.total(losses) * weight)
        values = engine.summed([float(each.detach()) * weight / engine.processes for each in losses.values()])
        found = dict(zip(losses, values, strict=True))
        if wrong := [name for name, value in found.items() if not math.isfinite(value)]:
            raise VpbenchError(f"{wrong[0]} is {found[wrong[0]]} in step {self.state.step + 1}; {self.kept()}")
        return found

    def kept(self) -> str:
        """Say what is left of a run that cannot go on, and what to do."""
        there = f"the checkpoint before it stays in {self.checkpoint}" if self.checkpoint.exists() else "none was saved"
        return f"{there}; a lower lr, a longer warm-up or clip_norm help, into another --out"


def run(training: Training[M, R, N], command: str) -> Path:
    """Train, resuming from `out/checkpoint.pt` if it is there; returns the safetensors file, log and record beside it.

    `command` is what made it, for the record. Raises UsageError for a checkpoint of other settings, weights or data,
    VpbenchError where losses or weights are no numbers any more; the last checkpoint stays.
    """
    state, checkpoint, identity = training.state, training.checkpoint, training.identity()
    engine = training.engine
    if checkpoint.exists():
        state.load(checkpoint, identity)
        _say(training, f"resuming at step {state.step}")
    try:
        for _ in _saves(training):
            if broken := state.broken():
                raise VpbenchError(f"{broken} holds no numbers after step {state.step}; {training.kept()}")
            if engine.leads:
                state.save(checkpoint, identity)
                _write_log(training)
    except KeyboardInterrupt:
        _say(
            training,
            f"stopped in step {state.step + 1} of {training.steps}; the same command goes on from the last checkpoint",
        )
        raise
    if engine.leads:
        _write(training, training.weights, command)
        training.finished()
    return training.weights


def _say(training: Training[M, R, N], text: str) -> None:
    if training.engine.leads:
        say(text)


def _saves(training: Training[M, R, N]) -> Iterator[None]:
    """Take all steps that are left and keep the log; yields whenever the state is to be saved."""
    state, recipe = training.state, training.job.recipe
    saved = time.monotonic()
    began, cpu = saved - state.seconds, time.process_time() - state.cpu_s
    if not state.log and training.due(0):
        _note(training)
    with task("training", training.steps, "steps", state.step) as progress:
        first, start = state.step, time.monotonic()
        while state.step < training.steps:
            state.losses.append(training.step())
            state.step += 1
            now = time.monotonic()
            state.seconds, state.cpu_s = now - began, time.process_time() - cpu
            if training.engine.leads:
                rate = (state.step - first) * recipe.clips / (now - start)
                progress.advance(1, _brief(state.losses) + f", {rate:.1f} clips/s")
            if training.due(state.step):
                _note(training)
            # the first process knows the time, and all of them save together
            waited = training.engine.summed([now - saved if training.engine.leads else 0.0])[0]
            if state.step == training.steps or waited >= SAVE_EVERY_S:
                yield
                saved = time.monotonic()


def _brief(losses: list[dict[str, float]]) -> str:
    """Tell the means over some of the last steps."""
    recent = losses[-20:]
    means = {name: fmean(each[name] for each in recent) for name in recent[0]}
    return ", ".join(f"{name} {value:.3g}" for name, value in means.items())


def _note(training: Training[M, R, N]) -> None:
    state = training.state
    names = state.losses[0] if state.losses else ()
    state.log.append(training.entry({name: fmean(each[name] for each in state.losses) for name in names}))
    state.losses = []
    _say(training, json.dumps(state.log[-1]))


def _write_log(training: Training[M, R, N]) -> None:
    log = "".join(json.dumps(entry) + "\n" for entry in training.state.log)
    write_text(training.beside.with_name(f"{training.beside.name}.log.jsonl"), log)


def _write(training: Training[M, R, N], path: Path, command: str) -> None:
    outcome = training.outcome()
    for name, text in outcome.texts.items():
        write_text(path.with_name(name), text)
    with whole(path) as temporary:
        save_file(outcome.tensors, temporary, metadata=outcome.metadata)
    _write_log(training)
    made = {"torch": torch.__version__, "sha256": places.digest(path)}
    said = {"command": command, **outcome.facts, **made, **outcome.results}
    write_text(training.beside.with_name(f"{training.beside.name}.json"), json.dumps(said, indent=1) + "\n")
