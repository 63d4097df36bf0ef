"""`vpbench show` on embedded clips: what is drawn, what is said, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vpbench import plan
from vpbench.commands.show import sheet
from vpbench.commands.show.scene import Scene, chosen, scene_of
from vpbench.commands.show.sheet import Request, show
from vpbench.datasets.synthmotion import HERE
from vpbench.errors import UsageError, VpbenchError
from vpbench.render.pictures.draw import Style
from vpbench.render.pictures.page import LEFT, LINE
from vpbench.rows.fates import DROPPED
from vpbench.run import resolve

CLIP = "test0000_move_e"


def setting(**given: Any) -> plan.Setting:
    return resolve.resolve(plan.options({"method": ("dense",), "threads": 1} | given))[0]


VIDEOMAE = setting()


@pytest.fixture(scope="module")
def scene() -> Scene:
    return scene_of(VIDEOMAE, CLIP)


def cell(method: str, keep: float | None = 0.5, where: plan.Setting = VIDEOMAE, **params: Any) -> plan.Cell:
    return plan.Cell("", "", where, method, tuple(params.items()), keep)


def test_a_png_shows_the_frames_and_what_is_left_of_them(scene: Scene, tmp_path: Path) -> None:
    white = Request(("png",), style=Style(dropped="white"))
    path, *lines = show(scene, [cell("random")], white, tmp_path)
    page = np.asarray(Image.open(path))
    top, large = 3 * LINE, scene.frames[::2].repeat(2, 1).repeat(2, 2)
    np.testing.assert_array_equal(page[top : top + 128, LEFT:], np.concatenate(list(large), axis=1))
    kept = scene.see(cell("random"), values=False).fate.final != DROPPED
    tokens = page[top + 128 : top + 256, LEFT:].reshape(8, 16, 8, 8, 16, 3)
    blank = (tokens == 255).all(axis=(1, 4, 5)).transpose(1, 0, 2)  # rows, slots, columns
    np.testing.assert_array_equal(blank.ravel(), ~kept)
    assert lines == ["random keep=0.5: 256 of 512 tokens are left after input"]


def test_every_format_is_written_and_named(scene: Scene, tmp_path: Path) -> None:
    written = list(show(scene, [cell("random"), cell("tdiff")], Request(slots=2), tmp_path))[:3]
    assert [Path(path).suffix for path in written] == [".png", ".gif", ".mp4"]
    assert all(Path(path).stat().st_size > 1000 for path in written)
    assert Path(written[0]).stem == f"{CLIP}-videomae_embedded-random_keep_0.5-tdiff_keep_0.5"
    with Image.open(written[1]) as gif:
        assert gif.n_frames == 16  # type: ignore[attr-defined]


def test_stages_have_a_row_each(scene: Scene, tmp_path: Path) -> None:
    path, line = show(scene, [cell("sta", None, r=8)], Request(("png",), slots=3, stages=True), tmp_path)
    assert Image.open(path).size == (LEFT + 3 * 128, 3 * LINE + 4 * 128 + 10)
    assert line == "sta r=8: 400 of 512 tokens are left after block 4 (448 after block 0, 416 after block 2)"


def test_gradient_norms_come_with_their_kept_share(scene: Scene, tmp_path: Path) -> None:
    cells = [cell("dense", None), cell("sta", None, r=8)]
    written = list(show(scene, cells, Request(("png",), gradnorm="predicted"), tmp_path))
    assert Path(written[1]).stem.endswith("-gradnorm")
    assert Image.open(written[1]).size == (LEFT + 3 * 128, 3 * LINE + 4 * 128 + 10)  # three slots, as published
    whole, *shares = (line for line in written if "gradient norms of" in line)
    assert whole == "dense, input: 1.000 of the tokens, 1.000 of the gradient norms of move_e"
    norms, name = scene.gradient(by_label=False)
    fate = scene.see(cells[1], values=False).fate
    expected = [norms.ravel()[stage.token != DROPPED].sum() / norms.sum() for stage in fate.stages]
    assert [float(line.split()[-7]) for line in shares] == pytest.approx(expected, abs=6e-4)
    assert (name, norms.shape, bool((norms > 0).all())) == ("move_e", (8, 8, 8), True)
    np.testing.assert_array_equal(scene.gradient(by_label=True)[0], norms)  # the prediction is right


def test_scores_are_drawn_where_a_method_has_any(scene: Scene, tmp_path: Path) -> None:
    both = [cell("random"), cell("rlt")]
    _, path, *_ = show(scene, both, Request(("png",), scores=True), tmp_path)
    assert Image.open(path).size[1] == 3 * LINE + 3 * 128 + 10  # frames, scores, tokens of rlt
    with pytest.raises(UsageError, match=r"random keep=0\.5: says of no token how"):
        list(show(scene, both[:1], Request(("png",), scores=True), tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_files_on_disk_are_shown_without_a_label(tmp_path: Path) -> None:
    found = scene_of(VIDEOMAE, str(HERE / "clips" / f"{CLIP}.mp4"))
    np.testing.assert_array_equal(found.frames, scene_of(VIDEOMAE, "0").frames)
    with pytest.raises(UsageError, match=r"oracle keep=0\.5 cannot be shown: oracle needs the clips' labels"):
        found.see(cell("oracle"), values=False)
    with pytest.raises(UsageError, match="--gradnorm label needs a labelled video"):
        found.gradient(by_label=True)


def test_what_cannot_be_read_or_run_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"this is no video" * 20)
    with pytest.raises(VpbenchError, match=r"bad.mp4: "):
        scene_of(VIDEOMAE, str(tmp_path / "bad.mp4"))
    with pytest.raises(UsageError, match="--view 2: protocol first has views 0 to 0"):
        scene_of(VIDEOMAE, CLIP, view=2)


def test_grids_and_steps_are_shown(tmp_path: Path) -> None:
    for backbone, method, left in (("mvit_embedded", "stts", 256), ("vivit_embedded", "rgtp", 253)):
        where = setting(backbone=backbone)
        found = scene_of(where, CLIP)
        seen = found.see(cell(method, where=where), values=True)
        assert (seen.fate.left(), bool(seen.values)) == (left, True)
        with pytest.raises(UsageError, match="plain stream of tokens"):
            found.gradient(by_label=False)


def test_detectors_are_shown_with_boxes(tmp_path: Path) -> None:
    where = setting(backbone="vitdet_embedded", dataset="synthmotion_boxes", split="ci", limit=2)
    found = scene_of(where, CLIP, count=4)
    seen = found.see(cell("rgtp", 0.25, where), values=True)
    assert len(found.truth) == len(seen.marks) == len(found.frames) == 4
    assert [mark.text for mark in found.truth[0]] == ["star", "ellipse"]
    assert any("ellipse" in mark.text for mark in seen.marks[3])
    assert set(seen.values) == {"selection_score", "heatmap"}
    path, line = show(found, [cell("rgtp", 0.25, where)], Request(("png",), slots=4), tmp_path)
    assert Image.open(path).size == (LEFT + 4 * 192, 3 * LINE + 2 * 192 + 10)
    assert line == "rgtp keep=0.25: 448 of 1024 tokens are left after block 0"
    with pytest.raises(UsageError, match="there are no views"):
        scene_of(where, CLIP, view=1)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("test0000_mov_e", "did you mean 'test0000_move_e'"),
        ("quite_else", "such as 'test0000_move_e'; give an id, a number below 2, or a file"),
        ("2", "has 2, numbered from 0"),
        ("nothere.mp4", "no such file"),
        ("folder/nothere", "no such file"),
    ],
)
def test_unknown_clips_are_refused_with_what_fits(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        chosen(name, lambda: [CLIP, "test0001_move_ne"], "synthmotion test")


def test_a_clip_is_an_id_a_number_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [chosen(name, lambda: [CLIP], "x") for name in (CLIP, "0")] == [CLIP, CLIP]
    (tmp_path / "0").touch()
    assert chosen("0", list, "x") == Path("0")  # what is there comes first, and needs no list


def test_long_names_of_files_are_cut() -> None:
    long = sheet._stem(["clip"] + [f"method keep={n}" for n in range(30)])
    assert len(long) == 107
    assert long != sheet._stem(["clip"] + [f"method keep={n}" for n in range(31)])
