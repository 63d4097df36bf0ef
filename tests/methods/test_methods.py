"""Each method against its definition written out with loops and whole attention maps."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import TINY, moving_clip
from torch import Tensor

from vpbench.api import ClipBatch, Grid, Pruner, Tokens, Trace, stage_blocks
from vpbench.api.attention import attend_with_lse
from vpbench.api.method import load_method
from vpbench.backbones.videomae import VideoMAEConfig
from vpbench.backbones.videomae.network import VideoMAE
from vpbench.methods import ats, rlt, vidtldr
from vpbench.tasks.recognition.session import to_batch

B, N, H, W, D = 2, 21, 3, 8, 24
CONFIG = VideoMAEConfig(dim=24, depth=6, heads=3, frames=6, height=28, width=4, tubelet=2, patch=4, classes=5)


@pytest.fixture(scope="module")
def model() -> VideoMAE:
    torch.manual_seed(0)
    return VideoMAE(CONFIG).eval().requires_grad_(False)


def state(seed: int = 0, sized: bool = False) -> tuple[Tokens, Trace]:
    generator = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, B * N, H, W, generator=generator).unbind(0)
    _, lse = attend_with_lse(2 * q, k, v, (N,) * B)
    x = torch.randn(B * N, D, generator=generator)
    index = torch.arange(N).repeat(B)
    size = torch.randint(1, 4, (B * N,), generator=generator).float() if sized else None
    return Tokens(x, index, (N,) * B, size), Trace(2 * q, k, v, (N,) * B, lse)


def maps(trace: Trace) -> Tensor:
    """Attention maps `[B, H, N, N]` without any size bias."""
    q, k = (t.view(B, N, H, W).transpose(1, 2) for t in (trace.queries, trace.keys))
    return (q @ k.transpose(-2, -1) * W**-0.5).softmax(-1)


def make(name: str, model: VideoMAE, **params: Any) -> Pruner:
    method = load_method(name)(**params)
    assert method.supports(model) is None
    return method.attach(model)


def close(ours: Tensor, brute: Tensor) -> None:
    torch.testing.assert_close(ours, brute, atol=1e-5, rtol=1e-5)


def cosines(x: Tensor) -> Tensor:
    return F.cosine_similarity(x[:, None], x[None], dim=-1, eps=0)


def pair_up(similarity: Tensor, r: int) -> tuple[list[tuple[int, int, float]], list[int]]:
    """Pairs (source, partner, score) among positions, the r best even-to-odd ones, and the other even ones by score."""
    odd = range(1, len(similarity), 2)
    found = [
        (a, *max(((b, float(similarity[a, b])) for b in odd), key=lambda p: p[1])) for a in range(0, len(similarity), 2)
    ]
    found.sort(key=lambda p: -p[2])
    return found[:r], [a for a, _, _ in found[r:]]


def merged(x: Tensor, size: Tensor, sources: dict[int, list[int]], stay: list[int]) -> tuple[Tensor, Tensor]:
    rows = [[i, *sources.get(i, [])] for i in stay]
    total = torch.stack([size[row].sum() for row in rows])
    return torch.stack([(x[row] * size[row, None]).sum(0) for row in rows]) / total[:, None], total


@pytest.mark.parametrize("sized", [False, True])
@pytest.mark.parametrize("form", ["merge", "drop", "hybrid"])
def test_tome(form: str, sized: bool, model: VideoMAE) -> None:
    tokens, trace = state(1, sized)
    ours = make("tome", model, r=6, form=form, threshold=0.65).after_attention(0, tokens, trace)
    size = torch.ones(B * N) if tokens.size is None else tokens.size
    for b in range(B):
        own = slice(b * N, (b + 1) * N)
        pairs, rest = pair_up(cosines(trace.keys[own].mean(1)), 6)
        stay = [*rest, *range(1, N, 2)]
        x, mass = tokens.x[own], size[own].clone()
        if form == "drop":
            expected, total = x[stay], mass[stay]
        else:
            sources: dict[int, list[int]] = {}
            for a, partner, _ in pairs:
                sources.setdefault(partner, []).append(a)
            if form == "hybrid":
                for partner in sources:
                    if max(score for _, p, score in pairs if p == partner) < 0.65:
                        mass[partner] = 0
            expected, total = merged(x, mass, sources, stay)
        close(ours.x.view(B, -1, D)[b], expected)
        assert ours.index.view(B, -1)[b].tolist() == stay
        if ours.size is not None:
            close(ours.size.view(B, -1)[b], total)


def test_tome_hybrid_replaces_some_partners(model: VideoMAE) -> None:
    tokens, trace = state(1)
    plain, hybrid = (
        make("tome", model, r=6, form=f, threshold=0.65).after_attention(0, tokens, trace) for f in ("merge", "hybrid")
    )
    assert plain.size is not None
    assert hybrid.size is not None
    assert 0 < plain.size.sum() - hybrid.size.sum() <= 12


def test_tome_random_merge_depends_on_the_clip_alone(model: VideoMAE) -> None:
    tokens, trace = state()
    pruner = make("tome", model, r=6, form="random_merge")
    found = []
    for ids in (("a", "b"), ("a", "c")):
        pruner.resample(ClipBatch(torch.empty(0), ids))
        found.append(pruner.after_attention(0, tokens, trace).index.view(B, -1))
    assert torch.equal(found[0][0], found[1][0])
    assert not torch.equal(found[0][1], found[1][1])
    assert pruner.macs((21,) * 6) == 0


@pytest.mark.parametrize(("fuse", "keyframe"), [(False, -1), (True, -1), (False, 1)])
def test_topk(fuse: bool, keyframe: int, model: VideoMAE) -> None:
    tokens, trace = state(2)
    ours = make("topk", model, rho=0.7, fuse=fuse, keyframe=keyframe).after_attention(3, tokens, trace)
    score = maps(trace).mean(dim=(1, 2))  # [B, N]: mean over heads and queries
    for b in range(B):
        ranked = score[b].clone()
        if keyframe >= 0:
            ranked[7:14] = torch.inf
        order = ranked.argsort(descending=True).tolist()
        kept, dropped = sorted(order[:15]), order[15:]
        index, x = ours.index.view(B, -1)[b].tolist(), ours.x.view(B, -1, D)[b]
        assert index[:15] == kept
        close(x[:15], tokens.x[b * N + torch.tensor(kept)])
        if fuse:
            assert index[15:] == dropped[:1]
            close(x[15], (score[b, dropped, None] * tokens.x[b * N + torch.tensor(dropped)]).sum(0))
        else:
            assert len(index) == 15


def test_topk_acts_at_a_quarter_a_half_and_three_quarters(model: VideoMAE) -> None:
    assert stage_blocks(12) == (3, 6, 9)
    assert stage_blocks(24) == (6, 12, 18)
    tokens, trace = state()
    pruner = make("topk", model)
    assert [pruner.after_attention(layer, tokens, trace) is tokens for layer in range(6)] == [
        True,
        False,
        True,
        False,
        False,
        True,
    ]
    assert [pruner.wants_received(layer) for layer in range(6)] == [False, True, False, True, True, False]


@pytest.mark.parametrize(("layer", "steps"), [(1, 5), (3, 1)])
def test_wpr_is_a_power_iteration(layer: int, steps: int, model: VideoMAE) -> None:
    tokens, trace = state(3)
    pruner = make("wpr", model, rho=0.7)
    pruner.record = {}
    ours = pruner.after_attention(layer, tokens, trace)
    rank = torch.full((B, H, N), 1 / N)
    for _ in range(steps):
        rank = torch.einsum("bhij,bhi->bhj", maps(trace), rank)
    close(pruner.record[f"block{layer}.score"].view(B, N), rank.mean(1))
    best = rank.mean(1).topk(15, dim=1).indices.sort(dim=1).values
    assert torch.equal(ours.index.view(B, -1), best)


@pytest.mark.parametrize("sized", [False, True])
def test_vidtldr(sized: bool, model: VideoMAE) -> None:
    tokens, trace = state(4, sized)
    ours = make("vidtldr", model, schedule="0.3/2").after_attention(0, tokens, trace)
    size = torch.ones(B * N) if tokens.size is None else tokens.size
    mean = maps(trace).mean(1)
    for b in range(B):
        own = slice(b * N, (b + 1) * N)
        entropy = (mean[b] * mean[b].log()).sum(-1)
        s = (entropy - entropy.min()) / (entropy.max() - entropy.min())
        weight = (s - s.mean()) / (s - s.mean()).max()
        weight[s < s.mean()] = 0
        pairs, rest = pair_up(cosines(tokens.x[own]), int(0.3 * N))
        mass, sources = size[own].clone(), dict[int, list[int]]()
        for a, partner, _ in pairs:
            sources.setdefault(partner, []).append(a)
            mass[a] *= weight[a]
        stay = [*sorted(rest), *range(1, N, 2)]
        expected, total = merged(tokens.x[own], mass, sources, stay)
        assert ours.index.view(B, -1)[b].tolist() == stay
        close(ours.x.view(B, -1, D)[b], expected)
        assert ours.size is not None
        close(ours.size.view(B, -1)[b], total)


def test_vidtldr_saliency_of_equal_rows_is_zero() -> None:
    assert vidtldr.saliency(torch.full((1, 5), -2.0)).tolist() == [[0.0] * 5]


@pytest.mark.parametrize("layer", [1, 4])
def test_pitome(layer: int, model: VideoMAE) -> None:
    tokens, trace = state(5)
    ours = make("pitome", model, ratio=0.8).after_attention(layer, tokens, trace)
    r = math.floor(N - N * 0.8)
    for b in range(B):
        own = slice(b * N, (b + 1) * N)
        similarity = cosines(trace.keys[own].mean(1))
        energy = F.elu(similarity - 0.75 * (1 - layer / 6)).mean(-1)
        order = energy.argsort(descending=True).tolist()
        taking_part = order[: 2 * r] if layer < 3 else order
        protected = order[2 * r :] if layer < 3 else []
        pairs, rest = pair_up(similarity[taking_part][:, taking_part], r)
        sources: dict[int, list[int]] = {}
        for a, partner, _ in pairs:
            sources.setdefault(taking_part[partner], []).append(taking_part[a])
        stay = [*protected, *(taking_part[i] for i in rest), *taking_part[1::2]]
        expected, total = merged(tokens.x[own], torch.ones(N), sources, stay)
        assert ours.index.view(B, -1)[b].tolist() == stay
        close(ours.x.view(B, -1, D)[b], expected)
        assert ours.size is not None
        close(ours.size.view(B, -1)[b], total)


def test_ats(model: VideoMAE) -> None:
    tokens, trace = state(6)
    ours = make("ats", model, budget=0.7).after_attention(1, tokens, trace)
    value = trace.values.view(B, N, H, W).norm(dim=-1)
    score = torch.einsum("bhij,bjh->bj", maps(trace), value)
    for b, index in enumerate(ours.index.split(ours.lengths)):
        cumulative = (score[b] / (score[b].sum() + 1e-6)).double().cumsum(0)
        points = math.ceil(0.7 * N)
        picked = {int((cumulative - (2 * i - 1) / (2 * points)).abs().argmin()) for i in range(1, points + 1)}
        assert index.tolist() == sorted(picked)


def test_ats_samples_all_tokens_of_even_scores() -> None:
    assert ats.sample(torch.ones(8), (8,), 1.0).index.tolist() == list(range(8))
    # the first step lies nearer to 0 than to 1; a clip beside it, of other length, changes nothing
    kept = ats.sample(torch.tensor([0.0, 0.0, 1.0, 0.0, 1.0, 1.0]), (4, 2), 1.0)
    assert (kept.index.tolist(), kept.clip.tolist(), kept.lengths) == ([1, 2, 0, 1], [0, 0, 1, 1], (2, 2))


@pytest.mark.parametrize("score", [0.0, math.nan])
def test_ats_leaves_tokens_where_scores_say_nothing(score: float) -> None:
    kept = ats.sample(torch.cat([torch.full((4,), score), torch.ones(6)]), (4, 6), 1.0)
    assert min(kept.lengths) > 0
    assert kept.lengths[1] == 6
    assert int(kept.index[kept.clip == 0].max()) < 4


def test_ats_samples_clips_of_different_lengths_as_if_alone() -> None:
    lengths = (37, 64, 5, 50)
    score = torch.rand(sum(lengths), generator=torch.Generator().manual_seed(0))
    kept = ats.sample(score, lengths, 0.7)
    alone = [ats.sample(each, (len(each),), 0.7) for each in score.split(lengths)]
    assert kept.lengths == tuple(n for each in alone for n in each.lengths)
    assert kept.index.tolist() == [n for each in alone for n in each.index.tolist()]


def test_run_lengths() -> None:
    keep = torch.rand(3, 6, 5, generator=torch.Generator().manual_seed(0)) > 0.5
    keep[:, 0] = True
    ours = rlt.run_lengths(keep)
    for b, t, place in keep.nonzero().tolist():
        later = [u for u in range(t + 1, 6) if keep[b, u, place]]
        assert ours[b, t, place] == (later or [6])[0] - t


def test_run_length_embeddings_are_read_where_the_weights_have_them() -> None:
    torch.manual_seed(0)
    model = VideoMAE(VideoMAEConfig(**{**vars(TINY), "run_lengths": True})).eval()
    batch = to_batch([moving_clip(n) for n in range(2)], "cpu")
    pruner = load_method("rlt")().attach(model)
    selection = pruner.video(batch)
    assert selection is not None
    assert selection.run_lengths is not None
    table = model.length_embed
    assert table is not None
    plain = model.embed(batch.pixels, type(selection)(selection.index, selection.clip, selection.lengths)).x
    with torch.inference_mode():
        added = model.embed(batch.pixels, selection).x - plain
        torch.testing.assert_close(added, table[0, selection.run_lengths - 1] - table[0, 0], atol=1e-6, rtol=0)
    assert model.refuses(pruner) is None
    assert model.refuses(load_method("dense")().attach(model)) is None
    assert model.refuses(load_method("tome")().attach(model)) is None
    assert "run-length" in str(model.refuses(load_method("random")().attach(model)))


def test_frame_stride_takes_frames() -> None:
    pixels = torch.arange(16).view(1, 16, 1, 1, 1).expand(1, 16, 32, 32, 3).to(torch.uint8)
    torch.manual_seed(0)
    model = VideoMAE(TINY).eval()
    for stride, frames in ((2.0, [0, 2, 4, 6, 8, 10, 12, 14]), (8 / 3, [0, 2, 5, 8, 10, 13]), (8.0, [0, 8])):
        taken = make("frame_stride", model, stride=stride).resample(ClipBatch(pixels, ("a",))).pixels
        assert taken[0, :, 0, 0, 0].tolist() == frames
    selection = make("frame_stride", model, stride=2.0, unit="slot").video(ClipBatch(pixels, ("a",)))
    assert selection is not None
    assert sorted(set((selection.index // 16).tolist())) == [0, 2, 4, 6]
    assert selection.lengths == (64,)


def test_downsample_keeps_aspect_and_range() -> None:
    torch.manual_seed(0)
    model = VideoMAE(TINY).eval()
    batch = to_batch([moving_clip(0)], "cpu")
    small = make("downsample", model, scale=0.5).resample(batch).pixels
    assert small.shape == (1, 16, 16, 16, 3)
    assert small.dtype == torch.uint8
    whole, half = batch.pixels.float().mean(), small.float().mean()
    assert abs(whole - half) < 2
    assert make("downsample", model, scale=1.0).resample(batch) is batch


def test_positions_are_interpolated_on_three_axes() -> None:
    """A table that is linear in the coordinates stays linear: inner points land where their centres are."""
    from vpbench.backbones.plain import interpolate

    source, target = Grid(8, 4, 4), Grid(4, 4, 4)
    slot = torch.arange(8.0)[:, None, None].expand(8, 4, 4).flatten()[:, None]
    assert interpolate(slot, source, target).view(4, 16)[:, 0].tolist() == [0.5, 2.5, 4.5, 6.5]


def test_random_tube_and_centre_choose_places() -> None:
    torch.manual_seed(0)
    model = VideoMAE(TINY).eval()
    batch = to_batch([moving_clip(n) for n in range(2)], "cpu")
    tube = make("random_tube", model, keep=0.25).video(batch)
    assert tube is not None
    per_slot = tube.index.view(2, 8, 4) - 16 * torch.arange(8)[None, :, None]
    assert (per_slot == per_slot[:, :1]).all()
    assert not torch.equal(per_slot[0], per_slot[1])
    centre = make("centre", model, keep=0.25).video(batch)
    assert centre is not None
    assert sorted(set((centre.index % 16).tolist())) == [5, 6, 9, 10]


def test_oracle_values_are_gradients_of_the_true_class() -> None:
    torch.manual_seed(0)
    model = VideoMAE(TINY).eval()
    batch = to_batch([moving_clip(n) for n in range(3)], "cpu")
    pruner = make("oracle", model, keep=0.25)
    pruner.record = {}
    with torch.inference_mode():
        pruner.video(batch)
    tokens = model.embed(batch.pixels)
    for block in list(model.blocks)[:-1]:
        tokens = block(tokens)
    x = tokens.x.detach().requires_grad_()
    logits = model.classify(model.blocks[-1](tokens.with_x(x)))
    assert batch.labels is not None
    for b, label in enumerate(batch.labels):
        [slope] = torch.autograd.grad(logits[b, label], x, retain_graph=True)
        own = slice(b * 128, (b + 1) * 128)
        brute = torch.relu((slope[own].mean(0) * x[own]).sum(-1))
        close(pruner.record["value"][b], brute.detach())
    assert all(p.grad is None for p in model.parameters())
