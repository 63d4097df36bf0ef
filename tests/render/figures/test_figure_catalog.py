"""Which figures rows allow, into which files they go, and what is said where there are none."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from drawn import clips, figures, full, nothing, timed
from golden_rows import frame, identity, measured, sweep
from matplotlib.figure import Figure

from vpbench.errors import NothingMeasured, UsageError
from vpbench.render.figures import catalog
from vpbench.render.figures.catalog import Request


def draw(rows: list[dict[str, Any]], folder: Path, **asked: Any) -> catalog.Drawn:
    return catalog.draw(frame(rows), clips, folder, Request(**{"formats": ("png",), **asked}))


@cache
def whole(page: str) -> dict[str, Figure]:
    """Every figure of one kind of page, drawn once."""
    return figures(full(), page=page)


def test_all_figures_that_rows_allow_and_a_reason_for_the_others(tmp_path: Path) -> None:
    assert [path.stem for path in draw(full(), tmp_path).files] == list(catalog.FIGURES)
    drawn = draw(sweep(), tmp_path)
    assert [path.stem for path in drawn.files] == ["pareto", "speed_vs_flops", "keep", "tokens"]
    assert drawn.left_out == ["no figure stages: no row knows its stages; measure with --stages"]


def test_dense_alone_has_one_figure(tmp_path: Path) -> None:
    drawn = draw([measured()], tmp_path)
    assert [path.stem for path in drawn.files] == ["pareto"]
    assert [line.split(":")[0].split()[-1] for line in drawn.left_out] == ["speed_vs_flops", "keep", "stages", "tokens"]


def test_named_figures_alone(tmp_path: Path) -> None:
    drawn = draw(full(), tmp_path, figures=("keep", "stages"))
    assert [path.stem for path in drawn.files] == ["keep", "stages"]
    with pytest.raises(NothingMeasured, match="stages: no row knows its stages"):
        draw(sweep(), tmp_path, figures=("stages",))


def test_clips_that_are_not_there_are_said(tmp_path: Path) -> None:
    drawn = catalog.draw(frame(sweep()), nothing, tmp_path, Request(formats=("png",)))
    assert "no figure tokens: no clip of a method has its tokens" in drawn.left_out


def test_files_and_determinism(tmp_path: Path) -> None:
    rows = timed([measured(), measured("random", 0.4), measured("rlt", 0.4)])
    first, second = (
        catalog.draw(frame(rows), clips, tmp_path / name, Request(figures=("stages", "tokens"))) for name in "ab"
    )
    assert {path.suffix for path in first.files} == {".png", ".pdf", ".svg"}
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(first.files, second.files, strict=True))


def test_text_stays_text_in_a_pdf(tmp_path: Path) -> None:
    [path] = draw([measured(), measured("rlt", 0.4)], tmp_path, figures=("keep",), formats=("pdf",)).files
    assert b"/Type3" not in path.read_bytes()
    assert b"/TrueType" in path.read_bytes() or b"/CIDFontType2" in path.read_bytes()


@pytest.mark.parametrize(("page", "wide", "narrow"), [("paper", 6.75, 3.25), ("slide", 13.333, 13.333)])
def test_sizes_are_those_of_columns_and_slides(page: str, wide: float, narrow: float) -> None:
    drawn = whole(page)
    widths = {name: figure.get_figwidth() for name, figure in drawn.items()}
    assert widths == {"pareto": wide, "speed_vs_flops": narrow, "keep": narrow, "stages": wide, "tokens": wide}
    if page == "slide":
        assert all(
            figure.get_figheight() / figure.get_figwidth() == pytest.approx(9 / 16, 1e-3) for figure in drawn.values()
        )
    sizes = {axis.xaxis.label.get_fontsize() for figure in drawn.values() for axis in figure.axes if axis.get_xlabel()}
    assert sizes == {9.0 if page == "paper" else 18.0}


def test_nothing_is_cut_off() -> None:
    for page in ("paper", "slide"):
        for name, figure in whole(page).items():
            box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
            assert min(box.x0, box.y0) >= -0.01, (page, name)
            assert box.x1 <= width + 0.01, (page, name)
            assert box.y1 <= height + 0.01, (page, name)


def test_slides_do_not_replace_figures_of_a_paper(tmp_path: Path) -> None:
    rows = [measured(), measured("rlt", 0.4)]
    paper, slide = (draw(rows, tmp_path, figures=("keep",), page=page).files[0] for page in ("paper", "slide"))
    assert (paper.name, slide.name) == ("keep.png", "keep-slide.png")


def test_methods_are_drawn_beside_their_references_and_elsewhere_nothing(tmp_path: Path) -> None:
    rows = [*full(), *(row | {"device_name": "Other CPU"} for row in full() if row["method"] != "sta")]
    drawn = draw(rows, tmp_path, figures=("keep",), methods=("sta",))
    assert [path.name for path in drawn.files] == ["keep-Intel-Xeon-Processor-2.70GHz.png"]


def test_two_machines_are_two_figures(tmp_path: Path) -> None:
    rows = [
        measured(),
        measured("rlt", 0.4),
        measured(device_name="Other CPU"),
        measured("rlt", 0.4, device_name="Other CPU"),
    ]
    names = [path.name for path in draw(rows, tmp_path, figures=("pareto",)).files]
    assert names == ["pareto-Intel-Xeon-Processor-2.70GHz.png", "pareto-Other-CPU.png"]


def test_names_of_files_stay_short_and_apart(tmp_path: Path) -> None:
    rows = [measured(device_name="A" * 300), measured(device_name="A" * 299 + "B")]
    names = [path.name for path in draw(rows, tmp_path, figures=("pareto",)).files]
    assert len(set(names)) == 2
    assert max(map(len, names)) < 200


def test_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(NothingMeasured, match="no results"):
        draw([], tmp_path)
    with pytest.raises(NothingMeasured, match="none of 1 rows was measured; the first says: broken"):
        draw([identity("rlt", 0.4, error="broken")], tmp_path)
    unlabelled = [row | {"top1": None, "delta_pp": None} for row in sweep()]
    with pytest.raises(NothingMeasured, match="agree"):
        draw(unlabelled, tmp_path, quality="top1")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"figures": ("paretto",)}, "did you mean 'pareto'"),
        ({"formats": ("gif",)}, "unknown format 'gif'"),
        ({"quality": "speed"}, "unknown y 'speed'"),
        ({"page": "poster"}, "unknown size 'poster'"),
        ({"costs": ("gmac",)}, "unknown x 'gmac'; did you mean 'gmacs'"),
        ({"panels": "methods"}, "unknown panels 'methods'; did you mean 'method'"),
    ],
)
def test_unknown_names_are_named(asked: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        draw(sweep(), tmp_path, **asked)
