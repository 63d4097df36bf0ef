"""Put strips of pictures onto a page with labels, boxes and the direction of time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vpbench.render.pictures.draw import Pixels

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont


#: pixels: for a label of two lines beside a strip, a line of text, and between bands
LEFT, LINE, GAP = 36, 16, 10
_INK, _FAINT = (25, 25, 25), (110, 110, 110)
_SIZES = range(12, 6, -1)
#: left, top, right, bottom of something written on a picture
Place = tuple[int, int, int, int]


@dataclass(frozen=True)
class Mark:
    """A box x1, y1, x2, y2 in pixels of the picture, its colour, and what is written on it."""

    box: tuple[float, float, float, float]
    colour: tuple[int, int, int]
    text: str = ""


@dataclass(frozen=True)
class Strip:
    """Pictures `[n, H, W, 3]` in the order of time, a label of one or two lines, and the marks on each picture."""

    label: str
    pictures: Pixels
    marks: Sequence[Sequence[Mark]] = ()


def page(strips: Sequence[Strip], titles: Sequence[str], header: str, columns: int = 8) -> Pixels:
    """Return a page `[h, w, 3]`: strips under each other, `columns` pictures wide; longer ones go on in bands below.

    titles: one per column of pictures, so n of them.
    """
    from PIL import Image, ImageDraw

    count, height, width, _ = strips[0].pictures.shape
    across, bands = min(columns, count), -(-count // columns)
    band = 2 * LINE + len(strips) * height + GAP
    words = _wrapped(header, LEFT + across * width - 8, _font(12))
    canvas = Image.new("RGB", (LEFT + across * width, len(words) * LINE + bands * band), "white")
    draw = ImageDraw.Draw(canvas)
    for number, line in enumerate(words):
        draw.text((4, 2 + number * LINE), line, _INK, _font(12))
    for number in range(bands):
        top, start = len(words) * LINE + number * band, number * across
        shown = range(start, min(start + across, count))
        _time(draw, top, LEFT + len(shown) * width)
        for place, at in enumerate(shown):
            draw.text((LEFT + place * width + width // 2, top + LINE), titles[at], _FAINT, _font(11), anchor="ma")
        for row, strip in enumerate(strips):
            corner = top + 2 * LINE + row * height
            _label(canvas, strip.label, corner, height)
            for place, at in enumerate(shown):
                canvas.paste(_marked(strip, at), (LEFT + place * width, corner))
    return np.asarray(canvas)


def side_by_side(strips: Sequence[Strip], at: int, columns: int = 4) -> Pixels:
    """Return one moment of all strips beside each other, each under its label; sides are even, as videos need them."""
    from PIL import Image, ImageDraw

    _, height, width, _ = strips[0].pictures.shape
    rows, head = -(-len(strips) // columns), 2 * LINE
    across = -(-len(strips) // rows)
    size = (across * (width + GAP) - GAP, rows * (height + head))
    canvas = Image.new("RGB", (size[0] + size[0] % 2, size[1] + size[1] % 2), "white")
    draw = ImageDraw.Draw(canvas)
    for number, strip in enumerate(strips):
        left, top = number % across * (width + GAP), number // across * (height + head)
        _write(draw, strip.label, (left, top), (width, head))
        canvas.paste(_marked(strip, at), (left, top + head))
    return np.asarray(canvas)


def _time(draw: "ImageDraw.ImageDraw", top: int, right: int) -> None:
    """Write which way time flows, with an arrow above the pictures."""
    text, font = "Time flow", _font(10)
    draw.text((LEFT, top + 2), text, _FAINT, font)
    start, y = LEFT + 6 + font.getlength(text), top + LINE / 2
    draw.line((start, y, right - 4, y), _FAINT)
    draw.polygon([(right - 2, y), (right - 9, y - 3), (right - 9, y + 3)], _FAINT)


def _label(canvas: "Image.Image", text: str, top: int, height: int) -> None:
    """Write a label beside a strip, turned by 90 degrees, as large as fits."""
    from PIL import Image, ImageDraw

    upright = Image.new("RGB", (height, LEFT), "white")
    _write(ImageDraw.Draw(upright), text, (2, 0), (height - 4, LEFT))
    canvas.paste(upright.transpose(Image.Transpose.ROTATE_90), (0, top))


def _write(draw: "ImageDraw.ImageDraw", label: str, corner: tuple[int, int], size: tuple[int, int]) -> None:
    """Write the two lines of a label into a field, the second fainter; a long first one takes two lines, or is cut."""
    first, _, second = label.partition("\n")
    small = _font(_SIZES[2])
    lines = [first] if small.getlength(first) <= size[0] else _wrapped(first, size[0], small)
    inks = [_INK] * min(len(lines), 2)
    if len(lines) > 2:
        lines = [lines[0], f"{lines[1]} ..."]
    if second:
        lines, inks = [*lines, second], [*inks, _FAINT]
    for number, (line, ink) in enumerate(zip(lines, inks, strict=True)):
        place = (corner[0] + size[0] // 2, corner[1] + (2 * number + 1) * size[1] // (2 * len(lines)))
        draw.text(place, line, ink, _fitting(line, size[0], _SIZES[0] if len(lines) < 3 else _SIZES[1]), anchor="mm")


def _marked(strip: Strip, at: int) -> "Image.Image":
    """Draw the boxes of one picture, then what is written on them, as far as there is room."""
    from PIL import Image, ImageDraw

    picture = Image.fromarray(strip.pictures[at])
    draw = ImageDraw.Draw(picture)
    marks = strip.marks[at] if strip.marks else ()
    for mark in marks:
        draw.rectangle(mark.box, outline=mark.colour, width=2)
    taken: list[Place] = []
    for mark in (mark for mark in marks if mark.text):
        place = _free(mark, round(_font(10).getlength(mark.text)) + 3, picture.size, taken)
        if place is not None:
            taken.append(place)
            draw.rectangle(place, mark.colour)
            draw.text((place[0] + 2, place[1] + 5), mark.text, (0, 0, 0), _font(10), anchor="lm")
    return picture


def _free(mark: Mark, width: int, size: tuple[int, int], taken: Sequence[Place]) -> Place | None:
    """Return where a text of this width goes: above its box or below, inside the picture and over no other text."""
    left = min(max(round(mark.box[0]), 0), max(size[0] - width - 1, 0))
    for top in (round(mark.box[1]) - 12, round(mark.box[3])):
        place = (left, top, left + width, top + 11)
        clear = all(p[2] < left or p[0] > place[2] or p[3] < top or p[1] > place[3] for p in taken)
        if 0 <= top <= size[1] - 12 and clear:
            return place
    return None


def _font(size: int) -> "ImageFont.FreeTypeFont":
    from PIL import ImageFont

    return ImageFont.load_default(size)  # type: ignore[return-value]


def _fitting(text: str, width: float, most: int) -> "ImageFont.FreeTypeFont":
    """Return the largest font up to a size in which a text is not wider, or the smallest there is."""
    sizes = [size for size in _SIZES if size <= most]
    return next((font for size in sizes if (font := _font(size)).getlength(text) <= width), _font(_SIZES[-1]))


def _wrapped(text: str, width: int, font: "ImageFont.FreeTypeFont") -> list[str]:
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
