"""What a cell means on a detector: the sizes of the network, and the method attached to them."""

from __future__ import annotations

from vpbench import registry
from vpbench.api import FrameMethod, FramePruner
from vpbench.backbones.catalog import CATALOG
from vpbench.backbones.vitdet_config import ViTDetConfig, sized
from vpbench.errors import UsageError
from vpbench.plan import Cell, Setting


def config_of(setting: Setting) -> ViTDetConfig:
    """Return the detector's sizes; raises UsageError for backbones that detect nothing and options of clips."""
    config = CATALOG[setting.backbone].config
    if not isinstance(config, ViTDetConfig):
        raise UsageError(f"{setting.backbone} classifies clips; it cannot find objects in frames")
    if setting.frames is not None:
        raise UsageError(f"{setting.backbone} looks at videos frame by frame; leave --frames out")
    if setting.decoder != "pyav":
        raise UsageError(f"frames of {setting.dataset} are decoded in one way only; leave --decoder out")
    if setting.positions != "interpolate":
        raise UsageError(f"the positions of {setting.backbone} were learned; they can only be interpolated")
    return config if setting.size is None else sized(config, setting.size)


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
