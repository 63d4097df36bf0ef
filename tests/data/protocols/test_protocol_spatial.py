"""Sizes, corners and pixels of each protocol, against numbers worked out by hand and kernels computed otherwise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vpbench.data.protocols.spatial import Antialiased, Bicubic, Bilinear, Rounded, Spatial, WideCentre

Frames = NDArray[np.uint8]
Floats = NDArray[np.float64]

#: grey levels between neighbours that differ by 255: places in a frame are 32-bit floats, as in the published code
NEAR = 0.01

RULES = {
    "bilinear": Bilinear(3),
    "bicubic": Bicubic(3),
    "wide": WideCentre(),
    "rounded": Rounded(3),
    "antialiased": Antialiased(3),
}
#: height x width of the frames
SIZES = [(256, 340), (240, 320), (320, 240), (224, 224), (300, 300), (80, 100), (1, 1), (37, 224), (1080, 1920)]


def noise(rows: int, cols: int, count: int = 2) -> Frames:
    """Frames of noise with flat and saturated parts."""
    frames = np.random.default_rng(rows * cols).integers(0, 256, (count, rows, cols, 3), dtype=np.uint8)
    frames[:, : rows // 4] = 255
    frames[:, rows // 4 : rows // 2, : cols // 3] = 0
    return frames


def corners(rule: Spatial, frame: Sequence[int], side: int) -> tuple[tuple[int, int], list[tuple[int, int]]]:
    """The size that frames get, and the (top, left) of each view."""
    size = rule.size(frame[0], frame[1], side, side)
    pairs = zip(rule.offsets(size[0] - side), rule.offsets(size[1] - side), strict=True)
    return size, list(pairs)


@pytest.mark.parametrize(
    ("name", "frame", "size", "lefts"),
    [
        # 224 * 340 / 256 = 297.5, 224 * 320 / 240 = 298.67, 224 * 100 / 80 = 280
        ("bilinear", (256, 340), (224, 297), [0, 36, 73]),
        ("bilinear", (240, 320), (224, 298), [0, 37, 74]),
        ("bilinear", (80, 100), (224, 280), [0, 28, 56]),
        ("bilinear", (224, 399), (224, 399), [0, 87, 175]),
        ("bilinear", (300, 300), (224, 224), [0, 0, 0]),
        ("bicubic", (256, 340), (224, 297), [0, 36, 72]),
        ("bicubic", (240, 320), (224, 298), [0, 37, 74]),
        # the short side becomes 256: 256 * 320 / 240 = 341.3; views are moved up to whole pixels
        ("wide", (256, 340), (256, 340), [58]),
        ("wide", (240, 320), (256, 341), [59]),
        ("rounded", (256, 340), (224, 298), [0, 74, 37]),
        ("rounded", (240, 320), (224, 299), [0, 74, 37]),
        # 297.5 is rounded to even
        ("antialiased", (256, 340), (224, 298), [0, 37, 74]),
        ("antialiased", (240, 320), (224, 299), [0, 37, 75]),
    ],
)
@pytest.mark.parametrize("turned", [False, True], ids=["landscape", "portrait"])
def test_sizes_and_corners(
    name: str, frame: tuple[int, int], size: tuple[int, int], lefts: list[int], turned: bool
) -> None:
    way = -1 if turned else 1
    top = 16 if name == "wide" else 0  # (256 - 224) / 2
    found = corners(RULES[name], frame[::way], 224)
    assert found == (size[::way], [(top, left)[::way] for left in lefts])


def test_corners_of_epic_kitchens() -> None:
    # 456 x 256 copies: 320 / 256 = 1.25
    assert corners(Antialiased(3), (256, 456), 320) == ((320, 570), [(0, 0), (0, 125), (0, 250)])


@pytest.mark.parametrize(("name", "left"), [("bilinear", 36), ("bicubic", 36), ("wide", 58), ("rounded", 37)])
def test_single_view_is_in_the_centre(name: str, left: int) -> None:
    assert [place[1] for place in corners(RULES[name].single(), (256, 340), 224)[1]] == [left]


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(("rows", "cols"), SIZES)
def test_every_rule_cuts_views_of_the_size_asked_for(name: str, rows: int, cols: int) -> None:
    frames = noise(rows, cols, 1)
    for rule in (RULES[name], RULES[name].single()):
        for height, width in ((224, 224), (64, 96)):
            views = rule.crops(rule.resized(frames, height, width), height, width)
            assert [view.shape for view in views] == [(1, height, width, 3)] * rule.views
            assert all(-NEAR < view.min() <= view.max() < 255 + NEAR for view in views)


@pytest.mark.parametrize("name", RULES)
def test_frames_of_the_right_size_are_left_alone(name: str) -> None:
    frames = noise(*((256, 300) if name == "wide" else (224, 260)))
    assert RULES[name].resized(frames, 224, 224) is frames


def test_long_sides_are_rounded_down_exactly() -> None:
    for rows in range(1, 300):
        for cols in range(rows, 900, 7):
            assert Bilinear(3).size(rows, cols, 224, 224) == (224, 224 * cols // rows)


def weights(before: int, after: int, antialias: bool) -> Floats:
    """The matrix `[after, before]` of bilinear resizing along one side."""
    scale = before / after
    centres = (np.arange(after) + 0.5) * scale - 0.5
    wide = max(scale, 1) if antialias else 1
    if not antialias:  # what would be read beyond the border is the border
        centres = centres.clip(0, before - 1)
    triangle = np.maximum(0, 1 - np.abs(np.arange(before) - centres[:, None]) / wide)
    return triangle / triangle.sum(1, keepdims=True)


def exact(frames: Frames | Floats, size: tuple[int, int], antialias: bool) -> Floats:
    """Bilinear resizing in 64 bits."""
    rows, cols = (weights(n, m, antialias) for n, m in zip(frames.shape[1:3], size, strict=True))
    return np.einsum("yh,nhwc,xw->nyxc", rows, frames.astype(float), cols, optimize=True)


@pytest.mark.parametrize("name", ["bilinear", "rounded"])
@pytest.mark.parametrize(("rows", "cols"), [(256, 340), (320, 240), (80, 100), (480, 854)])
def test_bilinear_is_rounded_once(name: str, rows: int, cols: int) -> None:
    frames = noise(rows, cols)
    ours = RULES[name].resized(frames, 224, 224)
    truth = exact(frames, RULES[name].size(rows, cols, 224, 224), antialias=False)
    assert ours.dtype == np.uint8
    assert ours.shape == truth.shape
    assert np.abs(ours - truth).max() <= 0.5 + NEAR
    sure = np.abs(truth % 1 - 0.5) > NEAR
    assert np.array_equal(ours[sure], np.rint(truth)[sure])


@pytest.mark.parametrize("name", ["wide", "antialiased"])
@pytest.mark.parametrize(("rows", "cols"), [(270, 340), (320, 240), (80, 100), (480, 854)])
def test_floats_are_not_rounded(name: str, rows: int, cols: int) -> None:
    frames = noise(rows, cols)
    ours = RULES[name].resized(frames, 224, 224)
    truth = exact(frames, RULES[name].size(rows, cols, 224, 224), antialias=name == "antialiased")
    assert ours.dtype == np.float32
    assert np.abs(ours - truth).max() < NEAR


@pytest.mark.parametrize("name", ["wide", "antialiased"])
def test_normalising_before_or_after_the_resizing_is_the_same(name: str) -> None:
    frames, mean, std = noise(320, 240), 0.45, 0.225
    after = (RULES[name].resized(frames, 224, 224) / 255 - mean) / std
    size = RULES[name].size(320, 240, 224, 224)
    before = exact((frames / 255 - mean) / std, size, antialias=name == "antialiased")
    assert np.abs(after - before).max() < NEAR / 255 / std


@pytest.mark.parametrize(("rows", "cols"), [(256, 340), (320, 240), (80, 100), (480, 854)])
def test_bicubic_is_pillows(rows: int, cols: int) -> None:
    frames = noise(rows, cols)
    ours = Bicubic(3).resized(frames, 224, 224)
    height, width = Bicubic(3).size(rows, cols, 224, 224)
    for frame, mine in zip(frames, ours, strict=True):
        theirs = np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC))
        off = np.abs(mine.astype(int) - theirs)
        assert off.max() <= 2  # both count in fixed point and round twice, with weights of 16 and of 32 bits
        assert (off > 0).mean() < 0.01


def test_views_share_the_memory_of_the_resized_frames() -> None:
    resized = noise(224, 300)
    assert all(np.shares_memory(view, resized) for view in Bilinear(3).crops(resized, 224, 224))
