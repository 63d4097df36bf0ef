"""`vpbench show`: what methods do to the tokens of one clip, as pictures."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from vpbench.commands import options


def show(
    clip: Annotated[str, typer.Argument(help="a video's id, its number in the split, or a video file", metavar="CLIP")],
    method: options.Methods = None, keep: options.Keep = None, sets: options.Sets = None,
    dataset: options.DatasetName = None, split: options.Split = None, root: options.Root = None,
    list: options.ListFile = None, classes: options.ClassesFile = None,
    backbone: options.BackboneName = None, weights: options.Weights = None, weights_key: options.WeightsKey = None,
    frames: options.Frames = None,
    size: options.Size = None, positions: options.Positions = None, dtype: options.Dtype = None,
    device: options.Device = None, threads: options.Threads = None, protocol: options.Protocol = None,
    decoder: options.Decoder = None, seed: options.Seed = None, config: options.Config = None,
    preset: options.Preset = None,
    out: Annotated[Path, typer.Option(help="folder for the pictures")] = Path("out/show"),
    format: Annotated[str, typer.Option(help="png, gif, mp4, or several separated by commas")] = "png,gif,mp4",
    view: Annotated[int, typer.Option(min=0, help="view of the video, as the protocol numbers them")] = 0,
    slots: Annotated[int | None, typer.Option(min=1, help="show so many tubelets, evenly spread (default: all); on "
                                              "detectors the first so many frames (default: 16)")] = None,
    columns: Annotated[int, typer.Option(min=1, help="pictures side by side; longer clips go on below")] = 8,
    stages: Annotated[bool, typer.Option("--stages", help="a row for every reduction, not for the last alone")] = False,
    dropped: Annotated[Literal["dim", "white"], typer.Option(help="dropped tokens")] = "dim",
    merged: Annotated[Literal["mean", "palette"],
                      typer.Option(help="merged tokens: their mean colour, or a colour for each group")] = "mean",
    scores: Annotated[bool, typer.Option("--scores", help="also heat maps of what the methods rate tokens by")] = False,
    gradnorm: Annotated[Literal["predicted", "label"] | None,
                        typer.Option(help="also how much a class depends on each token, and how much of that is kept "
                                          "(VideoMAE)")] = None,
    per_frame: Annotated[bool, typer.Option("--per-frame", help="scale heat maps frame by frame")] = False,
    boxes_above: Annotated[float, typer.Option(min=0, max=1, help="draw boxes found with this score or more")] = 0.5,
    fps: Annotated[float, typer.Option(min=1, max=60, help="frames per second of GIF and MP4")] = 8.0,
) -> None:  # fmt: skip
    """Draw which tokens of a clip each method keeps, drops and merges, frame by frame."""
    given = options.described(locals())
    own = ("clip", "out", "format", "view", "slots", "columns", "stages", "dropped", "merged", "scores", "gradnorm",
           "per_frame", "boxes_above", "fps")  # fmt: skip
    asked = options.request(config, preset, {key: value for key, value in given.items() if key not in own})
    from vpbench import plan
    from vpbench.commands.show import files, scene, sheet
    from vpbench.render.pictures.draw import Style
    from vpbench.run import resolve

    style = Style(dropped, merged)
    drawn = sheet.Request(files.formats(format), slots, style, stages, scores, gradnorm, per_frame, fps, columns)
    setting = resolve.resolve(asked)[0]
    planned = plan.cells(asked, setting)
    wanted = [cell for cell in planned if cell.method in asked.method and cell.match is None]
    cells = sorted(wanted, key=lambda cell: asked.method.index(cell.method))
    shown = scene.scene_of(setting, clip, view=view, count=slots, least=boxes_above)
    for line in sheet.show(shown, cells, drawn, out):
        typer.echo(line)
