"""Analyses within the page: a table, how to read it, and the figure as a picture."""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vpbench.render.analyses.catalog import reasons
from vpbench.render.analyses.part import Found, Part
from vpbench.render.figures.sheet import image
from vpbench.render.report.pictures import Picture
from vpbench.render.style import PAGES
from vpbench.render.tables.layout import Grid
from vpbench.rows.schema import Result


@dataclass(frozen=True)
class Answer:
    """An analysis of the rows of a section; `name` is that of its figure, and unique within the section."""

    name: str
    title: str
    grid: Grid
    notes: list[str]
    picture: Picture


def of(rows: Sequence[Result], label: str, found: Iterable[Found], split: str) -> tuple[list[Answer], list[str]]:
    """Return the analyses that are made of any of these rows, and why others are not there.

    label: of the rows' context; split: what stands between values and their intervals.
    """
    ids = {row["config_id"] for row in rows}
    own = [part for part in found if isinstance(part, Part) and ids & {row["config_id"] for row in part.rows}]
    missing = reasons(each for each in found if not isinstance(each, Part) and each.label in ("", label))
    answers = [Answer(part.name, part.title, part.laid(split), part.notes, _picture(part)) for part in own]
    return answers, [f"{each.name}: {each.reason}" for each in missing]


def _picture(part: Part) -> Picture:
    """Draw a figure, without loss, in fewer bytes than a PNG takes."""
    from PIL import Image

    drawn, stream = io.BytesIO(), io.BytesIO()
    image(part.draw(PAGES["paper"]), drawn, PAGES["paper"])
    Image.open(drawn).convert("RGB").save(stream, "WEBP", lossless=True)
    return Picture(f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}", part.title)
