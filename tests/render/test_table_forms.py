"""What tables say in each format, against dense and against random, and that LaTeX is LaTeX."""

from __future__ import annotations

import re
import time

import pytest
from golden_rounds import with_samples
from golden_rows import correctness, frame, identity, measured, sweep, sweep_videos, video_rows

from vpbench.errors import NothingMeasured, UsageError
from vpbench.render.tables import cells as tables_cells
from vpbench.render.tables import latex, layout
from vpbench.render.tables.layout import Grid, Layout
from vpbench.rows.statistics import intervals, paired

ROWS, ROUNDS = with_samples(sweep())
RESULTS, SEEN, SAMPLES = frame(ROWS), frame(sweep_videos(), "videos"), frame(ROUNDS, "samples")


def cells(latex: str) -> list[list[str]]:
    """Return the lines between the rules of the first table as cells."""
    body = latex.partition("\\midrule\n")[2].partition("\n\\bottomrule")[0]
    lines = [line for line in body.splitlines() if line != "\\addlinespace"]
    assert all(line.endswith(" \\\\") for line in lines)
    return [line.removesuffix(" \\\\").split(" & ") for line in lines]


def test_latex_has_rules_groups_and_balanced_braces() -> None:
    text = tables_cells.report(RESULTS, SEEN, "latex")
    for part in ("\\toprule", "\\midrule", "\\bottomrule", "\\begin{tabular}", "\\end{tabular}", "\\end{table*}"):
        assert text.count(part) == 1, part
    assert text.count("{") - text.count("\\{") == text.count("}") - text.count("\\}")
    rows = cells(text)
    assert len(rows) == 16
    assert len({len(row) for row in rows}) == 1
    columns = re.search(r"\\begin\{tabular\}\{@\{\}([lr]+)@\{\}\}", text)
    assert columns is not None
    assert len(columns.group(1)) == len(rows[0])
    assert [row[0] for row in rows if row[0]] == ["dense", "random", "rlt", "sta"], "a method is named once"
    assert text.count("\\addlinespace") == 3
    assert rows[6][1] == "knob=0.2"
    bare = re.sub(r"\\[%_&#$]", "", text.partition("\n")[2])
    assert not re.search(r"[%#_†°]", bare.replace("\\textsuperscript", "")), "all that LaTeX reads otherwise is escaped"


def test_latex_escapes_and_sets_a_minus() -> None:
    assert latex.escaped("a_b & 5 % of {x} ~ <$#>\\^") == (
        r"a\_b \& 5 \% of \{x\} \textasciitilde{} \textless{}\$\#\textgreater{}\textbackslash{}\textasciicircum{}"
    )
    grid = Grid({"name": ["rlt†"], "pp": ["-0.4*\n[-1.0, +0.2]"]}, frozenset({"name"}), ["rlt"])
    page = Layout.of("latex").page("a b", grid, ["where", "how"])
    assert r"rlt\textsuperscript{\dag} & $-$0.4\textsuperscript{*} {\scriptsize [$-$1.0, +0.2]} \\" in page
    assert "\\caption{a b: where.}" in page
    assert "\\label{tab:a-b}" in page
    assert "how.\\par" in page
    several = Layout.of("latex").page("", grid, ["where", "[1] a source", "give --out:"])
    assert "[1] a source.\\par\ngive -{}-out:\\par" in several
    assert not re.search(r"\\\\\s*[\[*]", several), "behind a line break they would be arguments"


def test_markdown_cells_hold_no_pipe() -> None:
    grid = Grid({"name": ["a|b"]}, frozenset({"name"}), ["a"])
    assert r"a\|b" in Layout.of("markdown").page("", grid, [])


def test_a_wrong_format_has_near_matches() -> None:
    with pytest.raises(UsageError, match="did you mean 'latex'"):
        tables_cells.report(RESULTS, SEEN, "latx")


def test_marks_say_what_is_significant_and_what_is_no_loss() -> None:
    text = tables_cells.report(RESULTS, SEEN)
    built = tables_cells.build(RESULTS, SEEN)
    significant = int((built["p_holm"].dropna() < 0.05).sum())
    assert significant > 0
    assert len(re.findall(r"[+-]\d+\.\d\*", text)) == significant
    assert "* below 0.05" in text
    assert "Holm-corrected over 10 comparisons, controls apart" in text
    assert not built["no_loss"].fillna(False).any()
    assert "0 of 15 are" in text


def test_the_bound_of_the_loss_is_a_column_that_never_rounds_below_itself() -> None:
    text = tables_cells.report(RESULTS, SEEN, "markdown")
    header, _, *lines = text.splitlines()
    place = [name.strip() for name in header.split("|")].index("loses at most, pp")
    shown = [line.split("|")[place].strip() for line in lines[:16]]
    bounds = tables_cells.build(RESULTS, SEEN)["loss_bound_pp"].tolist()
    assert shown[0] == ""
    for text_of, bound in zip(shown[1:], bounds[1:], strict=True):
        assert 0 <= float(text_of) - bound < 0.1 + 1e-9


def test_against_random_everything_is_to_random() -> None:
    text = tables_cells.report(RESULTS, SEEN, "console", SAMPLES, "random")
    assert "over random" in text
    assert "vs dense" not in text
    # five of rlt, and sta where it keeps all; its other counts no control has
    assert "against random selection of as many tokens, Holm-corrected over 6 comparisons" in text
    built = tables_cells.build(RESULTS, SEEN, SAMPLES)
    row = built[(built["method"] == "rlt") & (built["keep_nominal"] == 0.4)].iloc[0]
    pair = paired.paired_difference(correctness("random", 0.4), correctness("rlt", 0.4), range(300))
    assert row["vs_random_p_mid"] == pair.p_mid
    assert row["vs_random_pp_lo"] == pair.delta_pp.lo
    raw = built["vs_random_p_mid"].dropna().tolist()
    assert built["vs_random_p_holm"].dropna().tolist() == paired.holm(raw)
    assert row["vs_random_gmacs"] == pytest.approx(
        measured("rlt", 0.4)["gmacs_executed"] / measured("random", 0.4)["gmacs_executed"]
    )
    walls = {name: [r["wall_ns"] for r in ROUNDS if r["config_id"] == f"{name}-0.4"] for name in ("rlt", "random")}
    expected = intervals.speedup(walls["random"], walls["rlt"], [0] * len(walls["rlt"]))
    assert (row["vs_random_speedup"], row["vs_random_speedup_lo"]) == pytest.approx((expected.value, expected.lo))


def test_against_random_without_rounds_or_control_leaves_gaps() -> None:
    text = tables_cells.report(RESULTS, SEEN, "console", None, "random")
    assert "only where both were timed in the same rounds" in text
    built = tables_cells.build(RESULTS, SEEN, SAMPLES)
    sta = built[(built["method"] == "sta") & (built["keep_nominal"] == 0.4)].iloc[0]
    assert sta["vs_random_interpolated"]
    assert sta[["vs_random_p_mid", "vs_random_speedup", "vs_random_gmacs"]].isna().all()


def test_random_may_be_missing_or_all_there_is() -> None:
    alone = tables_cells.report(frame([measured(), measured("rlt", 0.4)]), SEEN, "console", None, "random")
    assert "no p-values: no method was measured beside random selection of as many tokens" in alone
    only = tables_cells.report(frame([measured("random", 0.4)]), SEEN, "latex", None, "random")
    assert len(cells(only)) == 1


def test_all_failed_rows_have_a_table_in_every_format() -> None:
    rows = frame([identity("rlt", keep, error="it & broke", status="failed") for keep in (0.2, 0.4)])
    for fmt in layout.FORMATS:
        text = tables_cells.report(rows, frame([], "videos"), fmt)
        assert "broke" in text
    assert "it \\& broke" in tables_cells.report(rows, frame([], "videos"), "latex")


def test_two_machines_are_two_latex_tables() -> None:
    rows = frame([measured(), measured(device_name="Other CPU")])
    text = tables_cells.report(rows, frame(video_rows(), "videos"), "latex")
    assert text.count("\\begin{table*}") == text.count("\\end{table*}") == 2
    assert "\\label{tab:other-cpu}" in text


def test_metrics_are_a_table_per_context_with_reasons() -> None:
    text = tables_cells.metrics_report(RESULTS, SEEN, SAMPLES)
    assert "Pareto metrics of top1 on 300 videos" in text
    for header in ("hyper-", "AUC, %", "at -3 pp", "at 0.35 cost", "vs random"):
        assert header in text
    assert "vs downsample\n" not in text
    assert "no cost, % vs downsample: downsample was not measured" in text
    letters = set(re.findall(r"\(([a-z])\)", text.partition("Pareto metrics of")[0]))
    assert letters == set(re.findall(r"^  \(([a-z])\) ", text, flags=re.MULTILINE)), "each mark is explained"
    markdown, latex = (tables_cells.metrics_report(RESULTS, SEEN, SAMPLES, None, fmt) for fmt in ("markdown", "latex"))
    assert markdown.startswith("### Pareto metrics")
    assert [row[0] for row in cells(latex) if row[0]] == ["GMACs", "time, batch 1"]


def test_metrics_as_csv_have_a_line_each() -> None:
    lines = tables_cells.metrics_report(RESULTS, SEEN, SAMPLES, None, "csv").strip().splitlines()
    assert len(lines) == 1 + 3 * 2 * 11
    assert lines[0] == (
        "context,name,method,cost,batch_size,quality,settings,videos,resamples,noisy,caveat,metric,value,lo,hi,"
        "interpolated,note,low"
    )


def test_metrics_without_dense_are_one_line() -> None:
    without = frame(ROWS[1:])
    said = "no Pareto metrics: dense was not measured, or its answers are not stored"
    assert tables_cells.metrics_report(without, SEEN, SAMPLES) == said
    assert said in tables_cells.metrics_report(without, SEEN, SAMPLES, None, "latex")


@pytest.mark.parametrize("rows", [ROWS[1:], ROWS[:1], [measured("rlt", 0.4)]], ids=["no dense", "dense", "one point"])
def test_whatever_is_missing_there_is_a_table(rows: list[dict[str, object]]) -> None:
    for fmt in layout.FORMATS:
        for against in ("dense", "random"):
            text = tables_cells.report(frame(rows), SEEN, fmt, SAMPLES, against)
            assert str(rows[0]["method"]) in text


def test_what_was_not_measured_is_not_called_unknown() -> None:
    failed = tables_cells.report(frame([identity("rlt", 0.4, error="broke")]), frame([], "videos"))
    assert "unknown" not in failed
    assert "broke" in failed
    dense = tables_cells.report(frame([measured()]), SEEN)
    assert "no p-values: no method was measured beside dense" in dense
    blind = tables_cells.report(frame([measured(top1=None, disc_b=None, disc_c=None, delta_pp=None)]), SEEN)
    assert "top-1 unknown" in blind


def test_metrics_of_nothing() -> None:
    with pytest.raises(NothingMeasured, match="nothing but dense"):
        tables_cells.metrics_report(frame([measured()]), SEEN, SAMPLES)


def test_ten_thousand_rows_are_a_table() -> None:
    rows = [
        measured("rlt", 0.4, config_id=f"c{number}", keep_nominal=None, method_params=f'{{"knob": {number}}}')
        for number in range(2)
    ]
    many = [
        rows[n % 2] | {"config_id": f"c{n}", "method_params": f'{{"knob": {n}, "b": 1, "c": 2}}'} for n in range(10**4)
    ]
    results = frame(many)
    began = time.process_time()
    text = tables_cells.report(results, frame([], "videos"), "csv")
    assert time.process_time() - began < 20
    assert len(text.splitlines()) == 10**4 + 1
