"""What a backbone that classifies clips keeps to, whatever methods do to it."""

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from vpbench import registry
from vpbench.api import (
    DENSE,
    SITES,
    Classifier,
    Clip,
    ClipBatch,
    GridBackbone,
    Pruner,
    Selection,
    SingleStream,
)  # fmt: skip
from vpbench.backbones.checkpoints import reading
from vpbench.commands.contract import contexts, halves
from vpbench.commands.contract.clips import clips
from vpbench.commands.contract.log import Log
from vpbench.commands.contract.networks import seeded, tiny
from vpbench.commands.contract.promise import Broken, Unchecked, close, promises, same
from vpbench.commands.contract.trial import run
from vpbench.errors import UsageError
from vpbench.measure.operators import operators
from vpbench.registry import Entry
from vpbench.tasks.recognition.predict import macs_of
from vpbench.tasks.recognition.session import to_batch

#: class that a network of each flow derives from
KINDS = {"stream": SingleStream, "steps": Classifier, "grid": GridBackbone}


@dataclass(frozen=True)
class Subject:
    """A backbone by its name and entry, at its tiny sizes; its own, where it has none."""

    name: str
    entry: Entry

    @cached_property
    def network(self) -> Classifier:
        """The network, which checks leave as it is."""
        found = tiny(self.entry)
        assert isinstance(found, Classifier)
        return found

    @cached_property
    def clips(self) -> Sequence[Clip]:
        """Clips of the network's sizes."""
        return clips(self.network.config, 4)

    @property
    def batch(self) -> ClipBatch:
        """All clips."""
        return to_batch(self.clips, "cpu")

    def logits(self, pruner: Pruner = DENSE, given: Sequence[Clip] | None = None) -> Tensor:
        """Run the network on clips (None: all)."""
        return run(self.network, to_batch(self.clips if given is None else given, "cpu"), pruner).logits

    def kept(self, lengths: Sequence[int], seed: int = 0) -> list[Tensor]:
        """Draw so many places of the grid for each clip, ascending; at least one in each step, if there are any."""
        generator, grid = torch.Generator().manual_seed(seed), self.network.grid
        found = []
        for length in lengths:
            chosen = torch.randperm(grid.tokens, generator=generator)[:length]
            if self.network.flow == "steps":
                first = torch.randint(grid.per_slot, (grid.slots,), generator=generator)
                chosen = torch.cat([chosen, torch.arange(grid.slots) * grid.per_slot + first]).unique()
            found.append(chosen.sort().values)
        return found

    def choosing(self, kept: Sequence[Tensor]) -> "Choosing":
        """Return a pruner that keeps these places; Unchecked where single tokens cannot go, or not without more."""
        if "video" not in SITES[self.entry.flow]:
            raise Unchecked("its tokens form a grid, from which single ones cannot be dropped")
        pruner = Choosing(kept, self.network)
        if reason := self.network.refuses(pruner):
            raise Unchecked(f"refused: {reason}")
        return pruner


class Choosing(Pruner):
    """Keeps given places of each clip, before the patch embedding."""

    def __init__(self, kept: Sequence[Tensor], network: Classifier) -> None:
        self.places, self.grid = kept, network.grid

    def video(self, batch: ClipBatch) -> Selection:
        """Return the places."""
        return Selection.of_clips(self.places, torch.device("cpu"), self.grid)


def is_what_its_entry_says(subject: Subject) -> None:
    """flow, sizes and summary of the entry are the network's, and the sizes are a frozen dataclass"""
    entry, network = subject.entry, subject.network
    same(network.flow, entry.flow, "flow of the network", "let Entry.flow be the network's")
    if not isinstance(network, KINDS[entry.flow]):
        raise Broken(
            f"{type(network).__name__} is no {KINDS[entry.flow].__name__}",
            f"derive it from vpbench.api's, as {entry.flow}",
        )
    same(network.config, entry.tiny or entry.sizes, "config of the network", "keep the sizes given as `config`")
    same(pickle.loads(pickle.dumps(entry)), entry, "the entry after pickling", "let sizes be a frozen dataclass")
    hash(entry)
    same(bool(entry.summary) and "\n" not in entry.summary, True, "a summary in one line", "write one")
    same(tuple(subject.logits().shape), (len(subject.clips), network.config.classes), "logits", "one row a clip")


def lists_at_once(subject: Subject) -> None:
    """to list it loads no torch"""
    home = registry.home(subject.name)
    code = f"import sys, importlib; importlib.import_module({home!r}); print('torch' in sys.modules)"
    path = [each for each in sys.path if each]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}; {code}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    advice = "let the module of the entry import torch nowhere, and name the network's module in `build`"
    same(
        done.stdout.strip() or done.stderr[-200:], "False", f"torch is loaded by {registry.home(subject.name)}", advice
    )


def is_deterministic(subject: Subject) -> None:
    """the same clips give the same logits each time, and so does a network built anew with the same seed"""
    first = subject.logits()
    same(torch.equal(subject.logits(), first), True, "equal logits of two forwards", "switch dropout off in eval()")
    again = run(_classifier(seeded(subject.entry)), subject.batch, DENSE).logits
    same(torch.equal(again, first), True, "equal logits of two networks of one seed", "draw weights by torch alone")


def _classifier(network: object) -> Classifier:
    assert isinstance(network, Classifier)
    return network


def asks_at_its_sites(subject: Subject) -> None:
    """a forward asks the pruner at the sites of its flow, in order, once each"""
    log, network = Log(), subject.network
    run(network, subject.batch, log)
    pairs = [f"{site} {layer}" for layer in range(network.depth) for site in ("after_attention", "after_block")]
    stages = [f"stage {n}" for n in range(network.sites)] if isinstance(network, GridBackbone) else []
    expected = {
        "stream": ["resample", "video", *pairs],
        "steps": ["resample", "video", "embedded", "waves", *pairs],
        "grid": ["resample", *stages],
    }[network.flow]
    if log.asked != expected:
        at = next((n for n, pair in enumerate(zip(log.asked, expected, strict=False)) if pair[0] != pair[1]), None)
        at = min(len(log.asked), len(expected)) if at is None else at
        ours, theirs = ((each[at] if at < len(each) else "nothing") for each in (log.asked, expected))
        raise Broken(f"asked as number {at + 1}: {ours}, expected {theirs}", "ask at each site once, in this order")
    if log.wrong:
        raise Broken(log.wrong[0], "show queries, keys and values [S, heads, width], packed as the tokens are")


def looks_at_kept_tubelets_only(subject: Subject) -> None:
    """logits do not depend on the pixels of tubelets that are dropped before block 0"""
    half = subject.network.grid.tokens // 2
    kept = subject.kept([half] * len(subject.clips))
    pruner, batch, grid = subject.choosing(kept), subject.batch, subject.network.grid
    before = run(subject.network, batch, pruner).logits
    pixels = batch.pixels.clone()
    lengths = [n // m for n, m in zip(pixels.shape[1:4], (grid.slots, grid.rows, grid.cols), strict=True)]
    for clip, own in enumerate(kept):
        gone = torch.ones(grid.tokens, dtype=torch.bool)
        gone[own] = False
        mask = gone.view(grid.slots, grid.rows, grid.cols)
        for axis, length in enumerate(lengths):
            mask = mask.repeat_interleave(length, dim=axis)
        pixels[clip][mask] = 255 - pixels[clip][mask]
    after = run(subject.network, replace(batch, pixels=pixels), pruner).logits
    close(after, before, "logits with other pixels there", "embed the tubelets of the selection alone", 0.0)


def keeps_tokens_in_their_places(subject: Subject) -> None:
    """dropping tokens before block 0 gives what attention masked from them gives: each keeps its own position"""
    _masked_is_dropped(subject, -1)


def drops_inside_as_before(subject: Subject) -> None:
    """dropping tokens after block 0 gives what attention masked from them in later blocks gives"""
    _masked_is_dropped(subject, 0)


def _masked_is_dropped(subject: Subject, block: int) -> None:
    from vpbench.commands.contract.masking import dropping, masked

    network, batch = subject.network, subject.batch
    kept = subject.kept([network.grid.tokens // 2] * len(subject.clips))
    choosing = subject.choosing(kept)
    pruner = choosing if block < 0 else dropping(kept, network, block)
    if reason := network.refuses(pruner):
        raise Unchecked(f"refused: {reason}")
    expected = masked(network, batch, kept, block)
    close(
        run(network, batch, pruner).logits, expected, "logits of dropped tokens and of masked ones",
        "take positions by Tokens.index (Selection.index before the embedding), never by the order of rows",
    )  # fmt: skip


def is_alone_in_a_batch(subject: Subject) -> None:
    """the logits of a clip do not depend on its neighbours, dense or with as many tokens as it likes"""
    alone = torch.cat([subject.logits(DENSE, [clip]) for clip in subject.clips])
    close(subject.logits(), alone, "dense logits in a batch and alone", "let no layer look over the batch")
    if "video" not in SITES[subject.entry.flow]:
        return
    tokens = subject.network.grid.tokens
    for seed in range(4):
        lengths = [1 + (seed * 7919 + n * 104729) % tokens for n in range(len(subject.clips))]
        apart(subject, lengths, seed)


def apart(subject: Subject, lengths: Sequence[int], seed: int) -> None:
    """Raise Broken where clips that keep `lengths` tokens each, drawn by a seed, see each other."""
    kept = subject.kept(lengths, seed)
    given = [subject.clips[n % len(subject.clips)] for n in range(len(lengths))]
    together = subject.logits(subject.choosing(kept), given)
    alone = torch.cat([subject.logits(subject.choosing([own]), [clip]) for own, clip in zip(kept, given, strict=True)])
    close(
        together, alone, f"logits of clips of {list(lengths)} tokens in a batch and alone", "attend inside clips only"
    )


class Halving(Pruner):
    """Keeps the first half of a grid's slots, from the second site on."""

    def stage(self, block: int, x: Tensor) -> Tensor:
        """Cut the grid once."""
        return x[:, : (x.shape[1] + 1) // 2] if block == 1 else x


def costs_what_is_counted(subject: Subject) -> None:
    """multiply-accumulates and norm elements in closed form are those of torch's operator counter, to 0.1 %"""
    network, batch = subject.network, to_batch(subject.clips[:1], "cpu")
    if network.flow == "grid":
        others: Pruner = Halving()
    else:
        others = Choosing(subject.kept([network.grid.tokens // 3]), network)
    for pruner in (DENSE, others):
        if network.refuses(pruner):
            continue
        out = run(network, batch, pruner)
        what = "dense" if pruner is DENSE else "with fewer tokens"
        _counted(what, out.macs[0], out.normalised[0], macs_of(pruner, out, 0), partial(network, batch, pruner))


def _counted(what: str, macs: int, normalised: int, closed: int, forward: Callable[[], object]) -> None:
    seen = operators(forward)
    if seen.uncounted:
        raise Broken(f"nobody counts {', '.join(sorted(seen.uncounted))}", "write it as a product that is counted")
    if abs(seen.macs - macs) > 1e-3 * macs:
        raise Broken(f"{what}: closed form {macs}, counted {seen.macs} multiply-accumulates", "correct Output.macs")
    if abs(seen.normalised - normalised) > 1e-3 * max(normalised, 1):
        raise Broken(f"{what}: {normalised} elements in norms, counted {seen.normalised}", "correct Output.normalised")


def normalises_both_kinds(subject: Subject) -> None:
    """uint8 pixels and the floats that `normalise` makes of them give the same logits, and pixels are left alone"""
    raw = subject.batch
    before = raw.pixels.clone()
    floats = subject.network.normalise(raw.pixels)
    same(floats.is_floating_point(), True, "floats of normalise", "return floats")
    close(subject.network.normalise(raw.pixels.float()), floats, "normalised floats and uint8", "take both", 1e-6)
    ours, theirs = (run(subject.network, each, DENSE).logits for each in (raw, replace(raw, pixels=floats)))
    close(theirs, ours, "logits of normalised pixels and of uint8", "normalise uint8 alone in forward", 1e-5, 1e-5)
    same(torch.equal(raw.pixels, before), True, "pixels left as they were", "write into no pixels that are given")


def takes_other_sizes(subject: Subject) -> None:
    """`resize` takes clips of other sizes or refuses them by UsageError, and its own sizes change nothing"""
    sizes = subject.network.config
    same_size = copy.deepcopy(subject.network)
    same_size.resize(sizes.frames, sizes.height, "interpolate")
    close(run(same_size, subject.batch, DENSE).logits, subject.logits(), "logits after its own sizes", "change nothing")
    for frames, size in ((None, 2 * sizes.height), (2 * sizes.frames, None), (None, sizes.height + 1), (1, None)):
        network = copy.deepcopy(subject.network)
        try:
            network.resize(frames, size, "interpolate")
        except UsageError:
            continue
        said = f"resize({frames}, {size})"
        own = network.config
        same(
            (own.frames, own.height), (frames or sizes.frames, size or sizes.height), f"config after {said}", "keep it"
        )
        logits = run(network, to_batch(clips(own, 1), "cpu"), DENSE).logits
        same(bool(logits.isfinite().all()), True, f"logits after {said}", "resample positions, and set grid and config")


def stands_half_precision(subject: Subject) -> None:
    """in bf16, fp16 and autocast no method's logits are much further from float32 than dense ones"""
    worse = halves.worse(subject.entry, registry.names("methods"), others=True)
    if worse:
        (method, precision, count), (error, allowed) = next(iter(worse.items()))
        raise Broken(
            f"{method} in {precision}, {count} clips: {error:.2g} away from float32, dense allows {allowed:.2g}",
            "sum and rank in float32 (vpbench.api.precise)",
        )


def stands_every_context(subject: Subject) -> None:
    """inference mode, no_grad, another default dtype or device, and deterministic algorithms change no logit"""
    names = [name for name in registry.names("methods") if subject.network.flow in contexts.flows_of(name)]
    expected = contexts.answers(subject.network, names)
    for name, context in contexts.CONTEXTS.items():
        with context():
            found = contexts.answers(subject.network, names)
        _equal(found, expected, f"in {name} and in no context", "make constants by vpbench.api.kept")
        after = contexts.answers(subject.network, names)
        _equal(after, expected, f"after {name} and before", "keep nothing that a context has made")


def may_be_built_in_inference_mode(subject: Subject) -> None:
    """a network that is built in inference mode gives the same logits, and follows its weights when they change"""
    usual = seeded(subject.entry)
    with torch.inference_mode():
        network = seeded(subject.entry)
        advice = "derive nothing from weights once and for all"
        _equal(contexts.answers(network, ["dense"]), contexts.answers(usual, ["dense"]), "built there and else", advice)
        for parameter in [*network.parameters(), *usual.parameters()]:
            parameter.mul_(1.1)
    _equal(contexts.answers(network, ["dense"]), contexts.answers(usual, ["dense"]), "with changed weights", advice)


def _equal(found: dict[str, Tensor], expected: dict[str, Tensor], what: str, do: str) -> None:
    same(sorted(found), sorted(expected), f"methods that run {what}", do)
    for name, logits in found.items():
        close(logits, expected[name], f"logits of {name} {what}", do, 0.0)


def reads_its_own_weights(subject: Subject) -> None:
    """weights saved under the network's own names are recognised by its layouts and fit in every tensor"""
    if subject.entry.layouts is None:
        raise Unchecked("its entry names no layouts, so that it runs with random weights alone")
    layouts = registry.imported(subject.entry.layouts)
    state = dict(subject.network.state_dict())
    advice = "let matches and recognise of its layouts take the network's own names"
    same(bool(layouts.matches(state)), True, "its layouts match its own names", advice)
    reading.check_fit(subject.network, layouts.recognise(state, "its own weights").tensors, "its own weights")
    same(bool(layouts.matches({"layer1.weight": torch.zeros(2)})), False, "they match foreign names", advice)


ON_NETWORK = promises(
    is_what_its_entry_says,
    lists_at_once,
    is_deterministic,
    asks_at_its_sites,
    looks_at_kept_tubelets_only,
    keeps_tokens_in_their_places,
    drops_inside_as_before,
    is_alone_in_a_batch,
    costs_what_is_counted,
    normalises_both_kinds,
    takes_other_sizes,
    stands_half_precision,
    stands_every_context,
    may_be_built_in_inference_mode,
    reads_its_own_weights,
)
