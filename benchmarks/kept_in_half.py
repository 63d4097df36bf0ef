"""Which tokens survive under bfloat16 autocast, compared with float32: the embedded VideoMAE on a few embedded clips.

    python benchmarks/kept_in_half.py --clips 12 --out results/<machine>/kept_in_half.md

Of the tokens that a selection leaves in float32, the share that it leaves under autocast too: of each selection with
the tokens that were left before it in float32, so that it differs by the network's rounding alone, and at the end of a
free run, where every earlier difference has had its say. A merged token counts as the one whose grid position it has.

How much of that is the method's own: at each selection it chooses a second time from the very activations that the
network under autocast has, taken to float32, and with scores made of them in float32 throughout. And how much any
rounding would do: the same in float32 with weights that are changed by a thousandth, half of what bfloat16 rounds by.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from vpbench.api import Classifier, ClipBatch, Pruner, Tokens, Trace
from vpbench.api.attention import attend_with_lse
from vpbench.commands.check.cells import Cells, shaken
from vpbench.commands.check.facts import positions
from vpbench.commands.check.recorder import recording
from vpbench.measure.watch.sites import standing_in
from vpbench.tasks.recognition.session import batch_for

METHODS = ("tome", "sta", "topk", "vidtldr", "pitome", "ats")
BACKBONE = "videomae_embedded"
SHAKE = 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=12, help="clips, at most those of the gate")
    parser.add_argument("--keep", type=float, nargs="+", default=[0.75, 0.5])
    parser.add_argument("--out", type=Path, help="write the table there as well")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    cells = Cells(BACKBONE)
    network = cells.task.session.backbone
    assert isinstance(network, Classifier)
    batches = [batch_for(network, unit, "cpu") for unit in cells.units.values()][: asked.clips]
    lines = [
        "# Kept tokens under bfloat16 autocast, beside float32",
        "",
        f"{BACKBONE}, {len(batches)} embedded clips one by one, torch {torch.__version__}; "
        "`benchmarks/kept_in_half.py`. Of the tokens left in float32, the share that is left under autocast too: by "
        "each selection, given what was left before it in float32, and at the end of a free run.",
        "",
        "*Same activations*: what each selection under autocast has in common with one from the same activations of "
        "the network, taken to float32, whose scores are float32 throughout; what is below 100 there is rounding of "
        f"the method's own. *Shaken*: each selection in float32, of a network whose weights are changed by {SHAKE:g} "
        "of themselves. PiToMe pairs tokens by the parity of their rank and ATS samples along a sum over all tokens: "
        "both answer to changes of activations that leave the others alone, whatever their own scores are made in.",
        "",
        "| method | keep | each selection % | worst | same activations % | worst | shaken % | worst "
        "| free run, at the end % | worst clip | top-1 equal |",
        "|" + "---|" * 11,
    ]
    for name in METHODS:
        for keep in asked.keep:
            lines.append(row(cells, name, keep, batches))
            print(lines[-1], flush=True)
    text = "\n".join(lines) + "\n"
    if asked.out is not None:
        asked.out.write_text(text, encoding="utf-8")


def row(cells: Cells, name: str, keep: float, batches: Sequence[ClipBatch]) -> str:
    each, ours, moved, last, equal = list[float](), list[float](), list[float](), list[float](), 0
    cell = cells.attach(name, keep)
    network, pruner, twin = cells.task.session.backbone, cell.pruner, cell.method.attach(cells.task.session.backbone)
    for batch in batches:
        choices = Choices(twin)
        single = run(network, pruner, batch, choices, cast=False)
        half = run(network, pruner, batch, None, cast=True)
        run(network, pruner, batch, choices, cast=True)
        each += choices.shares
        ours += choices.ours
        choices.shares = []
        with shaken(network, 0, SHAKE):
            run(network, pruner, batch, choices, cast=False)
        moved += choices.shares
        last.append(shared(single[0], half[0]))
        equal += single[1] == half[1]
    shares = [100 * of for kind in (each, ours, moved, last) for of in (sum(kind) / len(kind), min(kind))]
    return f"| {name} | {keep:g} | {' | '.join(f'{share:.1f}' for share in shares)} | {equal}/{len(batches)} |"


def run(network: Any, pruner: Pruner, batch: ClipBatch, choices: Choices | None, cast: bool) -> tuple[set[int], int]:
    """Return the positions that are left at the end, and the best class."""
    guided = nullcontext() if choices is None else choices.taking_part(pruner)
    with (
        guided,
        recording(pruner) as sites,
        torch.inference_mode(),
        torch.autocast("cpu", torch.bfloat16, enabled=cast),
    ):
        logits = network(batch, pruner).logits
    return positions(list(sites.values())[-1]), int(logits[0].argmax())


def shared(single: set[int], half: set[int]) -> float:
    return len(single & half) / len(single)


class Choices:
    """What one forward chose; another is then led along, and `shares` says how far it would have chosen the same.

    `ours` says how far it would have if `twin`, of the same method, had made its scores of the same activations in
    float32.
    """

    def __init__(self, twin: Pruner) -> None:
        self.twin = twin
        #: at each site where tokens went, how they were moved, and the positions that were left
        self.made: list[tuple[list[tuple[str, Any]], set[int]]] = []
        self.shares: list[float] = []
        self.ours: list[float] = []

    def taking_part(self, pruner: Pruner) -> AbstractContextManager[None]:
        asked: Callable[..., Tokens] = partial(self._led, iter(list(self.made))) if self.made else self._watched
        return standing_in(pruner, {"after_attention": asked, "after_block": asked})

    def _watched(self, site: Callable[..., Tokens], *given: Any) -> Tokens:
        moves: list[tuple[str, Any]] = []

        def noted(name: str, own: Callable[..., Tokens]) -> Callable[..., Tokens]:
            def moved(tokens: Tokens, *how: Any) -> Tokens:
                moves.append((name, how))
                return own(tokens, *how)

            return moved

        ways: dict[str, Any] = {name: noted(name, getattr(Tokens, name)) for name in ("take", "keep", "merge")}
        with patch.multiple(Tokens, **ways):
            left = site(*given)
        if moves:
            self.made.append((moves, set(left.index.tolist())))
        return left

    def _led(self, known: Iterator[Any], site: Callable[..., Tokens], *given: Any) -> Tokens:
        tokens = next(each for each in given if isinstance(each, Tokens))
        mine, exact = site(*given), getattr(self.twin, site.__name__)(*(in_single(each) for each in given))
        if mine is tokens:
            return tokens
        moves, left = next(known)
        kept = set(mine.index.tolist())
        self.shares.append(shared(left, kept))
        self.ours.append(shared(set(exact.index.tolist()), kept))
        for name, how in moves:
            tokens = getattr(tokens, name)(*how)
        return tokens


def in_single(given: Any) -> Any:
    """Take tokens and traces to float32, and what is derived of them from there."""
    if isinstance(given, Tokens):
        return given.with_x(given.x.float())
    if not isinstance(given, Trace):
        return given
    with torch.autocast("cpu", enabled=False):
        q, k, v = given.queries.float(), given.keys.float(), given.values.float()
        lse = attend_with_lse(q, k, v, given.lengths, given.size)[1]
    return Trace(q, k, v, given.lengths, lse, size=given.size)


if __name__ == "__main__":
    main()
