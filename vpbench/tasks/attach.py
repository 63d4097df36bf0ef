"""Set a method's parameters and attach it to a backbone."""

from __future__ import annotations

from collections.abc import Sequence

from vpbench import registry
from vpbench.api import Backbone, Clip, FrameMethod, FramePruner, Method
from vpbench.backbones.vitdet import ViTDetConfig
from vpbench.errors import UsageError
from vpbench.plan import Cell


def at_keep(method: Method, cell: Cell, backbone: Backbone, calibration: Sequence[Clip]) -> Method:
    """Derive a method's parameters from the cell's keep ratio; raises UsageError if one of them was set as well."""
    derived = method.at_keep(cell.keep or 1.0, backbone, calibration)
    for name, value in cell.params:
        if getattr(derived, name) != value:
            raise UsageError(f"keep derives {cell.method}'s {name}; give --keep or --set {name}, not both")
    return derived


def attach(cell: Cell, config: ViTDetConfig) -> tuple[FrameMethod, FramePruner]:
    """Set the method's parameters and attach it to a detector; raises UsageError, with the reason, where it cannot."""
    where = f"{cell.label} cannot run on {cell.setting.backbone}"
    kind = registry.load_method(cell.method)
    if not issubclass(kind, FrameMethod):
        known = ", ".join(registry.frame_methods())
        raise UsageError(f"{where}: it prunes clips, not the frames of a detector; methods that do: {known}")
    method: FrameMethod = kind(**dict(cell.params))
    if cell.keep is not None:
        method = method.at_keep_frames(cell.keep)
        for name, value in cell.params:
            if getattr(method, name) != value:
                raise UsageError(f"keep derives {cell.method}'s {name}; give --keep or --set {name}, not both")
    if reason := method.supports_frames(config):
        raise UsageError(f"{where}: {reason}")
    pruner = method.attach_frames(config)
    if pruner.period == 0 and cell.setting.batch > 1:
        raise UsageError(f"{where} in batches: without resets segments cannot be cut into groups; leave --batch out")
    return method, pruner
