"""VideoSwin against a slow reference and torchvision, its closed form against an operator counter, training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpbench.api import DENSE, ClipBatch, Grid, Output, Pruner
from vpbench.backbones import layers
from vpbench.backbones.checkpoints.reading import load_strictly
from vpbench.backbones.videoswin import (
    VIDEOSWIN_B,
    VIDEOSWIN_S,
    VIDEOSWIN_T,
    VideoSwinConfig,
    layouts,
    network,
    windows,
)
from vpbench.backbones.videoswin.network import Block, PatchMerging, Stage, VideoSwin, WindowAttention
from vpbench.measure.operators import count_operators

TINY = VideoSwinConfig(
    dim=8, depths=(2, 3), heads=(1, 2), frames=16, height=48, width=40, window=(4, 3, 5), mlp_ratio=2.0, classes=5
)
#: frames, height and width of clips, the grid that they become
SIZES = {
    (16, 48, 40): (8, 12, 10),  # whole windows: nothing is padded
    (10, 44, 52): (5, 11, 13),  # depth and odd sides padded, merging pads a column
    (7, 30, 41): (4, 8, 11),  # patches padded, one window deep, so no shift in time
    (18, 8, 36): (9, 2, 9),  # rows fewer than the window's
    (4, 8, 8): (2, 2, 2),  # smaller than the window all around: one window, the index wrong as published
}
Counted = list[int]


@dataclass
class First(Pruner):
    """Keep the first slots before stage 0."""

    slots: int

    def stage(self, block: int, x: Tensor) -> Tensor:
        return x[:, : self.slots] if block == 0 else x


def random_model(config: VideoSwinConfig = TINY, seed: int = 0) -> VideoSwin:
    """A model with random weights large enough to make tokens and their places matter."""
    torch.manual_seed(seed)
    model = VideoSwin(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def random_clips(clips: int, size: tuple[int, int, int], seed: int = 1) -> Tensor:
    return torch.randn(clips, *size, 3, generator=torch.Generator().manual_seed(seed))


def batch_of(pixels: Tensor) -> ClipBatch:
    return ClipBatch(pixels, tuple(map(str, range(len(pixels)))))


def run(model: VideoSwin, pixels: Tensor, pruner: Pruner = DENSE) -> Output:
    with torch.inference_mode():
        output: Output = model(batch_of(pixels), pruner)
    return output


def padded(x: Tensor, multiples: tuple[int, ...]) -> Tensor:
    """Zeros on the far sides of `[D, H, W, C]`, to multiples."""
    far = [-n % m for n, m in zip(x.shape, multiples, strict=False)]
    return F.pad(x, [0, 0, 0, far[2], 0, far[1], 0, far[0]])


def region(place: int, length: int, window: int, shift: int) -> int:
    """The part of a rolled axis that was together before it was rolled."""
    return 0 if shift == 0 or place < length - window else 1 if place < length - shift else 2


def slow_bias(attention: WindowAttention, tokens: int) -> Tensor:
    """`[tokens, tokens, heads]`, entry by entry; always by the places of the full window."""
    d, h, w = attention.window
    places = list(product(range(d), range(h), range(w)))[:tokens]
    rows = [
        ((qd - kd + d - 1) * (2 * h - 1) + qh - kh + h - 1) * (2 * w - 1) + qw - kw + w - 1
        for (qd, qh, qw), (kd, kh, kw) in product(places, places)
    ]
    return attention.relative_position_bias_table[rows].view(tokens, tokens, -1)


def slow_window(attention: WindowAttention, tokens: Tensor, regions: list[tuple[int, ...]]) -> Tensor:
    """Attention among the tokens `[V, C]` of one window, head by head."""
    mask = torch.tensor([[0.0 if a == b else -100.0 for b in regions] for a in regions])
    bias, width = slow_bias(attention, len(tokens)), tokens.shape[1] // attention.heads
    q, k, v = attention.qkv(tokens).chunk(3, dim=1)
    heads = []
    for head in range(attention.heads):
        own = slice(head * width, (head + 1) * width)
        scores = q[:, own] @ k[:, own].T * width**-0.5 + bias[..., head] + mask
        heads.append(scores.softmax(-1) @ v[:, own])
    return cast(Tensor, attention.proj(torch.cat(heads, dim=1)))


def slow_attention(block: Block, x: Tensor, counted: Counted) -> Tensor:
    """One window after the other of a normed grid `[D, H, W, C]`; adds the work on padding to `counted`."""
    size, width = x.shape[:3], x.shape[3]
    window = tuple(min(n, full) for n, full in zip(size, block.window, strict=True))
    shift = tuple(full // 2 if block.shifted and n > full else 0 for n, full in zip(size, block.window, strict=True))
    x = padded(x, window).roll([-s for s in shift], (0, 1, 2))
    counted.append((prod(x.shape[:3]) - prod(size)) * (4 * width * width + 2 * prod(window) * width))
    out = torch.zeros_like(x)
    for corner in product(*(range(0, n, w) for n, w in zip(x.shape, window, strict=False))):
        box = tuple(slice(at, at + w) for at, w in zip(corner, window, strict=True))
        places = product(*(range(each.start, each.stop) for each in box))
        regions = [tuple(map(region, place, x.shape, window, shift)) for place in places]
        inside = slow_window(block.attn, x[box].reshape(-1, width), regions)
        out[box] = inside.view(*window, width)
    out = out.roll(shift, (0, 1, 2))
    return out[: size[0], : size[1], : size[2]]


def slow_merging(merging: PatchMerging, x: Tensor) -> Tensor:
    x = padded(x, (1, 2, 2))
    joined = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
    return cast(Tensor, merging.reduction(merging.norm(torch.cat(joined, dim=-1))))


def slow(model: VideoSwin, pixels: Tensor, slots: int | None = None) -> tuple[Tensor, int]:
    """Logits of one normalised clip `[T, H, W, 3]`, and its multiply-accumulates on padding."""
    counted: Counted = []
    embed = model.patch_embed
    clip = padded(pixels, model.config.patch).permute(3, 0, 1, 2)
    x = F.conv3d(clip[None], embed.proj.weight, embed.proj.bias, model.config.patch)[0]
    x = embed.norm(x.permute(1, 2, 3, 0))[:slots]
    for stage in cast("list[Stage]", list(model.layers)):
        for block in cast("list[Block]", list(stage.blocks)):
            x = x + slow_attention(block, block.norm1(x), counted)
            x = x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x))))
        x = x if stage.downsample is None else slow_merging(stage.downsample, x)
    return model.head(model.norm(x).mean(dim=(0, 1, 2))), sum(counted)


@pytest.fixture(params=["one call", "by mask", "few at a time"])
def ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Every way in which windows run: together with a mask each, those of equal masks, and some of these at a time."""
    monkeypatch.setattr(windows, "_ONE_CALL", 1 << 40 if request.param == "one call" else 0)
    if request.param == "few at a time":
        for module in (network, layers):
            monkeypatch.setattr(module, "_ROWS", 50)
    windows.partition.cache_clear()
    yield request.param
    windows.partition.cache_clear()


@pytest.mark.parametrize("size", SIZES)
def test_equals_the_slow_reference(size: tuple[int, int, int], ways: str) -> None:
    model, clips = random_model(), random_clips(2, size)
    output = run(model, clips)
    with torch.inference_mode():
        expected = [slow(model, clip) for clip in clips]
    torch.testing.assert_close(output.logits, torch.stack([each for each, _ in expected]), atol=2e-5, rtol=1e-5)
    assert output.padding == tuple(padding for _, padding in expected)
    assert output.counts[0].attention == (prod(SIZES[size]),) * 2
    cut = windows.partition(SIZES[size], TINY.window, True, torch.device("cpu"))
    assert (len(cut.groups) == 1) == (ways == "one call" or not any(cut.shift))


def test_windows_of_videoswin_b_run_by_mask() -> None:
    """128 windows of the first stage have 8 masks: none, and one for each set of borders."""
    cut = windows.partition((16, 56, 56), (8, 7, 7), True, torch.device("cpu"))
    assert [group.mask is None for group in cut.groups].count(True) == 1
    members = [group.windows for group in cut.groups if group.windows is not None]
    assert sorted(map(len, members)) == [1, 1, 7, 7, 7, 7, 49, 49]
    assert torch.equal(torch.cat(members).sort().values, torch.arange(128))


@pytest.mark.parametrize("slots", [3, 5])
def test_after_a_selection_kept_slices_are_neighbours(slots: int) -> None:
    model, clips = random_model(), random_clips(1, (16, 48, 40))
    output = run(model, clips, First(slots))
    with torch.inference_mode():
        expected, padding = slow(model, clips[0], slots)
    torch.testing.assert_close(output.logits[0], expected, atol=2e-5, rtol=1e-5)
    assert output.padding == (padding,)
    assert (padding == 0) == (slots == 3)


def test_gradients_equal_those_of_the_slow_reference(ways: str) -> None:
    model, clips = random_model(), random_clips(2, (10, 30, 26))
    named = dict(model.requires_grad_().train().named_parameters())
    ours = torch.autograd.grad(model(batch_of(clips)).logits.square().sum(), list(named.values()))
    logits = torch.stack([slow(model, clip)[0] for clip in clips])
    theirs = torch.autograd.grad(logits.square().sum(), list(named.values()))
    for name, own, other in zip(named, ours, theirs, strict=True):
        torch.testing.assert_close(own, other, atol=1e-4 * float(other.abs().max()) + 1e-5, rtol=0, msg=name)
        # softmax sees no shift of all keys, so only part of that bias has a gradient, but of all else every tensor has
        assert own.abs().max() > 1e-4, name


def test_cached_biases_follow_the_weights() -> None:
    model, other, clips = random_model(), random_model(seed=1), random_clips(1, (10, 44, 52))
    before = run(model, clips).logits
    assert torch.equal(run(model, clips).logits, before)
    model.load_state_dict(other.state_dict())
    assert torch.equal(run(model, clips).logits, run(other, clips).logits)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bias_table" in name:
                parameter.neg_()
    after = run(model, clips).logits
    assert not torch.allclose(after, run(other, clips).logits, atol=1e-3)
    torch.testing.assert_close(after[0], slow(model, clips[0])[0], atol=2e-5, rtol=1e-5)
    model.load_state_dict(random_model().state_dict(), assign=True)
    assert torch.equal(run(model, clips).logits, before)
    torch.testing.assert_close(run(model.double(), clips.double()).logits.float(), before, atol=2e-5, rtol=1e-5)


def test_training_after_evaluation_sees_the_bias_table() -> None:
    model, clips = random_model(), random_clips(1, (10, 44, 52))
    run(model, clips)
    model.requires_grad_().train()
    model(batch_of(clips)).logits.sum().backward()
    tables = [p for name, p in model.named_parameters() if "bias_table" in name]
    assert len(tables) == 5
    assert all(table.grad is not None and table.grad.abs().max() > 0 for table in tables)


@pytest.mark.parametrize("rates", [{"drop_path": 0.5}, {"dropout": 0.5}])
def test_what_is_dropped_is_dropped_in_training_only(rates: dict[str, float]) -> None:
    model, clips = random_model(replace(TINY, **rates)), random_clips(2, (4, 8, 8))  # type: ignore[arg-type]
    expected = run(random_model(), clips).logits
    assert torch.equal(run(model, clips).logits, expected)
    model.train()
    drawn = torch.stack([run(model, clips).logits for _ in range(8)])
    assert not torch.allclose(drawn[0], drawn[1:], atol=1e-4)
    assert torch.equal(run(model.eval(), clips).logits, expected)


def on_meta(config: VideoSwinConfig, pruner: Pruner) -> tuple[Output, int]:
    """What a forward without numbers returns, and what an operator counter saw of it."""
    with torch.device("meta"):
        model = VideoSwin(config).eval().requires_grad_(False)
    shape = (1, config.frames, config.height, config.width, 3)
    batch = batch_of(torch.empty(shape, dtype=torch.uint8, device="meta"))
    with torch.inference_mode():
        output = model(batch, pruner)
    return output, count_operators(lambda: model(batch, pruner))


@pytest.mark.parametrize("slots", [16, 10, 9, 8, 6])
def test_closed_form_of_b_is_what_counters_see(slots: int) -> None:
    """All blocks of it with all slots; what a slot more or less costs shows in two blocks of each stage."""
    depths = VIDEOSWIN_B.depths if slots == 16 else (2, 2, 2, 2)
    output, operators = on_meta(replace(VIDEOSWIN_B, depths=depths), First(slots))
    assert output.macs == (operators,)
    tokens = [slots * side * side for side in (56, 28, 14, 7)]
    every = [n for n, depth in zip(tokens, depths, strict=True) for _ in range(depth)]
    assert [count.attention[0] for count in output.counts] == every
    # of 9 and 10 slices the attention is that of 16
    blank = (0 if slots in (6, 8) else 16 - slots) * 49
    blocks = zip((128, 256, 512, 1024), (64, 16, 4, 1), depths, strict=True)
    padding = sum(blank * areas * (4 * dim * dim + 2 * 392 * dim) * depth for dim, areas, depth in blocks)
    assert output.padding == (padding,)


@pytest.mark.parametrize("config", [VIDEOSWIN_T, VIDEOSWIN_S])
def test_closed_form_of_the_smaller_ones(config: VideoSwinConfig) -> None:
    output, operators = on_meta(config, DENSE)
    assert output.macs == (operators,)
    # 88 and 166 GFLOPs are what the model zoo prints
    assert output.macs[0] / 1e9 == pytest.approx(88 if config is VIDEOSWIN_T else 166, rel=0.01)


@pytest.mark.parametrize("size", SIZES)
def test_closed_form_of_odd_sizes(size: tuple[int, int, int]) -> None:
    frames, height, width = size
    output, operators = on_meta(replace(TINY, frames=frames, height=height, width=width), DENSE)
    assert output.macs == (operators,)


def test_size_of_videoswin_b() -> None:
    with torch.device("meta"):
        model = VideoSwin(VIDEOSWIN_B)
    assert sum(parameter.numel() for parameter in model.parameters()) == 88_048_984
    assert model.grid == Grid(16, 56, 56)


def test_uint8_pixels_are_normalised_like_floats() -> None:
    model = random_model()
    pixels = torch.randint(0, 256, (2, 10, 44, 52, 3), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    floats = (pixels / 255 - torch.tensor((0.485, 0.456, 0.406))) / torch.tensor((0.229, 0.224, 0.225))
    torch.testing.assert_close(run(model, pixels).logits, run(model, floats).logits, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("pruner", [DENSE, First(3)])
def test_clips_of_a_batch_do_not_meet(pruner: Pruner) -> None:
    model, clips = random_model(), random_clips(3, (10, 44, 52))
    together = run(model, clips, pruner)
    alone = [run(model, clip[None], pruner) for clip in clips]
    torch.testing.assert_close(together.logits, torch.cat([each.logits for each in alone]), atol=2e-5, rtol=1e-5)
    assert together.macs == tuple(each.macs[0] for each in alone)
    assert not torch.allclose(together.logits[0], together.logits[1], atol=1e-3)


def test_resize_changes_what_is_planned_and_no_weight() -> None:
    model = random_model()
    clips, weights = random_clips(1, (12, 32, 32)), [parameter.clone() for parameter in model.parameters()]
    before = run(model, clips).logits
    model.resize(12, 32, "interpolate")
    assert (model.grid, model.planned_slots) == (Grid(6, 8, 8), 6)
    assert model.planned_windows({0: 0.5, 1: 0.5}) == {0: 32, 1: 4}
    assert torch.equal(run(model, clips).logits, before)
    assert all(map(torch.equal, weights, model.parameters()))


def test_equals_torchvision() -> None:
    models = pytest.importorskip("torchvision.models.video", exc_type=ImportError)
    theirs: nn.Module = models.swin3d_t().eval()
    found = layouts.recognise(theirs.state_dict(), "torchvision")
    config = found.config(VIDEOSWIN_T)
    assert isinstance(config, VideoSwinConfig)
    model = VideoSwin(config).eval()
    load_strictly(model, found.tensors, "torchvision")
    for size in ((32, 64, 64), (18, 60, 92)):
        clip = torch.randn(1, *size, 3)
        with torch.inference_mode():
            expected = theirs(clip.permute(0, 4, 1, 2, 3))
        torch.testing.assert_close(run(model, clip).logits, expected, atol=1e-5, rtol=1e-5)
