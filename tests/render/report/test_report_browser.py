"""The page in a browser: what is drawn, reached by keyboard, sorted and filtered, and how legible and quick it is."""

from __future__ import annotations

import csv
import itertools
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from golden_rows import identity, measured, sweep, sweep_videos
from report_pages import html, many

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright: the page is tested in Chromium")
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found: install chromium to test the page in it")

Open = Callable[..., Any]
# every element that holds text itself, its colour and that of the first ancestor that is not transparent
CONTRAST = """() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => numbers(colour).slice(0, 3).map((c) => c / 255)
    .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor;
      if ((numbers(colour)[3] ?? 1) > 0) return light(colour);
    }
    throw new Error("nothing behind");
  };
  const texts = [...document.querySelectorAll("body *")].filter((node) =>
    !node.closest("script, noscript, .hidden, [disabled]") && node.getClientRects().length &&
    [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim()));
  const found = texts.map((node) => {
    const style = getComputedStyle(node);
    const colour = node instanceof SVGElement ? style.fill : style.color;
    return [ratio(light(colour), behind(node)), node.textContent.trim().slice(0, 40)];
  });
  const drawn = document.querySelectorAll(".curve .point:not(.noisy), .legend .point, .front, .axis");
  const marks = [...drawn].map((node) => {
    const style = getComputedStyle(node);
    return ratio(light(style.fill === "none" ? style.stroke : style.fill), behind(node.closest("figure")));
  });
  return { least: found.sort((a, b) => a[0] - b[0])[0], texts: found.length, marks: Math.min(...marks) };
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [row | {"noisy": row["method"] == "sta"} for row in sweep()]
    other = [row | {"device_name": "Other CPU"} for row in rows]
    return written(
        tmp_path_factory, html([*rows, *other, identity("tome", 0.4, error="out of memory")], sweep_videos())
    )


def written(folders: pytest.TempPathFactory, text: str) -> Path:
    path = folders.mktemp("page") / "report.html"
    path.write_text(text)
    return path


@pytest.fixture
def visit(browser: Any) -> Iterator[Open]:
    """Open pages; at the end nothing was asked of a network, and nothing complained."""
    complaints: list[str] = []
    contexts = []

    def show(path: Path, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda asked: complaints.extend([asked.url] * (not asked.url.startswith(("file:", "data:")))))
        tab.goto(path.as_uri())
        tab.wait_for_selector("html[data-drawn]")
        return tab

    yield show
    for context in contexts:
        context.close()
    assert complaints == []


def test_every_row_is_a_point_in_its_section(golden: Path, visit: Open) -> None:
    tab = visit(golden)
    for section in ("#section-0", "#section-1"):
        assert tab.locator(f"{section} .chart path.point[role=button]").count() == 16
        assert tab.locator(f"{section} .chart .bars").count() == 3
        assert tab.locator(f"{section} .chart .band").count() == 1, "random is a band"
        assert tab.locator(f"{section} .ring").count() == 4
        assert tab.locator(f"{section} .level").count() == 1
    assert tab.locator("#section-0 .noisy").count() == 0, "noise does not spoil multiply-accumulates"
    tab.locator("#section-0").get_by_label("Cost").select_option(label="ms per clip, median")
    assert tab.locator("#section-0 .noisy").count() == 5
    assert "ms per clip, median (logarithmic)" in tab.locator("#section-0 .plot").inner_text()


def test_the_axes_put_points_where_they_belong(golden: Path, visit: Open) -> None:
    tab = visit(golden)
    places = tab.locator("#section-0 path.point[role=button]").evaluate_all(
        """nodes => nodes.map((node) => [node, node.getBoundingClientRect()])
          .map(([node, box]) => [node.getAttribute("aria-label"), box.x, box.y])"""
    )
    at = {label.split(":")[0]: (x, y) for label, x, y in places}
    rows = {f"rlt at keep {row['keep_nominal']:g}": row for row in sweep() if row["method"] == "rlt"}
    across = sorted(rows, key=lambda name: rows[name]["gmacs_executed"])
    assert across == sorted(rows, key=lambda name: at[name][0])
    assert at["rlt at keep 0.2"][1] > at["rlt at keep 0.4"][1] > at["rlt at keep 0.6"][1]


def test_pointing_shows_the_numbers_and_a_click_isolates(golden: Path, visit: Open) -> None:
    tab = visit(golden)
    plot = tab.locator("#section-0 .plot")
    point = plot.locator("path.point[aria-label^='rlt at keep 0.4:']")
    point.hover(force=True)
    tip = plot.locator(".tip")
    assert tip.is_visible()
    assert "rlt at keep 0.4" in tip.inner_text()
    row = next(row for row in sweep() if row["method"] == "rlt" and row["keep_nominal"] == 0.4)
    assert f"{row['speedup']:.2f}" in tip.inner_text()
    point.click(force=True)
    assert plot.locator("g.dimmed").count() == 4, "three other curves, and the front of all"
    assert tab.locator("#section-0 .legend button[aria-pressed=true]").inner_text() == "rlt"
    assert tab.locator("#section-1 g.dimmed").count() == 0
    tab.mouse.move(1, 1)
    assert not tip.is_visible()


def test_all_of_it_by_keyboard(golden: Path, visit: Open) -> None:
    tab = visit(golden)
    said = "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent"
    tab.keyboard.press("Tab")
    assert tab.evaluate(said) == "Skip to the results"
    tab.locator("#section-0 .legend button").last.focus()
    tab.keyboard.press("Tab")
    first = tab.evaluate(said)
    assert "keep" in first
    assert tab.locator("#section-0 .tip").is_visible()
    tab.keyboard.press("End")
    assert tab.evaluate(said) != first
    tab.keyboard.press("Home")
    assert tab.evaluate(said) == first
    tab.keyboard.press("Enter")
    assert tab.locator("#section-0 g.dimmed").count() == 4
    alone = first.split()[0]
    for _ in range(3):
        tab.keyboard.press("ArrowRight")
        assert tab.evaluate(said).startswith(alone), "arrows stay with the method that is shown alone"
    tab.keyboard.press("Escape")
    assert tab.locator("#section-0 g.dimmed").count() == 0
    tab.keyboard.press("Tab")
    assert not tab.evaluate("document.activeElement.closest('.chart')"), "one press of Tab leaves the plot"


def test_the_table_sorts_and_filters(golden: Path, visit: Open) -> None:
    tab = visit(golden)
    listing = tab.locator("#section-0 .listing[data-of=table]")
    speed = listing.locator("th", has_text="speed-up")
    speed.locator("button").focus()
    column = speed.evaluate("head => head.cellIndex")
    order: dict[str, list[float]] = {}
    for state in ("ascending", "descending"):
        tab.keyboard.press("Enter")
        assert speed.get_attribute("aria-sort") == state
        texts = listing.locator(f"tbody tr > :nth-child({column + 1})").all_inner_texts()
        order[state] = [float(text.split()[0].rstrip("!")) for text in texts if text]
    assert order["ascending"] == sorted(order["ascending"])
    assert order["descending"] == order["ascending"][::-1]
    tab.keyboard.press("Enter")
    assert speed.get_attribute("aria-sort") == "none"
    listing.get_by_label("Filter").fill("RLT 0.4")
    assert listing.locator("tbody th").all_inner_texts() == ["rlt knob=0.4"]
    assert listing.locator("[role=status]").inner_text() == "1 to 1 of 1 (17 in all)"
    listing.get_by_label("Filter").fill("nothing like it")
    assert listing.locator("[role=status]").inner_text() == "none (17 in all)"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast(golden: Path, visit: Open, theme: str) -> None:
    tab = visit(golden, color_scheme=theme)
    tab.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    found = tab.evaluate(CONTRAST)
    assert found["texts"] > 100
    assert found["least"][0] >= 4.5, found["least"]
    assert found["marks"] >= 3
    assert (
        tab.evaluate("getComputedStyle(document.body).backgroundColor")
        == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 26)"}[theme]
    )


def test_the_first_screen_has_the_answer_a_chart_and_a_table(golden: Path, visit: Open) -> None:
    tab = visit(golden, viewport={"width": 1280, "height": 800})
    for first in (".claims", ".plot > svg", ".listing[data-of=summary] tbody tr:nth-child(3)"):
        box = tab.locator(f"#section-0 {first}").bounding_box()
        assert box["y"] + box["height"] <= 800, first
    titles = tab.locator("#section-0 h3").all_inner_texts()
    assert titles[:4] == [
        "Quality against cost",
        "A setting of each method",
        "What each method shows",
        "What is not shown",
    ]
    assert titles.index("All settings") < titles.index("What is left of a clip") < titles.index("Provenance")


def test_on_a_phone_all_of_the_chart_can_be_seen(golden: Path, visit: Open) -> None:
    tab = visit(golden, viewport={"width": 390, "height": 844}, has_touch=True)
    box = tab.locator("#section-0 .plot > svg").bounding_box()
    assert (box["width"], box["height"]) >= (350, 260)
    for part in ("select", ".tools button", ".legend button"):
        for own in tab.locator(f"#section-0 {part}").all():
            found = own.bounding_box()
            assert found["x"] >= 0
            assert found["x"] + found["width"] <= 390
    point = tab.locator("#section-0 path.point[aria-label^='rlt at keep 0.4:']")
    point.tap(force=True)
    assert tab.locator("#section-0 .legend button[aria-pressed=true]").inner_text() == "rlt"


def test_random_does_not_take_the_height(golden: Path, visit: Open) -> None:
    """Its few tokens lie 30 points below everything else; the others have most of the plot to themselves."""
    tab = visit(golden)
    plot = tab.locator("#section-0 .plot > svg").bounding_box()
    own = [
        point.bounding_box()["y"]
        for point in tab.locator("#section-0 g.curve:not(.random) path.point[role=button]").all()
    ]
    assert (max(own) - min(own)) / plot["height"] > 0.55


def test_a_part_can_be_looked_at_alone(golden: Path, visit: Open) -> None:
    tab = visit(golden)
    whole = tab.locator("#section-0").get_by_role("button", name="Whole")
    ticks = tab.locator("#section-0 .plot text")
    before = ticks.all_inner_texts()
    assert whole.is_disabled()
    box = tab.locator("#section-0 .plot").bounding_box()
    tab.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.1 * box["height"])
    tab.mouse.down()
    tab.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 0.5 * box["height"], steps=5)
    assert tab.locator("#section-0 .brush").get_attribute("visibility") == "visible"
    tab.mouse.up()
    assert ticks.all_inner_texts() != before
    assert "outside what is shown" in tab.locator("#section-0 figcaption").first.inner_text()
    assert tab.locator("#section-0 g.dimmed").count() == 0, "to let go is no click"
    whole.click()
    assert ticks.all_inner_texts() == before
    tab.locator("#section-0").get_by_role("button", name="Zoom in").click()
    assert ticks.all_inner_texts() != before
    tab.locator("#section-0").get_by_role("button", name="Zoom out").click()
    assert ticks.all_inner_texts() == before
    assert tab.locator("#section-1 .plot text").all_inner_texts() == before


def test_methods_can_be_hidden(golden: Path, visit: Open) -> None:
    tab = visit(golden)
    box = tab.locator("#section-0").get_by_label("Show sta")
    points = tab.locator("#section-0 path.point[role=button]")
    box.uncheck()
    assert points.count() == 11
    assert tab.locator("#section-0 path.point[aria-label^='sta']").count() == 0
    box.check()
    assert points.count() == 16


def kept(tab: Any, button: str) -> str:
    with tab.expect_download() as download:
        tab.locator("#section-0").get_by_role("button", name=button).click()
    path: str = download.value.path()
    return Path(path).read_text()


def test_drawing_and_data_can_be_kept(golden: Path, visit: Open) -> None:
    tab = visit(golden, color_scheme="light")
    drawing = ElementTree.fromstring(kept(tab, "Keep the drawing as SVG"))
    svg = "{http://www.w3.org/2000/svg}"
    marks = [path.get("fill") for path in drawing.iter(f"{svg}path") if (path.get("transform") or "").startswith("tr")]
    assert len(marks) == 16
    assert {"rgb(0, 104, 168)", "rgb(196, 78, 0)"} <= set(marks), "colours of rlt and sta, without the page's style"
    assert {"dense", "random", "rlt", "sta"} <= {text.text for text in drawing.iter(f"{svg}text")}
    points = list(csv.DictReader(kept(tab, "Keep the points as CSV").splitlines()))
    assert len(points) == 16
    row = next(row for row in sweep() if row["method"] == "rlt" and row["keep_nominal"] == 0.4)
    [own] = [point for point in points if point["setting"] == "rlt at keep 0.4"]
    assert float(own["ms per clip, median"]) == row["wall_ms_p50"]
    assert float(own["ms per clip, median, from"]) == row["wall_ms_ci_lo"]
    assert own["peak memory, MB, from"] == ""
    tab.locator("#section-0 .listing[data-of=table]").get_by_label("Filter").fill("rlt")
    table = list(csv.reader(kept(tab, "Keep the table as CSV").splitlines()))
    assert [line[0].split()[0] for line in table[1:]] == ["rlt"] * 5


def test_the_theme_can_be_chosen(golden: Path, visit: Open) -> None:
    tab = visit(golden, color_scheme="light")
    button = tab.locator("#theme")
    colours = []
    for name in ("as the system", "light", "dark"):
        assert button.inner_text() == f"Theme: {name}"
        colours.append(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
        button.click()
    assert colours == ["rgb(255, 255, 255)", "rgb(255, 255, 255)", "rgb(20, 23, 26)"]


@pytest.mark.parametrize("width", [320, 390, 768])
def test_narrow_windows_do_not_scroll_sideways(golden: Path, visit: Open, width: int) -> None:
    tab = visit(golden, viewport={"width": width, "height": 800})
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    last = tab.locator("#section-0 .plot > svg").bounding_box()
    assert last["x"] + last["width"] <= width


def test_everything_that_acts_has_a_name_and_nothing_moves_by_itself(golden: Path, visit: Open) -> None:
    tab = visit(golden)
    nameless = tab.evaluate(
        """() => [...document.querySelectorAll("button, input, select, a, [role=button], [role=region]")]
          .filter((node) =>
          !(node.getAttribute("aria-label") || node.textContent.trim() || node.labels?.length)).length"""
    )
    assert nameless == 0
    assert tab.evaluate("document.getAnimations().length") == 0
    moving = ("transition", "animation", "scroll-behavior")
    assert not [word for word in moving if word in tab.locator("style").inner_text()]
    assert tab.locator("h1").count() == 1
    levels = tab.evaluate("[...document.querySelectorAll('h1,h2,h3')].map((node) => Number(node.tagName[1]))")
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_paper_holds_all_rows(visit: Open, tmp_path_factory: pytest.TempPathFactory) -> None:
    tab = visit(written(tmp_path_factory, html(many(4, 20))))
    rows = tab.locator(".listing[data-of=table] tbody tr")
    assert rows.count() == 50
    tab.get_by_role("button", name="Next").click()
    assert rows.count() == 31
    tab.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert rows.count() == 81
    tab.emulate_media(media="print", color_scheme="dark")
    assert tab.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light"
    tab.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert rows.count() == 31


def seconds_to_open(visit: Open, path: Path, limit: float) -> float:
    """Fastest of up to five, until one is within the limit: other processes can only make it slower."""
    fastest = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        visit(path).close()
        fastest = min(fastest, time.perf_counter() - began)
        if fastest < limit:
            break
    return fastest


@pytest.mark.parametrize(
    ("methods", "settings"), [(10, 20), pytest.param(100, 100, marks=pytest.mark.slow)], ids=["200", "10,000"]
)
def test_large_pages_open(methods: int, settings: int, visit: Open, tmp_path_factory: pytest.TempPathFactory) -> None:
    rows = many(methods, settings)
    path = written(tmp_path_factory, html(rows))
    assert seconds_to_open(visit, path, limit=2) < 2
    tab = visit(path)
    assert tab.locator("path.point[role=button]").count() == methods * settings + 1
    assert tab.locator(".listing[data-of=table] tbody tr").count() == 50


def test_one_point_and_nothing_measured(visit: Open, tmp_path_factory: pytest.TempPathFactory) -> None:
    one = visit(written(tmp_path_factory, html([measured("rlt", 0.4)])))
    assert one.locator("path.point[role=button]").count() == 1
    none = visit(written(tmp_path_factory, html([identity("rlt", 0.4, error="broken")])))
    assert none.locator(".chart").count() == 0
    assert "broken" in none.locator("main").inner_text()
