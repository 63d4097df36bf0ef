"""`vpbench run` and `sweep`: measure."""

import inspect
from collections.abc import Collection
from pathlib import Path
from typing import Any

import typer

from vpbench.commands import options
from vpbench.commands.output import width_of
from vpbench.errors import UsageError
from vpbench.progress import say


def execute(asked: Any, dry_run: bool, force: bool, only: options.Only = None) -> int:
    """Measure what was asked and print its table; exits with 1 where a cell failed, 130 where it was stopped.

    Returns how many cells were measured.
    """
    from vpbench import plan
    from vpbench.rows.store import Store
    from vpbench.run import group, resolve

    _refuse_among_videos(asked.out, asked.root)
    shared, digests = resolve.resolve(asked)
    groups = [plan.cells(asked, each, digests) for each in plan.groups(shared, asked, resolve.largest_batch)]
    cells = [cell for each in groups for cell in each]
    done = group.done(Store(asked.out, writable=False), only) if asked.out.is_dir() else set()
    if force or not done.issuperset(cell.config_id for cell in cells):
        # nothing is written, and nothing planned, where data or weights cannot be used
        resolve.look(shared, [cells_of[0].setting for cells_of in groups])
    if dry_run:
        _print_plan(cells, done)
        return 0
    options.say_folder(asked.out)
    store = Store(asked.out)
    known = digests({cell.method for cell in cells})
    try:
        outcome = group.run_all(groups, known, store, options.as_typed(), force, only)
    except KeyboardInterrupt:
        say("stopped; what was measured is kept, and the same command goes on from there")
        raise typer.Exit(130) from None
    options.warn(store)
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
    return int(outcome.measured)


def _refuse_among_videos(out: Path, root: Path | None) -> None:
    """Raise UsageError where results would lie among videos; a folder of their own below the root is not read."""
    if root is not None and out.resolve() == root.resolve():
        raise UsageError(f"--out {out} is --root {root}, where nothing is written; name a folder of its own")


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
    typer.echo(report(results, store.predictions("videos", results), width=width_of()))


def sweep(
    method: options.Methods = None, keep: options.Keep = None, sets: options.Sets = None,
    dataset: options.DatasetName = None, split: options.Split = None, root: options.Root = None,
    list: options.ListFile = None, classes: options.ClassesFile = None,
    backbone: options.BackboneName = None, weights: options.Weights = None, weights_key: options.WeightsKey = None,
    frames: options.Frames = None,
    size: options.Size = None, positions: options.Positions = None, dtype: options.Dtype = None,
    device: options.Device = None, mode: options.Mode = None, batch: options.Batch = None,
    threads: options.Threads = None, protocol: options.Protocol = None, decoder: options.Decoder = None,
    workers: options.Workers = None, cache: options.Cache = None, cache_gb: options.CacheGb = None,
    e2e: options.EndToEnd = None, stages: options.Stages = None, energy: options.Energy = None,
    train_step: options.TrainStep = None, max_batch: options.MaxBatch = None, limit: options.Limit = None,
    profile: options.ProfileName = None, processes: options.Processes = None, seed: options.Seed = None,
    out: options.Out = None, config: options.Config = None, preset: options.Preset = None,
    only: options.Only = None, dry_run: options.DryRun = False, force: options.Force = False,
) -> None:  # fmt: skip
    """Measure several methods over keep ratios or parameter values; cells that are done are not repeated."""
    execute(options.request(config, preset, options.described(locals())), dry_run, force, only)


def run(**given: Any) -> None:
    """Measure one method, beside dense and random, at one setting."""
    asked = options.request(given["config"], given["preset"], options.described(given))
    if len(asked.method) > 1 or len(asked.keep) > 1:
        raise UsageError("run takes one method and one keep ratio; `vpbench sweep` takes lists")
    execute(asked, given["dry_run"], given["force"], given["only"])


run.__signature__ = inspect.signature(sweep, eval_str=True)  # type: ignore[attr-defined]  # the options are the same
