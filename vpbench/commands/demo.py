"""`vpbench demo`: the commands of a first day, one after the other, on what comes with the package."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from vpbench.commands import options, plot, report, run
from vpbench.progress import say


@dataclass(frozen=True)
class Part:
    """One sweep of the demo. `seconds`: about what it takes on two cores, with drawing; 0 where nobody measured it."""

    what: str
    backbone: str
    sweep: dict[str, Any]
    seconds: float = 0.0


#: seconds for what is quick, few rounds for what is slow; and what is published
_BRIEF, _LONG = {"split": "ci", "profile": "demo"}, {"keep": "0.25,0.5,0.75", "profile": "standard"}
_BOXES = {"dataset": "synthmotion_boxes", **_BRIEF}
#: methods that drop tokens, those that leave a smaller grid of them, those that work inside the steps of a clip, and a
#: detector's; 60 clips tell RLT and STTS from random dropping at these ratios, STA and RGTP take the full demo
SHORT = (
    Part("VideoMAE", "videomae_embedded", {"method": "dense,random,rlt,sta", "keep": "0.2,0.4", **_BRIEF}, 35),
    Part("MViT", "mvit_embedded", {"method": "dense,stts", "keep": "0.25", **_BRIEF}, 24),
    Part("ViViT", "vivit_embedded", {"method": "dense,rgtp,random", "keep": "0.25", **_BRIEF}, 27),
    Part("a detector", "vitdet_embedded", {"method": "dense,rgtp", "keep": "0.1", "limit": 2, **_BOXES}, 35),
)
#: what is drawn of them after each part: one ratio makes no curve over what was kept; `vpbench plot` draws the others
DRAWN = "pareto,tokens"
#: the same on all embedded clips, over more ratios and methods; a round of windows of a detector takes seconds
FULL = (
    Part(
        "VideoMAE",
        "videomae_embedded",
        {"method": "dense,random,rlt,sta,tdiff,tome", **_LONG, "keep": "0.2,0.4,0.6,0.8"},
    ),
    Part("MViT", "mvit_embedded", {"method": "dense,stts,frame_stride,downsample", **_LONG}),
    Part("ViViT", "vivit_embedded", {"method": "dense,rgtp,random,topk", **_LONG}),
    Part("a detector", "vitdet_embedded", {"method": "dense,rgtp", "keep": "0.1,0.25", "limit": 20, **_BOXES}),
)


def demo(
    out: Annotated[Path | None, typer.Option(help="results folder (default: out/demo, or out/demo-full)")] = None,
    limit: options.Limit = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    full: Annotated[bool, typer.Option("--full", help="all embedded clips, more methods and ratios")] = False,
) -> None:
    """Measure methods on the embedded clips and backbones, print the tables, draw figures and a report."""
    parts, folder = (FULL, Path("out/demo-full")) if full else (SHORT, Path("out/demo"))
    folder = out or folder
    took, expected = 0.0, 0.0
    for number, part in enumerate(parts):
        # what was drawn of was measured before
        todo = [each for each in parts[number:] if force or not plot.own_folder(folder, each.backbone).is_dir()]
        say(f"part {number + 1} of {len(parts)}: {part.what}{_left(todo, took, expected)}")
        given = {"backbone": part.backbone, **part.sweep, "out": folder}
        given |= {} if limit is None else {"limit": limit}
        began = time.monotonic()
        measured = run.execute(options.request(None, None, given), dry_run, force)
        if not dry_run:
            plot.refresh(folder, part.backbone, None if full else DRAWN)
            page = report.refresh(folder)
        if measured:
            took, expected = took + time.monotonic() - began, expected + part.seconds
    if not dry_run:
        typer.echo(f"open {page}")


def _left(todo: Sequence[Part], took: float, expected: float) -> str:
    """Say how long parts will take: by what they took elsewhere, and by how fast those before them were here."""
    seconds = sum(part.seconds for part in todo)
    if not seconds:
        return ""
    left = seconds * took / expected if expected else seconds
    return f", about {left:.0f} s left"
