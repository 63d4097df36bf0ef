"""`vpbench demo`: the commands of a first day, one after the other, on what comes with the package."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from vpbench.commands import options, plot, report, run
from vpbench.progress import say


@dataclass(frozen=True)
class Part:
    """One sweep of the demo. `share`: of its time, as measured, to tell what is left by; 0 where nobody measured it."""

    what: str
    sweep: dict[str, Any]
    share: float = 0.0


_KEEPS = "0.25,0.5,0.75"
_BOXES = {"backbone": "vitdet_embedded", "dataset": "synthmotion_boxes", "split": "ci"}
#: methods that drop tokens, those that leave a smaller grid of them, those that work inside the steps of a clip, and a
#: detector's; 60 clips tell RLT and STTS from random dropping at these ratios, STA and RGTP take the full demo
SHORT = (
    Part("VideoMAE", {"method": "dense,random,rlt,sta", "keep": "0.2,0.4", "split": "ci"}, 0.27),
    Part("MViT", {"method": "dense,stts", "keep": "0.25", "backbone": "mvit_embedded", "split": "ci"}, 0.14),
    Part("ViViT", {"method": "dense,rgtp,random", "keep": "0.25", "backbone": "vivit_embedded", "split": "ci"}, 0.16),
    Part("a detector", {"method": "dense,rgtp", "keep": "0.1", "limit": 2, **_BOXES}, 0.43),
)
#: the same on all embedded clips, over more ratios and methods
FULL = (
    Part("VideoMAE", {"method": "dense,random,rlt,sta,tdiff,tome", "keep": "0.2,0.4,0.6,0.8"}),
    Part("MViT", {"method": "dense,stts,frame_stride,downsample", "keep": _KEEPS, "backbone": "mvit_embedded"}),
    Part("ViViT", {"method": "dense,rgtp,random,topk", "keep": _KEEPS, "backbone": "vivit_embedded"}),
    Part("a detector", {"method": "dense,rgtp", "keep": "0.1,0.25", "limit": 20, **_BOXES}),
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
    page, took, seen = folder / "report.html", 0.0, 0.0
    for number, part in enumerate(parts):
        rest = sum(each.share for each in parts[number:])
        left = f", about {took / seen * rest:.0f} s left" if seen else ""
        say(f"part {number + 1} of {len(parts)}: {part.what}{left}")
        given = {"profile": "ci", **part.sweep, "out": folder} | ({} if limit is None else {"limit": limit})
        began = time.monotonic()
        measured = run.execute(options.request(None, None, given), dry_run, force)
        if measured or not (dry_run or page.exists()):
            last = number == len(parts) - 1
            # a few seconds: the other figures, and those for papers, come at the end, or by `vpbench plot`
            plot.plot(folder, figure=None if last else "pareto", format="png")
            report.write(folder)
        if measured:
            took, seen = took + time.monotonic() - began, seen + part.share
    if not dry_run:
        typer.echo(f"open {page}")
