"""What methods left of a few clips, as small pictures within the page."""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vpbench.render.pictures import draw
from vpbench.rows.fates import Shown
from vpbench.rows.schema import Result

#: clips of a context, and settings of each, so that the page stays small
CLIPS, SETTINGS = 2, 8
#: slots in a row
_ACROSS = 8
_QUALITY = 80


@dataclass(frozen=True)
class Picture:
    """A picture: the `source` of an image, and its caption, which says all there is to it."""

    source: str
    caption: str


def of(cells: Sequence[Result], named: Mapping[str, str], shown: Sequence[Shown]) -> list[Picture]:
    """Draw a few clips: the frames, and below them what one setting of each method left; none without stored fates."""
    own = [clip for clip in shown if any(cell["config_id"] in clip.fates for cell in cells)]
    return [picture for clip in own[:CLIPS] for picture in _clip(clip, cells, named)]


def _clip(clip: Shown, cells: Sequence[Result], named: Mapping[str, str]) -> Iterator[Picture]:
    yield Picture(_image(clip.frames), f"{clip.clip_id}: the first frame of each slot")
    for cell in _chosen([cell for cell in cells if cell["config_id"] in clip.fates]):
        fate = clip.fates[cell["config_id"]]
        caption = f"{named[cell['config_id']]} on {clip.clip_id}: {fate.left()} of {fate.tokens} tokens left"
        yield Picture(_image(draw.tokens(clip.frames, fate)), caption)


def _chosen(cells: Sequence[Result]) -> list[Result]:
    """Pick a setting of each method, all at like shares of tokens: those nearest to a half."""
    nearest: dict[str, Result] = {}
    for cell in sorted(cells, key=lambda cell: abs((cell["keep_realised"] or 1) - 0.5)):
        if cell["method"] != "dense":
            nearest.setdefault(cell["method"], cell)
    return sorted(nearest.values(), key=lambda cell: str(cell["method"]))[:SETTINGS]


def _image(frames: NDArray[np.uint8]) -> str:
    """Return frames `[slots, H, W, 3]`, side by side, as an address that holds its own content."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(draw.tiled([frames], _ACROSS)).save(stream, "WEBP", quality=_QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"
