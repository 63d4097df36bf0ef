"""Tokens on frames: what is kept is untouched, what is dropped is gone, what is merged has one colour."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpbench.render.pictures.draw import Pixels, Style, firsts, magnified, palette, sheet, tiled, tokens
from vpbench.rows.fates import DROPPED, PIXELS, Fate, Stage, whole

GRID, TUBELET = (3, 2, 4), (2, 5, 4)
WHITE = Style(dropped="white")


def clip(seed: int = 0, top: int = 250) -> Pixels:
    """Frames without a white pixel."""
    return np.random.default_rng(seed).integers(0, top, (6, 10, 16, 3)).astype(np.uint8)


def fate(token: list[int], name: str = "block 0") -> Fate:
    return Fate("clip", GRID, TUBELET, (Stage(name, np.array(token, np.int32)),))


def own() -> list[int]:
    return list(range(24))


@given(st.sets(st.integers(0, 23), max_size=23))
def test_a_cell_is_white_iff_its_token_is_dropped(dropped: set[int]) -> None:
    frames = clip()
    drawn = tokens(frames, fate([DROPPED if n in dropped else n for n in own()]), style=WHITE)
    for n in own():
        slot, row, column = n // 8, n // 4 % 2, n % 4
        where = np.s_[2 * slot : 2 * slot + 2, 5 * row : 5 * row + 5, 4 * column : 4 * column + 4]
        expected = np.full_like(frames[where], 255) if n in dropped else frames[where]
        np.testing.assert_array_equal(drawn[where], expected)


def test_dropped_tokens_are_dimmed_but_can_be_made_out() -> None:
    frames = clip()
    drawn = tokens(frames, fate([DROPPED, *own()[1:]]))
    gone, before = drawn[:2, :5, :4].astype(float), frames[:2, :5, :4].astype(float)
    assert gone.min() > 180
    assert np.corrcoef(gone.ravel(), before.ravel())[0, 1] > 0.99


def test_merged_tokens_have_their_mean_colour_and_a_rim() -> None:
    frames, token = clip(), own()
    token[0] = token[1] = 1  # side by side
    token[20] = 1  # in another slot
    drawn = tokens(frames, fate(token))
    members = np.concatenate([frames[:2, :5, :8].reshape(-1, 3), frames[4:, 5:, :4].reshape(-1, 3)])
    np.testing.assert_allclose(drawn[0, 1:4, 1:7].reshape(-1, 3), np.tile(members.mean(0), (18, 1)), atol=0.51)
    np.testing.assert_array_equal(drawn[1, 2, 1], drawn[4, 7, 1])
    rim = palette(24)[1]
    assert (drawn[0, 0, :8] == rim).all()
    assert (drawn[0, :5, 7] == rim).all()
    assert not (drawn[0, 2, 3:5] == rim).all()  # no rim between tokens of one group
    np.testing.assert_array_equal(drawn[:2, :5, 8:], frames[:2, :5, 8:])


def test_a_palette_gives_each_group_its_colour() -> None:
    token = own()
    token[0], token[5] = 1, 6
    drawn = tokens(clip(), fate(token), style=Style(merged="palette"))
    assert (drawn[:2, :5, :8] == palette(24)[1]).all()
    assert (drawn[:2, 5:, 4:12] == palette(24)[6]).all()
    assert len(np.unique(palette(500), axis=0)) > 450


def test_smaller_frames_are_coarse_and_nothing_of_them_is_merged() -> None:
    frames = clip()
    token = np.reshape(own(), GRID)
    token[:, :, 1] = token[:, :, 0]
    drawn = tokens(frames, fate(token.ravel().tolist(), PIXELS))
    rims = {tuple(colour) for colour in palette(24).tolist()}
    assert not rims & {tuple(pixel) for pixel in drawn.reshape(-1, 3).tolist()}
    columns = GRID[2]
    assert len(np.unique(drawn[0, 0], axis=0)) == frames.shape[2] * (columns - 1) // columns
    assert len(np.unique(frames[0, 0], axis=0)) == frames.shape[2]


def test_frames_that_a_method_leaves_out_are_pale() -> None:
    frames, token = clip(), np.reshape(own(), GRID)
    token[1] = token[0]
    drawn = tokens(frames, fate(token.ravel().tolist(), PIXELS), style=Style(dropped="white"))
    first, second = np.split(drawn, GRID[0])[:2]
    np.testing.assert_array_equal(first, np.split(frames, GRID[0])[0])
    assert (second == 255).all()


def test_whoever_keeps_all_changes_nothing() -> None:
    np.testing.assert_array_equal(tokens(clip(), whole("clip", GRID, TUBELET)), clip())


def test_an_earlier_stage_can_be_drawn() -> None:
    early, late = ([DROPPED, *own()[1:]], [DROPPED, DROPPED, *own()[2:]])
    both = Fate("clip", GRID, TUBELET, (*fate(early, "a").stages, *fate(late, "b").stages))
    np.testing.assert_array_equal(tokens(clip(), both, stage=0), tokens(clip(), fate(early)))
    np.testing.assert_array_equal(tokens(clip(), both), tokens(clip(), fate(late)))
    assert [both.left(0), both.left()] == [23, 22]


def test_a_sheet_has_the_first_frame_of_each_slot_above_its_tokens() -> None:
    frames, one = clip(), fate([DROPPED, *own()[1:]])
    found = sheet(frames, one)
    assert found.shape == (20, 48, 3)
    np.testing.assert_array_equal(found[:10], np.concatenate(list(frames[::2]), axis=1))
    np.testing.assert_array_equal(found[10:], np.concatenate(list(firsts(tokens(frames, one), one)), axis=1))
    assert sheet(frames, one, original=False, scale=3).shape == (30, 144, 3)


def test_one_frame_for_each_slot_is_enough() -> None:
    np.testing.assert_array_equal(sheet(clip()[::2], fate(own())), sheet(clip(), fate(own())))


def test_long_clips_go_on_below() -> None:
    pictures = magnified(clip(), 2)
    found = tiled([pictures, pictures], columns=4, gap=6)
    assert found.shape == (2 * 2 * 20 + 6, 4 * 32, 3)
    np.testing.assert_array_equal(found[46:66, :32], pictures[4])
    assert (found[46:, 64:] == 255).all()


def test_one_slot_and_one_token_per_frame_are_drawn() -> None:
    frames = clip()
    single = Fate("clip", (1, 1, 1), (6, 10, 16), (Stage("input", np.array([0], np.int32)),))
    np.testing.assert_array_equal(sheet(frames, single)[:10], frames[0])
    few = tokens(frames, fate([n if n % 8 == 3 else DROPPED for n in own()]), style=WHITE)
    assert (few != 255).any(axis=-1).sum() == 6 * 20


@pytest.mark.parametrize("shape", [(5, 10, 16, 3), (6, 9, 16, 3), (6, 10, 15, 3), (0, 10, 16, 3)])
def test_frames_that_tokens_do_not_tile_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="not tiled"):
        tokens(np.zeros(shape, np.uint8), fate(own()))


@pytest.mark.parametrize("token", [own()[:-1], [*own()[:-1], 24], [-2, *own()[1:]]])
def test_a_fate_must_fit_its_grid(token: list[int]) -> None:
    with pytest.raises(ValueError, match="need 24 ids"):
        fate(token)


def test_drawing_needs_no_torch() -> None:
    rooms = "vpbench.render.pictures.draw, vpbench.render.pictures.heat, vpbench.rows.fates"
    code = f"import sys, {rooms}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
