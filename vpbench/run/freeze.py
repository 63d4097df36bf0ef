"""Before anything runs: every cell's method is attached once, its parameters are written down, or why it is refused."""

import dataclasses
import uuid
from collections.abc import Collection, Sequence
from pathlib import Path

from vpbench.api.attention import kernel_name
from vpbench.api.method import load_method
from vpbench.api.precisions import PRECISIONS
from vpbench.backbones.loading import weights_key, weights_kind
from vpbench.errors import UsageError, explain
from vpbench.measure import machine
from vpbench.plan import Cell, Digests, manifest
from vpbench.plan.manifest import Frozen, Manifest, Run
from vpbench.progress import say
from vpbench.tasks.task import Attached, Task, parameters_of


def freeze(
    task: Task, cells: Sequence[Cell], todo: Collection[str], known: Digests, out: Path, command: str
) -> tuple[Manifest, list[Attached]]:
    """Attach dense and the cells `todo` (by `config_id`), write the manifest, and return both, dense first.

    Parameters that an earlier run has derived are taken from its manifest. Raises UsageError where dense cannot run.
    """
    setting, before = cells[0].setting, manifest.read(out, cells[0].config_id)
    earlier = {cell.config_id: cell for cell in before.cells} if before is not None else {}
    attached: list[Attached] = []
    frozen: list[Frozen] = []
    refused: set[str] = set()
    run_id = uuid.uuid4().hex[:12]
    for cell in cells:
        dense = cell.config_id == cells[0].config_id
        if cell.config_id not in todo and not dense:
            continue
        own = earlier.get(cell.config_id)
        try:
            if cell.match in refused:
                raise UsageError("the cell whose token counts it copies cannot run")
            ready = task.attach(cell, None if own is None else own.parameters)
        except Exception as error:  # a broken plug-in must not end the run of the others
            if dense:
                raise
            refused.add(cell.config_id)
            status = "refused" if isinstance(error, UsageError) else "failed"
            say(f"{cell.label}: {status}: {explain(error)}")
            frozen.append(_frozen(run_id, cell, known, status=status, error=explain(error)))
            continue
        attached.append(ready)
        if own is not None and cell.config_id not in todo:
            frozen.append(own)  # dense takes part; its row stays that of the run that asked for it
            continue
        facts = {"parameters": parameters_of(ready), "caveat": ready.pruner.caveat or None}
        frozen.append(_frozen(run_id, cell, known, setup_s=task.setup_s + ready.setup_s, **facts))
    snapshot = machine.snapshot(setting.device)
    dtype = PRECISIONS[setting.dtype].products
    # how busy it is is looked at again with rounds
    noisy = bool(machine.warnings(dataclasses.replace(snapshot, load=0.0)))
    own_manifest = Manifest(
        run_id,
        {run_id: Run(command, _facts(snapshot), noisy)},
        dataclasses.asdict(setting),
        dataclasses.asdict(task.seen),
        weights_kind(setting.weights),
        None if setting.weights == "random" else known.weights,
        {name: kernel_name(setting.device, dtype, ragged) for name, ragged in (("equal", False), ("ragged", True))},
        tuple(frozen),
        weights_key=weights_key(setting.backbone, setting.weights, setting.weights_key)[0],
        shards=manifest.cut({item: task.steps(item) for item in task.items}),
    )
    found = manifest.merged(before, own_manifest)
    found.write(out)
    return found, attached


def _frozen(run_id: str, cell: Cell, known: Digests, **found: object) -> Frozen:
    kind = load_method(cell.method)
    return manifest.frozen(run_id, cell, known.code[cell.method][:12], kind.training_free, kind.reference, **found)


def _facts(snapshot: machine.Machine) -> dict[str, object]:
    """Return what rows say of a machine."""
    names = ("device_name", "torch_version", "cuda_version", "driver", "git_commit", "interop_threads", "cores")
    return {name: getattr(snapshot, name) for name in names} | {"libraries": dict(snapshot.libraries)}
