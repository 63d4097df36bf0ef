"""ViTDet against a slow reference, window by window and query by query; its closed forms against counters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vpbench.api import Pruner
from vpbench.backbones.vitdet import VITDET_B_672, VITDET_B_1024, HeadConfig, ViTDetConfig, attention
from vpbench.backbones.vitdet.attention import Attention
from vpbench.backbones.vitdet.costs import frame_macs, head_macs, published_frame_macs, pyramid_macs
from vpbench.backbones.vitdet.network import Block, Frame, Segments, ViTDet
from vpbench.backbones.vitdet.windows import SquareWindows
from vpbench.errors import UsageError
from vpbench.measure.operators import count_operators

HEAD = HeadConfig(
    classes=3, channels=8, rpn_convs=1, anchor_sizes=(8, 16, 32, 64, 128), pre_nms=40, post_nms=12, pooled=3,
    canonical_size=24, canonical_level=2, box_convs=1, fc_dim=12,
)  # fmt: skip
#: 8 x 8 tokens in windows of 3 x 3, so some are padded; every table is resized
TINY = ViTDetConfig(
    dim=16, depth=5, heads=2, side=32, patch=4, window=3, windowed=(0, 1, 3), positions=5, global_table=6, head=HEAD
)
#: 6 x 6 tokens in whole windows, and tables as they are
WHOLE = replace(TINY, side=24, positions=6)
CASES = Path(__file__).parent.parent / "parity" / "rgtp-vitdet"


def random_model(config: ViTDetConfig = TINY, seed: int = 0) -> ViTDet:
    """A model with random weights large enough to make tokens and their places matter."""
    torch.manual_seed(seed)
    model = ViTDet(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def random_tokens(batch: int, config: ViTDetConfig = TINY, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, config.tokens, config.dim, generator=generator)


def some(batch: int, count: int, config: ViTDetConfig = TINY, seed: int = 2) -> Tensor:
    """Different tokens of each segment, in any order."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(config.tokens, generator=generator)[:count] for _ in range(batch)])


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=3e-5, rtol=1e-4)


def blocks_of(model: ViTDet) -> list[Block]:
    return cast("list[Block]", list(model.net.blocks))


def slow_tables(table: Tensor, side: int) -> Tensor:
    """`[side, side, width]`, entry by entry, then resized as a picture."""
    length = (len(table) + 1) // 2
    rows = [torch.stack([table[i - j + length - 1] for j in range(length)]) for i in range(length)]
    image = torch.stack(rows).permute(2, 0, 1)[None]
    if length != side:
        image = F.interpolate(image, (side, side), mode="bicubic", align_corners=False)
    return image[0].permute(1, 2, 0)


def slow_window(attention: Attention, qkv: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Attention among the positions `[side^2, 3D]` of one window, head by head; also its map fused over heads."""
    vertical, horizontal = slow_tables(attention.rel_pos_h, side), slow_tables(attention.rel_pos_w, side)
    width = qkv.shape[1] // 3 // attention.heads
    heads, squares = [], []
    for head in range(attention.heads):
        q, k, v = (part[:, head * width : (head + 1) * width] for part in qkv.chunk(3, dim=1))
        scores = q @ k.T * width**-0.5
        for query in range(side * side):
            for key in range(side * side):
                scores[query, key] += q[query] @ vertical[query // side, key // side]
                scores[query, key] += q[query] @ horizontal[query % side, key % side]
        weights = scores.softmax(-1)
        heads.append(weights @ v)
        squares.append(weights**2)
    return torch.cat(heads, dim=1), (sum(squares) / attention.heads) ** 0.5


def slow_attention(attention: Attention, qkv: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """All tokens' attention from their `[N, 3D]`, window by window of the grid; the last window's map."""
    side = round(len(qkv) ** 0.5)
    far = -side % size
    grid = attention.qkv.bias.expand(side + far, side + far, -1).clone()
    grid[:side, :side] = qkv.view(side, side, -1)
    out = torch.zeros(side + far, side + far, qkv.shape[1] // 3)
    for top in range(0, side, size):
        for left in range(0, side, size):
            box = (slice(top, top + size), slice(left, left + size))
            inside, fused = slow_window(attention, grid[box].flatten(0, 1), size)
            out[box] = inside.view(size, size, -1)
    return out[:side, :side].flatten(0, 1), fused


@dataclass
class Slow:
    """One segment, frame by frame, with whole buffers of queries, keys and values."""

    model: ViTDet
    buffers: list[Tensor] = field(default_factory=list)
    output: Tensor = field(default_factory=lambda: torch.zeros(0))

    def frame(self, embedded: Tensor, kept: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Output `[N, D]` and the maps of global blocks, of tokens `[N, D]`."""
        config, maps = self.model.config, []
        positions = self.model.net.pos_embed.unflatten(1, (config.positions, config.positions)).permute(0, 3, 1, 2)
        if config.positions != config.grid:
            positions = F.interpolate(positions, (config.grid, config.grid), mode="bicubic", align_corners=False)
        every = torch.arange(config.tokens)
        going = every if kept is None else kept
        x, inside = embedded + positions[0].flatten(1).T, every
        for number, block in enumerate(blocks_of(self.model)):
            if len(self.buffers) == number:
                self.buffers.append(torch.zeros(config.tokens, 3 * config.dim))
            self.buffers[number][inside] = block.attn.qkv(block.norm1(x))
            size = config.window if number in config.windowed else config.grid
            attended, fused = slow_attention(block.attn, self.buffers[number], size)
            if number not in config.windowed:
                maps.append(fused[going])
            x = (x[going] if number == 0 else x) + block.attn.proj(attended[going])
            x = x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x))))
            inside = going
        if kept is None:
            self.output = torch.zeros(config.tokens, config.dim)
        self.output = self.output.clone()
        self.output[going] = x
        return self.output, maps


@pytest.mark.parametrize("piece", [1 << 20, 500])
@pytest.mark.parametrize("config", [TINY, WHOLE])
def test_equals_the_slow_reference(config: ViTDetConfig, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(attention._PIECE, "cpu", piece)
    model, segments, slow = random_model(config), Segments(), Slow(random_model(config))
    plan = [None, some(1, 9, config), some(1, 1, config, 5)]
    with torch.inference_mode():
        for number, kept in enumerate(plan):
            embedded = random_tokens(1, config, number)
            frame = model.forward_frame(embedded, segments, kept, wants_maps=number != 1)
            expected, maps = slow.frame(embedded[0], None if kept is None else kept[0])
            close(frame.output[0], expected)
            assert len(frame.maps) == (0 if number == 1 else 2)
            for ours, theirs in zip(frame.maps, maps, strict=False):
                close(ours[0], theirs)


@pytest.mark.parametrize("config", [TINY, WHOLE])
def test_keeping_all_equals_dense(config: ViTDetConfig) -> None:
    model, segments = random_model(config), Segments()
    with torch.inference_mode():
        model.forward_frame(random_tokens(2, config), segments)
        embedded = random_tokens(2, config, 5)
        dense = model.forward_frame(embedded, Segments(), wants_maps=True)
        kept = some(2, config.tokens, config)
        frame = model.forward_frame(embedded, segments, kept, wants_maps=True)
    close(frame.output, dense.output)
    for ours, theirs in zip(frame.maps, dense.maps, strict=True):
        close(ours, theirs.gather(1, kept[..., None].expand_as(theirs)))


def test_segments_of_a_batch_do_not_meet() -> None:
    model, segments = random_model(), Segments()
    frames = [random_tokens(3, seed=number) for number in range(4)]
    plan = [None, some(3, 7, seed=1), None, some(3, 20, seed=2)]
    with torch.inference_mode():
        together = [model.forward_frame(x, segments, kept, True) for x, kept in zip(frames, plan, strict=True)]
        for one in range(3):
            alone = Segments()
            for x, kept, frame in zip(frames, plan, together, strict=True):
                own = model.forward_frame(x[one : one + 1], alone, None if kept is None else kept[one : one + 1], True)
                close(own.output[0], frame.output[one])
                assert all(torch.allclose(a[0], b[one], atol=1e-5) for a, b in zip(own.maps, frame.maps, strict=True))


def test_segments_can_end() -> None:
    model, both, one = random_model(), Segments(), Segments()
    x, kept = random_tokens(2), some(1, 7)
    with torch.inference_mode():
        model.forward_frame(x, both)
        model.forward_frame(x[:1], one)
        both.narrow(1)
        after = [model.forward_frame(random_tokens(1, seed=4), each, kept).output for each in (both, one)]
        close(after[0], after[1])
        fresh = Segments()
        fresh.narrow(1)
        close(model.forward_frame(x, fresh).output[:1], model.forward_frame(x[:1], Segments()).output)


def test_earlier_outputs_stay_as_they_were() -> None:
    model, segments = random_model(), Segments()
    with torch.inference_mode():
        first = model.forward_frame(random_tokens(1), segments).output
        before = first.clone()
        second = model.forward_frame(random_tokens(1, seed=3), segments, some(1, 5)).output
    assert torch.equal(first, before)
    assert int((second != first).any(dim=2).sum()) == 5


def test_what_cannot_run_is_refused() -> None:
    model = random_model()
    with pytest.raises(UsageError, match="first frame of a segment is dense"):
        model.forward_frame(random_tokens(1), Segments(), some(1, 5))
    with pytest.raises(UsageError, match="33x20 pixels do not fit into 32x32"):
        model.embed(torch.zeros(1, 20, 33, 3, dtype=torch.uint8))


def test_frames_are_normalised_then_padded() -> None:
    model = random_model()
    pixels = torch.randint(0, 256, (2, 20, 30, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ours = model.normalise(pixels)
    assert ours.shape == (2, 32, 32, 3)
    assert ours[:, 20:].abs().max() == 0 == ours[:, :, 30:].abs().max()
    assert float(ours[1, 3, 4, 2]) == pytest.approx((float(pixels[1, 3, 4, 2]) - 103.53) / 57.375, abs=1e-5)
    conv = F.conv2d(ours.permute(0, 3, 1, 2), model.net.patch_embed.proj.weight, model.net.patch_embed.proj.bias, 4)
    close(model.embed(pixels), conv.flatten(2).transpose(1, 2))


def test_cached_tables_follow_the_weights() -> None:
    model, other, x = random_model(), random_model(seed=1), random_tokens(1)
    with torch.inference_mode():
        before = model.forward_frame(x, Segments()).output
    model.load_state_dict(other.state_dict())
    with torch.inference_mode():
        changed = model.forward_frame(x, Segments()).output
        assert torch.equal(changed, other.forward_frame(x, Segments()).output)
    assert not torch.allclose(changed, before, atol=1e-2)


@dataclass
class Watching(Pruner):
    """Keeps the first tokens of every second frame, and remembers what it was shown."""

    seen: list[tuple[int, int]] = field(default_factory=list)
    number: int = -1

    @property
    def wants_maps(self) -> bool:
        return self.number % 2 == 0

    def frame(self, embedded: Tensor) -> Tensor | None:
        self.number += 1
        return torch.arange(10).expand(len(embedded), -1) if self.number % 2 else None

    def output(self, maps: tuple[Tensor, ...], found: Sequence[object]) -> None:
        self.seen.append((len(maps), len(found)))


def test_sites_are_called_frame_by_frame() -> None:
    model, segments, pruner = random_model(), Segments(), Watching()
    pixels = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for _ in range(3):
            frame, found = model(pixels, segments, pruner)
            dense, expected = model(pixels, Segments())
    assert pruner.seen == [(2, 2), (0, 2), (2, 2)]
    close(frame.output, dense.output)
    assert [len(each.boxes) for each in found] == [len(each.boxes) for each in expected]
    assert [level.shape[2] for level in model.pyramid(frame.output)] == [32, 16, 8, 4, 2]


@pytest.mark.parametrize("size", [2, 3, 8])
@pytest.mark.parametrize("count", [1, 9, 64])
def test_queries_find_their_places_again(size: int, count: int) -> None:
    windows, kept = SquareWindows(8, size), some(3, count)
    queries = windows.queries(kept)
    packed = torch.arange(3 * count)[:, None] + 1
    spread = queries.spread(packed)
    assert torch.equal(queries.packed(spread), packed)
    assert int((spread == 0).sum()) == queries.empty
    held = queries.windows if queries.windows is not None else torch.arange(3 * windows.count)
    for window, row in zip(held.tolist(), spread[..., 0], strict=True):
        for number in row[row > 0].tolist():
            segment, token = divmod(number - 1, count)
            y, x = divmod(int(kept[segment, token]), 8)
            across = -(-8 // size)
            assert window == segment * windows.count + y // size * across + x // size
            assert int(queries.rows[number - 1]) == (window * size + y % size) * size + x % size
            assert (int(queries.y[number - 1]), int(queries.x[number - 1])) == (y % size, x % size)


@pytest.mark.parametrize(
    ("config", "dense", "pruned"),
    [
        (VITDET_B_672, 174.50, {767: 81.62, 512: 57.78, 384: 45.81, 196: 28.23, 64: 15.88}),
        (VITDET_B_1024, 467.44, {2200: 263.07, 1401: 176.91, 750: 106.71, 397: 68.64, 75: 33.92}),
    ],
)
def test_published_counts(config: ViTDetConfig, dense: float, pruned: dict[int, float]) -> None:
    """Figures of pruned frames hold tracking, and a rollout through 441 cells or past 4096 tokens."""
    assert published_frame_macs(config) / 1e9 == pytest.approx(dense, abs=0.005)
    method = 9 * config.tokens * config.dim + 4 * (441**3 if config is VITDET_B_672 else 4096**2)
    for kept, expected in pruned.items():
        assert (published_frame_macs(config, kept) + method) / 1e9 == pytest.approx(expected, abs=0.005)
    assert published_frame_macs(config, config.tokens) == published_frame_macs(config)


@pytest.mark.parametrize("case", ["dense-and-keep-all", "pool2-reset4", "vector-reset3"])
def test_published_counts_of_small_models(case: str) -> None:
    settings = json.loads((CASES / case / "case.json").read_text())
    sizes = settings["architecture"]
    config = ViTDetConfig(
        dim=32, depth=6, heads=2, side=sizes["input_shape_chw"][1], patch=8, window=sizes["window_size"][0],
        windowed=(0, 1, 3, 4),
    )  # fmt: skip
    assert sum(settings["op_counts"]["dense_frame"].values()) == published_frame_macs(config)
    if method := settings["method_config"]:
        kept = round(method["keep_ratio"] * config.tokens)
        rollout = (config.tokens // 4) ** 3 if method["rollout_pool"] else config.tokens**2
        expected = published_frame_macs(config, kept) + 2 * rollout + 9 * config.tokens * config.dim
        assert sum(settings["op_counts"]["per_frame"][1].values()) == expected


@pytest.mark.parametrize("config", [TINY, WHOLE])
def test_closed_form_is_what_counters_see(config: ViTDetConfig) -> None:
    model, segments = random_model(config), Segments()
    pixels = torch.zeros(1, config.side, config.side, 3, dtype=torch.uint8)
    for kept in (None, 9):
        chosen = None if kept is None else some(1, kept, config)
        run = partial(embed_and_run, model, pixels, segments, chosen)
        padding = run().padding
        assert count_operators(run) == frame_macs(config, kept) + padding
        assert (padding == 0) == (kept is None and config is WHOLE)


def embed_and_run(model: ViTDet, pixels: Tensor, segments: Segments, kept: Tensor | None) -> Frame:
    return model.forward_frame(model.embed(pixels), segments, kept)


def test_closed_form_of_pyramid_and_head() -> None:
    model, output = random_model(), random_tokens(1)
    assert count_operators(lambda: model.pyramid(output)) == pyramid_macs(TINY)
    levels = model.pyramid(output)
    assert count_operators(lambda: model.propose(levels)) == head_macs(TINY, 0)
    heads, regions = model.roi_heads, torch.zeros(7, 8, 3, 3)
    seen = count_operators(lambda: heads.box_predictor(heads.box_head(regions)))
    assert seen == head_macs(TINY, 7) - head_macs(TINY, 0)
    assert head_macs(TINY) == head_macs(TINY, 12)


def test_size_of_vitdet_b() -> None:
    with torch.device("meta"):
        model = ViTDet(VITDET_B_672)
    assert len(model.state_dict()) == 229
    # as published, less the position of a class token
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(107.99e6, abs=6e3)
