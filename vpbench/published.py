"""Published figures: numbers that papers and model zoos print, kept apart from everything measured here."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vpbench.errors import VpbenchError

#: views of a video in figures that are per video
VIEWS = 12
FOLDER = Path(__file__).resolve().parent.parent / "results" / "published"


class Figure(BaseModel):
    """One published number. Empty strings where the source does not say; units are the end of `metric`'s name.

    `convention`: whose way of counting gives a `gmacs_per_view`, `gmacs_per_video` (of `VIEWS` views) or
    `gmacs_per_frame`; a file whose figures need none may lack the column.
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


def figures(folder: Path = FOLDER) -> list[Figure]:
    """Read all figures, file by file; none where there is no checkout. Raises VpbenchError that names a bad line."""
    found = []
    for path in sorted(folder.glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as stream:
            for number, row in enumerate(csv.DictReader(stream), start=2):
                try:
                    found.append(Figure.model_validate(row))
                except ValidationError as error:
                    problem = error.errors()[0]
                    where = ".".join(map(str, problem["loc"]))
                    raise VpbenchError(f"{path}, line {number}: {where}: {problem['msg']}") from error
    return found
