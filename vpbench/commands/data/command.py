"""`vpbench data`: look through a copy of a dataset, and make one ready."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

import typer

from vpbench.commands.options import WeightsKey

app = typer.Typer(help="Check the copy of a dataset on your disk, and prepare it for runs.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="see `vpbench ls datasets`", metavar="NAME")]
ListFile = Annotated[Path | None, typer.Option("--list", help="list of your own videos, for folder")]
ClassesFile = Annotated[Path | None, typer.Option("--classes", help="names of your own classes, for folder")]
Weights = Annotated[
    str | None, typer.Option(help="your own weights, as for `vpbench run`: their classes are to be those of the videos")
]
Root = Annotated[Path | None, typer.Option(help="folder of the dataset (default: the environment's, VPBENCH_<NAME>)")]
Split = Annotated[str | None, typer.Option(help="split (default: the dataset's first)")]
Decoder = Annotated[str, typer.Option(help="pyav or decord")]
Workers = Annotated[int | None, typer.Option(min=1, help="processes (default: one per core, 16 at most)")]


@app.command()
def check(
    name: Name, root: Root = None, list: ListFile = None, classes: ClassesFile = None, split: Split = None,
    decoder: Decoder = "pyav", workers: Workers = None,
    quick: Annotated[bool, typer.Option("--quick", help="see what is there, but open no video")] = False,
    index: Annotated[Path | None, typer.Option(help="frame index (default: index.parquet in the root, if any)")] = None,
    weights: Weights = None, weights_key: WeightsKey = None,
    json: Annotated[Path | None, typer.Option(help="file for the whole report, as JSON")] = None,
) -> None:  # fmt: skip
    """Count what is expected, found and readable, and name what is missing, broken or contradictory.

    Exit code: 0 all there, 1 something is missing, unreadable or contradictory, 2 usage, 3 nothing found.
    """
    from vpbench.commands.data.steps import OwnWeights, run_check
    from vpbench.data import Given
    from vpbench.errors import UsageError
    from vpbench.processes import default_workers

    if weights is None and weights_key is not None:
        raise UsageError("--weights-key is of a file with several weights; give that file with --weights")
    own = None if weights is None else OwnWeights(weights, weights_key)
    given = Given(list, classes, split=split)
    report = run_check(name, root, split, decoder, workers or default_workers(), quick, index, given, own)
    for line in report.lines():
        typer.echo(line)
    if json is not None:
        report.write(json)
    if report.exit_code:
        raise typer.Exit(report.exit_code)


prepare = typer.Typer(
    help="Make a copy of a dataset ready for runs. What is done already is skipped, so that a stopped run goes on.",
    no_args_is_help=True,
)
app.add_typer(prepare, name="prepare")
Out = Annotated[Path, typer.Option(help="folder to write into")]


@prepare.command()
def lists(
    name: Name, out: Out, root: Root = None, list: ListFile = None, classes: ClassesFile = None,
    split: Annotated[str | None, typer.Option(help="split (default: all that have a list)")] = None,
    absolute: Annotated[bool, typer.Option("--absolute", help="write absolute paths, for code run elsewhere")] = False,
) -> None:  # fmt: skip
    """Write SPLIT.csv with a line `path label` for each video that is there, as VideoMAE and RLT read them."""
    from vpbench.commands.data.steps import run_lists
    from vpbench.data import Given

    _say(lambda: run_lists(name, root, split, out, absolute, Given(list, classes, split=split)))


@prepare.command()
def resize(
    name: Name, out: Out, root: Root = None, list: ListFile = None, classes: ClassesFile = None,
    split: Split = None, workers: Workers = None,
    short_side: Annotated[int | None, typer.Option(help="short side in pixels; 320 unless --size is given")] = None,
    size: Annotated[str | None, typer.Option(help="exact size for all, like 340x256, instead of --short-side")] = None,
    crf: Annotated[int, typer.Option(min=0, max=51, help="x264's quality; 18 cannot be told from the original")] = 18,
    key_frames: Annotated[bool, typer.Option("--key-frames", help="one key frame per second, to seek quickly")] = False,
) -> None:  # fmt: skip
    """Copy videos at a smaller size, without sound; EPIC-Kitchens is cut into one file per narration.

    Copies have all frames at their times. Videos that are small already are copied as they are. Exit code: 0 all done,
    1 some are missing or failed, 2 usage, 3 none found.
    """
    from vpbench.commands.data.steps import recipe_of, run_resize
    from vpbench.data import Given
    from vpbench.processes import default_workers

    complete, given = True, Given(list, classes, split=split)

    def work() -> Iterable[str]:
        nonlocal complete
        recipe = recipe_of(short_side, size, crf, key_frames)
        said, complete = run_resize(name, root, split, recipe, workers or default_workers(), out, given)
        return said

    _say(work)
    if not complete:
        raise typer.Exit(1)


@prepare.command()
def index(
    name: Name, out: Out, root: Root = None, list: ListFile = None, classes: ClassesFile = None,
    split: Split = None, decoder: Decoder = "pyav", workers: Workers = None,
) -> None:  # fmt: skip
    """Note frames, rate, size, duration and codec of each video in OUT/index.parquet.

    `vpbench data check` then opens only files that have changed since; in the dataset's own folder it finds the index.
    """
    from vpbench.commands.data.steps import run_index
    from vpbench.data import Given
    from vpbench.processes import default_workers

    given = Given(list, classes, split=split)
    _say(lambda: run_index(name, root, split, decoder, workers or default_workers(), out, given))


@prepare.command()
def unpack(
    name: Annotated[str, typer.Argument(help="imagenet_vid", metavar="NAME")],
    archive: Annotated[Path, typer.Option(help="ILSVRC2015_VID.tar.gz, or the packed form as tar or zip")],
    out: Out,
) -> None:
    """Unpack the validation videos of ImageNet VID; the archive is checked member by member."""
    from vpbench.commands.data.steps import run_unpack

    _say(lambda: run_unpack(name, archive, out))


def _say(work: Callable[[], Iterable[str]]) -> None:
    """Print what some long work says in the end; Ctrl-C is no accident."""
    try:
        for line in work():
            typer.echo(line)
    except KeyboardInterrupt:
        typer.echo("stopped; what is done is kept, and the same command goes on from there", err=True)
        raise typer.Exit(130) from None
