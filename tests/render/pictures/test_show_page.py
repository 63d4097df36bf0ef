"""Pages: strips under each other with labels, time and boxes; and files that other programs can read."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from vpbench.commands.show import files
from vpbench.errors import UsageError, VpbenchError
from vpbench.render.pictures.draw import Pixels
from vpbench.render.pictures.page import GAP, LEFT, LINE, Mark, Strip, page, side_by_side


def pictures(count: int = 5, side: int = 64) -> Pixels:
    return np.stack([np.full((side, side, 3), 20 * n, np.uint8) for n in range(count)])


def strips(count: int = 5) -> list[Strip]:
    return [Strip("RGB frame", pictures(count)), Strip("rlt keep=0.4\n92 of 512", pictures(count) + 100)]


def titles(count: int = 5) -> list[str]:
    return [f"frames {n}" for n in range(count)]


def test_every_picture_lies_in_its_row_and_column() -> None:
    found = page(strips(), titles(), "a clip", columns=5)
    assert found.shape == (LINE + 2 * LINE + 2 * 64 + GAP, LEFT + 5 * 64, 3)
    for row, strip in enumerate(strips()):
        for column, picture in enumerate(strip.pictures):
            top, left = 3 * LINE + 64 * row, LEFT + 64 * column
            np.testing.assert_array_equal(found[top : top + 64, left : left + 64], picture)


def test_labels_titles_and_time_are_written() -> None:
    found = page(strips(), titles(), "a clip", columns=5)
    assert (found[:LINE, :60] < 128).any()  # header
    assert (found[LINE : 2 * LINE, LEFT:] < 128).any()  # time flows
    for column in range(5):
        assert (found[2 * LINE : 3 * LINE, LEFT + 64 * column : LEFT + 64 * (column + 1)] < 160).any()
    for row in range(2):
        assert (found[3 * LINE + 64 * row : 3 * LINE + 64 * (row + 1), :LEFT] < 128).any()


def test_no_label_leaves_its_place() -> None:
    """However long, it is beside its own strip: the gap below the last one stays white."""
    long = [Strip("a method with a very long name threshold=0.123456\nand a long second line of it", pictures())]
    found = page(long, titles(), "a clip", columns=5)
    assert (found[-GAP:, :LEFT] == 255).all()


def test_a_long_label_takes_two_lines_or_is_cut() -> None:
    """Nothing is written on the first and last pixels beside a strip of its own."""
    words = "stts (untrained scorer) time=0:0.5 space=0:6/1:2 and so on"
    found = page([Strip(f"{words}\n64 of 512", pictures(1, 128))], titles(1), "a clip")
    beside = found[-GAP - 128 : -GAP, :LEFT]
    assert (beside[[0, -1]] == 255).all()
    columns = np.asarray((beside < 160).any(axis=(0, 2)))
    assert 1 + (columns[1:] & ~columns[:-1]).sum() >= 3  # lines


def test_what_is_longer_goes_on_below() -> None:
    found = page(strips(), titles(), "a clip", columns=3)
    band = 2 * LINE + 2 * 64 + GAP
    assert found.shape == (LINE + 2 * band, LEFT + 3 * 64, 3)
    np.testing.assert_array_equal(found[LINE + band + 2 * LINE :][:64, LEFT : LEFT + 64], pictures()[3])
    assert (found[LINE + band + 2 * LINE :, LEFT + 2 * 64 :] == 255).all()


def test_a_narrow_page_wraps_its_header() -> None:
    narrow = page([Strip("x", pictures(1))], titles(1), "many words that do not fit beside each other at all")
    assert narrow.shape[0] > page([Strip("x", pictures(1))], titles(1), "few").shape[0]


def test_boxes_are_drawn_and_their_words_keep_clear() -> None:
    colour = (255, 145, 0)
    boxes = [
        Mark((10, 20, 50, 40), colour, "disc 0.9"),
        Mark((12, 22, 52, 42), colour, "box 0.8"),
        Mark((1, 1, 9, 9), colour),
    ]
    found = page([Strip("x", pictures(1), [boxes])], titles(1), "a clip")[3 * LINE :, LEFT:]
    assert (found[30, 10] == colour).all()
    assert (found[9:19, 12:40] == colour).all(axis=-1).mean() > 0.5  # words above the first box
    assert (found[43:53, 14:40] == colour).all(axis=-1).mean() > 0.5  # and below the second
    np.testing.assert_array_equal(found[30, 30], pictures(1)[0, 0, 0])


def test_one_moment_of_all_methods_has_even_sides() -> None:
    many = [Strip(f"m{n}", pictures(5, 33) + n) for n in range(5)]
    found = side_by_side(many, 2)
    assert (found.shape[0] % 2, found.shape[1] % 2) == (0, 0)
    assert found.shape[1] < 4 * 33 + 3 * GAP  # three and two, not four and one
    np.testing.assert_array_equal(found[2 * LINE : 2 * LINE + 33, :33], many[0].pictures[2])


def test_files_are_what_they_are_called(tmp_path: Path) -> None:
    frames = [side_by_side(strips(), at) for at in range(5)]
    png = files.write_png(tmp_path / "a" / "x.png", frames[0])
    np.testing.assert_array_equal(np.asarray(Image.open(png)), frames[0])
    with Image.open(files.write_gif(tmp_path / "x.gif", frames, 4)) as gif:
        assert (gif.n_frames, gif.info["duration"], gif.info["loop"]) == (5, 250, 0)  # type: ignore[attr-defined]
    with av.open(str(files.write_mp4(tmp_path / "x.mp4", frames, 4))) as video:
        stream = video.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.average_rate == 4
        decoded = [frame.to_ndarray(format="rgb24") for frame in video.decode(stream)]
    assert len(decoded) == 5
    assert np.abs(decoded[3].astype(int) - frames[3]).mean() < 6


def test_a_folder_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path, frames = tmp_path / "file" / "x", list(pictures())
    with pytest.raises(VpbenchError, match="cannot write"):
        files.write_png(path, frames[0])
    for write in (files.write_gif, files.write_mp4):
        with pytest.raises(VpbenchError, match="cannot write"):
            write(path, frames, 4)


@pytest.mark.parametrize(
    ("text", "said"), [("jpg", "did you mean 'png'"), ("", "one or several of"), ("png,mov", "'mov'")]
)
def test_unknown_formats_are_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        files.formats(text)


def test_formats_are_a_list() -> None:
    assert files.formats("PNG, mp4") == ("png", "mp4")
