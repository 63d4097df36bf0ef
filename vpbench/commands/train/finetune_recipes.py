"""Recipes of fine-tuning: the numbers of a run, published ones by name in `recipes.toml`, any of them set anew."""

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from vpbench.commands.train.recipe import ClipRecipe, cosine
from vpbench.errors import UsageError, near_matches

#: tables of numbers by name, each with its `source` and `about`
OWN = Path(__file__).with_name("recipes.toml")
#: keys of a table that are no numbers of the run
_SAID = ("about", "source", "differs")
#: rates, which follow the batch
_RATES = ("lr", "min_lr", "warm_up_lr")


@dataclass(frozen=True, kw_only=True)
class FinetuneRecipe(ClipRecipe):
    """What fine-tuning adds: AdamW whose rate follows a cosine, less for deeper layers; maybe weights averaged.

    In `warm_up_epochs` the rate rises from `warm_up_lr` to `lr`, then falls to `min_lr`. A layer's rate is that of the
    layer above times `layer_decay`. `ema`: how much of the average of weights stays at each step; 0 for no average.
    """

    min_lr: float = 0.0
    warm_up_epochs: float = 0.0
    warm_up_lr: float = 0.0
    layer_decay: float = 1.0
    ema: float = 0.0

    def rate(self, epoch: float) -> float:
        """Learning rate of the uppermost layer at a fractional epoch."""
        if epoch < self.warm_up_epochs:
            return self.warm_up_lr + (self.lr - self.warm_up_lr) * epoch / self.warm_up_epochs
        done = (epoch - self.warm_up_epochs) / max(self.epochs - self.warm_up_epochs, 1e-9)
        return self.min_lr + (self.lr - self.min_lr) * cosine(done)


#: fields that have to be above 0, and such that are shares
_POSITIVE = ("batch", "lr", "accumulate", "epochs", "repeats", "layer_decay")
_SHARES = ("label_smoothing", "drop_path", "dropout", "erase", "ema", "layer_decay")


def named() -> dict[str, dict[str, Any]]:
    """Return the tables that come with the package, by name."""
    return tomllib.loads(OWN.read_text(encoding="utf-8"))


def find(name: str) -> dict[str, Any]:
    """Return the numbers of a recipe by its name, or from a TOML file; raises UsageError with near matches."""
    known = named()
    if name.endswith(".toml"):
        try:
            found = tomllib.loads(Path(name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"{name}: {error}; give a TOML file of a recipe's numbers") from error
    elif name in known:
        found = known[name]
    else:
        raise UsageError(f"no such recipe: {name!r}{near_matches(name, known)}, or give a TOML file")
    return {key: value for key, value in found.items() if key not in _SAID}


def recipe(name: str, given: Mapping[str, Any], assignments: Iterable[tuple[str, str]]) -> FinetuneRecipe:
    """Return a recipe by name with what was `given`, and with numbers from texts `name=value`.

    A rate that is not given itself follows the batch. Raises UsageError for unknown names and for values that are none.
    """
    numbers, known = find(name), {field.name for field in dataclasses.fields(FinetuneRecipe)}
    sets = {**{key: value for key, value in given.items() if value is not None}, **_parsed(assignments)}
    if wrong := sorted((numbers.keys() | sets.keys()) - known):
        raise UsageError(f"recipe {name}: no number is called {wrong[0]!r}{near_matches(wrong[0], known)}")
    if "batch" in sets and "batch" in numbers:
        share = float(sets["batch"]) / numbers["batch"]
        numbers |= {key: numbers[key] * share for key in _RATES if key in numbers}
    try:
        found = TypeAdapter(FinetuneRecipe).validate_python({**numbers, **sets})
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "numbers"
        raise UsageError(f"recipe {name}: {where}: {problem['msg']} (got {problem['input']!r})") from error
    _check(name, found)
    return found


def _parsed(assignments: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Read values as TOML has them; what is none there stays text, for whoever checks it to refuse."""
    found = {}
    for key, text in assignments:
        try:
            found[key] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            found[key] = None if text.lower() == "none" else text
    return found


def _check(name: str, found: FinetuneRecipe) -> None:
    wrong = [key for key in _POSITIVE if not getattr(found, key) > 0]
    wrong += [key for key in _SHARES if not 0 <= getattr(found, key) <= 1]
    wrong += [key for key in ("drop_path", "dropout", "ema") if getattr(found, key) >= 1]
    if wrong:
        raise UsageError(f"recipe {name}: {wrong[0]} cannot be {getattr(found, wrong[0])}")
