"""The command line. Heavy libraries are imported inside commands, so that help and mistakes answer at once."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from vpbench.command_line import as_typed
from vpbench.commands import check, checkpoint, data, plot, report, show, table, train
from vpbench.commands.options import (
    BackboneName,
    Batch,
    Cache,
    CacheGb,
    Config,
    DatasetName,
    Decoder,
    Device,
    DryRun,
    Dtype,
    EndToEnd,
    Energy,
    Force,
    Frames,
    Keep,
    Limit,
    MaxBatch,
    Methods,
    Mode,
    Out,
    Positions,
    Preset,
    Processes,
    ProfileName,
    Protocol,
    Root,
    Seed,
    Sets,
    Size,
    Split,
    Stages,
    Threads,
    Weights,
    Workers,
    described,
    request,
)
from vpbench.errors import UsageError, VpbenchError

app = typer.Typer(
    help="The reference benchmark for video token pruning: which method really buys speed, and what does it cost?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.command()(check.check)
app.command()(report.report)
app.command()(table.table)
app.command()(show.show)
app.command()(table.published)
app.command()(plot.plot)
app.add_typer(train.app, name="train")
app.add_typer(checkpoint.app, name="checkpoint")
app.add_typer(data.app, name="data")


class What(StrEnum):
    """What `ls` can list."""

    methods = "methods"
    datasets = "datasets"
    protocols = "protocols"
    backbones = "backbones"
    presets = "presets"


class Counter(StrEnum):
    """What counts operators beside the closed form."""

    torch = "torch"
    fvcore = "fvcore"


#: what `vpbench demo` measures: methods that drop or merge tokens, those that leave a smaller grid of them, those that
#: work inside the steps of a clip, and a detector's
DEMO: tuple[dict[str, Any], ...] = (
    {"method": "dense,random,rlt,sta,tdiff,tome", "keep": "0.2,0.4,0.6,0.8"},
    {"method": "dense,stts,frame_stride,downsample", "keep": "0.25,0.5,0.75", "backbone": "mvit_embedded"},
    {"method": "dense,rgtp,random,topk", "keep": "0.25,0.5,0.75", "backbone": "vivit_embedded"},
    {
        "method": "dense,rgtp",
        "keep": "0.1,0.25",
        "backbone": "vitdet_embedded",
        "dataset": "synthmotion_boxes",
        "split": "ci",
        "limit": 20,
    },
)


def _execute(asked: Any, dry_run: bool, force: bool) -> None:
    from vpbench.store import Store

    store = Store(asked.out)
    from vpbench import plan, runner

    shared, digests = runner.resolve(asked)
    groups = [plan.cells(asked, each, digests) for each in plan.groups(shared, asked, runner.largest_batch)]
    cells = [cell for group in groups for cell in group]
    if dry_run:
        _print_plan(cells, store)
        return
    known = digests({cell.method for cell in cells})
    try:
        outcome = runner.run_all(groups, known, store, as_typed(), force)
    except KeyboardInterrupt:
        typer.echo("stopped; what was measured is kept, and the same command goes on from there", err=True)
        raise typer.Exit(130) from None
    _warn(store)
    if outcome.measured == 0 and outcome.failed == 0:
        typer.echo(f"nothing to measure: all {outcome.already} cells are in {asked.out} (--force measures them again)")
    else:
        typer.echo(
            f"{outcome.measured} cells measured, {outcome.already} were done before, "
            f"{outcome.failed} failed or incomplete"
        )
    _show(store, cells)
    if outcome.failed:
        raise typer.Exit(1)


def _print_plan(cells: Any, store: Any) -> None:
    done = store.done()
    for cell in cells:
        shared = (f"{'done ' if cell.config_id in done else 'to do'}", cell.setting.mode, f"batch {cell.setting.batch}")
        typer.echo("  ".join((cell.config_id, *shared, cell.label)))
    finished = sum(cell.config_id in done for cell in cells)
    typer.echo(f"{len(cells)} cells, {finished} done, {len(cells) - finished} to do")


def _show(store: Any, cells: Any) -> None:
    from vpbench.store import latest
    from vpbench.tables import table

    results = latest(store.read("results"))
    results = results[results["config_id"].isin([cell.config_id for cell in cells])]
    typer.echo(table.report(results, store.read("videos"), "console"))


def _warn(store: Any) -> None:
    for problem in store.problems:
        typer.echo(f"warning: {problem}", err=True)


@app.command()
def demo(out: Out = None, limit: Limit = None, force: Force = False, dry_run: DryRun = False) -> None:
    """Measure methods on the embedded clips and backbones, print the tables, draw figures and a report."""
    folder = out or Path("out/demo")
    for sweep in DEMO:
        given = {"profile": "ci", **sweep, "out": folder} | ({"limit": limit} if limit else {})
        _execute(request(None, None, given), dry_run, force)
    if not dry_run:
        plot.draw(folder)
        typer.echo(f"open {report.write(folder)}")


@app.command("ls")
def ls(what: What) -> None:
    """List methods, datasets, protocols, backbones or presets."""
    from vpbench import presets, protocols, registry
    from vpbench.backbones.catalog import CATALOG

    if what is What.backbones:
        lines = {name: entry.summary for name, entry in CATALOG.items()}
    elif what is What.protocols:
        lines = protocols.summaries()
    elif what is What.presets:
        lines = presets.summaries()
    else:
        kind: registry.Kind = "methods" if what is What.methods else "datasets"
        lines = {name: registry.summary(kind, name) for name in registry.names(kind)}
    width = max((len(name) for name in lines), default=0)
    for name, text in lines.items():
        typer.echo(f"{name:<{width}}  {text}")


@app.command()
def run(
    method: Methods = None, keep: Keep = None, sets: Sets = None, dataset: DatasetName = None, split: Split = None,
    root: Root = None, backbone: BackboneName = None, weights: Weights = None, frames: Frames = None,
    size: Size = None, positions: Positions = None, dtype: Dtype = None,
    device: Device = None, mode: Mode = None, batch: Batch = None, threads: Threads = None, protocol: Protocol = None,
    decoder: Decoder = None, workers: Workers = None, cache: Cache = None, cache_gb: CacheGb = None,
    e2e: EndToEnd = None, stages: Stages = None, energy: Energy = None, max_batch: MaxBatch = None, limit: Limit = None,
    profile: ProfileName = None, processes: Processes = None, seed: Seed = None, out: Out = None,
    config: Config = None, preset: Preset = None,
    dry_run: DryRun = False, force: Force = False,
) -> None:  # fmt: skip
    """Measure one method, beside dense and random, at one setting."""
    asked = request(config, preset, described(locals()))
    if len(asked.method) > 1 or len(asked.keep) > 1:
        raise UsageError("run takes one method and one keep ratio; `vpbench sweep` takes lists")
    _execute(asked, dry_run, force)


@app.command()
def sweep(
    method: Methods = None, keep: Keep = None, sets: Sets = None, dataset: DatasetName = None, split: Split = None,
    root: Root = None, backbone: BackboneName = None, weights: Weights = None, frames: Frames = None,
    size: Size = None, positions: Positions = None, dtype: Dtype = None,
    device: Device = None, mode: Mode = None, batch: Batch = None, threads: Threads = None, protocol: Protocol = None,
    decoder: Decoder = None, workers: Workers = None, cache: Cache = None, cache_gb: CacheGb = None,
    e2e: EndToEnd = None, stages: Stages = None, energy: Energy = None, max_batch: MaxBatch = None, limit: Limit = None,
    profile: ProfileName = None, processes: Processes = None, seed: Seed = None, out: Out = None,
    config: Config = None, preset: Preset = None,
    dry_run: DryRun = False, force: Force = False,
) -> None:  # fmt: skip
    """Measure several methods over keep ratios or parameter values; cells that are done are not repeated."""
    _execute(request(config, preset, described(locals())), dry_run, force)


@app.command()
def flops(
    method: Methods = None, keep: Keep = None, sets: Sets = None, backbone: BackboneName = None, frames: Frames = None,
    size: Size = None, preset: Preset = None, config: Config = None,
    tokens: Annotated[str | None, typer.Option(help="count methods that follow the clip at these token counts")] = None,
    counter: Annotated[Counter, typer.Option(help="operator counter to compare our closed form with")] = Counter.torch,
    clip: Annotated[bool, typer.Option("--clip", help="count on a real clip, by operator, with both counters")] = False,
    dataset: DatasetName = None, split: Split = None, root: Root = None, weights: Weights = None, seed: Seed = None,
) -> None:  # fmt: skip
    """Count multiply-accumulates of one clip or frame; without --clip neither weights nor data are needed."""
    given = {k: v for k, v in described(locals()).items() if k not in ("tokens", "clip", "counter")}
    asked = request(config, preset, given | {"limit": 1})
    from vpbench import plan
    from vpbench.backbones.catalog import CATALOG

    if clip:
        if CATALOG[asked.backbone].detects:
            raise UsageError(f"{asked.backbone} sees no clips, and its count follows no pixel; leave --clip out")
        _count_on_a_clip(asked)
        return
    shared = plan.setting(asked, 1)
    cells = plan.cells(asked, shared, lambda names: plan.Digests("", "", dict.fromkeys(names, "")))
    asked_for = {"dense", *asked.method}  # a sweep's random controls are not part of the question
    counted, given_tokens = [c for c in cells if c.method in asked_for], _whole_numbers(tokens)
    if CATALOG[shared.backbone].detects:
        from vpbench import count_frames

        lines = count_frames.report(counted, given_tokens, preset or "")
    else:
        from vpbench import count

        lines = count.report(counted, given_tokens, preset or "", counter.value)
    for line in lines:
        typer.echo(line)


def _whole_numbers(text: str | None) -> list[int]:
    try:
        return [int(part) for part in (text or "").split(",") if part]
    except ValueError as error:
        raise UsageError(f"--tokens {text!r}: give whole numbers separated by commas") from error


def _count_on_a_clip(asked: Any) -> None:
    from vpbench import plan, runner
    from vpbench.measure.flops import count_three_ways
    from vpbench.session import Session

    shared, digests = runner.resolve(asked)
    session = Session(shared)
    _, batch = next(session.batches(session.clips_to_time()[:1]))
    for cell in plan.cells(asked, shared, digests):
        if cell.match is None:
            typer.echo(f"{cell.label}, clip {batch.ids[0]}")
            for line in count_three_ways(session.backbone, batch, session.ready(cell).pruner):
                typer.echo(f"  {line}")


@app.command()
def verify(
    folders: Annotated[list[Path], typer.Argument(help="a parity case, or folders of cases", metavar="CASE_DIR...")],
) -> None:
    """Run parity cases and compare every tensor with what the published implementations computed."""
    from vpbench.verify import command

    raise typer.Exit(command.verify(folders, typer.echo, lambda problem: typer.echo(problem, err=True)))


@app.command()
def env(device: Device = None) -> None:
    """Show machine, threads, versions and git state, and what would spoil a measurement."""
    from dataclasses import asdict

    from vpbench.measure import machine

    found = machine.snapshot(device or "cpu")
    facts = asdict(found) | ({} if found.gpu or found.gpu_unknown else {"gpu": {}, "gpu_unknown": {}})
    for key, value in facts.items():
        for name, each in value.items() if isinstance(value, dict) else [("", value)]:
            typer.echo(f"{f'{key} {name}'.strip():<34} {'unknown' if each is None else each}")
    for warning in machine.warnings(found):
        typer.echo(f"warning: {warning}")


def main() -> None:
    """Run the command line; our own errors become one line and an exit code."""
    try:
        app()
    except VpbenchError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # `vpbench table | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
