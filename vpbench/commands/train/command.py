"""`vpbench train`: the backbones that come with the package, and the trained parts of methods."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vpbench.commands.options import as_typed
from vpbench.errors import UsageError, near_matches

app = typer.Typer(help="Train embedded backbones, or a method's trained parts on your own.", no_args_is_help=True)
Out = Annotated[Path, typer.Option(help="folder for weights, log, record and checkpoint")]
Steps = Annotated[int | None, typer.Option(min=1, help="optimisation steps (default: the recipe's)")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads (default: all cores)")]


@app.command("videomae-embedded")
def videomae_embedded(out: Out, steps: Steps = None, threads: Threads = None) -> None:
    """Train the embedded VideoMAE; resumes from the checkpoint in --out."""
    from vpbench.commands.train.embedded.videomae import Recipe, train
    from vpbench.run import resolve

    recipe = Recipe() if steps is None else Recipe(steps=steps)
    typer.echo(str(train(recipe, out, threads or resolve.threads(), as_typed())))


@app.command("vivit-embedded")
def vivit_embedded(out: Out, steps: Steps = None, threads: Threads = None) -> None:
    """Train the embedded ViViT; resumes from the checkpoint in --out."""
    from vpbench.commands.train.embedded.vivit import Recipe, train
    from vpbench.run import resolve

    recipe = Recipe() if steps is None else Recipe(steps=steps)
    typer.echo(str(train(recipe, out, threads or resolve.threads(), as_typed())))


@app.command("vitdet-embedded")
def vitdet_embedded(out: Out, steps: Steps = None, threads: Threads = None) -> None:
    """Train the embedded ViTDet to find shapes; resumes from the checkpoint in --out."""
    from vpbench.commands.train.embedded.vitdet import Recipe, train
    from vpbench.run import resolve

    recipe = Recipe() if steps is None else Recipe(steps=steps)
    typer.echo(str(train(recipe, out, threads or resolve.threads(), as_typed())))


@app.command("grid-embedded")
def grid_embedded(
    backbone: Annotated[str, typer.Argument(help="mvit_embedded or videoswin_embedded")],
    out: Out,
    steps: Steps = None,
    threads: Threads = None,
) -> None:
    """Train an embedded backbone whose tokens form a grid; resumes from the checkpoint in --out."""
    from vpbench.commands.train.embedded.grid import NAMES, Recipe, train
    from vpbench.run import resolve

    if backbone not in NAMES:
        raise UsageError(f"no such embedded backbone: {backbone!r}{near_matches(backbone, NAMES)}")
    recipe = Recipe() if steps is None else Recipe(steps=steps)
    typer.echo(str(train(backbone, recipe, out, threads or resolve.threads(), as_typed())))


@app.command("rgtp-temporal")
def rgtp_temporal(
    backbone: Annotated[str, typer.Option(help="see `vpbench ls backbones`; a vivit")],
    out: Out,
    weights: Annotated[str, typer.Option(help="embedded, random, or a dense checkpoint")] = "embedded",
    recipe: Annotated[str, typer.Option(help="k400, epic or embedded")] = "embedded",
    preset: Annotated[str | None, typer.Option(help="rgtp/NAME, whose pruning the encoder gets used to")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", help="name=value of rgtp; may be repeated")] = None,
    dataset: Annotated[str, typer.Option(help="see `vpbench ls datasets`")] = "synthmotion",
    root: Annotated[Path | None, typer.Option(help="where the dataset lies on disk")] = None,
    split: Annotated[str, typer.Option(help="split to train on; the embedded set generates its own clips")] = "train",
    test_split: Annotated[str, typer.Option(help="split whose accuracy the log tells")] = "test",
    decoder: Annotated[str, typer.Option(help="pyav or decord")] = "pyav",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N")] = "cpu",
    threads: Threads = None,
) -> None:
    """Train a ViViT's temporal encoder on what its pruned spatial one gives (RGTP, ICIP 2025); resumes from --out."""
    import torch

    from vpbench import registry
    from vpbench.commands.train import rgtp_temporal as train_rgtp_temporal
    from vpbench.commands.train import spatial_videos
    from vpbench.run import resolve

    if recipe not in train_rgtp_temporal.RECIPES:
        raise UsageError(f"no such recipe: {recipe!r}{near_matches(recipe, train_rgtp_temporal.RECIPES)}")
    torch.set_num_threads(threads or resolve.threads())
    method = spatial_videos.method(preset, sets or ())
    job = train_rgtp_temporal.Job(backbone, weights, method, train_rgtp_temporal.RECIPES[recipe][0], out, device)
    model = train_rgtp_temporal.load(job)
    protocol = registry.backbone(backbone).protocol
    source = spatial_videos.Source(dataset, root, decoder, model, protocol)
    typer.echo(
        str(
            train_rgtp_temporal.train(
                job, model, source.training(split), source.split(test_split), source.name, as_typed()
            )
        )
    )


@app.command()
def stts(
    backbone: Annotated[str, typer.Option(help="see `vpbench ls backbones`; one with a grid of tokens")],
    out: Out,
    weights: Annotated[str, typer.Option(help="embedded, random, or a dense or STTS checkpoint")] = "embedded",
    recipe: Annotated[str, typer.Option(help="mvit, videoswin, videoswin_literal or embedded")] = "embedded",
    time: Annotated[str, typer.Option(help="slices kept, block:amount; see `vpbench ls methods`")] = "0:0.5",
    space: Annotated[str, typer.Option(help="windows kept, block:amount; empty: whole slices")] = "",
    dataset: Annotated[str, typer.Option(help="see `vpbench ls datasets`")] = "synthmotion",
    root: Annotated[Path | None, typer.Option(help="where the dataset lies on disk")] = None,
    split: Annotated[str, typer.Option(help="split to train on; the embedded set generates its own clips")] = "train",
    decoder: Annotated[str, typer.Option(help="pyav or decord")] = "pyav",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N")] = "cpu",
    seed: Annotated[int, typer.Option(help="of scorers, order, noise and augmentation")] = 0,
    steps: Steps = None,
    threads: Threads = None,
) -> None:
    """Train STTS's scorers (ECCV 2022), and the backbone if the recipe says so; resumes from what is in --out."""
    from dataclasses import replace

    import torch

    from vpbench.commands.train import clips
    from vpbench.commands.train import stts as train_stts
    from vpbench.commands.train.recipes import RECIPES
    from vpbench.methods.stts import Stts
    from vpbench.run import resolve

    if recipe not in RECIPES:
        raise UsageError(f"no such recipe: {recipe!r}{near_matches(recipe, RECIPES)}")
    torch.set_num_threads(threads or resolve.threads())
    chosen = replace(RECIPES[recipe][0], seed=seed)
    job = train_stts.Job(backbone, weights, Stts(time=time, space=space), chosen, out, device, steps)
    model = train_stts.load(job)
    source = clips.source(dataset, root, split, model, chosen, decoder)
    try:
        typer.echo(str(train_stts.train(job, source, model, as_typed())))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
