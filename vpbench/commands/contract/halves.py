"""Methods in half precision and under autocast, against float32, with the same tokens kept.

Which tokens are kept is laid aside in float32 and played back, so that a tie that falls the other way is no error here.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vpbench.api import Classifier, Clip, ClipBatch, Pruner, Tokens
from vpbench.api.method import load_method
from vpbench.commands.contract.clips import clips
from vpbench.commands.contract.contexts import flows_of
from vpbench.commands.contract.networks import tiny
from vpbench.errors import UsageError
from vpbench.measure.watch.sites import standing_in
from vpbench.registry import Entry
from vpbench.tasks.recognition.session import to_batch

#: how the network's numbers are stored, and the context that it runs in
PRECISIONS: dict[str, tuple[torch.dtype, Callable[[], AbstractContextManager[object]]]] = {
    "bf16": (torch.bfloat16, nullcontext),
    "fp16": (torch.float16, nullcontext),
    "autocast": (torch.float32, partial(torch.autocast, "cpu", dtype=torch.bfloat16)),
}
CLIPS = 16
#: all that moves tokens, and how many of its arguments come before those that say which; a pruner's own come besides
MOVES: tuple[tuple[type, str, int], ...] = ((Tokens, "take", 1), (Tokens, "keep", 1), (Tokens, "merge", 1))

Chosen = list[Any]
#: by method, precision and number of clips: an error, and what of it is allowed
Errors = dict[tuple[str, str, int], tuple[float, float]]
Attach = Callable[[Classifier], Pruner]


@contextmanager
def choices(pruner: Pruner, chosen: Chosen, known: bool) -> Iterator[None]:
    """Lay aside in `chosen` which tokens are kept, merged and cut; or, where that is known, let it be these."""
    left = iter(chosen)

    def choose(found: Any) -> Any:
        if known:
            return next(left)
        chosen.append(found)
        return found

    own = [(type(pruner), name, 2) for name, stage in pruner.timed_as.items() if stage == "gather"]
    with ExitStack() as within:
        for owner, name, given in (*MOVES, *own):
            within.enter_context(_replaced(owner, name, _moving(getattr(owner, name), given, choose)))
        within.enter_context(standing_in(pruner, {"video": lambda own, batch: choose(own(batch))}))
        yield
    assert not known or next(left, None) is None


@contextmanager
def _replaced(owner: type, name: str, function: Callable[..., Any]) -> Iterator[None]:
    inherited, before = name not in vars(owner), vars(owner).get(name)
    setattr(owner, name, function)
    try:
        yield
    finally:
        if inherited:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


def _moving(own: Callable[..., Any], given: int, choose: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda *arguments: own(*arguments[:given], *choose(arguments[given:]))


def pruners(network: Classifier, given: Sequence[Clip], methods: Iterable[str]) -> Iterator[tuple[str, Attach]]:
    """Yield the methods that this network takes."""
    for name in methods:
        if network.flow not in flows_of(name):
            continue
        kind = load_method(name)
        try:
            method = kind().at_keep(0.5 if kind.set_by_keep else 1.0, network, given[:2])
        except UsageError:
            continue
        if not method.supports(network) and not network.refuses(method.attach(network)):
            yield name, method.attach


def ragged(network: Classifier, given: Sequence[Clip]) -> Iterator[tuple[str, Attach]]:
    """Yield what leaves every clip another number of tokens, where there can be such a thing."""
    if network.flow not in ("stream", "steps"):
        return
    fixed, step = (network.grid.slots if network.flow == "steps" else 0), network.grid.tokens // (len(given) + 1)
    counts = {clip.clip_id: fixed + step * (1 + n) for n, clip in enumerate(given)}
    yield "ragged", lambda network: load_method("random")().attach_like(network, counts)


def errors(entry: Entry, methods: Sequence[str], others: bool = False) -> Errors:
    """Return how far logits are from float32, and how far they may be: twice what dense ones are.

    others: also with another number of tokens for every clip.
    """
    network = tiny(entry, 0.0)
    assert isinstance(network, Classifier)
    given = clips(network.config, CLIPS)
    networks = {name: copy.deepcopy(network).to(dtype) for name, (dtype, _) in PRECISIONS.items()}
    allowed: dict[str, float] = {}
    found: Errors = {}
    attached = [("dense", lambda network: Pruner()), *pruners(network, given, (m for m in methods if m != "dense"))]
    for method, attach in [*attached, *(ragged(network, given) if others else ())]:
        for size, batches in ((CLIPS, [given]), (1, [[clip] for clip in given[::2]])):
            apart: dict[str, list[Tensor]] = {name: [] for name in PRECISIONS}
            for clips_of in batches:
                batch, chosen = to_batch(clips_of, "cpu"), Chosen()
                single = _run(network, batch, attach(network), chosen, known=False)
                for name, (dtype, context) in PRECISIONS.items():
                    with context():
                        half = _run(networks[name], batch, attach(networks[name]), chosen, known=True)
                    assert half.dtype == (torch.bfloat16 if name == "autocast" else dtype), half.dtype
                    apart[name].append(half.float() - single)
            for name, differences in apart.items():
                # over many clips each way, unsquared: what rounding does to one of them is a draw with a long tail
                typical = float(torch.cat(differences).abs().mean())
                if (method, size) == ("dense", CLIPS):
                    allowed[name] = 2 * typical
                found[method, name, size] = (typical, allowed[name])
    return found


def _run(network: Classifier, batch: ClipBatch, pruner: Pruner, chosen: Chosen, known: bool) -> Tensor:
    with torch.inference_mode(), choices(pruner, chosen, known):
        logits: Tensor = network(batch, pruner).logits
    assert logits.isfinite().all(), "logits are no numbers"
    return logits


def worse(entry: Entry, methods: Sequence[str], others: bool = False) -> Errors:
    """Return of `errors` those that are larger than they may be."""
    return {key: pair for key, pair in errors(entry, methods, others).items() if pair[0] > pair[1]}
