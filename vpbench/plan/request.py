"""What was asked for, as options: from the command line or a TOML file."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, ValidationError, model_validator

from vpbench import registry
from vpbench.errors import UsageError, near_matches
from vpbench.storage import path_of

Mode = Literal["eager", "compile", "compile_dynamic", "cudagraph"]
Dtype = Literal["fp32", "bf16", "fp16", "amp", "amp-fp16"]
#: what else is measured on a GPU, unless asked otherwise: what people run there
ON_CUDA = {"dtype": "amp", "batch": (8,)}
# one value of an option that takes several may stand for itself
_SEVERAL = BeforeValidator(lambda value: value if isinstance(value, tuple | list) else (value,))


def _path(value: object) -> object:
    """Return the path that an option or a key of a TOML file names."""
    if isinstance(value, str):
        return path_of(value)
    if not hasattr(value, "iterdir"):
        raise ValueError("Input is not a path")
    return value


class Options(BaseModel):
    """One request. The field names are the option names of the command line and the keys of a TOML file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: tuple[str, ...] = ()
    keep: tuple[float, ...] = ()
    budget_tokens: Annotated[tuple[Annotated[int, Field(ge=1)], ...], _SEVERAL] = ()
    set: tuple[str, ...] = ()
    dataset: str = "synthmotion"
    split: str | None = None
    root: Path | None = None
    list: Path | None = None
    classes: Path | None = None
    backbone: str = "videomae_embedded"
    weights: str = "embedded"
    weights_key: str | None = None
    frames: Annotated[tuple[Annotated[int, Field(ge=1)], ...], _SEVERAL] = ()
    size: int | None = Field(default=None, ge=1)
    positions: Literal["interpolate", "recompute"] = "interpolate"
    dtype: Dtype = "fp32"
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
    train_step: bool = False
    max_batch: bool = False
    limit: int | None = Field(default=None, ge=1)
    profile: Literal["survey", "demo", "ci", "standard", "publication"] = "standard"
    processes: int | None = Field(default=None, ge=1)
    seed: int = 0
    out: Annotated[Path, PlainValidator(_path)] = Path("out")

    @model_validator(mode="before")
    @classmethod
    def _of_device(cls, given: Any) -> Any:
        """Fill in what is left open by the kind of device."""
        on_cuda = isinstance(given, Mapping) and str(given.get("device")).startswith("cuda")
        return {**ON_CUDA, **given} if on_cuda else given


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
    registry.check("backbones", checked.backbone)
    if not checked.method:
        raise UsageError("no method given; name one with --method (vpbench ls methods shows them)")
    if checked.keep and checked.budget_tokens:
        raise UsageError("a budget of tokens is a keep ratio for each length; give --keep or --budget-tokens, not both")
    for keep in checked.keep:
        if not 0 < keep <= 1:
            raise UsageError(f"keep {keep:g} is outside (0, 1]; it is the share of tokens that stay")
    return checked


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    key = str(problem["loc"][0]) if problem["loc"] else "options"  # places in lists and kinds of numbers say nothing
    if problem["type"] == "extra_forbidden":
        return f"unknown key {key!r}{near_matches(key, Options.model_fields)}"
    return f"{key}: {problem['msg'].removeprefix('Value error, ')} (got {problem['input']!r})"
