"""`vpbench run`, `sweep` and `demo`: measure."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import typer

from vpbench.commands import plot, report
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
    Only,
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
    as_typed,
    described,
    request,
    warn,
)
from vpbench.errors import UsageError

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


def _execute(asked: Any, dry_run: bool, force: bool, only: Only = None) -> None:
    from vpbench.rows.store import Store

    store = Store(asked.out)
    from vpbench import plan
    from vpbench.run import group, resolve

    shared, digests = resolve.resolve(asked)
    groups = [plan.cells(asked, each, digests) for each in plan.groups(shared, asked, resolve.largest_batch)]
    cells = [cell for each in groups for cell in each]
    if dry_run:
        _print_plan(cells, group.done(store, only))
        return
    known = digests({cell.method for cell in cells})
    try:
        outcome = group.run_all(groups, known, store, as_typed(), force, only)
    except KeyboardInterrupt:
        typer.echo("stopped; what was measured is kept, and the same command goes on from there", err=True)
        raise typer.Exit(130) from None
    warn(store)
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


def _print_plan(cells: Any, done: Collection[str]) -> None:
    for cell in cells:
        shared = (f"{'done ' if cell.config_id in done else 'to do'}", cell.setting.mode, f"batch {cell.setting.batch}")
        typer.echo("  ".join((cell.config_id, *shared, cell.label)))
    finished = sum(cell.config_id in done for cell in cells)
    typer.echo(f"{len(cells)} cells, {finished} done, {len(cells) - finished} to do")


def _show(store: Any, cells: Any) -> None:
    from vpbench.render.tables.cells import report
    from vpbench.rows.store import latest

    results = latest(store.read("results"))
    results = results[results["config_id"].isin([cell.config_id for cell in cells])]
    typer.echo(report(results, store.predictions("videos", results), "console"))


def demo(out: Out = None, limit: Limit = None, force: Force = False, dry_run: DryRun = False) -> None:
    """Measure methods on the embedded clips and backbones, print the tables, draw figures and a report."""
    folder = out or Path("out/demo")
    for sweep in DEMO:
        given = {"profile": "ci", **sweep, "out": folder} | ({"limit": limit} if limit else {})
        _execute(request(None, None, given), dry_run, force)
    if not dry_run:
        plot.draw(folder)
        typer.echo(f"open {report.write(folder)}")


def run(
    method: Methods = None, keep: Keep = None, sets: Sets = None, dataset: DatasetName = None, split: Split = None,
    root: Root = None, backbone: BackboneName = None, weights: Weights = None, frames: Frames = None,
    size: Size = None, positions: Positions = None, dtype: Dtype = None,
    device: Device = None, mode: Mode = None, batch: Batch = None, threads: Threads = None, protocol: Protocol = None,
    decoder: Decoder = None, workers: Workers = None, cache: Cache = None, cache_gb: CacheGb = None,
    e2e: EndToEnd = None, stages: Stages = None, energy: Energy = None, max_batch: MaxBatch = None, limit: Limit = None,
    profile: ProfileName = None, processes: Processes = None, seed: Seed = None, out: Out = None,
    config: Config = None, preset: Preset = None,
    only: Only = None,
    dry_run: DryRun = False, force: Force = False,
) -> None:  # fmt: skip
    """Measure one method, beside dense and random, at one setting."""
    asked = request(config, preset, described(locals()))
    if len(asked.method) > 1 or len(asked.keep) > 1:
        raise UsageError("run takes one method and one keep ratio; `vpbench sweep` takes lists")
    _execute(asked, dry_run, force, only)


def sweep(
    method: Methods = None, keep: Keep = None, sets: Sets = None, dataset: DatasetName = None, split: Split = None,
    root: Root = None, backbone: BackboneName = None, weights: Weights = None, frames: Frames = None,
    size: Size = None, positions: Positions = None, dtype: Dtype = None,
    device: Device = None, mode: Mode = None, batch: Batch = None, threads: Threads = None, protocol: Protocol = None,
    decoder: Decoder = None, workers: Workers = None, cache: Cache = None, cache_gb: CacheGb = None,
    e2e: EndToEnd = None, stages: Stages = None, energy: Energy = None, max_batch: MaxBatch = None, limit: Limit = None,
    profile: ProfileName = None, processes: Processes = None, seed: Seed = None, out: Out = None,
    config: Config = None, preset: Preset = None,
    only: Only = None,
    dry_run: DryRun = False, force: Force = False,
) -> None:  # fmt: skip
    """Measure several methods over keep ratios or parameter values; cells that are done are not repeated."""
    _execute(request(config, preset, described(locals())), dry_run, force, only)
