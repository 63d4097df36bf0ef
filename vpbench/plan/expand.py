"""What was asked for becomes a list of cells. Knows no torch, so that a mistake answers at once."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path

from vpbench import registry
from vpbench.errors import UsageError, near_matches
from vpbench.plan.cell import PROFILES, Cell, Setting, Value
from vpbench.plan.identity import CellMaker, Digests
from vpbench.plan.request import Options


def setting(asked: Options, threads: int, split: str = "test", protocol: str = "first", workers: int = 0) -> Setting:
    """Extract what all cells of the request share; the arguments are used where the request leaves them open.

    Of modes, batches and numbers of frames it takes the first; `groups` takes them all.
    """
    defaults = {"threads": threads, "split": split, "protocol": protocol, "workers": workers}
    defaults |= {"processes": PROFILES[asked.profile].processes}
    given = {k: getattr(asked, k) for k in Setting.__dataclass_fields__}
    given |= {"frames": asked.frames[0] if asked.frames else None}
    given |= {"mode": asked.mode[0], "batch": 1 if asked.batch[0] == "max" else asked.batch[0]}
    given = {k: str(v.resolve()) if isinstance(v, Path) else v for k, v in given.items()}
    return Setting(**given | {k: v for k, v in defaults.items() if given[k] is None})


def groups(shared: Setting, asked: Options, largest: Callable[[Setting], int]) -> list[Setting]:
    """Return the settings of a request: modes by frames by batches; `largest` finds what `max` stands for."""
    found = []
    for mode, frames in itertools.product(asked.mode, asked.frames or (shared.frames,)):
        own = dataclasses.replace(shared, mode=mode, frames=frames, batch=1)
        found += [
            dataclasses.replace(own, batch=largest(own) if batch == "max" else batch)
            for batch in dict.fromkeys(asked.batch)
        ]
    return list(dict.fromkeys(found))


def _unknown(methods: Iterable[str]) -> Digests:
    return Digests("", "", dict.fromkeys(methods, ""))


def _no_budget(shared: Setting) -> int:
    raise UsageError("a budget of tokens is for runs and sweeps; give --keep")


def cells(
    asked: Options,
    shared: Setting,
    digests: Callable[[Iterable[str]], Digests] = _unknown,
    tokens: Callable[[Setting], int] = _no_budget,
) -> list[Cell]:
    """Expand a request: dense first, random controls next, then every method at every ratio or parameter value.

    `random` needs tokens of which any can be dropped; on a grid a method's own controls come along instead. Without
    `digests` the ids hold for this request alone. `tokens` returns those of a dense clip: a budget of tokens is that
    share of them, and takes no pruning of clips that have no more.
    """
    from vpbench.api.method import load_method

    keeps = asked.keep
    if asked.budget_tokens:
        whole = tokens(shared)
        keeps = tuple(budget / whole for budget in asked.budget_tokens if budget < whole)
    wanted: list[tuple[str, tuple[tuple[str, Value], ...], float | None]] = []
    for name in asked.method:
        if name == "dense":
            continue
        sets = parameter_sets(name, asked.set)
        if asked.keep or asked.budget_tokens:
            _refuse_both(name, sets[0])
        ratios = keeps if asked.keep or asked.budget_tokens else (None,)
        wanted += [(name, params, keep) for params in sets for keep in ratios]
    plain = registry.backbone(shared.backbone).flow in ("stream", "steps")
    if not plain:
        wanted += [(c, ps, keep) for name, ps, keep in wanted for c in load_method(name).controls]
    known = digests(sorted({"dense", "random", *(name for name, _, _ in wanted)}))
    make = CellMaker(shared, known)
    planned = [make("dense")]
    planned += [make("random", keep=keep) for keep in (keeps if plain and wanted else ())]
    for name, params, keep in wanted:
        cell = make(name, params, keep)
        planned.append(cell)
        if plain and keep is None and name != "random":
            planned.append(make("random", copied=cell))
    return list({cell.config_id: cell for cell in planned}.values())


def both_given(method: str, name: str) -> UsageError:
    """Return the error of a keep ratio beside a parameter that is derived from it."""
    return UsageError(f"keep derives {method}'s {name}; give --keep or --set {name}, not both")


def _refuse_both(method: str, params: tuple[tuple[str, Value], ...]) -> None:
    from vpbench.api.method import load_method

    for name, _ in params:
        if name in load_method(method).set_by_keep:
            raise both_given(method, name)


def parameter_sets(method: str, assignments: tuple[str, ...]) -> list[tuple[tuple[str, Value], ...]]:
    """Expand `name=v1,v2` and `method.name=v1,v2` into the parameter sets of one method."""
    axes = []
    for assignment in assignments:
        target, equals, values = assignment.partition("=")
        owner, dot, name = target.rpartition(".")
        if not equals or not values or not name:
            raise UsageError(f"--set {assignment!r}: write name=value, name=v1,v2 or method.name=value")
        if dot and owner != method:
            registry.check("methods", owner)
            continue
        types = parameters(method)
        if name not in types:
            raise UsageError(f"{method} has no parameter {name!r}{near_matches(name, types)}")
        axes.append([(name, _parse(method, name, types[name], value)) for value in values.split(",")])
    return [tuple(choice) for choice in itertools.product(*axes)]


def parameters(method: str) -> dict[str, type]:
    """Map a method's parameter names to their types (of their defaults)."""
    from vpbench.api.method import load_method

    return {field.name: type(field.default) for field in dataclasses.fields(load_method(method))}


def _parse(method: str, name: str, kind: type, text: str) -> Value:
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        value: Value = kind(text)
    except (ValueError, KeyError) as error:
        raise UsageError(f"--set {method}.{name}: {text!r} is not a {kind.__name__}") from error
    return value
