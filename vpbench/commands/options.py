"""What the user typed, for records and rows."""

import os
import shlex
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vpbench.errors import NothingMeasured, UsageError, near_matches
from vpbench.progress import say
from vpbench.storage import path_of


def as_typed() -> str:
    """Return the command as typed."""
    return shlex.join(["vpbench", *sys.argv[1:]])


Methods = Annotated[
    str | None, typer.Option(help="method, of `sweep` and `plan` several separated by commas; see `vpbench ls methods`")
]
Keep = Annotated[
    str | None, typer.Option(help="keep ratio in (0, 1], of `sweep` and `plan` several separated by commas")
]
BudgetTokens = Annotated[
    str | None,
    typer.Option(
        "--budget-tokens", help="tokens to leave of a clip, or several by commas (not in `run`); in place of --keep"
    ),
]
Sets = Annotated[list[str] | None, typer.Option("--set", help="parameter values: name=v1,v2 or method.name=v1,v2")]
DatasetName = Annotated[str | None, typer.Option(help="see `vpbench ls datasets` (default: synthmotion)")]
Split = Annotated[str | None, typer.Option(help="split of the dataset (default: its first)")]
Root = Annotated[Path | None, typer.Option(help="where the dataset lies on disk")]
ListFile = Annotated[
    Path | None, typer.Option("--list", help="list of your own videos (CSV, TSV, blanks, JSON lines), for folder")
]
ClassesFile = Annotated[
    Path | None, typer.Option("--classes", help="names of your own classes in the order of the outputs, for folder")
]
BackboneName = Annotated[
    str | None,
    typer.Option(help="see `vpbench ls backbones` (default: the one that --weights fit, or videomae_embedded)"),
]
Weights = Annotated[
    str | None,
    typer.Option(help="embedded, random, a file or folder in any published layout, or org/name[@revision] on a hub"),
]
WeightsKey = Annotated[
    str | None, typer.Option(help="of a file with several weights, those under this key (model_ema, ...)")
]
Frames = Annotated[int | None, typer.Option(help="frames per clip (default: the backbone's)")]
SeveralFrames = Annotated[
    str | None,
    typer.Option(help="frames per clip, or several numbers by commas, not in `run` (default: the backbone's)"),
]
Size = Annotated[int | None, typer.Option(help="side of the frames in pixels (default: the backbone's)")]
Positions = Annotated[str | None, typer.Option(help="for other clips: interpolate (default) or recompute the table")]
Dtype = Annotated[
    str | None, typer.Option(help="fp32, bf16, fp16, or autocast: amp (bf16), amp-fp16 (default: fp32; amp on CUDA)")
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N (default: cpu)")]
Mode = Annotated[
    str | None,
    typer.Option(help="eager (default), compile, compile_dynamic, cudagraph, or several separated by commas"),
]
Batch = Annotated[
    str | None,
    typer.Option(
        help="clips per forward (default: 1; 8 on CUDA), or several, by commas; max: the most that fit on a GPU"
    ),
]
Threads = Annotated[int | None, typer.Option(help="CPU threads (default: all cores)")]
Decoder = Annotated[str | None, typer.Option(help="pyav or decord (default: pyav)")]
Protocol = Annotated[
    str | None, typer.Option(help="views of a video; see `vpbench ls protocols` (default: the papers')")
]
Workers = Annotated[int | None, typer.Option(help="processes that read videos (default: 0 on a CPU, up to 8 else)")]
Cache = Annotated[Path | None, typer.Option(help="folder that keeps decoded views for the next run")]
CacheGb = Annotated[float | None, typer.Option("--cache-gb", help="size limit of --cache in GB (default: 50)")]
EndToEnd = Annotated[bool | None, typer.Option("--e2e", help="also time from files to answers, decoding included")]
Stages = Annotated[bool | None, typer.Option("--stages", help="also time the stages of forwards, in extra rounds")]
Energy = Annotated[bool | None, typer.Option("--energy", help="joules per clip, where the machine has a counter")]
TrainStep = Annotated[
    bool | None, typer.Option("--train-step", help="also time steps of training: forward, backward, AdamW; and memory")
]
MaxBatch = Annotated[bool | None, typer.Option("--max-batch", help="search the largest batch that fits (CUDA only)")]
Limit = Annotated[int | None, typer.Option(help="only the first N videos")]
ProfileName = Annotated[
    str | None,
    typer.Option("--profile", help="effort of the timing: survey, demo, ci, standard (default), publication"),
]
Processes = Annotated[int | None, typer.Option(help="fresh processes to time in (default: the profile's, 1 or 3)")]
Seed = Annotated[int | None, typer.Option(help="seed of random choices (default: 0)")]
#: a folder on a disk, or in an object store by its address
PATH: Any = {"parser": path_of, "metavar": "<path>"}
Out = Annotated[Path | None, typer.Option(help="results folder, or its s3:// or gs:// address (default: out)", **PATH)]
#: where results lie if nothing else is said
OUT = Path("out")
#: how many other results folders are named
_NAMED = 3
#: endings of files, in which nobody names a folder on purpose
_FILES = (".csv", ".html", ".json", ".jsonl", ".md", ".parquet", ".pdf", ".png", ".tex", ".tsv", ".txt", ".xlsx")
_READ = "results folder, or a folder of several: the one written last (default: of those below out)"
Results = Annotated[Path | None, typer.Argument(help=_READ, **PATH)]
NamedResults = Annotated[Path | None, typer.Option(help=_READ, **PATH)]
Config = Annotated[Path | None, typer.Option(help="TOML file whose keys are these option names; options win")]
Preset = Annotated[str | None, typer.Option(help="named setting of a TOML file in configs/; see `vpbench ls presets`")]
Only = Annotated[
    Literal["predict", "time"] | None,
    typer.Option(
        help="predict: accuracy, tokens and operations alone, on a busy machine; time: times and memory alone"
    ),
]
Shard = Annotated[
    str | None,
    typer.Option(
        help="be worker i of n on a folder that `vpbench plan` has planned: i/n, or slurm for the task of a job array"
    ),
]
ExecutorName = Annotated[
    Literal["inline", "ray"],
    typer.Option("--executor", help="inline: this process; ray: a Ray cluster, or this host by Ray (extra: ray)"),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="print the plan with ids and what is done, and stop")]
Force = Annotated[bool, typer.Option("--force", help="measure again what has been measured")]


def request(config: Path | None, preset: str | None, given: dict[str, Any]) -> Any:
    """Merge TOML file, preset and explicit options, the later ones winning, into `plan.Options`."""
    from vpbench import plan
    from vpbench.plan import presets

    merged: dict[str, Any] = {}
    if config is not None:
        merged |= plan.read_config(config)
    if preset is not None:
        merged |= presets.find(preset)
    merged |= {key: value for key, value in given.items() if value is not None}
    asked = plan.options({key: _listed(key, value) for key, value in merged.items()}, str(config or "options"))
    if asked.weights in ("embedded", "random"):
        return asked
    return asked.model_copy(update=_own_weights(asked.weights, asked.weights_key, merged.get("backbone")))


def _own_weights(weights: str, key: str | None, backbone: str | None) -> dict[str, str]:
    """Return weights of the user's own as they lie here, and the backbone that they fit where none was named."""
    from vpbench.backbones import loading

    here = loading.local(weights)
    return {"weights": here, "backbone": loading.meant(backbone, here, key)}


def described(arguments: dict[str, Any]) -> dict[str, Any]:
    """Pick the options that describe the request out of a command's arguments."""
    control = ("config", "preset", "dry_run", "force", "only", "sets", "shard", "executor")
    given = {key: value for key, value in arguments.items() if key not in control}
    return given | {"set": tuple(arguments["sets"]) if arguments["sets"] else None}


def _listed(key: str, value: Any) -> Any:
    """Split the comma lists of options that take several values; TOML files may use arrays instead."""
    if key not in ("method", "keep", "budget_tokens", "frames", "mode", "batch"):
        return value
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    parts = [part.strip() if isinstance(part, str) else part for part in parts]
    return tuple(part for part in parts if part != "")


def share(shard: str) -> tuple[int, int]:
    """Return which worker of how many `i/n` stands for, from 0, or the task of a Slurm array; raises UsageError.

    Workers may be numbered from 0 or from 1: the number only says where a worker begins.
    """
    text = shard
    if shard == "slurm":
        names = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT")
        if lacking := [name for name in names if name not in os.environ]:
            raise UsageError(f"--shard slurm: {lacking[0]} is not set; start it by sbatch --array, or give --shard i/n")
        task, of_tasks = (os.environ[name] for name in names)
        if not (task.isdigit() and of_tasks.isdigit() and int(of_tasks)):
            raise UsageError(f"--shard slurm: {names[0]} is {task!r} and {names[1]} {of_tasks!r}; give --shard i/n")
        # tasks may be numbered in any way; where two begin alike, they part soon
        text = f"{int(task) % int(of_tasks)}/{of_tasks}"
    own, _, of = text.partition("/")
    if not (own.isdigit() and of.isdigit() and int(own) <= int(of) and int(of)):
        raise UsageError(f"--shard {shard}: give i/n, the number of this worker and how many there are, or slurm")
    return int(own) % int(of), int(of)


def named(names: str | None) -> tuple[str, ...]:
    """Split names that are separated by commas."""
    return tuple(part.strip() for part in (names or "").split(",") if part.strip())


def picked(what: str, names: str | None, known: Collection[str]) -> frozenset[str]:
    """Return the methods or backbones that were named, separated by commas; none where none were.

    Raises UsageError with near matches for a name without any row.
    """
    asked = frozenset(part.strip() for part in names.split(",")) if names is not None else frozenset()
    for name in sorted(asked - frozenset(known) | asked & {""}):
        raise UsageError(f"nothing here of {what} {name!r}{near_matches(name, sorted(frozenset(known) - {''}))}")
    return asked


def results_folder(given: Path | None, parts: str = "results.parquet/*.parquet") -> Path:
    """Return the results folder to read: what was named, or the one that was written last below it, below out if none.

    Says on stderr which one that is, where it was not named. Raises NothingMeasured where none was named and none is
    there.
    """
    from vpbench.rows.store import results_folders

    top = OUT if given is None else given
    _refuse_tables(top)
    found = results_folders(top, parts)
    if given in found or (given is not None and not found):
        return given  # where nothing is in it, whoever reads it says so
    if not found:
        what = parts.partition("/")[0].removesuffix(".parquet")
        raise NothingMeasured(f"no {what} below {top}: run `vpbench demo` or `vpbench run`, or name a results folder")
    newest, *others = found
    names = ", ".join(map(str, others[:_NAMED])) + f" and {len(others) - _NAMED} more" * (len(others) > _NAMED)
    also = f", written last; name another to read it: {names}" * bool(others)
    say(f"reading {newest}{also}")
    return newest


def _refuse_tables(given: Path) -> None:
    """Raise UsageError for a table of a results folder, or a file of one, in place of the folder."""
    for table in (given.parent, given):
        if table.suffix == ".parquet" and (table.is_dir() or given.is_file()):
            above = table.parent
            raise UsageError(f"{given} is a table of a results folder, or a part of it; give the folder above: {above}")


def say_folder(out: Path) -> None:
    """Say that results go into a folder where its name is that of a file, and it is not there yet."""
    if out.suffix.lower() in _FILES and not out.exists():
        say(f"--out {out}: results are several tables, so this becomes a folder")


def stored(results: Path | None) -> tuple[Any, Any]:
    """Return the store of a results folder, as `results_folder` finds it, and its newest rows.

    Raises NothingMeasured where there are none.
    """
    from vpbench.rows.store import Store, latest

    folder = results_folder(results)
    store = Store(folder, writable=False)
    rows = latest(store.read("results"))
    if rows.empty:
        warn(store)
        raise NothingMeasured(f"{folder} holds no results; run `vpbench run` or `vpbench sweep` with --out {folder}")
    return store, rows


def warn(store: Any) -> None:
    """Say what of a results folder could not be read."""
    for problem in store.problems:
        say(f"warning: {problem}")
