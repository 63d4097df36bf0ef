"""Pages of made-up rows, and what is in them."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

import numpy as np
from golden_rows import VIDEOS, frame, measured, video_rows

from vpbench.render.report import content, page
from vpbench.render.report.content import Section, Stored
from vpbench.rows.fates import Shown

Row = dict[str, Any]
TEMPLATE = measured("rlt", 0.4)
METHODS = ("random", "rlt", "sta", "tome", "tdiff", "topk", "ats", "stts", "pitome", "wpr")


def sections(rows: list[Row], videos: list[Row] | None = None, shown: tuple[Shown, ...] = ()) -> list[Section]:
    seen = frame(videos or [], "videos")
    return content.sections(Stored(frame(rows), seen, frame([], "samples"), frame([], "clips"), shown))


def html(rows: list[Row], videos: list[Row] | None = None, problems: tuple[str, ...] = ()) -> str:
    return page.render(sections(rows, videos), "out", problems)


def many(methods: int, settings: int, **changes: Any) -> list[Row]:
    """Rows of dense, and of `methods` methods at `settings` keep ratios each."""
    found = [measured(n_videos=VIDEOS, **changes)]
    for number in range(methods):
        for keep in np.linspace(0.05, 0.95, settings):
            name = METHODS[number] if number < len(METHODS) else f"method{number}"
            row = TEMPLATE | {
                "method": name,
                "config_id": f"{name}-{keep}",
                "prediction_id": f"{name}-{keep}",
                "keep_nominal": round(float(keep), 4),
            }
            share = float(keep) * (1 + number / 50)
            cost = {"gmacs_executed": 1.9 * share, "wall_ms_p50": 38 * share, "wall_ms_ci_lo": 37 * share}
            cost |= {"wall_ms_ci_hi": 39 * share, "top1": 60 + 28 * float(keep) ** 0.3 - number / 5}
            found.append(row | cost | {"n_videos": VIDEOS, "reference": "method"} | changes)
    return found


def many_videos(rows: list[Row], videos: int) -> list[Row]:
    """The videos table of these rows, with as many videos each."""
    rng = np.random.default_rng(0)
    one = video_rows()[0]
    return [
        {**one, "prediction_id": row["prediction_id"], "video_id": f"v{i:04d}", "correct": bool(right)}
        for row in rows
        for i, right in enumerate(rng.random(videos) < row["top1"] / 100)
    ]


def many_samples(rows: list[Row], rounds: int) -> list[Row]:
    """The samples table of these rows; sets their speed-ups to what it says."""
    noise = np.random.default_rng(0).normal(1, 0.01, (len(rows), rounds))
    wall = np.array([row["wall_ms_p50"] for row in rows])[:, None] * 1e6 * noise
    for row, own in zip(rows, wall, strict=True):
        row["block"], row["speedup"] = "b1", float(np.median(wall[0].astype(int) / own.astype(int)))
    shared = {"run_id": "r1", "block": "b1", "process": 0, "order": 0, "scope": "model", "clips": 1, "dropped": False}
    return [
        {**shared, "config_id": row["config_id"], "round": number, "wall_ns": int(value)}
        for row, own in zip(rows, wall, strict=True)
        for number, value in enumerate(own)
    ]


class Page(HTMLParser):
    """The tags of a page with their attributes, its text, and the data beside the script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self._inside = ""
        self.feed(text)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    @property
    def data(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.scripts[0])["sections"]
        return found

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        place = {"script": self.scripts, "style": self.styles}.get(self._inside, self.words)
        place.append(data)
