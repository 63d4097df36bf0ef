from __future__ import annotations

import numpy as np
import pytest

from vpbench.api import Clip, Grid
from vpbench.tasks.recognition import motion

GRID = Grid(4, 2, 2)
#: of grey pixels that differ by 51 of 255, in normalised pixels, over the channels
FIFTH = np.mean([0.2 / deviation for deviation in (0.229, 0.224, 0.225)])


def clip(pixels: np.ndarray) -> Clip:
    return Clip("v/0", "v", 0, 0, pixels)


def still() -> np.ndarray:
    return np.full((8, 4, 4, 3), 100, np.uint8)


def test_a_still_clip_stands_still_from_end_to_end() -> None:
    assert motion.of([clip(still())], GRID) == {"v/0": motion.Motion(0.0, 4.0)}


def test_by_hand() -> None:
    """One place of four is brighter from slot 2 on: of 3 x 4 differences one is a fifth, and it begins once more."""
    pixels = still()
    pixels[4:, :2, :2] += 51
    found = motion.of([clip(pixels)], GRID)["v/0"]
    assert found.motion == pytest.approx(FIFTH / 12, rel=1e-5)
    assert found.still == pytest.approx(16 / 5)


def test_a_place_that_changes_always_stands_still_for_one_slot() -> None:
    pixels = still()
    pixels[::4] += 90  # the first frames of slots 0 and 2, so that all ends differ
    pixels[1::4] += 90
    found = motion.of([clip(pixels)], GRID)["v/0"]
    assert found.still == pytest.approx(1.0)


def test_floats_count_as_the_pixels_that_they_are() -> None:
    pixels = still()
    pixels[4:, :2, :2] += 51
    one, other = (motion.of([clip(each)], GRID)["v/0"] for each in (pixels, pixels.astype(np.float32)))
    assert one == other


def test_one_slot_has_no_motion_and_tokens_that_do_not_tile_have_none() -> None:
    assert motion.of([clip(still())], Grid(1, 2, 2)) == {"v/0": motion.Motion(0.0, 1.0)}
    assert motion.of([clip(still())], Grid(4, 3, 2)) == {}
