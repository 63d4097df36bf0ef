"""A small tree in ImageNet VID's official layout, and a detector small enough for it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from vpbench.backbones import vitdet
from vpbench.backbones.vitdet import ViTDetConfig
from vpbench.backbones.vitdet.network import ViTDet

TINY = vitdet.TINY
ZEBRA, BIRD = ("n02391049", 29), ("n01503061", 4)
#: video -> numbers of its frames; the second has a gap
VIDEOS: dict[str, Sequence[int]] = {"00000000": range(10), "00007010": [*range(20, 30), *range(40, 43)]}


def objects(number: int) -> list[tuple[tuple[int, int, int, int], str, int]]:
    """A zebra that moves, and in even frames a bird that does not: box, WordNet id, track."""
    zebra = ((2 + number % 20, 8, 34 + number % 20, 40), ZEBRA[0], 0)
    return [zebra, ((0, 0, 10, 12), BIRD[0], 1)] if number % 2 == 0 else [zebra]


def image(number: int) -> bytes:
    """A JPEG file of 64 x 48 pixels with a square where the zebra is."""
    pixels = np.random.default_rng(number).integers(0, 60, (48, 64, 3), np.uint8)
    x1, y1, x2, y2 = objects(number)[0][0]
    pixels[y1:y2, x1:x2] = 220
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def build(root: Path, videos: Mapping[str, Sequence[int]] = VIDEOS) -> Path:
    """Write the tree; returns its root."""
    lines: list[str] = []
    for video, numbers in videos.items():
        snippet = f"ILSVRC2015_val_{video}"
        images, notes = (root / kind / "VID" / "val" / snippet for kind in ("Data", "Annotations"))
        for folder in (images, notes):
            folder.mkdir(parents=True)
        for number in numbers:
            (images / f"{number:06d}.JPEG").write_bytes(image(number))
            (notes / f"{number:06d}.xml").write_text(_annotation(number))
            lines.append(f"{snippet}/{number:06d} {len(lines) + 1}\n")
    (root / "ImageSets" / "VID").mkdir(parents=True)
    (root / "ImageSets" / "VID" / "val.txt").write_text("".join(lines))
    return root


def _annotation(number: int) -> str:
    found = "".join(
        f"<object><trackid>{track}</trackid><name>{name}</name><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin>"
        f"<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
        for box, name, track in objects(number)
    )
    return f"<annotation><size><width>64</width><height>48</height></size>{found}</annotation>"


def image_of(root: Path, video: str, number: int) -> Path:
    """The file of one frame."""
    return root / "Data" / "VID" / "val" / f"ILSVRC2015_val_{video}" / f"{number:06d}.JPEG"


def random_detector(config: ViTDetConfig = TINY) -> ViTDet:
    """A detector whose random weights are large enough for tokens to matter and for boxes to be found."""
    torch.manual_seed(0)
    model = ViTDet(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.15 * torch.randn_like(parameter))
    return model


def weights(folder: Path) -> Path:
    """Write the weights of `random_detector` under our names."""
    file = folder / "tiny.safetensors"
    save_file(random_detector().state_dict(), file)
    return file
