"""Peak memory of all embedded backbones, measured in fresh interpreters and in processes from the fork server.

Both must give the same megabytes. `growth`: during the forward, over the level before it; `built`: by building the
configuration. Imports stand in functions, since both kinds of processes import this file.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vpbench.measure.memory import Forward, PeakMemory

METHODS = ("dense", "random", "rlt", "stts", "rgtp")


def main() -> None:
    """Print a line per backbone and method that fits it."""
    from vpbench import registry
    from vpbench.errors import UsageError
    from vpbench.measure import memory
    from vpbench.plan import Cell, options
    from vpbench.run import resolve
    from vpbench.run.weighing import on_host
    from vpbench.tasks import task_of

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=1, help="measure everything so often")
    parser.add_argument("--keep", type=float, default=0.5)
    asked = parser.parse_args()
    memory.measure_peak(nothing, name="start")  # the fork server starts once
    forked = memory.measure_peak

    def both(build: Callable[..., Forward], *args: object, name: str) -> PeakMemory:
        began = time.perf_counter()
        fresh = in_fresh_interpreter(build, args)
        between = time.perf_counter()
        fork = forked(build, *args, name=name)
        spent = between - began, time.perf_counter() - between
        print(f"{fresh.peak_mb:>11.2f}{fork.peak_mb:>11.2f}{fresh.weights_mb:>9.1f}{fork.weights_mb:>9.1f}", end="")
        print(f"{spent[0]:>8.1f}{spent[1]:>8.1f}", flush=True)
        return fork

    memory.measure_peak = both
    print(f"{'':<28}{'growth MB':>22}{'built MB':>18}{'seconds':>16}")
    print(f"{'backbone, method':<28}{'fresh':>11}{'fork':>11}{'fresh':>9}{'fork':>9}{'fresh':>8}{'fork':>8}")
    for backbone in (name for name, entry in registry.backbones().items() if entry.weights is not None):
        dataset = "synthmotion_boxes" if registry.backbone(backbone).task == "detection" else "synthmotion"
        request = {"method": ("dense",), "backbone": backbone, "dataset": dataset, "split": "ci", "limit": 4}
        setting, _ = resolve.resolve(options(request | {"threads": 1}))
        task = task_of(dataset, backbone).open(setting)
        dense = task.attach(Cell("dense", "dense", setting, "dense"))
        inputs = task.least(task.inputs([dense]))
        for method in METHODS:
            try:
                cell = Cell(method, method, setting, method, keep=None if method == "dense" else asked.keep)
                ready = dense if method == "dense" else task.attach(cell)
            except UsageError:
                continue  # it does not fit this backbone
            for _ in range(asked.repeat):
                print(f"{backbone + ' ' + method:<28}", end="", flush=True)
                on_host(task, ready, inputs)


def in_fresh_interpreter(build: Callable[..., Forward], args: tuple[object, ...]) -> PeakMemory:
    from vpbench.processes import Server

    server = Server(measured, start="spawn")
    try:
        return server.ask((build, args))
    finally:
        server.close()


def measured(request: tuple[Callable[..., Forward], tuple[object, ...]]) -> PeakMemory:
    from vpbench.measure import memory

    return memory._measure(*request)


def nothing() -> Forward:
    return lambda: None


if __name__ == "__main__":
    main()
