"""Published figures: numbers that papers and model zoos print, kept apart from everything measured here."""

import csv
import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import vpbench
from vpbench.errors import VpbenchError, near_matches

#: views of a video in figures that are per video
VIEWS = 12
#: a link that a wheel has as a folder; at the root where it was not made
_LINK = vpbench.PACKAGE / "rows" / "figures"
FOLDER = _LINK if _LINK.is_dir() else vpbench.CHECKOUT / "results" / "published"


class Figure(BaseModel):
    """One published number. Empty strings where the source does not say; units are the end of `metric`'s name.

    `convention`: whose way of counting gives a `gmacs_per_view`, `gmacs_per_video` (of `VIEWS` views) or
    `gmacs_per_frame`; a file whose figures need none may lack the column. `why`: names of `reasons`, separated by
    blanks, for which a count or a measurement here differs from the figure, or cannot be made.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str = Field(min_length=1)
    backbone: str
    preset: str
    dataset: str
    metric: str = Field(min_length=1)
    value: float = Field(allow_inf_nan=False)
    convention: Literal["", "fvcore", "mmcv", "rgtp"] = ""
    source: str = Field(min_length=1)
    note: str
    why: str = ""


def figures(folder: Path = FOLDER) -> list[Figure]:
    """Read all figures, file by file; raises VpbenchError that names a bad line."""
    found = []
    known = reasons(folder)
    for path in sorted(folder.glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as stream:
            for number, row in enumerate(csv.DictReader(stream), start=2):
                where = f"{path}, line {number}"
                try:
                    found.append(Figure.model_validate(row))
                except ValidationError as error:
                    problem = error.errors()[0]
                    key = ".".join(map(str, problem["loc"]))
                    raise VpbenchError(f"{where}: {key}: {problem['msg']}") from error
                for name in found[-1].why.split():
                    if name not in known:
                        raise VpbenchError(f"{where}: unknown reason {name!r}{near_matches(name, known)}")
    return found


def reasons(folder: Path = FOLDER) -> dict[str, str]:
    """Read what the names in `Figure.why` stand for; raises VpbenchError where the file is no TOML of texts."""
    path = folder / "reasons.toml"
    if not path.exists():
        return {}
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise VpbenchError(f"{path}: not valid TOML: {error}") from error
    return {name: str(text) for name, text in found.items()}


#: ways of counting: column, and what it means; fvcore's is shown always, others where figures were published in them
WAYS: dict[str, tuple[str, str]] = {
    "fvcore": (
        "fvcore's way",
        "as most papers count: layer norms at 5 per element, and the method's products as its published code executes "
        "them",
    ),
    "mmcv": ("mmcv's way", "layers with weights, layer norms at 2 per element; attention's own products are not in it"),
    "rgtp": (
        "RGTP's way",
        "products without the patch embedding, and additions of biases, residuals and positions; rollout by whole maps",
    ),
}
