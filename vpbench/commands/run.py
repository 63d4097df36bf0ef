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
from vpbench.storage import on_disk


def execute(
    asked: Any,
    dry_run: bool,
    force: bool,
    only: options.Only = None,
    shard: str | None = None,
    executor: str = "inline",
) -> int:
    """Measure what was asked and print its table; exits with 1 where a cell failed, 130 where it was stopped.

    Returns how many cells were measured.
    """
    from vpbench.rows.store import Store
    from vpbench.run import group

    work = _executor(shard, executor, force)
    job = _job(asked, force, only, shard is not None)
    if dry_run:
        _print_plan(job.cells, group.done(Store(asked.out, writable=False), only) if asked.out.is_dir() else set())
        return 0
    options.say_folder(asked.out)
    try:
        outcome = work(job, only)
    except KeyboardInterrupt:
        say("stopped; what was measured is kept, and the same command goes on from there")
        raise typer.Exit(130) from None
    store = Store(asked.out, writable=False)
    options.warn(store)
    if outcome is None:
        typer.echo(f"nothing left to do for this worker; `vpbench status {asked.out}` tells about the others, and when")
        typer.echo(f"all are done `vpbench finish {asked.out}` makes the rows of what they measured")
        return 0
    if outcome.measured == 0 and outcome.failed == 0:
        typer.echo(f"nothing to measure: all {outcome.already} cells are in {asked.out} (--force measures them again)")
    else:
        typer.echo(
            f"{outcome.measured} cells measured, {outcome.already} were done before, "
            f"{outcome.failed} failed or incomplete"
        )
    _show(store, job.cells)
    if outcome.failed:
        raise typer.Exit(1)
    return int(outcome.measured)


def _job(asked: Any, force: bool, only: options.Only, looked_at: bool) -> Any:
    """Settle what was asked, and look at the data, unless they were looked at before, or nothing is left to do."""
    from vpbench.rows.store import Store
    from vpbench.run import group, resolve

    _refuse_among_videos(asked.out, asked.root)
    job = resolve.job(asked, options.as_typed())
    done = group.done(Store(asked.out, writable=False), only) if asked.out.is_dir() else set()
    if not looked_at and (force or not done.issuperset(cell.config_id for cell in job.cells)):
        # nothing is written, and nothing planned, where data or weights cannot be used
        resolve.look(job.shared, [cells[0].setting for cells in job.groups])
    return job


def _executor(shard: str | None, executor: str, force: bool) -> Any:
    """Return what does the work; raises UsageError for options that do not go together."""
    if force and (shard is not None or executor != "inline"):
        raise UsageError("--force is for one process; name another results folder to measure again with several")
    if shard is not None and executor != "inline":
        raise UsageError("--shard is one worker of several that you start; --executor ray starts them itself")
    if shard is not None:
        from vpbench.run.executors.shards import Shards

        return Shards(*options.share(shard))
    if executor == "ray":
        from vpbench.run.executors.ray import Ray

        return Ray()
    from vpbench.run.executors.inline import Inline

    return Inline(force)


def _refuse_among_videos(out: Path, root: Path | None) -> None:
    """Raise UsageError where results would lie among videos; a folder of their own below the root is not read."""
    if root is not None and on_disk(out) and out.resolve() == root.resolve():
        raise UsageError(f"--out {out} is --root {root}, where nothing is written; name a folder of its own")


def _print_plan(cells: Any, done: Collection[str]) -> None:
    for cell in cells:
        state = "done " if cell.config_id in done else "to do"
        shared = [state, cell.setting.mode, f"batch {cell.setting.batch}"]
        shared += [] if cell.setting.frames is None else [f"{cell.setting.frames} frames"]
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
    method: options.Methods = None, keep: options.Keep = None, budget_tokens: options.BudgetTokens = None,
    sets: options.Sets = None,
    dataset: options.DatasetName = None, split: options.Split = None, root: options.Root = None,
    list: options.ListFile = None, classes: options.ClassesFile = None,
    backbone: options.BackboneName = None, weights: options.Weights = None, weights_key: options.WeightsKey = None,
    frames: options.SeveralFrames = None,
    size: options.Size = None, positions: options.Positions = None, dtype: options.Dtype = None,
    device: options.Device = None, mode: options.Mode = None, batch: options.Batch = None,
    threads: options.Threads = None, protocol: options.Protocol = None, decoder: options.Decoder = None,
    workers: options.Workers = None, cache: options.Cache = None, cache_gb: options.CacheGb = None,
    e2e: options.EndToEnd = None, stages: options.Stages = None, energy: options.Energy = None,
    train_step: options.TrainStep = None, max_batch: options.MaxBatch = None, limit: options.Limit = None,
    profile: options.ProfileName = None, processes: options.Processes = None, seed: options.Seed = None,
    out: options.Out = None, config: options.Config = None, preset: options.Preset = None,
    only: options.Only = None, shard: options.Shard = None, executor: options.ExecutorName = "inline",
    dry_run: options.DryRun = False, force: options.Force = False,
) -> None:  # fmt: skip
    """Measure several methods over keep ratios or parameter values; cells that are done are not repeated."""
    execute(options.request(config, preset, options.described(locals())), dry_run, force, only, shard, executor)


def run(**given: Any) -> None:
    """Measure one method, beside dense and random, at one setting."""
    asked = options.request(given["config"], given["preset"], options.described(given))
    if any(len(given) > 1 for given in (asked.method, asked.keep, asked.budget_tokens, asked.frames)):
        raise UsageError("run takes one method, keep ratio and number of frames; `vpbench sweep` takes lists")
    execute(asked, given["dry_run"], given["force"], given["only"], given["shard"], given["executor"])


def plan(**given: Any) -> None:
    """Freeze what several workers will measure: cells, calibrated parameters, shards of videos; see `sweep --shard`."""
    from vpbench.rows.store import Store
    from vpbench.run.planned import plan_all

    asked = options.request(given["config"], given["preset"], options.described(given))
    job = _job(asked, False, given["only"], False)
    options.say_folder(asked.out)
    for found in plan_all(job, Store(asked.out), given["only"]):
        refused = sum(cell.status != "ok" for cell in found.cells)
        beside = min(found.block or 1, len(found.cells) - refused - 1)
        blocks = "" if given["only"] == "predict" or beside < 1 else f", timed beside dense {beside} at a time"
        typer.echo(
            f"{len(found.cells)} cells, {refused} of them refused; {sum(map(len, found.shards))} items in "
            f"{len(found.shards)} shards{blocks}: {asked.out}"
        )


_OPTIONS = inspect.signature(sweep, eval_str=True)
run.__signature__ = _OPTIONS  # type: ignore[attr-defined]  # the options are the same
plan.__signature__ = _OPTIONS.replace(  # type: ignore[attr-defined]
    parameters=[
        each for name, each in _OPTIONS.parameters.items() if name not in ("shard", "executor", "dry_run", "force")
    ]
)
