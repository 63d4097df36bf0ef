"""`vpbench flops`: count multiply-accumulates."""

from typing import Annotated, Any, Literal

import typer

from vpbench.commands import options
from vpbench.errors import UsageError


def flops(
    method: options.Methods = None, keep: options.Keep = None, sets: options.Sets = None,
    backbone: options.BackboneName = None, frames: options.Frames = None, size: options.Size = None,
    preset: options.Preset = None, config: options.Config = None,
    tokens: Annotated[str | None, typer.Option(help="count methods that follow the clip at these token counts")] = None,
    counter: Annotated[Literal["torch", "fvcore"],
                       typer.Option(help="operator counter to compare our closed form with")] = "torch",
    clip: Annotated[bool, typer.Option("--clip", help="count on a real clip, by operator, with both counters")] = False,
    dataset: options.DatasetName = None, split: options.Split = None, root: options.Root = None,
    list: options.ListFile = None, classes: options.ClassesFile = None,
    weights: options.Weights = None, weights_key: options.WeightsKey = None,
    seed: options.Seed = None,
) -> None:  # fmt: skip
    """Count multiply-accumulates of one clip or frame; without --clip neither weights nor data are needed."""
    given = {k: v for k, v in options.described(locals()).items() if k not in ("tokens", "clip", "counter")}
    asked = options.request(config, preset, given | {"limit": 1})
    from vpbench import plan, registry

    if clip:
        if registry.backbone(asked.backbone).task == "detection":
            raise UsageError(f"{asked.backbone} sees no clips, and its count follows no pixel; leave --clip out")
        _count_on_a_clip(asked)
        return
    shared = plan.setting(asked, 1)
    cells = plan.cells(asked, shared)
    asked_for = {"dense", *asked.method}  # a sweep's random controls are not part of the question
    counted, given_tokens = [c for c in cells if c.method in asked_for], _whole_numbers(tokens)
    if registry.backbone(shared.backbone).task == "detection":
        from vpbench.commands.flops import frames as flops_frames

        lines = flops_frames.report(counted, given_tokens, preset or "")
    else:
        from vpbench.commands.flops import clips

        lines = clips.report(counted, given_tokens, preset or "", counter)
    for line in lines:
        typer.echo(line)


def _whole_numbers(text: str | None) -> list[int]:
    try:
        return [int(part) for part in (text or "").split(",") if part]
    except ValueError as error:
        raise UsageError(f"--tokens {text!r}: give whole numbers separated by commas") from error


def _count_on_a_clip(asked: Any) -> None:
    from vpbench import plan
    from vpbench.measure.operators import count_three_ways
    from vpbench.run import resolve
    from vpbench.tasks.attach import attach
    from vpbench.tasks.recognition.session import Session, batch_for

    shared, digests = resolve.resolve(asked)
    session = Session(shared)
    batch = batch_for(session.backbone, session.clips_to_time()[:1], shared.device)
    for cell in plan.cells(asked, shared, digests):
        if cell.match is None:
            typer.echo(f"{cell.label}, clip {batch.ids[0]}")
            for line in count_three_ways(
                session.backbone, batch, attach(cell, session.backbone, session.calibration, {}).pruner
            ):
                typer.echo(f"  {line}")
