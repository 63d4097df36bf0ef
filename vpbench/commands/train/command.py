"""`vpbench train`: the backbones that come with the package, and the trained parts of methods."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from vpbench.commands.options import ClassesFile, ListFile, Root, as_typed
from vpbench.errors import UsageError, near_matches

if TYPE_CHECKING:
    from vpbench.commands.train.embedded import Schedule

R = TypeVar("R", bound="Schedule")
app = typer.Typer(
    help="Fine-tune with a method, train embedded backbones, or a method's trained parts.", no_args_is_help=True
)
Out = Annotated[Path, typer.Option(help="folder for weights, log, record and checkpoint")]
Steps = Annotated[int | None, typer.Option(min=1, help="optimisation steps (default: the recipe's)")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads (default: all cores)")]


def _use(threads: int | None) -> None:
    import torch

    from vpbench.commands.train.engine import here
    from vpbench.run import resolve

    torch.set_num_threads(threads or max(resolve.threads() // here(), 1))


def _embedded(
    train: Callable[[R, Path, str], Path], recipe: R, out: Path, steps: int | None, threads: int | None
) -> None:
    _use(threads)
    typer.echo(str(train(recipe if steps is None else replace(recipe, steps=steps), out, as_typed())))


def _add(module: str, recipe: str, what: str) -> None:
    """Add the command that trains by one module of `embedded`."""

    def command(out: Out, steps: Steps = None, threads: Threads = None) -> None:
        own = import_module(f"vpbench.commands.train.embedded.{module}")
        _embedded(own.train, getattr(own, recipe)(), out, steps, threads)

    app.command(f"{module}-embedded", help=f"Train the embedded {what}; resumes from the checkpoint in --out.")(command)


_add("videomae", "VideoMAERecipe", "VideoMAE")
_add("vivit", "ViViTRecipe", "ViViT")
_add("vitdet", "ViTDetRecipe", "ViTDet to find shapes")


@app.command("grid-embedded")
def grid_embedded(
    backbone: Annotated[str, typer.Argument(help="see `vpbench ls backbones`; an embedded one with a grid of tokens")],
    out: Out,
    steps: Steps = None,
    threads: Threads = None,
) -> None:
    """Train an embedded backbone whose tokens form a grid; resumes from the checkpoint in --out."""
    from vpbench.commands.train.embedded.grid import GridRecipe, names, train

    known = names()
    if backbone not in known:
        raise UsageError(f"no such embedded backbone: {backbone!r}{near_matches(backbone, known)}")
    _embedded(partial(train, backbone), GridRecipe(), out, steps, threads)


@app.command("rgtp-temporal")
def rgtp_temporal(
    backbone: Annotated[str, typer.Option(help="see `vpbench ls backbones`; a vivit")],
    out: Out,
    weights: Annotated[str, typer.Option(help="embedded, random, or a dense checkpoint")] = "embedded",
    recipe: Annotated[str, typer.Option(help="k400, epic or embedded")] = "embedded",
    preset: Annotated[str | None, typer.Option(help="rgtp/NAME, whose pruning the encoder gets used to")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", help="name=value of rgtp; may be repeated")] = None,
    dataset: Annotated[str, typer.Option(help="see `vpbench ls datasets`")] = "synthmotion",
    root: Root = None,
    split: Annotated[str, typer.Option(help="split to train on; the embedded set generates its own clips")] = "train",
    test_split: Annotated[str, typer.Option(help="split whose accuracy the log tells")] = "test",
    decoder: Annotated[str, typer.Option(help="pyav or decord")] = "pyav",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N")] = "cpu",
    threads: Threads = None,
) -> None:
    """Train a ViViT's temporal encoder on what its pruned spatial one gives (RGTP, ICIP 2025); resumes from --out."""
    from vpbench import registry
    from vpbench.commands.train import rgtp_temporal as train_rgtp_temporal
    from vpbench.commands.train import spatial
    from vpbench.commands.train.loop import Job

    if recipe not in train_rgtp_temporal.RECIPES:
        raise UsageError(f"no such recipe: {recipe!r}{near_matches(recipe, train_rgtp_temporal.RECIPES)}")
    _use(threads)
    method = spatial.method(preset, sets or ())
    job = Job(backbone, weights, method, train_rgtp_temporal.RECIPES[recipe], out, device)
    model = train_rgtp_temporal.load(job)
    source = spatial.Source(dataset, root, decoder, model, registry.backbone(backbone).protocol)
    videos = (source.training(split), source.split(test_split), source.name(split, test_split))
    typer.echo(str(train_rgtp_temporal.train(job, model, *videos, as_typed())))


@app.command()
def stts(
    backbone: Annotated[str, typer.Option(help="see `vpbench ls backbones`; one with a grid of tokens")],
    out: Out,
    weights: Annotated[str, typer.Option(help="embedded, random, or a dense or STTS checkpoint")] = "embedded",
    recipe: Annotated[str, typer.Option(help="mvit, videoswin, videoswin_literal or embedded")] = "embedded",
    time: Annotated[str, typer.Option(help="slices kept, block:amount; see `vpbench ls methods`")] = "0:0.5",
    space: Annotated[str, typer.Option(help="windows kept, block:amount; empty: whole slices")] = "",
    dataset: Annotated[str, typer.Option(help="see `vpbench ls datasets`")] = "synthmotion",
    root: Root = None,
    split: Annotated[str, typer.Option(help="split to train on; the embedded set generates its own clips")] = "train",
    decoder: Annotated[str, typer.Option(help="pyav or decord")] = "pyav",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N")] = "cpu",
    seed: Annotated[int, typer.Option(help="of scorers, order, noise and augmentation")] = 0,
    steps: Steps = None,
    threads: Threads = None,
) -> None:
    """Train STTS's scorers (ECCV 2022), and the backbone if the recipe says so; resumes from what is in --out."""
    from vpbench.commands.train import clips
    from vpbench.commands.train import stts as train_stts
    from vpbench.commands.train.loop import Job
    from vpbench.commands.train.stts_recipes import RECIPES
    from vpbench.methods.stts import Stts

    if recipe not in RECIPES:
        raise UsageError(f"no such recipe: {recipe!r}{near_matches(recipe, RECIPES)}")
    _use(threads)
    chosen = replace(RECIPES[recipe], seed=seed)
    job = Job(backbone, weights, Stts(time=time, space=space), chosen, out, device, steps)
    model = train_stts.load(job)
    source = clips.source(dataset, root, split, model, chosen, decoder)
    typer.echo(str(train_stts.train(job, source, model, as_typed())))


@app.command()
def finetune(
    backbone: Annotated[str, typer.Option(help="see `vpbench ls backbones`; any that classifies clips")],
    out: Out,
    weights: Annotated[str, typer.Option(help="embedded, random, a file or folder, or org/name on a hub")] = "embedded",
    method: Annotated[str, typer.Option(help="what prunes while training; see `vpbench ls methods`")] = "dense",
    keep: Annotated[float | None, typer.Option(help="keep ratio that the method's parameters are derived from")] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", help="name=value of the method, or of the recipe (also recipe.name=value); repeated"),
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="embedded, videomae_k400, videomae_ssv2, rlt_k400, or a TOML file of its numbers")
    ] = "embedded",
    epochs: Annotated[float | None, typer.Option(help="epochs (default: the recipe's)")] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="videos to a batch; the recipe's rates follow (default: the recipe's)")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="highest learning rate (default: the recipe's)")] = None,
    dataset: Annotated[str, typer.Option(help="see `vpbench ls datasets`")] = "synthmotion",
    root: Root = None,
    list: ListFile = None,
    classes: ClassesFile = None,
    split: Annotated[str | None, typer.Option(help="split to train on (default: train)")] = None,
    new_head: Annotated[bool, typer.Option("--new-head", help="begin with a new classifier of other classes")] = False,
    decoder: Annotated[str, typer.Option(help="pyav or decord")] = "pyav",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N")] = "cpu",
    steps: Steps = None,
    threads: Threads = None,
) -> None:
    """Fine-tune a backbone on labelled videos with a method; resumes from --out. `torchrun` starts several of it."""
    from vpbench import plan, registry
    from vpbench.backbones import loading
    from vpbench.commands.train import finetune as train_finetune
    from vpbench.commands.train import finetune_recipes, loop

    registry.check("methods", method)
    registry.check("datasets", dataset)
    registry.check("backbones", backbone)
    if keep is not None and not 0 < keep <= 1:
        raise UsageError(f"keep {keep:g} is outside (0, 1]; it is the share of tokens that stay")
    own, numbers = train_finetune.parted(sets or (), method, tuple(plan.parameters(method)))
    params = plan.parameter_sets(method, tuple(own))
    if len(params) != 1:
        raise UsageError("one training at a time: give each parameter one value")
    chosen = finetune_recipes.recipe(recipe, {"epochs": epochs, "batch": batch, "lr": lr}, numbers)
    _use(threads)
    where = {"dataset": dataset, "split": split, "root": root, "list": list, "classes": classes}
    asked = train_finetune.Asked(
        backbone, loading.local(weights), method, dict(params[0]), keep, recipe, **where, decoder=decoder,  # type: ignore[arg-type]
        new_head=new_head,
    )  # fmt: skip
    typer.echo(str(loop.run(train_finetune.prepared(asked, chosen, out, device, steps), as_typed())))
