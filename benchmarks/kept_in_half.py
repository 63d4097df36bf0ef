"""Which tokens survive under bfloat16 autocast, compared with float32: the embedded VideoMAE on a few embedded clips.

    python benchmarks/kept_in_half.py --clips 12 --out results/<machine>/kept_in_half.md

Of the tokens that a selection leaves in float32, the share that it leaves under autocast too: of each selection with
the tokens that were left before it in float32, so that it differs by the network's rounding alone, and at the end of a
free run, where every earlier difference has had its say. A merged token counts as the one whose grid position it has.
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

from vpbench.api import ClipBatch, Method, Pruner, Tokens
from vpbench.api.method import load_method
from vpbench.commands.check.clip_bench import ClipBench
from vpbench.commands.check.facts import positions
from vpbench.commands.check.recorder import recording
from vpbench.measure.watch.sites import standing_in

METHODS = ("tome", "sta", "topk", "vidtldr", "pitome", "ats")
BACKBONE = "videomae_embedded"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=12, help="clips, at most those of the gate")
    parser.add_argument("--keep", type=float, nargs="+", default=[0.75, 0.5])
    parser.add_argument("--out", type=Path, help="write the table there as well")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    bench = ClipBench(BACKBONE)
    batches = list(bench.batches.values())[: asked.clips]
    lines = [
        "# Kept tokens under bfloat16 autocast, beside float32",
        "",
        f"{BACKBONE}, {len(batches)} embedded clips one by one, torch {torch.__version__}; "
        "`benchmarks/kept_in_half.py`. Of the tokens left in float32, the share that is left under autocast too: by "
        "each selection, given what was left before it in float32, and at the end of a free run.",
        "",
        "| method | keep | each selection % | worst | free run, at the end % | worst clip | top-1 equal |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in METHODS:
        for keep in asked.keep:
            method = load_method(name)().at_keep(keep, bench.network, bench.calibration)
            lines.append(row(method, name, keep, bench, batches))
            print(lines[-1], flush=True)
    text = "\n".join(lines) + "\n"
    if asked.out is not None:
        asked.out.write_text(text, encoding="utf-8")


def row(method: Method, name: str, keep: float, bench: ClipBench, batches: Sequence[ClipBatch]) -> str:
    each, last, equal = list[float](), list[float](), 0
    for batch in batches:
        choices = Choices()
        single = run(bench, method, batch, choices, cast=False)
        half = run(bench, method, batch, None, cast=True)
        run(bench, method, batch, choices, cast=True)
        each += choices.shares
        last.append(shared(single[0], half[0]))
        equal += single[1] == half[1]
    shares = (100 * sum(each) / len(each), 100 * min(each), 100 * sum(last) / len(last), 100 * min(last))
    return f"| {name} | {keep:g} | {' | '.join(f'{share:.1f}' for share in shares)} | {equal}/{len(batches)} |"


def run(
    bench: ClipBench, method: Method, batch: ClipBatch, choices: Choices | None, cast: bool
) -> tuple[set[int], int]:
    """Return the positions that are left at the end, and the best class."""
    pruner = method.attach(bench.network)
    guided = nullcontext() if choices is None else choices.taking_part(pruner)
    with (
        guided,
        recording(pruner) as sites,
        torch.inference_mode(),
        torch.autocast("cpu", torch.bfloat16, enabled=cast),
    ):
        logits = bench.session.backbone(batch, pruner).logits
    return positions(list(sites.values())[-1]), int(logits[0].argmax())


def shared(single: set[int], half: set[int]) -> float:
    return len(single & half) / len(single)


class Choices:
    """What one forward chose; another is then led along, and `shares` says how far it would have chosen the same."""

    def __init__(self) -> None:
        #: at each site where tokens went, how they were moved, and the positions that were left
        self.made: list[tuple[list[tuple[str, Any]], set[int]]] = []
        self.shares: list[float] = []

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

        with patch.multiple(Tokens, take=noted("take", Tokens.take), merge=noted("merge", Tokens.merge)):
            left = site(*given)
        if moves:
            self.made.append((moves, set(left.index.tolist())))
        return left

    def _led(self, known: Iterator[Any], site: Callable[..., Tokens], *given: Any) -> Tokens:
        tokens = next(each for each in given if isinstance(each, Tokens))
        mine = site(*given)
        if mine is tokens:
            return tokens
        moves, left = next(known)
        self.shares.append(shared(left, set(mine.index.tolist())))
        for name, how in moves:
            tokens = getattr(tokens, name)(*how)
        return tokens


if __name__ == "__main__":
    main()
