"""Workers by Ray (the extra `ray`): on the cluster of RAY_ADDRESS, on one that runs here, or on this host alone.

Ray starts workers, one GPU or `--threads` processors each, and starts them anew where their node was lost. What they do
is what `--shard` does, in a results folder that all nodes have to see: neither rows nor leases go through Ray, so that
the driver can be stopped and come back.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vpbench.errors import UsageError, VpbenchError
from vpbench.plan import Options
from vpbench.plan import manifest as manifests
from vpbench.progress import task as progress_of
from vpbench.rows.store import Store
from vpbench.run import resolve
from vpbench.run.executors.shards import Shards
from vpbench.run.finish import finish
from vpbench.run.group import Only, Outcome, done
from vpbench.run.planned import plan_all
from vpbench.run.resolve import Job
from vpbench.run.status import Watch

#: how often a worker is started anew whose node or process was lost, before that is an error
RETRIES = 10
#: what a Ray that is started here leaves: to tell its makers, and to let its workers step back behind other processes
_OF_OWN = ("RAY_USAGE_STATS_ENABLED", "RAY_worker_niceness")
#: seconds between two looks at how far workers are
POLL_S = 5.0


@dataclass(frozen=True)
class Ray:
    """Plans, has workers do the rest, and derives the rows."""

    def __call__(self, job: Job, only: Only | None) -> Outcome:
        """Measure all; raises UsageError without Ray, and for a cluster without a device for a worker."""
        store, asked = Store(job.asked.out), _absolute(job)
        finished = done(store, only)
        todo = {cell.config_id for cell in job.cells} - finished
        if todo:
            with _connected() as ray:
                _work(ray, asked, job.command, only)
        rows = []
        for cells in job.groups:
            manifest = manifests.read(store.folder, cells[0].config_id)
            if manifest is not None:
                rows += finish(store, manifest, todo & {cell.config_id for cell in cells})
        failed = sum(row["status"] != "ok" for row in rows)
        return Outcome(len(rows) - failed, len(job.cells) - len(todo), failed)


@contextlib.contextmanager
def _connected() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UsageError("--executor ray needs Ray: pip install 'vpbench[ray]'") from error
    for name in _OF_OWN:
        os.environ.setdefault(name, "0")
    own = not ray.is_initialized()
    if own:
        ray.init(log_to_driver=True, include_dashboard=False)
    try:
        yield ray
    finally:
        if own:
            ray.shutdown()


def _work(ray: Any, asked: Options, command: str, only: Only | None) -> None:
    """Plan on a worker's device, then run as many workers as the cluster has devices for, and follow them."""
    on_gpu, threads = asked.device.startswith("cuda"), asked.threads or 1
    needs = {"num_gpus": 1} if on_gpu else {"num_cpus": threads}
    there = ray.cluster_resources()
    count = int(there.get("GPU", 0) if on_gpu else there.get("CPU", 0) // threads)
    if not count:
        what = "GPU" if on_gpu else f"{threads} free processors"
        raise UsageError(f"the Ray cluster has no node with {what}; see `ray status`, or give --threads or --device")
    remote = ray.remote(max_retries=RETRIES, **needs)
    try:
        ray.get(remote(_plan).remote(asked, command, only))
        watch = Watch(asked.out)
        left = [remote(_worker).remote(asked, command, only, number, count) for number in range(count)]
        before, total, _ = watch.shards()
        with progress_of(f"{count} workers", total, "steps") as progress:
            progress.advance(before)
            while left:
                ended, left = ray.wait(left, timeout=POLL_S)
                now, _, _ = watch.shards()
                progress.advance(max(0, now - before))
                before = max(now, before)
                ray.get(ended)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, VpbenchError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise VpbenchError(f"Ray: {lines[0]}; the same command goes on from what was measured") from error


def _plan(asked: Options, command: str, only: Only | None) -> None:
    """Plan, in a worker."""
    plan_all(resolve.job(asked, command), Store(asked.out), only)


def _worker(asked: Options, command: str, only: Only | None, own: int, of: int) -> None:
    """Be one of several workers."""
    Shards(own, of)(resolve.job(asked, command), only)


def _absolute(job: Job) -> Options:
    """Return the options so that they mean the same in another process's working directory, on any number of cores."""
    asked = job.asked
    paths = {name: value.resolve() for name, value in asked if isinstance(value, Path)}
    weights = str(Path(asked.weights).resolve()) if os.path.exists(asked.weights) else asked.weights
    device = "cuda" if asked.device.startswith("cuda") else asked.device  # Ray shows each worker its own alone
    return asked.model_copy(update=paths | {"weights": weights, "threads": job.shared.threads, "device": device})
