"""MViT against the published code's tensors, its closed form against an operator counter, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vpbench.api import DENSE, ClipBatch, Grid, Output, Pruner, Selection, Tokens, Trace
from vpbench.backbones.checkpoints.reading import load_strictly
from vpbench.backbones.mvit import MVIT_B, MViTConfig, layouts
from vpbench.backbones.mvit.network import MViT
from vpbench.commands.verify.case import Case, load, read
from vpbench.errors import UsageError
from vpbench.measure.operators import count_operators

CASES = Path(__file__).parent.parent / "parity" / "stts-mvit"
TINY = MViTConfig(
    dim=16,
    depth=4,
    heads=1,
    dim_mul=((1, 2.0), (3, 2.0)),
    head_mul=((1, 2.0), (3, 2.0)),
    pool_q_stride=((1, 1, 2, 2), (3, 1, 2, 2)),
    pool_kv_stride_adaptive=(1, 4, 4),
    frames=8,
    height=32,
    width=32,
    classes=5,
)


@dataclass
class Cut(Pruner):
    """Keep the first slots before block 0 and a corner window before block `at`."""

    slots: int
    side: int
    at: int = 4

    def stage(self, block: int, x: Tensor) -> Tensor:
        x = x[:, : self.slots] if block == 0 else x
        return x[:, :, : self.side, : self.side] if block == self.at else x


def config_of(arch: dict[str, Any]) -> MViTConfig:
    """The configuration that a parity case describes."""

    def tuples(name: str) -> Any:
        return tuple(tuple(each) if isinstance(each, list) else each for each in arch[name])

    return MViTConfig(
        dim=arch["embed_dim"],
        depth=arch["depth"],
        heads=arch["num_heads"],
        dim_mul=tuples("dim_mul"),
        head_mul=tuples("head_mul"),
        pool_q_stride=tuples("pool_q_stride"),
        pool_kv_stride_adaptive=tuples("pool_kv_stride_adaptive"),
        frames=arch["num_frames"],
        height=arch["crop_size"],
        width=arch["crop_size"],
        patch_kernel=tuples("patch_kernel"),
        patch_stride=tuples("patch_stride"),
        patch_padding=tuples("patch_padding"),
        pool_kernel=tuples("pool_kvq_kernel"),
        mlp_ratio=arch["mlp_ratio"],
        classes=arch["num_classes"],
        eps=arch["norm_eps"],
        pool_eps=arch["pool_norm_eps"],
    )


def random_model(config: MViTConfig = TINY) -> MViT:
    """A model with random weights large enough to make tokens matter."""
    torch.manual_seed(0)
    model = MViT(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def pixels(clips: int, config: MViTConfig = TINY, seed: int = 1) -> Tensor:
    """Random uint8 clips."""
    generator = torch.Generator().manual_seed(seed)
    shape = (clips, config.frames, config.height, config.width, 3)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def batch_of(pixels: Tensor) -> ClipBatch:
    return ClipBatch(pixels, tuple(map(str, range(len(pixels)))))


def run(model: MViT, pixels: Tensor, pruner: Pruner = DENSE) -> Output:
    with torch.inference_mode():
        output: Output = model(batch_of(pixels), pruner)
    return output


def recorded(model: MViT, clip: Tensor) -> dict[str, Tensor]:
    """Run the model's own forward and return what parity cases hold of the backbone."""
    found: dict[str, Tensor] = {}
    grids: list[Grid] = []

    def after(number: int) -> Any:
        def hook(block: nn.Module, inputs: tuple[Tensor, Grid], output: tuple[Tensor, Grid]) -> None:
            grids.append(inputs[1])
            found[f"block.{number}.cls"] = output[0][:, 0]

        return hook

    for number, block in enumerate(model.blocks):
        block.register_forward_hook(after(number))
    model.norm.register_forward_hook(lambda _, __, out: found.update(final_cls=out))
    output = run(model, clip)
    found["logits"], found["probs"] = output.logits, output.logits.softmax(-1)
    found["tokens_per_block"] = torch.tensor([count.attention[0] for count in output.counts])
    found["thw_per_block"] = torch.tensor([[g.slots, g.rows, g.cols] for g in grids])
    return found


def parity_model(case: Case) -> MViT:
    config = config_of(case.settings["arch"])
    weights = layouts.recognise(read(case.folder / "weights.safetensors", finite=True), str(case.folder))
    model = MViT(weights.config(config)).eval()
    load_strictly(model, weights.tensors, str(case.folder))
    return model


@pytest.mark.parametrize("name", ["dense", "keep-all"])
def test_equals_the_published_code(name: str) -> None:
    case = load(CASES / name)
    found = recorded(parity_model(case), case.inputs["clip"].float().permute(0, 2, 3, 4, 1))
    expected = {key: value for key, value in case.expected.items() if not key.startswith(("time.", "space."))}
    assert found.keys() == expected.keys()
    tolerance = {"atol": case.tolerance("atol"), "rtol": case.tolerance("rtol")}
    for key, value in expected.items():
        exact = value.dtype == torch.int64
        torch.testing.assert_close(found[key], value, **({"atol": 0, "rtol": 0} if exact else tolerance), msg=key)


def on_meta(pruner: Pruner) -> tuple[MViT, Output, int]:
    """MViT-B without numbers, what its forward returns, and what an operator counter saw."""
    with torch.device("meta"):
        model = MViT(MVIT_B).eval().requires_grad_(False)
    batch = batch_of(torch.empty(1, 16, 224, 224, 3, dtype=torch.uint8, device="meta"))
    with torch.inference_mode():
        output = model(batch, pruner)
    return model, output, count_operators(lambda: model(batch, pruner))


def scorer_gmacs(tokens: int, width: int) -> float:
    """STTS's scorer: three products that halve the width each, one to a score; norms at 5 per element."""
    return tokens * (width * width * (1 + 1 / 2 + 1 / 8) + width / 4 + 5 * width) / 1e9


def entering(slots: int, side: int) -> list[Grid]:
    """The grids that enter the blocks of MViT-B when a selection leaves `slots` and then a window of `side`."""
    pooled = math.ceil(side / 2)
    sides = [56] * 2 + [28] * 2 + [side] * 11 + [pooled]
    return [Grid(slots, each, each) for each in sides]


@pytest.mark.parametrize(
    ("slots", "side", "fvcore"),
    [(8, 14, 70.80), (7, 13, 56.39), (6, 13, 47.21), (5, 13, 38.46), (4, 12, 26.95), (3, 11, 18.46)],
)
def test_closed_form_is_what_counters_see(slots: int, side: int, fvcore: float) -> None:
    model, output, operators = on_meta(DENSE if side == 14 else Cut(slots, side))
    assert output.macs == (operators,)
    grids = entering(slots, side)
    assert [count.attention for count in output.counts] == [(1 + grid.tokens,) for grid in grids]
    left = [*grids[1:4], Grid(slots, 14, 14), *grids[5:], grids[-1]]
    assert [count.mlp for count in output.counts] == [(1 + grid.tokens,) for grid in left]
    norms = 5 * model.grid_normalised_elements(grids) / 1e9
    scorers = 0.0 if side == 14 else scorer_gmacs(8, 192) + scorer_gmacs(slots * 14 * 14, 384)
    # the published code norms all tokens before the head, not only the class token
    tail = 5 * grids[-1].tokens * 768 / 1e9
    assert output.macs[0] / 1e9 + norms + scorers + tail == pytest.approx(fvcore, abs=0.006)


def test_size_of_mvit_b() -> None:
    with torch.device("meta"):
        model = MViT(MVIT_B)
    assert sum(parameter.numel() for parameter in model.parameters()) == 36_610_672
    batch = batch_of(torch.empty(1, 16, 224, 224, 3, dtype=torch.uint8, device="meta"))
    assert model.eval()(batch).macs[0] / 1e9 == pytest.approx(70.599, abs=0.0005)


def test_keeping_everything_is_dense() -> None:
    class Same(Pruner):
        def stage(self, block: int, x: Tensor) -> Tensor:
            return x.clone()

    model, clips = random_model(), pixels(2)
    assert torch.equal(run(model, clips, Same()).logits, run(model, clips).logits)


@pytest.mark.parametrize("pruner", [DENSE, Cut(3, 3, at=2)])
def test_clips_of_a_batch_do_not_meet(pruner: Pruner) -> None:
    model, clips = random_model(), pixels(3)
    together = run(model, clips, pruner)
    alone = [run(model, clip[None], pruner) for clip in clips]
    torch.testing.assert_close(together.logits, torch.cat([each.logits for each in alone]), atol=1e-5, rtol=1e-5)
    assert together.macs == tuple(each.macs[0] for each in alone)
    assert not torch.allclose(together.logits[0], together.logits[1], atol=1e-3)


def test_gradients_take_the_same_way_as_evaluation() -> None:
    model, clips = random_model(), pixels(2)
    logits = model.requires_grad_()(batch_of(clips)).logits
    torch.testing.assert_close(logits.detach(), run(model, clips).logits, atol=1e-5, rtol=1e-5)
    logits.square().sum().backward()
    flat = {name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-5}
    # softmax does not see a shift of all keys, and of the last block's queries only the class token's is used
    assert flat == {f"blocks.{block}.attn.norm_k.bias" for block in range(4)} | {"blocks.3.attn.pool_q.weight"}


def test_uint8_pixels_are_normalised_like_floats() -> None:
    model, clips = random_model(), pixels(2)
    floats = (clips.float() / 255 - 0.45) / 0.225
    torch.testing.assert_close(run(model, clips).logits, run(model, floats).logits, atol=1e-5, rtol=1e-5)


def test_resize_is_what_clips_of_another_size_get() -> None:
    model = random_model()
    other = replace(TINY, frames=12, height=48, width=48)
    before = run(model, pixels(1, other)).logits
    model.resize(12, 48, "interpolate")
    assert model.grid == Grid(6, 12, 12)
    assert model.config == other
    assert torch.equal(run(model, pixels(1, other)).logits, before)
    assert model.pos_embed_spatial.shape == (1, 144, 16)
    assert model.pos_embed_temporal.shape == (1, 6, 16)


@pytest.mark.parametrize(
    ("frames", "size", "positions", "says"),
    [(None, 48, "recompute", "learned"), (7, None, "interpolate", "multiples"), (8, 30, "interpolate", "multiples")],
)
def test_resize_refuses(frames: int | None, size: int | None, positions: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        random_model().resize(frames, size, positions)


def test_refuses_clips_that_are_not_square() -> None:
    with pytest.raises(UsageError, match="not square"):
        run(random_model(), torch.zeros(1, 8, 32, 48, 3, dtype=torch.uint8))
    with pytest.raises(UsageError, match="not square"):
        MViT(replace(TINY, width=48))


def test_refuses_whatever_leaves_holes() -> None:
    class Video(Pruner):
        def video(self, batch: ClipBatch) -> Selection | None:
            return None

    class Attention(Pruner):
        def after_attention(self, layer: int, tokens: Tokens, trace: Trace) -> Tokens:
            return tokens

    class Block(Pruner):
        def after_block(self, layer: int, tokens: Tokens) -> Tokens:
            return tokens

    model = random_model()
    for pruner, site in ((Video(), "video"), (Attention(), "after_attention"), (Block(), "after_block")):
        assert site in str(model.refuses(pruner))
    assert model.refuses(DENSE) is None
    assert model.refuses(Cut(2, 2)) is None


def test_equals_torchvision() -> None:
    models = pytest.importorskip("torchvision.models.video", exc_type=ImportError)
    theirs = models.mvit_v1_b().eval()
    found = layouts.recognise(theirs.state_dict(), "torchvision")
    model = MViT(found.config(MVIT_B)).eval()
    load_strictly(model, found.tensors, "torchvision")
    clip = torch.randn(1, 16, 224, 224, 3)
    with torch.inference_mode():
        expected = theirs(clip.permute(0, 4, 1, 2, 3))
    torch.testing.assert_close(run(model, clip).logits, expected, atol=1e-5, rtol=1e-5)
