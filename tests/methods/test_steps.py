"""RGTP on a backbone that encodes steps one by one: against a plain sequential reference, batch against alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import moving_clip
from helpers import like
from torch import Tensor

from vpbench import registry
from vpbench.api import ClipBatch, Method, Output, UsageError
from vpbench.api.method import load_method
from vpbench.backbones.vivit import TINY as CONFIG
from vpbench.backbones.vivit.network import MEAN, STD, ViViT
from vpbench.commands.contract.methods import on_flow
from vpbench.commands.contract.promise import Promise, judge
from vpbench.commands.contract.trial import Trial
from vpbench.measure import operators
from vpbench.methods.rgtp import Rgtp, tracking
from vpbench.methods.rgtp.selection import Split, pattern
from vpbench.methods.rgtp.steps import StepPruner
from vpbench.methods.rgtp.tracking import sources
from vpbench.tasks.recognition.session import to_batch

CLIPS = [moving_clip(n, CONFIG) for n in range(4)]  # type: ignore[arg-type]
SETTINGS = {
    "resets": Rgtp(0.3, reset=4, pattern="1in2"),
    "sampled": Rgtp(0.5, fg_ratio=0.5, bg_ratio=0.2, reset=3, pattern="1in4"),
    "no resets": Rgtp(0.4, reset=0),
    "no tracking": Rgtp(0.4, reset=4, radius=0),
    "far": Rgtp(0.25, reset=8, pattern="1in9", radius=2),
}


@pytest.fixture(scope="module")
def model() -> ViViT:
    torch.manual_seed(0)
    found = ViViT(CONFIG).eval()
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return found.requires_grad_(False)


def run(model: ViViT, method: Method, clips: Any = CLIPS) -> Output:
    with torch.inference_mode():
        out: Output = model(to_batch(clips, "cpu"), method.attach(model))
    return out


@pytest.mark.parametrize("name", SETTINGS)
def test_waves_change_nothing(name: str, model: ViViT) -> None:
    """All groups of steps at once, and rollout as a vector: the same as one step after the other with whole maps."""
    batch = to_batch(CLIPS, "cpu")
    expected = torch.stack([sequential(model, SETTINGS[name], pixels) for pixels in batch.pixels])
    torch.testing.assert_close(run(model, SETTINGS[name]).logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", SETTINGS)
def test_no_state_leaks(name: str, model: ViViT) -> None:
    method = SETTINGS[name]
    pruner = method.attach(model)
    with torch.inference_mode():
        together = model(to_batch(CLIPS, "cpu"), pruner).logits
        shuffled = model(to_batch(CLIPS[::-1], "cpu"), pruner).logits.flip(0)
        alone = torch.cat([model(to_batch([clip], "cpu"), pruner).logits for clip in CLIPS])
    torch.testing.assert_close(together, shuffled, atol=1e-5, rtol=0)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_keep_all_is_dense(model: ViViT) -> None:
    dense = run(model, load_method("dense")()).logits
    assert torch.equal(run(model, Rgtp().at_keep(1.0, model, [])).logits, dense)


@pytest.mark.parametrize("name", SETTINGS)
def test_operators_counted_equal_the_closed_form(name: str, model: ViViT) -> None:
    batch, pruner = to_batch(CLIPS[:1], "cpu"), SETTINGS[name].attach(model)
    with torch.inference_mode():
        out = model(batch, pruner)
    closed = out.macs[0] + pruner.macs(())
    assert isinstance(pruner, StepPruner)
    # tracking's dot products are no matrix products, so operators do not show them
    tracked = len(pruner.source) * tracking.macs(model.grid.per_slot, CONFIG.dim, SETTINGS[name].radius)
    assert pruner.uncounted_macs() == tracked
    assert operators.count_operators(lambda: model(batch, pruner)) + tracked == pytest.approx(closed, rel=1e-3)


@pytest.mark.parametrize("promise", on_flow("steps"), ids=lambda each: each.name)
@pytest.mark.parametrize("method", [each for each in registry.names("methods") if "steps" in load_method(each).flows])
def test_keeps_its_promises_on_steps(method: str, promise: Promise[Trial]) -> None:
    trial = Trial(method, like(CONFIG))
    if trial.refused() is None:
        verdict = judge(promise, trial, "")
        assert verdict.state == "kept" or (method, verdict.text) == ("dense", "it prunes nothing"), verdict.text


@pytest.mark.parametrize("keep", [0.4, 0.5, 0.8])
def test_keep_is_reached(keep: float, model: ViViT) -> None:
    method = Rgtp(reset=5).at_keep(keep, model, [])
    [last, *_] = run(model, method, CLIPS[:1]).counts[-1].mlp
    assert (last - model.grid.slots) / model.grid.tokens == pytest.approx(keep, abs=0.02)


def test_what_cannot_be_is_refused(model: ViViT) -> None:
    for wrong in (Rgtp(0.001), Rgtp(pattern="1in3"), Rgtp(reset=1), Rgtp(fg_ratio=0), Rgtp(radius=-1)):
        assert wrong.supports(model)
    with pytest.raises(UsageError, match="cannot reach keep"):
        Rgtp().at_keep(0.05, model, [])
    oblong = ViViT(replace(CONFIG, width=64))
    assert "square" in (Rgtp().supports(oblong) or "")
    stride = load_method("frame_stride")()
    assert "temporal encoder" in (model.refuses(stride.attach(model)) or "")


def sequential(model: ViViT, method: Rgtp, pixels: Tensor) -> Tensor:
    """Classify one clip `[T, H, W, 3]` step by step, written down from the method's definition; returns `[classes]`."""
    grid, t = model.grid, model.config.tubelet
    frames = ((pixels.float() / 255 - MEAN) / STD).permute(3, 0, 1, 2)
    embedded = model.patch_embed.proj(frames[None])[0].permute(1, 2, 3, 0).reshape(grid.slots, grid.per_slot, -1)
    assert frames.shape[1] == grid.slots * t
    heat, classes = torch.zeros(grid.per_slot), []
    for step in range(grid.slots):
        every = torch.arange(grid.per_slot)
        if step == 0:
            kept, dropped = every, every[:0]
        elif method.reset and step % method.reset == 0:
            kept, dropped = pattern(method.pattern, grid.rows, grid.cols)
        else:
            source = every
            if method.radius:
                source = naive_sources(embedded[step], embedded[step - 1], grid.rows, method.radius)
            (kept,), (dropped,) = Split(method.keep_ratio, method.fg_ratio, method.bg_ratio)(heat[source][None])
        out, heat = one_step(model, embedded[step], kept, dropped)
        classes.append(out)
    return model.classify(torch.stack(classes)[None])[0]


def one_step(model: ViViT, embedded: Tensor, kept: Tensor, dropped: Tensor) -> tuple[Tensor, Tensor]:
    x = torch.cat([model.cls_token[0], embedded]) + model.pos_embed[0]
    own = torch.cat([torch.zeros(1, dtype=torch.int64), kept + 1])
    product = None
    nearest = dropped
    for number, block in enumerate(model.blocks):
        block_: Any = block
        heads, width = model.heads, model.key_width
        q, k, v = block_.attn.qkv(block_.norm1(x)).view(len(x), 3, heads, width).unbind(1)
        p = torch.einsum("ihd,jhd->hij", q / width**0.5, k).softmax(-1)
        x = x + block_.attn.proj(torch.einsum("hij,jhd->ihd", p, v).flatten(1))
        a = (p.square().mean(0).sqrt() + torch.eye(len(x))) / 2
        a = a / a.sum(1, keepdim=True)
        if number == 0:
            metric = k.mean(1)[1:]
            nearest = (metric[dropped] @ metric[kept].T).argmax(1) if len(dropped) else dropped
            x, a = x[own], a[own][:, own]
        x = x + block_.mlp(block_.norm2(x))
        product = a if product is None else a @ product
    assert product is not None
    scores = torch.zeros(model.grid.per_slot)
    scores[kept] = product[0, 1:]
    scores[dropped] = scores[kept[nearest]]
    return model.norm(x[0]), scores / scores.sum()


def naive_sources(now: Tensor, before: Tensor, side: int, radius: int) -> Tensor:
    found = []
    for y in range(side):
        for x in range(side):
            best, source = -torch.inf, 0
            for dy in range(-radius, radius + 1):
                for dx in range(-radius, radius + 1):
                    inside = 0 <= y + dy < side and 0 <= x + dx < side
                    at = (y + dy) * side + x + dx if inside else 0
                    similarity = float(now[y * side + x] @ before[at]) if inside else 0.0
                    similarity = -100.0 if similarity == 0 else similarity
                    if similarity > best:
                        best, source = similarity, at
            found.append(source)
    return torch.tensor(found)


def test_still_areas_and_areas_beyond_the_grid() -> None:
    """Equal embeddings: the first neighbour in the grid; all similarities below the outside's: token 0."""
    same = torch.ones(1, 9, 4)
    assert sources(same, same, 3, 3, 1)[0].tolist() == [0, 0, 1, 0, 0, 1, 3, 3, 4]
    hostile = sources(100 * same, -100 * same, 3, 3, 1)[0]
    assert hostile.tolist() == [0, 0, 0, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("split", "tokens", "kept"),
    [(Split(0.75, 1, 0.25), 400, 325), (Split(0.45, 1, 0.16666), 400, 217), (Split(0.3, 1, 0.05), 400, 134),
     (Split(0.4, 0.5, 0.09), 400, 102), (Split(0.24, 0.5, 0.03), 400, 58), (Split(0.14, 0.5, 0), 400, 28),
     (Split(0.49), 196, 96), (Split(0.215), 196, 42), (Split(0.066), 196, 13)],
)  # fmt: skip
def test_published_settings_keep_their_counts(split: Split, tokens: int, kept: int) -> None:
    scores = torch.rand(2, tokens)
    chosen, others = split(scores)
    assert split.count(tokens) == kept == chosen.shape[1]
    assert torch.cat([chosen, others], dim=1).sort(dim=1).values.tolist() == [list(range(tokens))] * 2


def test_clips_batch(model: ViViT) -> None:
    batch = ClipBatch(to_batch(CLIPS[:1], "cpu").pixels, ("a",))
    with torch.inference_mode():
        assert model(batch).logits.shape == (1, CONFIG.classes)
