"""What `vpbench show` does: one clip, several methods, pictures on disk and a few lines about them."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from vpbench.commands.show import files
from vpbench.commands.show.scene import Floats, Scene, Seen
from vpbench.errors import UsageError
from vpbench.plan import Cell
from vpbench.render.pictures import heat
from vpbench.render.pictures.draw import PLAIN, Pixels, Style, magnified, tokens
from vpbench.render.pictures.page import Mark, Strip, page, side_by_side
from vpbench.rows.fates import DROPPED, Fate

#: a file's name is cut here, and gets a digest of the rest
_LONGEST = 100


@dataclass(frozen=True)
class Request:
    """What is drawn, and how.

    `slots`: so many, evenly spread (None: all). `stages`: a row for each reduction instead of the last alone.
    `gradnorm`: the class whose gradient is drawn. `per_frame`: heat maps are scaled frame by frame.
    """

    formats: tuple[str, ...] = files.FORMATS
    slots: int | None = None
    style: Style = PLAIN
    stages: bool = False
    scores: bool = False
    gradnorm: Literal["predicted", "label"] | None = None
    per_frame: bool = False
    fps: float = 8.0
    columns: int = 8


def show(scene: Scene, cells: Sequence[Cell], asked: Request, out: Path) -> Iterator[str]:
    """Draw what the methods make of a clip; yields the path of each file, and what the pictures show in numbers."""
    seen = [scene.see(cell, values=asked.scores) for cell in cells]
    sheet = _Sheet(scene, asked, seen)
    stem = out / _stem([scene.clip_id, cells[0].setting.backbone, *(cell.label for cell in cells)])
    # whatever cannot be drawn is refused before anything is written
    pages = {"": sheet.tokens()} if "png" in asked.formats else {}
    pages |= {"-scores": sheet.scores()} if asked.scores else {}
    shares: list[str] = []
    if asked.gradnorm is not None:
        pages["-gradnorm"], shares = sheet.gradient(asked.gradnorm)
    for name, picture in pages.items():
        yield str(files.write_png(stem.with_name(f"{stem.name}{name}.png"), picture))
    if moving := set(asked.formats) - {"png"}:
        frames = sheet.moving()
        for kind in sorted(moving):
            write = files.write_gif if kind == "gif" else files.write_mp4
            yield str(write(stem.with_name(f"{stem.name}.{kind}"), frames, asked.fps))
    for each in seen:
        yield f"{each.label}: {_counted(each.fate)}"
    yield from shares


class _Sheet:
    """All that is drawn of one scene; frames are enlarged once."""

    def __init__(self, scene: Scene, asked: Request, seen: Sequence[Seen]) -> None:
        self.scene, self.asked, self.seen = scene, asked, seen
        self.scale = max(1, round(scene.height / scene.frames.shape[1]))
        self.frames = magnified(scene.frames, self.scale)
        self.slots = seen[0].fate.grid[0]
        count = min(asked.slots or self.slots, self.slots)
        self.picked = np.linspace(0, self.slots - 1, count).round().astype(int)

    def tokens(self) -> Pixels:
        """Return the page of kept tokens."""
        rows = [self._strip(self._original())]
        for each in self.seen:
            stages = range(len(each.fate.stages)) if self.asked.stages else [-1]
            rows += [self._strip(self._drawn(each, stage, named=self.asked.stages)) for stage in stages]
        return self._page(rows)

    def scores(self) -> Pixels:
        """Return the page of what the methods rated tokens by; raises UsageError where none of them did."""
        rows = [self._strip(self._original())]
        for each in (each for each in self.seen if each.values):
            rows += [self._heat(f"{each.label}\n{name}", values) for name, values in each.values.items()]
            rows.append(self._strip(self._drawn(each, -1)))
        if len(rows) == 1:
            names = ", ".join(each.label for each in self.seen)
            raise UsageError(
                f"{names}: says of no token how it is rated, so there are no scores to draw; leave --scores out"
            )
        return self._page(rows)

    def gradient(self, target: Literal["predicted", "label"]) -> tuple[Pixels, list[str]]:
        """Return the page of gradient norms, and the share of them in what is kept, stage by stage.

        As STA's authors draw it: three slots unless others are asked for, and dropped tokens in white.
        """
        asked = replace(self.asked, slots=self.asked.slots or 3, style=replace(self.asked.style, dropped="white"))
        own = _Sheet(self.scene, asked, self.seen)
        norms, name = self.scene.gradient(by_label=target == "label")
        rows, lines = [own._strip(own._original()), own._heat(f"GradNorm\n{name}", norms)], []
        for each in self.seen:
            shares = [_shares(each.fate, stage, norms) for stage in range(len(each.fate.stages))]
            lines += [
                f"{each.label}, {stage.name}: {kept:.3f} of the tokens, {gradient:.3f} of the gradient norms of {name}"
                for stage, (kept, gradient) in zip(each.fate.stages, shares, strict=True)
            ]
            drawn = own._drawn(each, -1)
            rows.append(own._strip(replace(drawn, label=f"{each.label}\nkept gradient {shares[-1][1]:.2f}")))
        return own._page(rows), lines

    def moving(self) -> list[Pixels]:
        """Return all frames, each beside what the methods leave of it."""
        strips = [self._original(), *(self._drawn(each, -1) for each in self.seen)]
        every = len(self.frames) // self.slots
        strips = [replace(s, marks=[each for each in s.marks for _ in range(every)]) for s in strips]
        return [side_by_side(strips, at) for at in range(len(self.frames))]

    def _original(self) -> Strip:
        return Strip("RGB frame", self.frames, self._enlarged(self.scene.truth))

    def _drawn(self, each: Seen, stage: int, *, named: bool = False) -> Strip:
        """Draw all frames after a stage; marks are slot by slot."""
        fate = each.fate
        left = f"{fate.left(stage)} of {fate.tokens}"
        label = f"{each.label}\n" + (f"{fate.stages[stage].name}: {left}" if named else left)
        return Strip(label, tokens(self.frames, fate, stage=stage, style=self.asked.style), self._enlarged(each.marks))

    def _strip(self, strip: Strip) -> Strip:
        """Pick the slots that are shown, and the first frame of each."""
        every = len(self.frames) // self.slots
        marks = [strip.marks[slot] for slot in self.picked] if strip.marks else ()
        return Strip(strip.label, strip.pictures[self.picked * every], marks)

    def _heat(self, label: str, values: Floats) -> Strip:
        every = len(self.frames) // self.slots
        pictures = heat.overlay(self.frames[::every], values, per_frame=self.asked.per_frame)
        return Strip(label, pictures[self.picked])

    def _enlarged(self, marks: Sequence[Sequence[Mark]]) -> list[list[Mark]]:
        def large(mark: Mark) -> Mark:
            x1, y1, x2, y2 = (self.scale * side for side in mark.box)
            return replace(mark, box=(x1, y1, x2, y2))

        return [[large(mark) for mark in each] for each in marks]

    def _page(self, rows: Sequence[Strip]) -> Pixels:
        return page(rows, [self.scene.titles[slot] for slot in self.picked], self.scene.header, self.asked.columns)


def _counted(fate: Fate) -> str:
    """Say how many tokens are left, at the end and after each stage on the way."""
    on_the_way = [f"{fate.left(number)} after {stage.name}" for number, stage in enumerate(fate.stages[:-1])]
    left = f"{fate.left()} of {fate.tokens} tokens are left after {fate.stages[-1].name}"
    return f"{left} ({', '.join(on_the_way)})" if on_the_way else left


def _shares(fate: Fate, stage: int, norms: Floats) -> tuple[float, float]:
    """Return the share of tokens and of gradient norms that something still stands for."""
    there = fate.stages[stage].token != DROPPED
    total = float(norms.sum())
    return float(there.mean()), float(norms.ravel()[there].sum()) / total if total else 0.0


def _stem(parts: Sequence[str]) -> str:
    """Make a file's name of what is shown."""
    name = "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", part).strip("_") for part in parts)
    if len(name) <= _LONGEST:
        return name
    return f"{name[:_LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
