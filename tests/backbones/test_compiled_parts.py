"""Mode compile_dynamic: one or two graphs for all methods and all numbers of tokens, and what eager gives."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from conftest import moving_clip
from helpers import construct
from tiny_backbones import CONFIGS, WRAPPED

from vpbench import registry
from vpbench.api import Classifier, Clip, Pruner
from vpbench.api.method import load_method
from vpbench.commands.contract.halves import choices
from vpbench.errors import UsageError
from vpbench.measure import execution
from vpbench.tasks.recognition.session import to_batch

#: numbers of tokens of a batch, all different
COUNTS = 100


def pruners(model: Classifier, clips: list[Clip]) -> Iterator[tuple[str, Pruner]]:
    """Yield every method that runs on a backbone, at many keep ratios, and clips of all lengths."""
    for name in registry.names("methods"):
        for keep in (0.3, 0.5, 0.7, 0.9):
            try:
                method = load_method(name)().at_keep(keep, model, clips)
            except UsageError:
                continue
            if not method.supports(model) and not model.refuses(method.attach(model)):
                yield name, method.attach(model)
    fixed = model.grid.slots if model.flow == "steps" else 0
    for count in range(1, COUNTS + 1):
        counts = {clip.clip_id: fixed + count + n for n, clip in enumerate(clips)}
        yield "random", load_method("random")().attach_like(model, counts)


@pytest.mark.parametrize(("family", "graphs"), [("videomae", 2), ("vivit", 2), ("hf_videomae", 1)])
def test_few_graphs_serve_all_methods_and_all_numbers_of_tokens(family: str, graphs: int) -> None:
    if family in WRAPPED:
        pytest.importorskip("transformers")
    torch.manual_seed(0)
    eager = construct(CONFIGS[family]).eval().requires_grad_(False)
    clips = [moving_clip(n, eager.config) for n in range(4)]  # type: ignore[arg-type]
    batch = to_batch(clips, "cpu")
    torch._dynamo.reset()
    compiled = execution.forward_of(copy.deepcopy(eager), "compile_dynamic", "cpu")
    before, seen, methods = execution.compilations(), set[int](), set[str]()
    with torch.inference_mode():
        for name, pruner in pruners(eager, clips):
            chosen = list[object]()
            with choices(pruner, chosen, known=False):
                expected = eager(batch, pruner)
            with choices(pruner, chosen, known=True):  # of two tokens that are equally alike, either may be merged
                found = compiled(batch, pruner)
            assert found.counts == expected.counts
            assert found.macs == expected.macs
            torch.testing.assert_close(found.logits, expected.logits, atol=1e-5, rtol=0)
            methods.add(name)
            seen |= {sum(count.mlp) for count in expected.counts}
    assert len(seen) >= COUNTS
    assert len(methods) >= 6
    assert execution.compilations() - before == graphs


def test_under_autocast_it_gives_what_eager_gives() -> None:
    torch.manual_seed(0)
    eager = construct(CONFIGS["videomae"]).eval()
    eager.autocast = ("cpu", torch.bfloat16)
    clips = [moving_clip(n) for n in range(2)]
    compiled = execution.forward_of(copy.deepcopy(eager), "compile_dynamic", "cpu")
    pruner = load_method("tome")().at_keep(0.5, eager, clips).attach(eager)
    batch, chosen = to_batch(clips, "cpu"), list[object]()
    with torch.inference_mode():
        with choices(pruner, chosen, known=False):
            expected = eager(batch, pruner).logits
        with choices(pruner, chosen, known=True):
            found = compiled(batch, pruner).logits
    assert found.dtype == torch.bfloat16
    # products are rounded alike, but what is fused is rounded less often
    torch.testing.assert_close(found, expected, atol=0.02 * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize("family", ["mvit", "videoswin"])
def test_on_a_grid_shapes_do_not_vary(family: str) -> None:
    with pytest.raises(UsageError, match="use --mode compile"):
        execution.forward_of(construct(CONFIGS[family]), "compile_dynamic", "cpu")
