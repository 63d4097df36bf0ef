"""Heat maps: colours as matplotlib's, enlarged as torch does it, mixed half and half."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vpbench.render.pictures.heat import enlarged, jet, overlay, scaled


def values(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(4, 3, 5)).astype(np.float32)


def test_colours_are_those_of_jet() -> None:
    at = np.linspace(0, 1, 101)
    expected = 255 * matplotlib.colormaps["jet"].resampled(1001)(at)[:, :3]
    np.testing.assert_allclose(jet(at), expected, atol=1.5)


@pytest.mark.parametrize("size", [(24, 40), (3, 5), (21, 50)])
def test_enlarging_is_bilinear_with_corners_that_are_not_aligned(size: tuple[int, int]) -> None:
    expected = F.interpolate(torch.from_numpy(values())[None], size=size, mode="bilinear", align_corners=False)[0]
    np.testing.assert_allclose(enlarged(values(), *size), expected.numpy(), atol=1e-5)


def test_scaling_is_over_the_clip_or_over_each_frame() -> None:
    clip, frames = scaled(values()), scaled(values(), per_frame=True)
    assert (clip.min(), clip.max()) == (0, 1)
    np.testing.assert_array_equal(frames.max(axis=(1, 2)), np.ones(4))
    np.testing.assert_array_equal(np.argmax(clip[2]), np.argmax(frames[2]))


def test_equal_values_are_cold() -> None:
    np.testing.assert_array_equal(scaled(np.full((2, 2, 2), 7, np.float32)), np.zeros((2, 2, 2)))


def test_heat_is_mixed_half_and_half() -> None:
    frames = np.full((1, 4, 4, 3), 100, np.uint8)
    hot = overlay(frames, np.array([[[0, 0], [0, 1]]], np.float32))
    np.testing.assert_array_equal(hot[0, 0, 0], [50, 50, 114])  # jet(0) is dark blue
    assert hot[0, 3, 3, 0] > 110
    assert hot[0, 3, 3, 2] == 50


def test_tokens_without_a_value_are_grey_and_colour_no_neighbour() -> None:
    frames = np.zeros((1, 8, 8, 3), np.uint8)
    heat = np.array([[[0, np.nan], [1, 1]]], np.float32)
    found = overlay(frames, heat)
    np.testing.assert_array_equal(np.unique(found[0, :4, 4:]), [95])
    np.testing.assert_array_equal(found[0, 0, 3], found[0, 0, 0])


def test_nothing_known_is_grey_all_over() -> None:
    assert (overlay(np.zeros((1, 4, 4, 3), np.uint8), np.full((1, 2, 2), np.nan, np.float32)) == 95).all()
