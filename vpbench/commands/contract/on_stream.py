"""What a method keeps to besides where tokens are a stream, of the whole clip or of each of its steps."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from vpbench.api import ClipBatch, Selection, Tokens
from vpbench.commands.contract.promise import Broken, Unchecked, close, promises, same
from vpbench.commands.contract.trial import Trial, run, seeing
from vpbench.errors import UsageError
from vpbench.measure.watch.clips import watched
from vpbench.measure.watch.sites import standing_in
from vpbench.tasks.recognition.session import to_batch

#: keep ratios that have to be reached, how nearly, and how many tokens of a sequence may be lost to rounding else
REACHED, NEAR, ROUNDED = (0.25, 0.5, 0.75), 0.03, 2
#: how far off a ratio may be where a method knows none in between, and where such ratios are looked for
COARSE, AROUND = 0.15, tuple(step / 80 for step in range(-16, 17))
#: keep ratios whose tokens are followed
FOLLOWED = (0.5, 0.75, 1.0)


def left(trial: Trial, keep: float) -> float:
    """Return the share of a dense clip's tokens that is left after the last site; UsageError if refused.

    Of a method that runs blocks itself, and leaves all: the share that is computed anew in each, class tokens included.
    """
    pruner = trial.ready(keep).attach(trial.network)
    with seeing(pruner) as seen:
        out = trial.run(pruner)
    if seen.ran:
        every = [sum(each.attention) for each in trial.dense().counts]
        return sum(sum(each.attention) for each in out.counts) / sum(every)
    return seen.left() / len(trial.clips) / trial.network.grid.tokens


def reaches_the_keep_ratio(trial: Trial) -> None:
    """at_keep leaves the share of tokens that it was asked for, to 0.03 or to the nearest that there is"""
    if not trial.prunes:
        same(left(trial, 1.0), 1.0, "share of tokens left", "keep them all")
        raise Unchecked("it prunes nothing")
    for keep in REACHED:
        try:
            share = left(trial, keep)
        except UsageError:
            continue
        near = max(NEAR, ROUNDED / trial.network.sequence + 1e-6)
        if abs(share - keep) > near and not _nearest(trial, keep, share):
            raise Broken(
                f"keep {keep:g} leaves {share:.3f} of the tokens on average, expected {keep:g} +- {near:.2g}",
                "let at_keep set parameters by which that share is left after the last block",
            )


def _nearest(trial: Trial, keep: float, share: float) -> bool:
    """Whether the method knows shares of tokens around, and none that is nearer."""
    known = set()
    for step in AROUND:
        try:
            known.add(left(trial, min(1.0, max(0.01, keep + step))))
        except UsageError:
            continue
    gap = abs(share - keep)
    return len(known) > 1 and gap <= COARSE and all(gap <= abs(each - keep) + 1e-9 for each in known)


def counts_its_tokens(trial: Trial) -> None:
    """the counts of an output are the tokens that blocks saw, each of them at a place of its own on the grid"""
    pruner = trial.half().attach(trial.network)
    with seeing(pruner) as seen:
        out = trial.run(pruner)
    clips = len(trial.clips)
    advice = "return Tokens whose lengths, index and x belong together (take and merge do)"
    for layer, counts in enumerate(out.counts):
        if seen.ran:
            told = [_added(each, clips) for each in zip(*((r.attention, r.mlp) for r in seen.ran[layer]), strict=True)]
            same(told, [counts.attention, counts.mlp], f"tokens that block {layer} computed", "count them in Ran")
            continue
        same(_per_clip(seen.attention[layer], clips), counts.attention, f"tokens in the attention of {layer}", advice)
        same(_per_clip(seen.mlp[layer], clips), counts.mlp, f"tokens in the MLP of block {layer}", advice)
    grid = trial.network.grid
    places = grid.per_slot if trial.network.flow == "steps" else grid.tokens
    for tokens in (each for parts in (seen.attention, seen.mlp, seen.out) for part in parts.values() for each in part):
        same({len(tokens.x), len(tokens.index)}, {sum(tokens.lengths)}, "rows of x and index", advice)
        for index in tokens.split(tokens.index):
            _apart(index[index >= 0], places)


def _added(waves: Iterable[Sequence[int]], clips: int) -> tuple[int, ...]:
    """Add up counts of each clip's sequences, wave by wave; those of a clip follow each other."""
    parts = [wave[n * len(wave) // clips : (n + 1) * len(wave) // clips] for wave in waves for n in range(clips)]
    return tuple(sum(map(sum, parts[clip::clips])) for clip in range(clips))


def _per_clip(parts: Iterable[Tokens], clips: int) -> tuple[int, ...]:
    """Add up the tokens of each clip's sequences; those of a clip follow each other."""
    total = [0] * clips
    for tokens in parts:
        each = len(tokens.lengths) // clips
        for clip in range(clips):
            total[clip] += sum(tokens.lengths[clip * each : (clip + 1) * each])
    return tuple(total)


def _apart(index: Tensor, places: int) -> None:
    advice = "let index name the place of every token on the grid, (slot * rows + row) * cols + col"
    if len(index.unique()) != len(index):
        raise Broken("two tokens of a clip have the same index", advice)
    if len(index) and not 0 <= int(index.min()) <= int(index.max()) < places:
        raise Broken(f"index from {int(index.min())} to {int(index.max())}, expected 0 to {places - 1}", advice)


def selects_places_of_the_grid(trial: Trial) -> None:
    """what `video` selects are ascending places of the grid, packed clip after clip"""
    pruner, chosen = trial.half().attach(trial.network), []
    before: list[ClipBatch] = []

    def video(own: object, batch: ClipBatch) -> Selection | None:
        before.append(batch)
        found: Selection | None = own(batch)  # type: ignore[operator]
        chosen.append(found)
        return found

    with standing_in(pruner, {"video": video}):
        trial.run(pruner)
    if chosen[0] is None:
        return
    advice = "make it by Selection.top, from_mask or of_clips"
    selection = chosen[0]
    same(len(selection.lengths), len(trial.clips), "clips of the selection", advice)
    same({len(selection.index), len(selection.clip)}, {sum(selection.lengths)}, "rows of index and clip", advice)
    same(selection.index.dtype, torch.int64, "dtype of index", advice)
    owner = torch.arange(len(selection.lengths)).repeat_interleave(torch.tensor(selection.lengths))
    same(torch.equal(selection.clip, owner), True, "clip names the clips one after the other", advice)
    for index in selection.index.split(selection.lengths):
        _apart(index, trial.network.grid.tokens)
        same(bool((index.diff() > 0).all()), True, "ascending index", advice)
    if (lengths := selection.run_lengths) is not None:
        same(bool(((lengths >= 1) & (lengths <= trial.network.grid.slots)).all()), True, "runs of 1 to slots", advice)
    if selection.per_slot is not None:
        same(sum(selection.per_slot), sum(selection.lengths), "sum of per_slot", advice)


def can_be_watched(trial: Trial) -> None:
    """the fate of every token can be told: as many survive as are left after the last site"""
    batch = to_batch(trial.clips[-1:], "cpu")
    for keep in FOLLOWED if trial.prunes else (1.0,):
        try:
            method = trial.ready(keep)
        except UsageError:
            continue
        plain, pruner = run(trial.network, batch, method.attach(trial.network)), method.attach(trial.network)
        with seeing(pruner) as seen:
            found = watched(trial.network, batch, pruner, values=True)
        advice = "move tokens by take and merge, and let nothing depend on whether `record` is asked for"
        # who asks for all heat maps leaves the fused kernel, which rounds otherwise
        close(found.output.logits, plain.logits, "logits while watched and else", advice, 1e-6)
        same(found.output.counts == plain.counts, True, "equal counts while watched and else", advice)
        same(found.fate.left(), seen.left(), f"tokens that survive at keep {keep:g}", advice)


ON_STREAM = promises(reaches_the_keep_ratio, counts_its_tokens, selects_places_of_the_grid, can_be_watched)
