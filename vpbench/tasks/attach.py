"""Set a method's parameters and attach it to a backbone."""

import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

from vpbench import registry
from vpbench.api import Backbone, Clip, Method, Pruner
from vpbench.api.method import load_method
from vpbench.errors import UsageError
from vpbench.plan import Cell
from vpbench.plan.expand import both_given
from vpbench.tasks.task import Attached


def attach(
    cell: Cell,
    backbone: Backbone,
    calibration: Sequence[Clip],
    kept: MutableMapping[str, dict[str, int]],
    frozen: Mapping[str, Any] | None = None,
) -> Attached:
    """Set the method's parameters and attach it; raises UsageError, with the reason, where it cannot serve.

    calibration: clips that parameters are derived from. kept: by the prediction id of another cell, the tokens it keeps
    of each clip, which random controls copy; they may come later. frozen: all parameters, where they were derived
    before.
    """
    began = time.perf_counter()
    method = method_of(cell, backbone)
    if frozen is not None:
        method = type(method)(**frozen)
    elif cell.keep is not None:
        method = at_keep(method, cell, backbone, calibration)
    counts = None if cell.copies is None else kept.setdefault(cell.copies, {})
    pruner = attached(method, backbone, lambda reason: UsageError(f"{_where(cell)}: {reason}"), counts)
    mode = cell.setting.mode
    if (method.adaptive or pruner.waits) and mode in ("compile", "cudagraph"):
        raise UsageError(
            f"{cell.label}'s token count follows the clip, and mode {mode} needs shapes that stay: "
            "use --mode compile_dynamic or eager"
        )
    if pruner.period == 0 and cell.setting.batch > 1:
        raise UsageError(
            f"{_where(cell)} in batches: without resets segments cannot be cut into groups; give --batch 1"
        )
    return Attached(cell, method, pruner, time.perf_counter() - began)


def method_of(cell: Cell, backbone: Backbone) -> Method:
    """Return a cell's method as its parameters say, but for a keep ratio; raises UsageError for another flow's."""
    method = load_method(cell.method)(**dict(cell.params))
    if backbone.flow not in method.flows:
        raise UsageError(f"{_where(cell)}: {_alien(method, backbone)}")
    return method


def _alien(method: Method, backbone: Backbone) -> str:
    """Say why a method does not prune a backbone's flow: on plain tokens, where most do, it knows best itself."""
    if backbone.flow == "grid" and "stream" in method.flows:
        return "it would leave holes in its token grid"
    if backbone.flow == "frames":
        known = [name for name in registry.names("methods") if "frames" in load_method(name).flows]
        return f"it prunes clips, not the frames of a detector; methods that do: {', '.join(known)}"
    return method.supports(backbone) or "it prunes no plain stream of tokens"


def at_keep(method: Method, cell: Cell, backbone: Backbone, calibration: Sequence[Clip]) -> Method:
    """Derive parameters from the cell's keep ratio; raises UsageError if one of them was set as well."""
    derived = method.at_keep(cell.keep or 1.0, backbone, calibration)
    for name, value in cell.params:
        if getattr(derived, name) != value:
            raise both_given(cell.method, name)
    return derived


def attached(
    method: Method, backbone: Backbone, refused: Callable[[str], UsageError], counts: Mapping[str, int] | None = None
) -> Pruner:
    """Return the pruner; raises what `refused` makes of the reason where the method or the backbone cannot.

    counts: the tokens to keep of each clip, which only `random` can copy.
    """
    if reason := method.supports(backbone):
        raise refused(reason)
    pruner = pruner_of(method, backbone, counts)
    if reason := backbone.refuses(pruner):
        raise refused(reason)
    pruner.caveat = "; ".join(filter(None, (pruner.caveat, backbone.caveat(pruner))))
    return pruner


def pruner_of(method: Method, backbone: Backbone, counts: Mapping[str, int] | None) -> Pruner:
    """Return the pruner of a method that nobody refuses, as `attached` does."""
    return method.attach(backbone) if counts is None else method.attach_like(backbone, counts)


def _where(cell: Cell) -> str:
    return f"{cell.label} cannot run on {cell.setting.backbone}"
