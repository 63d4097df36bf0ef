"""Representation Shift: against its definition on one clip at a time, its published counts, and what follows."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import plain_vit
import pytest
import torch
from conftest import TINY, moving_clip
from torch import Tensor

from vpbench.api import ClipBatch, Tokens, UsageError
from vpbench.api.backbone import classifier
from vpbench.backbones.videomae import VideoMAEConfig
from vpbench.backbones.videomae.network import VideoMAE
from vpbench.backbones.vivit import TINY as STEPS
from vpbench.backbones.vivit.network import ViViT
from vpbench.commands.check.cells import Cells
from vpbench.measure import operators
from vpbench.methods.representation_shift import RepresentationShift, distance, dropped
from vpbench.methods.topk import Topk
from vpbench.methods.vidtldr import Vidtldr, saliency
from vpbench.tasks.recognition import Recognition
from vpbench.tasks.recognition.session import to_batch

SIZES = {
    "square": VideoMAEConfig(24, 4, 3, frames=8, height=16, width=16, tubelet=2, patch=4, classes=5),
    "oblong": VideoMAEConfig(32, 6, 2, frames=6, height=28, width=8, tubelet=2, patch=4, classes=7),
}
FORMS = [
    {}, {"form": "residual"}, {"distance": "l1"}, {"distance": "cosine"}, {"operation": "attention"},
    {"operation": "attention", "form": "residual", "distance": "l1"}, {"operation": "block"},
    {"operation": "block", "distance": "cosine"},
]  # fmt: skip


def network(sizes: Any, seed: int) -> Any:
    torch.manual_seed(seed)
    model = (VideoMAE if isinstance(sizes, VideoMAEConfig) else ViViT)(sizes).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.requires_grad_(False)


def batch_of(sizes: Any, clips: int, seed: int) -> ClipBatch:
    shape = (clips, sizes.frames, sizes.height, sizes.width, 3)
    noise = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return ClipBatch(noise, tuple(f"clip{n}" for n in range(clips)))


def naive_distance(one: Tensor, other: Tensor, kind: str) -> float:
    pairs = list(zip(one.tolist(), other.tolist(), strict=True))
    if kind == "l1":
        return sum(abs(a - b) for a, b in pairs)
    if kind == "l2":
        return float(sum((a - b) ** 2 for a, b in pairs) ** 0.5)
    lengths = sum(a * a for a, _ in pairs) ** 0.5 * sum(b * b for _, b in pairs) ** 0.5
    return float(1 - sum(a * b for a, b in pairs) / lengths)


def naive(model: Any, x: Tensor, method: RepresentationShift, spared: int) -> tuple[Tensor, list[int]]:
    """What leaves the last block of one sequence `x` `[n, D]`, and the tokens that entered each: steps 1 to 5."""
    rates = [float(each) for each in method.schedule.split("/")] + [0.0] * model.depth
    entered = []
    for layer in range(model.depth):
        entered.append(len(x))
        attended = plain_vit.attention(model, layer, x)
        between = x + attended
        made = plain_vit.mlp(model, layer, between)
        y = between + made
        one, other = {"mlp": (made, between), "attention": (attended, x), "block": (y, x)}[method.operation]
        if method.form == "residual":
            other = torch.zeros_like(other)
        if rates[layer] > 0:
            score = [naive_distance(a, b, method.distance) for a, b in zip(one, other, strict=True)]
            patches = range(spared, len(x))
            left = len(patches) - int(rates[layer] * len(patches))
            y = y[[*range(spared), *sorted(sorted(patches, key=lambda n: (-score[n], n))[:left])]]
        x = y
    return x, entered


@pytest.mark.parametrize("params", FORMS, ids=str)
@pytest.mark.parametrize(("sizes", "seed"), [("square", 0), ("oblong", 1), ("oblong", 2)])
def test_it_is_what_its_definition_says(sizes: str, seed: int, params: dict[str, str]) -> None:
    model, batch = network(SIZES[sizes], seed), batch_of(SIZES[sizes], 2, seed)
    method = RepresentationShift("0.2/0/0.3", **params)
    out = model(batch, method.attach(model))
    for clip, pixels in enumerate(batch.pixels):
        x, entered = naive(model, plain_vit.embedded(model, pixels) + model.pos_embed, method, spared=0)
        assert [counts.attention[clip] for counts in out.counts] == entered
        torch.testing.assert_close(out.logits[clip], plain_vit.logits(model, x), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("params", FORMS, ids=str)
def test_each_step_is_ranked_on_its_own_and_keeps_its_class_token(params: dict[str, str]) -> None:
    model, batch = network(STEPS, 0), batch_of(STEPS, 2, 0)
    method = RepresentationShift("0.3/0.2", **params)
    steps, _ = model.encode(batch, method.attach(model))
    for pixels, found in zip(batch.pixels, steps, strict=True):
        patches = plain_vit.embedded(model, pixels).view(model.grid.slots, model.grid.per_slot, -1)
        for step, ours in zip(patches, found, strict=True):
            x, _ = naive(model, torch.cat([model.cls_token[0], step]) + model.pos_embed[0], method, spared=1)
            torch.testing.assert_close(ours, model.norm(x[0]), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("params", FORMS, ids=str)
def test_without_anything_to_drop_it_is_dense(params: dict[str, str]) -> None:
    model, batch = network(TINY, 0), to_batch([moving_clip(n) for n in range(2)], "cpu")
    for method in (RepresentationShift("0/0/0", **params), RepresentationShift(**params).at_keep(1.0, model, [])):
        pruner = method.attach(model)
        assert torch.equal(model(batch, pruner).logits, model(batch).logits)
        assert pruner.macs((128,) * 3) == pruner.uncounted_macs() == 0


@pytest.mark.parametrize(
    ("rate", "tokens", "left"),
    [(0.2, 1568, [1255, 1004, 804]), (0.1, 1568, [1412, 1271, 1144]), (0.2, 2352, [1882, 1506, 1205]),
     (0.2, 196, [157, 126, 101])],
)  # fmt: skip
def test_counts_are_the_published_ones(rate: float, tokens: int, left: list[int]) -> None:
    found = [tokens]
    for _ in left:
        found.append(found[-1] - dropped(rate, found[-1]))
    assert found[1:] == left
    assert (dropped(40.0, 196), dropped(0.0, 196)) == (40, 0)


@pytest.mark.parametrize(
    ("dim", "depth", "rate", "gmacs"),
    [(768, 12, 0.0, 303.1), (768, 12, 0.2, 156.3), (768, 12, 0.1, 217.5),
     (1024, 24, 0.0, 984.0), (1024, 24, 0.2, 478.2), (1024, 24, 0.1, 690.1)],
)  # fmt: skip
def test_what_is_published_of_umt_follows_from_pruning_after_the_block(
    dim: int, depth: int, rate: float, gmacs: float
) -> None:
    sizes = VideoMAEConfig(dim, depth, dim // 64, frames=12, height=224, width=224, tubelet=1, patch=16, classes=1)
    with torch.device("meta"):
        model = VideoMAE(sizes)
    entering = tuple(RepresentationShift(f"{rate}/{rate}/{rate}").left(model)[:-1])
    assert entering[0] == 2352
    assert model.macs(entering, entering) / 1e9 == pytest.approx(gmacs, abs=0.1)


def test_a_keep_ratio_is_shared_out_over_three_depths() -> None:
    with torch.device("meta"):
        model = classifier("videomae_b")
    for stages, blocks in (("early", [0, 1, 2]), ("spread", [0, 3, 6])):
        method = RepresentationShift(stages=stages).at_keep(0.5, model, [])
        left = method.left(model)
        assert [layer for layer in range(12) if left[layer + 1] < left[layer]] == blocks
        assert left[-1] == pytest.approx(784, abs=3)
    with pytest.raises(UsageError, match="3 are too few"):
        RepresentationShift(stages="spread").at_keep(0.5, network(TINY, 0), [])


def scores(model: Any, x: Tensor, method: RepresentationShift) -> tuple[Tensor, Tokens]:
    """Scores of the first block for the tokens `x` `[n, D]` of one clip, and what it leaves."""
    pruner = method.attach(model)
    pruner.record = {}
    left = model.blocks[0](Tokens(x, torch.arange(len(x)), (len(x),)), pruner)
    return pruner.record["block0.score"], left


def test_a_score_is_the_distance_between_what_the_mlp_returns_and_the_stream() -> None:
    model, x = network(SIZES["square"], 3), torch.randn(64, 24)
    seen: dict[str, Tensor] = {}
    block = model.blocks[0]
    hooks = [
        block.mlp.register_forward_hook(lambda _, given, out: seen.update(made=out.clone())),
        block.norm2.register_forward_hook(lambda _, given, out: seen.update(stream=given[0].clone())),
    ]
    found, _ = scores(model, x, RepresentationShift("0.2"))
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(found, (seen["made"] - seen["stream"]).norm(dim=1), rtol=1e-5, atol=0)


def test_without_an_mlp_the_literal_score_is_the_stream_itself() -> None:
    model, x = network(SIZES["square"], 4), torch.randn(64, 24)
    for parameter in model.blocks[0].mlp.parameters():
        parameter.zero_()
    stream = x + plain_vit.attention(model, 0, x)
    torch.testing.assert_close(scores(model, x, RepresentationShift("0.5"))[0], stream.norm(dim=1), rtol=1e-5, atol=0)
    nothing, left = scores(model, x, RepresentationShift("0.5", form="residual"))
    assert nothing.eq(0).all()
    assert left.index.tolist() == list(range(32)), "of equal scores the first tokens stay"


def test_distances_scale_and_cosines_do_not() -> None:
    made, stream = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0)).unbind(0)
    for kind, factor in (("l2", 2), ("l1", 2), ("cosine", 1)):
        torch.testing.assert_close(distance(2 * made, 2 * stream, kind), factor * distance(made, stream, kind))


def test_the_mlp_looks_at_each_token_alone_and_attention_does_not() -> None:
    model, x = network(SIZES["square"], 5), torch.randn(64, 24)
    for operation, alone in (("mlp", True), ("attention", False)):
        pruner = RepresentationShift("0.2", operation=operation).attach(model)
        pruner.record = {}
        found = []
        for other in (0.0, 1.0):
            edited = x.clone()
            edited[0] += other * torch.randn(24, generator=torch.Generator().manual_seed(1))
            tokens = Tokens(edited, torch.arange(64), (64,))
            if alone:  # the stream between attention and MLP is what is edited
                block = model.blocks[0]
                block.finish(pruner.after_attention(0, tokens, None), (64,), pruner, None)  # type: ignore[arg-type]
            else:
                model.blocks[0](tokens, pruner)
            found.append(pruner.record["block0.score"][1:].clone())
        assert torch.equal(*found) == alone


@pytest.mark.parametrize("params", [{}, {"distance": "l1"}, {"distance": "cosine"}])
def test_its_cost_is_what_distances_take(params: dict[str, str]) -> None:
    model, batch = network(SIZES["square"], 0), batch_of(SIZES["square"], 1, 0)
    pruner = RepresentationShift("0.25/0/0.5", **params).attach(model)
    out = model(batch, pruner)
    own = pruner.macs(tuple(c.attention[0] for c in out.counts))
    assert own == {"l2": 1, "l1": 0, "cosine": 3}[params.get("distance", "l2")] * (64 + 48) * 24
    assert own == pruner.uncounted_macs()
    assert operators.count_operators(lambda: model(batch, pruner)) + own == out.macs[0] + own


def test_on_steps_its_cost_is_of_every_step_with_its_class_token() -> None:
    model, batch = network(STEPS, 0), batch_of(STEPS, 1, 0)
    pruner = RepresentationShift("0.3/0.2").attach(model)
    out = model(batch, pruner)
    assert pruner.macs(tuple(c.attention[0] for c in out.counts)) == pruner.uncounted_macs() > 0


@pytest.mark.parametrize(
    "params",
    [{"operation": "nothing"}, {"distance": "l3"}, {"form": "other"}, {"form": "residual", "operation": "block"},
     {"form": "residual", "distance": "cosine"}, {"stages": "late"}, {"schedule": "0.2/x"}, {"schedule": "-0.1"},
     {"schedule": "nan"}, {"schedule": "inf"}, {"schedule": "0.1/0.1/0.1/0.1/0.1"}, {"schedule": "32/32"}],
)  # fmt: skip
def test_what_means_nothing_is_refused(params: dict[str, str]) -> None:
    model = network(SIZES["square"], 0)
    assert RepresentationShift().supports(model) is None
    reason = replace(RepresentationShift(), **params).supports(model)
    assert reason
    assert "\n" not in reason


@pytest.fixture(scope="module")
def trained() -> tuple[Any, ClipBatch]:
    cells = Cells("videomae_embedded")
    assert isinstance(cells.task, Recognition)
    clips = [clip for unit in cells.units.values() for clip in unit]
    return cells.task.session.backbone, to_batch(clips, "cpu")


@pytest.mark.parametrize(("schedule", "form"), [("0.5", "literal"), ("0/0.5", "residual")])
def test_on_a_trained_network_what_moves_most_matters_most(
    schedule: str, form: str, trained: tuple[Any, ClipBatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the twelve clips it answers 10 as labelled with the upper half of the tokens, and none with the lower."""
    model, batch = trained
    pruner: Any = RepresentationShift(schedule, form=form).attach(model)
    upper = pruner.score

    def right() -> int:
        with torch.inference_mode():
            return int((model(batch, pruner).logits.argmax(-1) == torch.tensor(batch.labels)).sum())

    most = right()
    monkeypatch.setattr(pruner, "score", lambda after, before: -upper(after, before))
    assert most - right() >= 6


@pytest.mark.parametrize("seed", [0, 1])
def test_it_is_a_score_of_topk_and_of_vidtldr(seed: int) -> None:
    """Of attention: the distance of what it adds from what the block starts from, `|x' - 2 x|`, token by token."""
    model, batch = network(SIZES["oblong"], seed), batch_of(SIZES["oblong"], 2, seed)
    topk, merging = Topk(0.6, score="shift").attach(model), Vidtldr("0.3/0.2", score="shift").attach(model)
    merging.record = {}
    model(batch, merging)
    own = []
    for pixels in batch.pixels:
        x, first = plain_vit.embedded(model, pixels) + model.pos_embed, None
        for layer in range(model.depth):
            attended = plain_vit.attention(model, layer, x)
            shift = torch.tensor([naive_distance(a, b, "l2") for a, b in zip(attended, x, strict=True)])
            first = shift if first is None else first
            x = x + attended
            if layer in (1, 3, 4):
                left = math.ceil(0.6 * len(x))
                most = sorted((-float(each), place) for place, each in enumerate(shift))[:left]
                x = x[sorted(place for _, place in most)]
            x = x + plain_vit.mlp(model, layer, x)
        own.append(plain_vit.logits(model, x))
        assert first is not None
        expected = saliency(first[None])[0]
        torch.testing.assert_close(merging.record["block0.saliency"][len(own) - 1], expected, atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(model(batch, topk).logits, torch.stack(own), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("method", [Topk(0.6, score="shift"), Vidtldr("0.3/0.2", score="shift")])
def test_shifts_as_scores_cost_what_is_counted(method: Topk | Vidtldr) -> None:
    sizes = [SIZES["oblong"], *([STEPS] if isinstance(method, Topk) else [])]
    for each in sizes:
        model, batch, pruner = network(each, 0), batch_of(each, 1, 0), method.attach(network(each, 0))
        out = model(batch, pruner)
        closed = out.macs[0] + pruner.macs(tuple(counts.attention[0] for counts in out.counts))
        seen = operators.operators(partial(model, batch, pruner))
        assert seen.macs + pruner.uncounted_macs() == pytest.approx(closed, rel=1e-3)
    assert "score is" in (replace(method, score="other").supports(model) or "")
    assert "share of the attention" in (Topk(fuse=True, score="shift").supports(model) or "")
