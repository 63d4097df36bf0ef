"""From a request to what is measured: settings, digests, threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from vpbench.backbones import loading
from vpbench.errors import UsageError
from vpbench.plan import Digests, Options, Setting, identity
from vpbench.tasks import job_of, protocol_of, split_of

#: workers that read videos for an accelerator, unless asked otherwise; on a CPU they would take the model's cores
MOST_WORKERS = 8


def digests(setting: Setting) -> Callable[[Iterable[str]], Digests]:
    """Return what hashes weights, clip list and method sources for the plan."""
    weights = loading.weights_digest(setting.backbone, setting.weights)
    manifest = job_of(setting.dataset, setting.backbone).manifest(setting)

    def of(methods: Iterable[str]) -> Digests:
        code = {name: identity.code_digest(name) for name in methods}
        return Digests(weights, manifest, code)

    return of


def threads() -> int:
    """Threads used where none were asked for: all cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def largest_batch(setting: Setting) -> int:
    """Return the most clips that dense classifies at once on a GPU; raises UsageError on a CPU, or where none fits."""
    if not setting.device.startswith("cuda"):
        raise UsageError("--batch max is for CUDA devices: a host that runs out of memory kills processes")
    return job_of(setting.dataset, setting.backbone).open(setting).largest_batch()


def resolve(asked: Options) -> tuple[Setting, Callable[[Iterable[str]], Digests]]:
    """Return the shared setting of a request and its digests, for the plan."""
    from vpbench import plan

    job_of(asked.dataset, asked.backbone)  # a mismatch is named before anything is looked for
    workers = 0 if asked.device == "cpu" else min(MOST_WORKERS, threads())
    shared = plan.setting(asked, threads(), split_of(asked), protocol_of(asked), workers)
    return shared, digests(shared)
