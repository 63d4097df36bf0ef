"""EVS moved into the encoder: against its definition, clip by clip and place by place, and what follows from it."""

from __future__ import annotations

import math
import re
from typing import Any

import plain_vit
import pytest
import torch
from conftest import TINY, moving_clip
from torch import Tensor

from vpbench.api import ClipBatch, Grid, Pruner, Tokens, UsageError
from vpbench.api.backbone import classifier
from vpbench.api.method import load_method
from vpbench.backbones.videomae import VideoMAEConfig
from vpbench.backbones.videomae.network import VideoMAE
from vpbench.backbones.vivit import TINY as STEPS
from vpbench.backbones.vivit.network import ViViT
from vpbench.measure import operators
from vpbench.methods.evs import Evs, differences
from vpbench.methods.tdiff import Tdiff
from vpbench.tasks.recognition.session import to_batch

SIZES = {
    "square": VideoMAEConfig(24, 4, 3, frames=16, height=16, width=16, tubelet=2, patch=4, classes=5),
    "oblong": VideoMAEConfig(32, 6, 2, frames=6, height=28, width=8, tubelet=2, patch=4, classes=7),
    "single frames": VideoMAEConfig(16, 8, 2, frames=5, height=12, width=12, tubelet=1, patch=4, classes=3),
}


def network(sizes: Any, seed: int) -> Any:
    torch.manual_seed(seed)
    model = (VideoMAE if isinstance(sizes, VideoMAEConfig) else ViViT)(sizes).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.requires_grad_(False)


def pixels_of(sizes: Any, clips: int, seed: int) -> Tensor:
    """Noise of uint8 that half of all places share with the frame before."""
    shape = (clips, sizes.frames, sizes.height, sizes.width, 3)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, 256, shape, generator=generator)
    return (noise * torch.rand(shape, generator=generator).round() // 2 + noise[:, :1] // 2).to(torch.uint8)


def batch_of(pixels: Tensor) -> ClipBatch:
    return ClipBatch(pixels, tuple(f"clip{n}" for n in range(len(pixels))))


def naive(features: Tensor, grid: Grid, q: float, count: str) -> list[int]:
    """Positions that stay of one clip with `features` `[N, D]`: steps 1 to 5 of the definition."""
    places, slots = grid.per_slot, grid.slots
    score = [math.inf] * places
    for n in range(places, slots * places):
        now, before = features[n].tolist(), features[n - places].tolist()
        product = math.fsum(a * b for a, b in zip(now, before, strict=True))
        longest = [max(math.sqrt(math.fsum(a * a for a in each)), 1e-8) for each in (now, before)]
        different = 1 - product / (longest[0] * longest[1])
        score.append(0.0 if different < 1e-6 else different)
    if count == "code":
        left = max(places, int(slots * places * (1 - q) + 1e-9))
    else:
        threshold = torch.quantile(torch.tensor(score[places:], dtype=torch.float64), q)
        left = places + sum(s >= float(threshold) for s in score[places:])
    order = sorted(range(len(score)), key=lambda n: (-score[n], n))
    return sorted(order[:left])


@pytest.mark.parametrize("count", ["code", "quantile"])
@pytest.mark.parametrize("form", ["patches", "depth"])
@pytest.mark.parametrize(("sizes", "seed", "q"), [("square", 0, 0.3), ("oblong", 1, 0.6), ("single frames", 2, 0.45)])
def test_it_is_what_its_definition_says(sizes: str, seed: int, q: float, form: str, count: str) -> None:
    model = network(SIZES[sizes], seed)
    method, batch = Evs(q, form, count), batch_of(pixels_of(SIZES[sizes], 3, seed))
    out = model(batch, method.attach(model))
    before = model.depth // 4 if form == "depth" else 0
    for clip, pixels in enumerate(batch.pixels):
        features = plain_vit.embedded(model, pixels)
        x = features + model.pos_embed
        for layer in range(before):
            x = features = plain_vit.run_block(model, layer, x)
        kept = naive(features, model.grid, q, count)
        assert out.counts[-1].mlp[clip] == len(kept) < model.grid.tokens
        x = x[kept]
        for layer in range(before, model.depth):
            x = plain_vit.run_block(model, layer, x)
        torch.testing.assert_close(out.logits[clip], plain_vit.logits(model, x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("seed", [0, 1])
def test_on_steps_it_selects_the_same(seed: int) -> None:
    model = network(STEPS, seed)
    batch = batch_of(pixels_of(STEPS, 2, seed))
    selection = Evs(0.4).attach(model).video(batch)
    assert selection is not None
    for pixels, kept in zip(batch.pixels, selection.index.split(selection.lengths), strict=True):
        assert kept.tolist() == naive(plain_vit.embedded(model, pixels), model.grid, 0.4, "code")


@pytest.mark.parametrize("params", [{}, {"form": "depth"}, {"count": "quantile"}])
def test_without_a_share_to_drop_it_is_dense(params: dict[str, Any]) -> None:
    model, batch = network(TINY, 0), to_batch([moving_clip(n) for n in range(2)], "cpu")
    for method in (Evs(0.0, **params), Evs(**params).at_keep(1.0, model, [])):
        pruner = method.attach(model)
        assert torch.equal(model(batch, pruner).logits, model(batch).logits)
        assert pruner.macs((256,) * 3) == pruner.uncounted_macs() == 0


def test_counts_are_those_of_the_code_and_of_the_paper() -> None:
    grid = Grid(8, 14, 14)
    assert [Evs(q).kept(grid) for q in (0.25, 0.5, 0.75, 0.875, 0.9)] == [1176, 784, 392, 196, 196]
    assert [Evs(q, count="quantile").kept(grid) for q in (0.0, 0.5, 0.75)] == [1568, 882, 539]
    assert Evs(0.9).kept(Grid(1000, 1, 1)) == 100, "a product of 99.99.. is 100"
    assert {Evs(0.9, count=each).kept(Grid(1, 4, 4)) for each in ("code", "quantile")} == {16}, "slot 0 stays"
    for slots, q in ((2, 0.3), (5, 0.5), (8, 0.7), (8, 1.0)):
        scores = torch.rand(49 * (slots - 1), dtype=torch.float64, generator=torch.Generator().manual_seed(slots))
        above = int((scores >= scores.quantile(q)).sum())
        assert Evs(q, count="quantile").kept(Grid(slots, 7, 7)) == 49 + above


@pytest.mark.parametrize("count", ["code", "quantile"])
def test_a_keep_ratio_is_the_share_that_is_kept(count: str) -> None:
    model = network(TINY, 0)
    for keep in (0.125, 0.3, 0.5, 0.77, 1.0):
        assert Evs(count=count).at_keep(keep, model, []).kept(model.grid) == pytest.approx(128 * keep, abs=1)
    with pytest.raises(UsageError, match="slot 0 of 8 is always kept"):
        Evs(count=count).at_keep(0.12, model, [])


def selected(method: Any, model: VideoMAE, pixels: Tensor) -> list[int]:
    selection = method.attach(model).video(batch_of(pixels[None]))
    assert selection is not None
    kept: list[int] = selection.index.tolist()
    return kept


@pytest.mark.parametrize("method", [Evs(0.5), Tdiff(0.5, "tubelet")])
def test_a_still_clip_keeps_the_first_places_in_order(method: Any) -> None:
    model = network(TINY, 0)
    frame = pixels_of(TINY, 1, 3)[0, :1]
    assert selected(method, model, frame.expand(16, -1, -1, -1).contiguous()) == list(range(64))


def test_of_one_place_that_changes_both_sides_of_the_change_stay() -> None:
    model, place = network(TINY, 0), 6
    pixels = pixels_of(TINY, 1, 4)[0, :1].repeat(16, 1, 1, 1)
    side = TINY.patch
    row, col = divmod(place, model.grid.cols)
    pixels[10:12, row * side : (row + 1) * side, col * side : (col + 1) * side] = 200
    places = model.grid.per_slot
    kept = [*range(places), 5 * places + place, 6 * places + place]
    assert selected(Evs(1 - len(kept) / model.grid.tokens), model, pixels) == kept


@pytest.mark.parametrize("q", [0.25, 0.5, 0.75])
def test_by_pixels_it_is_tdiff_and_says_so(q: float) -> None:
    """The rows of both would be the same, so that one of them is refused, and drawn nowhere."""
    model = network(TINY, 0)
    pixels = pixels_of(TINY, 1, 5)[0]
    reason = Evs(q, "pixels").supports(model) or ""
    [(pair, keep)] = re.findall(r"tdiff\.pair=(\w+) --set tdiff\.keep=(\S+), which", reason)
    assert (pair, float(keep)) == ("tubelet", 1 - q)
    volume = model.normalise(pixels).view(8, 2, 4, TINY.patch, 4, TINY.patch, 3)
    scores = (volume[1:] - volume[:-1]).abs().sum(dim=(1, 3, 5, 6)).flatten().tolist()
    order = sorted(range(len(scores)), key=lambda n: (-scores[n], n))[: round(128 * (1 - q)) - 16]
    assert selected(Tdiff(float(keep), pair), model, pixels) == [*range(16), *sorted(16 + n for n in order)]


def test_cosines_do_not_see_scale_and_do_see_offsets() -> None:
    features = torch.randn(2, 4, 9, 16, generator=torch.Generator().manual_seed(0))
    plain, scaled = differences(features), features.clone()
    scaled[:, 2] *= 3
    torch.testing.assert_close(differences(scaled), plain, atol=1e-6, rtol=0)
    gap = (features[:, 1:] - features[:, :-1]).abs().sum(-1)
    assert not torch.allclose((scaled[:, 1:] - scaled[:, :-1]).abs().sum(-1), gap)
    moved = features + torch.ones(16)
    assert not torch.allclose(differences(moved), plain, atol=1e-2)
    torch.testing.assert_close((moved[:, 1:] - moved[:, :-1]).abs().sum(-1), gap)


def test_what_is_equal_in_half_precision_ties_exactly() -> None:
    features = torch.randn(1, 1, 50, 64).expand(1, 3, -1, -1)
    for kind in (torch.float32, torch.bfloat16):
        assert differences(features.to(kind)).eq(0).all()
        assert differences(features.to(kind)).dtype == torch.float32


def test_its_cost_is_that_of_embedding_all_once_more_and_of_cosines() -> None:
    with torch.device("meta"):
        model = classifier("videomae_b")
    patches, depth = (Evs(0.5, form).attach(model) for form in ("patches", "depth"))
    cosines = (1568 - 196) * 768 + 1568 * 768
    assert depth.macs((1568,) * 3 + (784,) * 9) == cosines == pytest.approx(2.26e6, rel=2e-3)
    assert patches.macs((784,) * 12) == 1568 * 1536 * 768 + cosines == pytest.approx(1.852e9, rel=1e-3)


@pytest.mark.parametrize("form", ["patches", "depth"])
def test_operators_counted_equal_the_closed_form(form: str) -> None:
    model, batch = network(SIZES["square"], 0), batch_of(pixels_of(SIZES["square"], 1, 0))
    pruner = Evs(0.5, form).attach(model)
    out = model(batch, pruner)
    closed = out.macs[0] + pruner.macs(tuple(c.attention[0] for c in out.counts))
    assert operators.count_operators(lambda: model(batch, pruner)) + pruner.uncounted_macs() == closed


def test_depth_is_a_quarter_down_and_only_once() -> None:
    model = network(SIZES["oblong"], 0)

    def acts(pruner: Pruner) -> list[int]:
        tokens = Tokens(torch.randn(42, 32), torch.arange(42), (42,))
        return [layer for layer in range(6) if pruner.after_block(layer, tokens) is not tokens]

    assert acts(Evs(0.5, "depth").attach(model)) == [0]
    assert acts(Evs(0.5, "depth", depth=4).attach(model)) == [4]
    with torch.device("meta"):
        assert vars(Evs(0.5, "depth").attach(classifier("videomae_b")))["block"] == 2


def test_rows_say_that_it_is_an_adaptation() -> None:
    model = network(TINY, 0)
    assert "adaptation" in load_method("evs").reference
    assert "the paper prunes after it" in Evs().attach(model).caveat
    assert "one by one here" in (Evs(form="depth").supports(network(STEPS, 0)) or "")
