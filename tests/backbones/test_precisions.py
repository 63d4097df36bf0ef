"""Every method in half precision and under autocast: with the same tokens kept, hardly further off than dense.

Which tokens are kept is laid aside in float32 and played back, so that a tie that falls the other way is no error here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from conftest import moving_clip
from helpers import construct
from tiny_backbones import CONFIGS
from torch import Tensor

from vpbench import registry
from vpbench.api import Classifier, Clip, ClipBatch, Pruner, Tokens
from vpbench.api.method import load_method
from vpbench.errors import UsageError
from vpbench.measure.watch.sites import standing_in
from vpbench.methods.stts import Selector
from vpbench.tasks.recognition.session import to_batch

#: how the network's numbers are stored, and the context that it runs in
PRECISIONS: dict[str, tuple[torch.dtype, Callable[[], AbstractContextManager[object]]]] = {
    "bf16": (torch.bfloat16, nullcontext),
    "fp16": (torch.float16, nullcontext),
    "autocast": (torch.float32, partial(torch.autocast, "cpu", dtype=torch.bfloat16)),
}
CLIPS = 16
#: all that moves tokens, and how many of its arguments come before those that say which
MOVES = ((Tokens, "take", 1), (Tokens, "merge", 1), (Selector, "take_slices", 2), (Selector, "take_windows", 2))

Chosen = list[Any]


@pytest.fixture(scope="module", params=CONFIGS)
def model(request: pytest.FixtureRequest) -> Classifier:
    torch.manual_seed(0)
    return construct(CONFIGS[request.param]).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def clips(model: Classifier) -> list[Clip]:
    return [moving_clip(n, model.config) for n in range(CLIPS)]  # type: ignore[arg-type]


@contextmanager
def choices(pruner: Pruner, chosen: Chosen, known: bool) -> Iterator[None]:
    """Lay aside in `chosen` which tokens are kept, merged and cut; or, where that is known, let it be these."""
    left = iter(chosen)

    def choose(found: Any) -> Any:
        if known:
            return next(left)
        chosen.append(found)
        return found

    with pytest.MonkeyPatch.context() as patch:
        for owner, name, given in MOVES:
            patch.setattr(owner, name, _moving(getattr(owner, name), given, choose))
        with standing_in(pruner, {"video": lambda own, batch: choose(own(batch))}):
            yield
    assert not known or next(left, None) is None


def _moving(own: Callable[..., Any], given: int, choose: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda *arguments: own(*arguments[:given], *choose(arguments[given:]))


def pruners(model: Classifier, clips: list[Clip]) -> Iterator[tuple[str, Callable[[Classifier], Pruner]]]:
    """Yield all methods that this backbone takes, and one that leaves every clip another number of tokens."""
    for name in registry.names("methods"):
        try:
            method = load_method(name)().at_keep(1.0 if name == "dense" else 0.5, model, clips[:2])
        except UsageError:
            continue
        if not method.supports(model) and not model.refuses(method.attach(model)):
            yield name, method.attach
    if model.flow in ("stream", "steps"):
        fixed, step = (model.grid.slots if model.flow == "steps" else 0), model.grid.tokens // (CLIPS + 1)
        counts = {clip.clip_id: fixed + step * (1 + n) for n, clip in enumerate(clips)}
        yield "ragged", lambda network: load_method("random")().attach_like(network, counts)


def run(network: Classifier, batch: ClipBatch, pruner: Pruner, chosen: Chosen, known: bool) -> Tensor:
    with torch.inference_mode(), choices(pruner, chosen, known):
        logits = network(batch, pruner).logits
    assert logits.isfinite().all()
    return logits


def test_half_precision_costs_pruned_clips_no_more_than_dense_ones(model: Classifier, clips: list[Clip]) -> None:
    networks = {name: copy.deepcopy(model).to(dtype) for name, (dtype, _) in PRECISIONS.items()}
    allowed: dict[tuple[str, int], float] = {}
    found: dict[tuple[str, str, int], float] = {}
    for method, attach in sorted(pruners(model, clips), key=lambda each: each[0] != "dense"):
        for size in (CLIPS, 1):
            batch, chosen = to_batch(clips[:size], "cpu"), Chosen()
            single = run(model, batch, attach(model), chosen, known=False)
            for name, (dtype, context) in PRECISIONS.items():
                with context():
                    half = run(networks[name], batch, attach(networks[name]), chosen, known=True)
                assert half.dtype == (torch.bfloat16 if name == "autocast" else dtype)
                error = half.float() - single
                typical, largest = float(error.square().mean().sqrt()), float(error.abs().max())
                found[method, name, size] = typical if size == CLIPS else largest
                if (method, size) == ("dense", CLIPS):
                    # a clip alone is a small sample: its largest error is held against that of many
                    allowed[name, CLIPS], allowed[name, 1] = 2 * typical, 2 * largest
    assert len({method for method, _, _ in found}) >= 6
    worse = {key: (error, allowed[key[1:]]) for key, error in found.items() if error > allowed[key[1:]]}
    assert not worse
