"""What was asked for becomes a list of cells. Knows no torch, so that a mistake answers at once."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from vpbench import registry
from vpbench.backbones.catalog import CATALOG
from vpbench.errors import UsageError, near_matches

Value = bool | int | float | str
Mode = Literal["eager", "compile", "compile_dynamic", "cudagraph"]
# one value of an option that takes several may stand for itself
_SEVERAL = BeforeValidator(lambda value: value if isinstance(value, tuple | list) else (value,))


@dataclass(frozen=True)
class Profile:
    """Effort of the timing: at least `rounds` and `seconds` of interleaved rounds in each of `processes` processes.

    `warm_up_s`, `warm_up_max_s`: seconds of warm-up per configuration, at least and at most; `single`: rounds where a
    round is one clip, if more than `rounds`.
    """

    rounds: int
    seconds: float
    warm_up_s: float
    warm_up_max_s: float
    processes: int = 1
    single: int = 0


# the least that the measurement protocol (section 2) asks of latency and of throughput
PROFILES = {
    "ci": Profile(40, 0.0, 0.3, 3.0),
    "standard": Profile(30, 20.0, 3.0, 30.0, single=200),
    "publication": Profile(30, 200.0, 3.0, 30.0, processes=3, single=200),
}


class Options(BaseModel):
    """One request. The field names are the option names of the command line and the keys of a TOML file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: tuple[str, ...] = ()
    keep: tuple[float, ...] = ()
    set: tuple[str, ...] = ()
    dataset: str = "synthmotion"
    split: str | None = None
    root: Path | None = None
    backbone: str = "videomae_embedded"
    weights: str = "embedded"
    frames: int | None = Field(default=None, ge=1)
    size: int | None = Field(default=None, ge=1)
    positions: Literal["interpolate", "recompute"] = "interpolate"
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    device: str = "cpu"
    mode: Annotated[tuple[Mode, ...], _SEVERAL] = ("eager",)
    batch: Annotated[tuple[Annotated[int, Field(ge=1)] | Literal["max"], ...], _SEVERAL] = (1,)
    threads: int | None = Field(default=None, ge=1)
    protocol: str | None = None
    decoder: Literal["pyav", "decord"] = "pyav"
    workers: int | None = Field(default=None, ge=0)
    cache: Path | None = None
    cache_gb: float = Field(default=50.0, gt=0, allow_inf_nan=False)
    e2e: bool = False
    stages: bool = False
    energy: bool = False
    max_batch: bool = False
    limit: int | None = Field(default=None, ge=1)
    profile: Literal["ci", "standard", "publication"] = "standard"
    processes: int | None = Field(default=None, ge=1)
    seed: int = 0
    out: Path = Path("out")


@dataclass(frozen=True)
class Setting:
    """All that cells of one group share: they see the same clips, weights, dtype and device, in one process."""

    dataset: str
    split: str
    root: str | None
    backbone: str
    weights: str
    frames: int | None
    size: int | None
    positions: str
    dtype: str
    device: str
    mode: str
    batch: int
    threads: int
    protocol: str
    decoder: str
    workers: int
    cache: str | None
    cache_gb: float
    e2e: bool
    stages: bool
    energy: bool
    max_batch: bool
    limit: int | None
    profile: str
    processes: int
    seed: int

    @property
    def effort(self) -> Profile:
        """The profile, with the rounds that clips one by one or batches of them take."""
        profile = PROFILES[self.profile]
        return profile if self.batch > 1 else dataclasses.replace(profile, rounds=max(profile.rounds, profile.single))


@dataclass(frozen=True)
class Cell:
    """One method at one setting.

    `params` are the parameters that were set; `keep` is the nominal keep ratio that the others are derived from, or
    None. `match` names the cell whose realised token count a random control copies, clip by clip.
    """

    config_id: str
    setting: Setting
    method: str
    params: tuple[tuple[str, Value], ...] = ()
    keep: float | None = None
    match: str | None = None

    @property
    def label(self) -> str:
        """What people read: `rlt keep=0.4`, `sta r=32`."""
        given = [f"{k}={v}" for k, v in self.params] + ([f"keep={self.keep:g}"] if self.keep is not None else [])
        return " ".join([self.method, *given, *(["matched"] if self.match else [])])


@dataclass(frozen=True)
class Digests:
    """Hashes of everything outside the options that can change a number."""

    weights: str
    manifest: str
    code: Mapping[str, str]


def read_config(path: Path) -> dict[str, Any]:
    """Read a TOML file of options; raises UsageError naming file and reason."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; give a TOML file of options") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from error


def options(given: Mapping[str, Any], where: str = "options") -> Options:
    """Validate keys and values, then names; raises UsageError with near matches."""
    try:
        checked = Options.model_validate(given)
    except ValidationError as error:
        raise UsageError(f"{where}: {_first_problem(error)}") from error
    for name in checked.method:
        registry.check("methods", name)
    registry.check("datasets", checked.dataset)
    if checked.backbone not in CATALOG:
        raise UsageError(f"unknown backbone {checked.backbone!r}{near_matches(checked.backbone, CATALOG)}")
    if not checked.method:
        raise UsageError("no method given; name one with --method (vpbench ls methods shows them)")
    for keep in checked.keep:
        if not 0 < keep <= 1:
            raise UsageError(f"keep {keep:g} is outside (0, 1]; it is the share of tokens that stay")
    return checked


def setting(asked: Options, threads: int, split: str = "test", protocol: str = "first", workers: int = 0) -> Setting:
    """Extract what all cells of the request share; the arguments are used where the request leaves them open.

    Of modes and batches it takes the first; `groups` takes them all.
    """
    defaults = {"threads": threads, "split": split, "protocol": protocol, "workers": workers}
    defaults |= {"processes": PROFILES[asked.profile].processes}
    given = {k: getattr(asked, k) for k in Setting.__dataclass_fields__}
    given |= {"mode": asked.mode[0], "batch": 1 if asked.batch[0] == "max" else asked.batch[0]}
    given = {k: str(v.resolve()) if isinstance(v, Path) else v for k, v in given.items()}
    return Setting(**given | {k: v for k, v in defaults.items() if given[k] is None})


def groups(shared: Setting, asked: Options, largest: Callable[[Setting], int]) -> list[Setting]:
    """Return the settings of a request, mode by mode and batch by batch; `largest` finds what `max` stands for."""
    found = []
    for mode in dict.fromkeys(asked.mode):
        own = dataclasses.replace(shared, mode=mode, batch=1)
        found += [
            dataclasses.replace(own, batch=largest(own) if batch == "max" else batch)
            for batch in dict.fromkeys(asked.batch)
        ]
    return list(dict.fromkeys(found))


def cells(asked: Options, shared: Setting, digests: Callable[[Iterable[str]], Digests]) -> list[Cell]:
    """Expand a request: dense first, random controls next, then every method at every ratio or parameter value.

    `random` needs tokens of which any can be dropped; on a grid a method's own controls come along instead.
    """
    wanted: list[tuple[str, tuple[tuple[str, Value], ...], float | None]] = []
    for name in asked.method:
        if name == "dense":
            continue
        wanted += [(name, params, keep) for params in parameter_sets(name, asked.set) for keep in asked.keep or (None,)]
    plain = CATALOG[shared.backbone].plain
    if not plain:
        wanted += [(c, ps, keep) for name, ps, keep in wanted for c in registry.load_method(name).controls]
    known = digests(sorted({"dense", "random", *(name for name, _, _ in wanted)}))
    make = _CellMaker(shared, known)
    planned = [make("dense")]
    planned += [make("random", keep=keep) for keep in (asked.keep if plain and wanted else ())]
    for name, params, keep in wanted:
        cell = make(name, params, keep)
        planned.append(cell)
        if plain and keep is None and name != "random":
            planned.append(make("random", match=cell.config_id))
    return list({cell.config_id: cell for cell in planned}.values())


@dataclass(frozen=True)
class _CellMaker:
    shared: Setting
    digests: Digests

    def __call__(
        self,
        method: str,
        params: tuple[tuple[str, Value], ...] = (),
        keep: float | None = None,
        match: str | None = None,
    ) -> Cell:
        # what only changes how soon clips are there changes no number, but for those of whole passes
        no_number = {"cache", "cache_gb"} | (set() if self.shared.e2e else {"workers"})
        identity = {
            "setting": {k: v for k, v in asdict(self.shared).items() if k not in no_number},
            "method": [method, sorted(params), keep, match],
            "digests": [self.digests.weights, self.digests.manifest, self.digests.code[method]],
        }
        text = json.dumps(identity, sort_keys=True)
        return Cell(hashlib.sha256(text.encode()).hexdigest()[:12], self.shared, method, params, keep, match)


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
    return {field.name: type(field.default) for field in dataclasses.fields(registry.load_method(method))}


def _parse(method: str, name: str, kind: type, text: str) -> Value:
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        value: Value = kind(text)
    except (ValueError, KeyError) as error:
        raise UsageError(f"--set {method}.{name}: {text!r} is not a {kind.__name__}") from error
    return value


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown key {key!r}{near_matches(key, Options.model_fields)}"
    return f"{key}: {problem['msg']} (got {problem['input']!r})"
