"""`vpbench demo`: the commands of a first day, one after the other, on what comes with the package."""

from pathlib import Path
from typing import Annotated, Any

import typer

from vpbench.commands import options, plot, report, run

#: what `vpbench demo` measures: methods that drop or merge tokens, those that leave a smaller grid of them, those that
#: work inside the steps of a clip, and a detector's
DEMO: tuple[dict[str, Any], ...] = (
    {"method": "dense,random,rlt,sta,tdiff,tome", "keep": "0.2,0.4,0.6,0.8"},
    {"method": "dense,stts,frame_stride,downsample", "keep": "0.25,0.5,0.75", "backbone": "mvit_embedded"},
    {"method": "dense,rgtp,random,topk", "keep": "0.25,0.5,0.75", "backbone": "vivit_embedded"},
    {
        "method": "dense,rgtp",
        "keep": "0.1,0.25",
        "backbone": "vitdet_embedded",
        "dataset": "synthmotion_boxes",
        "split": "ci",
        "limit": 20,
    },
)


def demo(
    out: Annotated[Path, typer.Option(help="results folder")] = Path("out/demo"), limit: options.Limit = None,
    force: options.Force = False, dry_run: options.DryRun = False,
) -> None:  # fmt: skip
    """Measure methods on the embedded clips and backbones, print the tables, draw figures and a report."""
    for sweep in DEMO:
        given = {"profile": "ci", **sweep, "out": out} | ({} if limit is None else {"limit": limit})
        run.execute(options.request(None, None, given), dry_run, force)
    if not dry_run:
        plot.plot(out)
        typer.echo(f"open {report.write(out)}")
