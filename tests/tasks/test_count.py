"""Counts without weights or data, against the tables that were published or counted with the published code."""

from __future__ import annotations

import time
from functools import lru_cache

import pytest
from helpers import PLAIN, ROOT, vpbench

from vpbench import plan, registry
from vpbench.commands.flops import clips
from vpbench.errors import UsageError, VpbenchError
from vpbench.methods.tome import Tome
from vpbench.plan import presets
from vpbench.rows import published
from vpbench.tasks.recognition import count

R = (0, 16, 32, 48, 64, 80, 96, 111)
STA = {
    "s": (56.95, 49.15, 41.81, 35.03, 28.80, 23.14, 18.04, 13.77),
    "b": (180.49, 157.90, 136.32, 115.86, 96.53, 78.31, 61.21, 46.19),
    # 520.3946 and 376.1045: rounded to three digits first they would read 520.40 and 376.11
    "l": (597.22, 520.39, 446.66, 376.10, 308.74, 244.56, 183.56, 129.27),
    "h": (1191.64, 1038.46, 890.65, 748.33, 611.49, 480.14, 354.28, 241.26),
}
#: backbone, r, inflect -> tokens left, GMACs the published way, GMACs without norms and matching
TOME = {
    ("s", 65, 0): (788, 40.02, 39.68),
    ("b", 65, 0): (788, 129.32, 128.92),
    ("b", 100, 0): (368, 104.26, 103.95),
    ("b", 150, 0): (28, 74.29, 74.07),
    ("l", 32, 0): (800, 432.47, 431.60),
    ("l", 65, 0): (37, 280.98, 280.45),
    ("l", 65, -1): (19, 183.77, 183.44),
    ("h", 49, 0): (25, 562.71, 561.84),
}
SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.3, 0.125)
RLT = {
    "s": (49.1, 41.9, 35.1, 28.7, 22.8, 12.3, 4.6),
    "b": (158.2, 137.0, 116.8, 97.4, 78.8, 44.5, 17.6),
    "l": (526.2, 458.0, 392.6, 329.2, 268.2, 153.5, 61.4),
    "h": (1053.6, 920.2, 791.7, 666.4, 545.1, 314.7, 126.8),
}


def cells(backbone: str, method: str, *assignments: str, keep: tuple[float, ...] = ()) -> list[plan.Cell]:
    asked = plan.options({"method": (method,), "set": assignments, "keep": keep, "backbone": f"videomae_{backbone}"})
    planned = plan.cells(asked, plan.setting(asked, 1))
    return [cell for cell in planned if cell.match is None and cell.method in ("dense", method)]


def counted(backbone: str, method: str, *assignments: str, tokens: tuple[int, ...] = ()) -> list[count.Count]:
    found = cells(backbone, method, *assignments)
    model = network(found[0].setting)
    # operators beside the closed form are counted below, once for each method
    return [each for cell in found[1:] for each in count.counts(model, cell, tokens, None)]


network = lru_cache(count.backbone)


@pytest.mark.parametrize("backbone", STA)
def test_sta_equals_the_table(backbone: str) -> None:
    found = counted(backbone, "sta", f"r={','.join(map(str, R))}")
    assert [round(each.published_macs / 1e9, 2) for each in found] == list(STA[backbone])


@pytest.mark.parametrize(("backbone", "r", "inflect"), TOME)
def test_tome_equals_the_table(backbone: str, r: int, inflect: int) -> None:
    [found] = counted(backbone, "tome", f"r={r}", f"inflect={inflect}")
    left, whole, bare = TOME[backbone, r, inflect]
    assert found.mlp[-1] == left
    assert round(found.published_macs / 1e9, 2) == whole
    matching = sum(
        (n + 1) // 2 * (n // 2) * (80 if backbone == "h" else 64)
        for n, m in zip(found.attention, found.mlp, strict=True)
        if m < n
    )
    assert round((found.macs - matching) / 1e9, 2) == bare


@pytest.mark.parametrize("backbone", RLT)
def test_rlt_at_given_counts_equals_the_table(backbone: str) -> None:
    found = counted(backbone, "rlt", tokens=tuple(round(1568 * share) for share in SHARES))
    assert [round(each.macs / 1e9, 1) for each in found] == list(RLT[backbone])


@pytest.mark.parametrize(("backbone", "gmacs", "printed"), [("s", 56.88, 57), ("b", 180.34, 180), ("l", 596.83, 597)])
def test_dense_is_what_papers_print(backbone: str, gmacs: float, printed: float) -> None:
    [dense] = cells(backbone, "dense")
    [found] = count.counts(network(dense.setting), dense, ())
    assert round(found.macs / 1e9, 2) == gmacs
    assert found.macs / 1e9 == pytest.approx(printed, rel=0.003)
    [figure] = [f for f in published.figures() if (f.backbone, f.metric) == (f"videomae_{backbone}", "gmacs_per_view")]
    assert figure.value == printed


@pytest.mark.parametrize("name", [n for n in PLAIN if n not in ("dense", "rlt", "ats")])
def test_operators_on_meta_equal_the_closed_form_at_full_size(name: str) -> None:
    _, cell = [c for c in cells("s", name, keep=(0.5,)) if c.method in ("dense", name)]
    [found] = count.counts(network(cell.setting), cell, ())
    assert found.operators == pytest.approx(found.macs, rel=1e-3)


def test_schedules_of_the_specification() -> None:
    decreasing = [130, 124, 118, 113, 107, 101, 96, 90, 84, 79, 73, 67, 62, 56, 50, 45, 39, 33, 28, 22, 16, 11, 5, 0]
    assert Tome(r=65, inflect=-1.0).per_block(24) == decreasing
    assert Tome(r=12, inflect=-1.0).per_block(6) == [24, 19, 14, 9, 4, 0]
    assert Tome(r=65).per_block(12) == [65] * 12
    assert Tome(schedule="9/4").per_block(4) == [9, 4, 0, 0]


def test_every_preset_with_a_published_figure_exists() -> None:
    found = published.figures()
    assert len(found) > 90
    assert {f.preset for f in found if f.preset} <= set(presets.summaries())
    assert {f.method for f in found} <= set(registry.names("methods"))
    assert {len(values) for values in STA.values()} == {len(R)}


def test_a_bad_figure_is_named_by_file_and_line(tmp_path: object) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path))
    (folder / "a.csv").write_text("method,backbone,preset,dataset,metric,value,source,note\nrlt,,,,top1_pct,high,x,\n")
    with pytest.raises(VpbenchError, match=r"a\.csv, line 2: value"):
        published.figures(folder)


def test_what_only_clips_can_tell_is_refused() -> None:
    with pytest.raises(UsageError, match="--clip"):
        counted("s", "ats", tokens=(784,))
    with pytest.raises(UsageError, match="outside 1 to 1568"):
        counted("s", "rlt", tokens=(0,))
    with pytest.raises(UsageError, match="first of 8 slots"):
        counted("s", "rlt", tokens=(195,))
    with pytest.raises(UsageError, match="sta needs"):
        counted("s", "sta", "r=112")


def test_given_counts_are_listed_once_whatever_the_parameters() -> None:
    lines = list(clips.report(cells("s", "rlt", "threshold=0.05,0.1"), (1411, 784), ""))
    assert [line.split("tokens")[0].strip() for line in lines if line.startswith("rlt at")] == [
        "rlt at 1411",
        "rlt at 784",
    ]


@pytest.mark.parametrize(("backbone", "second", "third"), [("b", 4, 8), ("l", 8, 16), ("h", 10, 21)])
def test_sta_prunes_after_a_third_and_two_thirds_of_the_blocks(backbone: str, second: int, third: int) -> None:
    found = counted(backbone, "sta", "r=48")[0].attention
    expected = [1568] + [1184] * second + [992] * (third - second) + [896] * (len(found) - 1 - third)
    assert list(found) == expected


def test_long_lists_of_tokens_are_shortened() -> None:
    assert clips.spell((1568, 1056, 1056, 672)) == "1568, 1056 x2, 672"
    assert clips.spell(range(20, 0, -1)) == "20, 19, 18, ..., 2, 1"


def test_the_command_needs_neither_weights_nor_data() -> None:
    began = time.perf_counter()
    done = vpbench("flops", "--preset", "sta/vit_l_r64", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert time.perf_counter() - began < 20
    assert "308.74" in done.stdout
    assert "1568, 1056 x8, 800 x8, 672 x7" in done.stdout
    assert "published: dense gmacs_per_view 597" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--preset", "sta/vit_l_r46"), "did you mean"),
        (("--method", "rlt", "--tokens", "0"), "outside 1 to"),
        (("--method", "sta", "--tokens", "100"), "leave it out"),
        (("--method", "rlt", "--tokens", "many"), "whole numbers"),
        (("--method", "tome", "--keep", "0.5", "--set", "r=3"), "keep derives tome's r"),
    ],
)
def test_mistakes_are_one_line(arguments: tuple[str, ...], said: str) -> None:
    done = vpbench("flops", *arguments, cwd=ROOT)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
