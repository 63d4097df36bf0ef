"""A parity case on disk: `case.json` and three safetensors files; what is malformed is named in one line."""

import json
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vpbench.backbones.checkpoints.reading import load_strictly
from vpbench.errors import UsageError

Model = TypeVar("Model", bound=BaseModel)
Made = TypeVar("Made")


class Sizes(BaseModel):
    """What `case.json` holds, in fields that are called as ours; aliases are its names for them."""

    def into(self, kind: type[Made], **others: Any) -> Made:
        """Return a dataclass with the fields that it shares with this, and `others`."""
        shared = {field.name for field in fields(kind)} & type(self).model_fields.keys()  # type: ignore[arg-type]
        return kind(**{name: getattr(self, name) for name in shared}, **others)


@dataclass(frozen=True)
class Case:
    """One case: `settings` is the content of `case.json`; weights are read by whoever needs them."""

    folder: Path
    settings: dict[str, Any]
    inputs: dict[str, Tensor]
    expected: dict[str, Tensor]

    def wrong(self, problem: str) -> UsageError:
        """Return the error for a case that cannot be run, to be raised."""
        return UsageError(f"{self.folder}: {problem}")

    def parse(self, model: type[Model]) -> Model:
        """Check `case.json` against a model; raises UsageError that names the first key that is wrong."""
        try:
            return model.model_validate(self.settings)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise self.wrong(f"case.json, {key}: {first['msg']} (got {str(first['input'])[:80]!r})") from error

    def tolerance(self, key: str) -> float:
        """Return one number of the case's tolerances; raises UsageError if it is no finite number from 0 on."""
        tolerances = self.settings.get("tolerance")
        value = tolerances.get(key) if isinstance(tolerances, dict) else None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise self.wrong(f"case.json, tolerance.{key}: give a finite number >= 0 (got {value!r})")
        return float(value)

    def given(self, name: str, dtype: torch.dtype, shape: tuple[int | None, ...]) -> Tensor:
        """Return an input tensor; None in `shape` is any positive size. Raises UsageError if it is not like that."""
        if name not in self.inputs:
            raise self.wrong(f"inputs.safetensors holds no tensor {name!r}")
        tensor = self.inputs[name]
        found = tuple(tensor.shape)
        fits = len(found) == len(shape) and all(n > 0 and n == (m or n) for n, m in zip(found, shape, strict=True))
        if tensor.dtype != dtype or not fits:
            asked = "x".join("?" if n is None else str(n) for n in shape)
            raise self.wrong(f"input {name!r} is {tensor.dtype} {size(tensor)} where {dtype} {asked} is needed")
        return tensor

    def load_weights(self, model: nn.Module) -> None:
        """Load `weights.safetensors` as float32; raises UsageError unless names and shapes are exactly the model's."""
        file = self.folder / "weights.safetensors"
        load_strictly(model, {k: v.float() for k, v in read(file, finite=True).items()}, str(file))


def find(folder: Path) -> list[Path]:
    """List the cases in a folder, itself included, by name; raises UsageError if it is no folder."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder; give a folder with a case.json, or one that holds such folders")
    return sorted(file.parent for file in folder.rglob("case.json"))


def load(folder: Path) -> Case:
    """Read a case; raises UsageError if a file is missing, cannot be read, or an input holds NaN or infinity."""
    file = folder / "case.json"
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{file}: not a readable JSON file ({_line(error)})") from error
    if not isinstance(settings, dict):
        raise UsageError(f"{file}: holds no object with the case's settings")
    # expected tensors may hold NaN where the published code has no value; the comparison decides about them
    expected = read(folder / "expected.safetensors", finite=False)
    return Case(folder, settings, read(folder / "inputs.safetensors", finite=True), expected)


def read(file: Path, finite: bool) -> dict[str, Tensor]:
    """Read a safetensors file; raises UsageError if that fails or, with `finite`, if a tensor holds NaN or infinity."""
    try:
        tensors: dict[str, Tensor] = load_file(file)
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        why = "is missing" if not file.exists() else f"not a readable safetensors file ({_line(error)})"
        raise UsageError(f"{file}: {why}") from error
    broken = [name for name, tensor in tensors.items() if finite and not tensor.isfinite().all()]
    if broken:
        raise UsageError(f"{file}: tensor {broken[0]!r} holds NaN or infinity")
    return tensors


def size(tensor: Tensor) -> str:
    """Write a shape like 2x3, `scalar` for none."""
    return "x".join(map(str, tensor.shape)) or "scalar"


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
