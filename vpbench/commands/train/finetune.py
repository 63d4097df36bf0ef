"""Fine-tune a backbone with a method: what the method drops is not there in training either.

Clips are augmented and mixed first, then the method selects, as it would of any clip. Choosing has no gradient: what
is left has. A killed run goes on from its last checkpoint to the same weights.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vpbench import registry
from vpbench.api import Classifier, ClipBatch, Method, Pruner
from vpbench.api.backbone import classifier
from vpbench.api.contexts import precise
from vpbench.api.method import load_method
from vpbench.backbones import loading
from vpbench.backbones.checkpoints import places
from vpbench.backbones.layers import drop_rates
from vpbench.backbones.plain import Block
from vpbench.commands.train.clips import Ahead, Source, calibration, clips_of
from vpbench.commands.train.curves import draw
from vpbench.commands.train.engine import Losses, place
from vpbench.commands.train.finetune_recipes import FinetuneRecipe
from vpbench.commands.train.layers import groups
from vpbench.commands.train.loop import Batch, Entry, Job, Outcome, State, Training
from vpbench.data import Dataset, Given
from vpbench.data.sources import load_dataset
from vpbench.errors import UsageError, near_matches
from vpbench.plan.expand import both_given
from vpbench.registry import Sizes
from vpbench.rows.names import FEW
from vpbench.tasks.attach import attached


@dataclass(frozen=True)
class Start:
    """What a fine-tuning starts from: the network in training, the method that is attached to it, the clips' source."""

    model: Classifier
    pruner: Pruner
    source: Source
    #: facts of the record: names of weights, dataset, method and recipe
    said: Entry
    #: what the outputs are called
    classes: tuple[str, ...]
    #: sizes without what is dropped in training
    sizes: Sizes


class Finetuning(Training[Method, FinetuneRecipe, Classifier]):
    """Fine-tuning of all weights; a run of fewer steps than the recipe's goes through the whole schedule in them."""

    suffixes = (".finetuned", ".finetuned")
    shared = True

    def __init__(self, job: Job[Method, FinetuneRecipe], start: Start) -> None:
        recipe, source, model = job.recipe, start.source, start.model
        self.start, self.number = start, 0
        optimizer = torch.optim.AdamW(list(groups(model, recipe)), lr=recipe.lr, betas=recipe.betas)
        total = job.steps or max(round(recipe.epochs * max(source.per_epoch // recipe.accumulate, 1)), 1)
        state = State(model, nn.Identity(), [optimizer])
        if recipe.ema:
            state.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema))
        super().__init__(job, state, total, source.name)

    def epoch(self, number: int) -> float:
        """Return where in the recipe's schedule a step is."""
        return number * (self.job.recipe.epochs / self.steps)

    def batch(self, number: int) -> Batch:
        """Return augmented and mixed clips, and the probabilities of their classes."""
        self.number = number
        return self.start.source.batch(number)

    def losses(self, *given: Tensor) -> Losses:
        """Return the cross-entropy of what the method leaves, and the share of clips that were told right."""
        pixels, target = given
        rank, processes = place()
        # random choices follow the id; each clip of the run has its own
        ids = tuple(f"{self.number}/{rank + processes * n}" for n in range(len(pixels)))
        logits = precise(self.state.model(ClipBatch(pixels, ids), self.start.pruner).logits)
        right = (logits.argmax(-1) == target.argmax(-1)).float().mean()
        return {"loss": -(target * logits.log_softmax(-1)).sum(-1).mean(), "accuracy": right}

    def rate(self, group: Mapping[str, Any]) -> float:
        """Return the rate of a layer's parameters."""
        return self.job.recipe.rate(self.epoch(self.state.step)) * float(group["share"])

    def stepped(self) -> None:
        """Bring the average of weights up to date."""
        if isinstance(self.state.average, AveragedModel):
            self.state.average.to(next(self.state.model.parameters()).device)
            self.state.average.update_parameters(self.state.model)

    @property
    def weights(self) -> Path:
        """Where the weights are written; those of a wrapped network where its library looks for them."""
        return self.job.out / "model.safetensors" if hasattr(self.state.model, "network") else super().weights

    def due(self, step: int) -> bool:
        """Whether the log gets an entry: fifty to an epoch at most, and at least a hundred in all if there are such."""
        every = max(min(self.start.source.per_epoch // 50, self.steps // 100), 1)
        return step > 0 and (step % every == 0 or step == self.steps)

    def entry(self, losses: dict[str, float]) -> Entry:
        """Return losses, accuracy on augmented clips, rate and speed."""
        state, recipe = self.state, self.job.recipe
        said: Entry = {
            "step": state.step,
            "epoch": round(self.epoch(state.step), 4),
            "seconds": round(state.seconds, 1),
        }
        said |= {name: round(value, 5) for name, value in losses.items()}
        rate = recipe.rate(self.epoch(state.step - 1))
        return said | {"lr": rate, "clips_per_s": round(state.step * recipe.clips / max(state.seconds, 1e-9), 2)}

    def outcome(self) -> Outcome:
        """Return the weights, averaged where the recipe wants that, with all that `run` says of them."""
        job, state = self.job, self.state
        averaged = isinstance(state.average, AveragedModel)
        trained = state.average.module if isinstance(state.average, AveragedModel) else state.model
        facts: Entry = {"backbone": job.backbone, "weights_sha256": job.weights_sha256, **self.start.said}
        facts |= {"parameters": asdict(job.method), "data": self.data, "recipe": asdict(job.recipe)}
        facts |= {"steps": state.step, "averaged": averaged}
        metadata = {
            "finetuned": json.dumps(facts),
            loading.FINETUNED_WITH: _with(self.start.said["method"], job.method),
        }
        results = {"seconds": round(state.seconds), "cpu_s": round(state.cpu_s), "last": state.log[-1]}
        wrapped, texts = getattr(trained, "network", None), dict[str, str]()
        if wrapped is None:
            sizes = json.dumps(asdict(self.start.sizes))
            # the order of the names is that of the outputs
            metadata |= {"format": "vpbench", "sizes": sizes, "classes": json.dumps(self.start.classes)}
        else:
            texts = _of_library(wrapped, job.weights, self.start.classes)
        kept = (trained if wrapped is None else wrapped).state_dict()
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in kept.items()}
        return Outcome(tensors, metadata, facts, results, texts)

    def finished(self) -> None:
        """Draw the curves."""
        draw(self.state.log, self.job.out / "curves.png")


def _of_library(wrapped: Any, weights: str, classes: Sequence[str]) -> dict[str, str]:
    """Return what has to lie beside the weights of a wrapped network: its configuration, and how clips are prepared."""
    wrapped.config.id2label = dict(enumerate(classes))
    wrapped.config.label2id = {name: number for number, name in enumerate(classes)}
    wrapped.config.architectures = [type(wrapped).__name__]
    processor = None if weights == "random" else places.find(Path(weights)).processor
    found = {"config.json": wrapped.config.to_json_string(use_diff=False)}
    return found if processor is None else found | {processor.name: processor.read_text(encoding="utf-8")}


def _with(name: str, method: Method) -> str:
    """Name a method with its parameters: all of a few, of many those that are not as they come; never its seed."""
    given = {key: value for key, value in asdict(method).items() if key != "seed"}
    usual = {each.name: each.default for each in fields(method)}
    shown = {key: value for key, value in given.items() if len(given) <= FEW or value != usual[key]}
    said = ", ".join(
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in shown.items()
    )
    return f"{name} ({said})" if said else name


def network(job: Job[Any, FinetuneRecipe], dataset: Dataset, name: str, new_head: bool) -> tuple[Classifier, Sizes]:
    """Build the backbone, with what the recipe drops in training; returns it, and its sizes without that.

    Raises UsageError for classes that the weights do not know (without `new_head`), and for what it cannot drop.
    """
    recipe, classes = job.recipe, len(dataset.classes)
    known = loading.fitting(job.backbone, job.weights).classes
    if known != classes and not new_head:
        raise UsageError(f"the weights know {known} classes, {name} has {classes}; --new-head trains a new classifier")
    built = loading.build(job.backbone, job.weights, recipe.seed)
    sizes = built.config
    if known != classes:
        if not isinstance(getattr(built, "head", None), nn.Linear):
            raise UsageError(
                f"{job.backbone} has no classifier that could be replaced; give weights of {classes} classes"
            )
        sizes = replace(sizes, classes=classes)
    inside = {"drop_path", "dropout"} <= {field.name for field in fields(sizes)}
    dropped = {"drop_path": recipe.drop_path, "dropout": recipe.dropout} if inside else {}
    torch.manual_seed(recipe.seed)
    model = classifier(job.backbone, replace(sizes, **dropped))
    kept = {key: tensor for key, tensor in built.state_dict().items() if sizes is built.config or "head." not in key}
    model.load_state_dict({**model.state_dict(), **kept})
    if not inside:
        _drop(job.backbone, model, recipe)
    return model.eval(), sizes


def _drop(backbone: str, model: Classifier, recipe: FinetuneRecipe) -> None:
    """Have a network whose sizes say nothing of it drop branches of its blocks, and inputs of its classifier."""
    blocks = [block for block in getattr(model, "blocks", ()) if isinstance(block, Block)]
    if recipe.drop_path and not blocks:
        raise UsageError(f"the blocks of {backbone} drop no branches; give --set drop_path=0")
    for block, rate in zip(blocks, drop_rates(recipe.drop_path, len(blocks)), strict=True):
        block.drop = rate
    if not recipe.dropout:
        return
    head = getattr(model, "head", None)
    if not isinstance(head, nn.Linear):
        raise UsageError(f"the classifier of {backbone} drops no inputs; give --set dropout=0")
    head.register_forward_pre_hook(lambda module, given: (F.dropout(given[0], recipe.dropout, module.training),))


@dataclass(frozen=True)
class Asked:
    """What a fine-tuning is of, by name; see the command's options."""

    backbone: str
    weights: str
    method: str
    params: Mapping[str, Any]
    keep: float | None
    recipe: str
    dataset: str
    split: str | None
    root: Path | None = None
    list: Path | None = None
    classes: Path | None = None
    decoder: str = "pyav"
    new_head: bool = False


def prepared(asked: Asked, recipe: FinetuneRecipe, out: Path, device: str, steps: int | None) -> Finetuning:
    """Load data and network and attach the method; raises UsageError, in one line, for what cannot be trained."""
    if reason := load_method(asked.method).untrainable:
        raise UsageError(f"{asked.method} is not trained with: {reason}")
    loading.check_classifies(asked.backbone)

    def names() -> Sequence[str]:
        found = loading.outputs(asked.backbone, asked.weights, None, asked.dataset)
        return () if found is None else found.names

    given = Given(asked.list, asked.classes, names, asked.split)
    dataset = load_dataset(asked.dataset).opened(asked.root, given)
    blank = Job[Any, FinetuneRecipe](asked.backbone, asked.weights, None, recipe, out, device, steps)
    method = _method(asked)
    model, sizes = network(blank, dataset, asked.dataset, asked.new_head)
    if asked.keep is not None:
        seen = calibration(dataset, asked.backbone, model, asked.decoder)
        method = method.at_keep(asked.keep, model, seen)
    pruner = attached(method, model.train(), lambda reason: UsageError(f"{_where(asked)}: {reason}"))
    split = asked.split or ("train" if "train" in dataset.splits else dataset.default_split(asked.keep is not None))
    said = {"weights": asked.weights, "dataset": asked.dataset, "split": split, "method": asked.method}
    source: Source = clips_of(dataset, asked.dataset, split, model, recipe, asked.decoder)
    source = source if device == "cpu" else Ahead(source)
    start = Start(model, pruner, source, {**said, "recipe_name": asked.recipe}, dataset.classes, sizes)
    return Finetuning(replace(blank, method=method), start)


def _where(asked: Asked) -> str:
    return f"{asked.method} cannot run on {asked.backbone}"


def _method(asked: Asked) -> Method:
    """Return the method with what was set; raises UsageError where it cannot prune here, or a ratio says otherwise."""
    kind, flow = load_method(asked.method), registry.backbone(asked.backbone).flow
    if flow not in kind.flows:
        flows = " or ".join(sorted(kind.flows))
        raise UsageError(f"{_where(asked)}: it prunes tokens as {flows}, these are a {flow}")
    if asked.keep is not None and (both := sorted(asked.params.keys() & set(kind.set_by_keep))):
        raise both_given(asked.method, both[0])
    return kind(**asked.params)


def parted(sets: Sequence[str], method: str, parameters: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Part `name=value` into those of the method and those of the recipe (also `recipe.name=value`).

    A name that both have is the method's. Raises UsageError for what is no assignment, and for names that neither has.
    """
    own, others, numbers = list[str](), list[tuple[str, str]](), [each.name for each in fields(FinetuneRecipe)]
    for each in sets:
        target, equals, value = each.partition("=")
        if not equals or not value:
            raise UsageError(f"--set {each!r}: write name=value")
        if target in parameters or target.startswith(f"{method}."):
            own.append(each)
        elif (name := target.removeprefix("recipe.")) in numbers:
            others.append((name, value))
        else:
            known = near_matches(name, [*parameters, *numbers])
            raise UsageError(f"--set {each}: neither {method} nor a recipe has {name!r}{known}")
    return own, others
