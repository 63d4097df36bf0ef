"""ViViT: against a reference in plain tensors, other sizes, and what methods do to its steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import moving_clip
from helpers import PLAIN, vpbench
from torch import Tensor

from vpbench.api import ClipBatch, Method, Output, Selection, UsageError
from vpbench.api.backbone import classifier
from vpbench.api.method import load_method
from vpbench.backbones.vivit import ViViTConfig
from vpbench.backbones.vivit.network import MEAN, STD, ViViT
from vpbench.measure import operators
from vpbench.methods.tome import Tome
from vpbench.methods.topk import Topk
from vpbench.tasks.recognition.session import to_batch

CONFIG = ViViTConfig(24, 3, 2, temporal_depth=2, frames=16, height=32, width=32, patch=8, classes=5)
CLIPS = [moving_clip(n) for n in range(4)]
#: of the methods for plain backbones, those that work inside steps or before the embedding
SERVED = [name for name in PLAIN if name not in ("sta", "vidtldr", "pitome", "wpr", "ats", "oracle", "frame_stride")]


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


def ready(name: str, keep: float, model: ViViT) -> Method:
    return load_method(name)().at_keep(1.0 if name == "dense" else keep, model, CLIPS)


def test_dense_is_the_reference(model: ViViT) -> None:
    frames = (to_batch(CLIPS, "cpu").pixels.float() / 255 - MEAN) / STD
    x = model.patch_embed.proj(frames.permute(0, 4, 1, 2, 3)).flatten(3).permute(0, 2, 3, 1)
    classes = []
    for step in range(x.shape[1]):
        y = torch.cat([model.cls_token.expand(len(x), -1, -1), x[:, step]], dim=1) + model.pos_embed
        for block in model.blocks:
            y = plain_block(block, y)
        classes.append(model.norm(y[:, 0]))
    z = torch.cat([model.temporal_cls_token.expand(len(x), -1, -1), torch.stack(classes, 1)], dim=1)
    z = z + model.temporal_pos_embed
    for block in model.temporal_blocks:
        z = plain_block(block, z)
    expected = model.head(model.temporal_norm(z[:, 0]))
    torch.testing.assert_close(run(model, load_method("dense")()).logits, expected, atol=1e-5, rtol=1e-5)


def plain_block(block: Any, x: Tensor) -> Tensor:
    b, n, d = x.shape
    q, k, v = block.attn.qkv(block.norm1(x)).view(b, n, 3, 2, d // 2).permute(2, 0, 3, 1, 4)
    mixed = ((q @ k.transpose(-2, -1)) * (d // 2) ** -0.5).softmax(-1) @ v
    x = x + block.attn.proj(mixed.transpose(1, 2).flatten(2))
    out: Tensor = x + block.mlp(block.norm2(x))
    return out


def test_steps_with_different_numbers_of_patches(model: ViViT) -> None:
    """Packed ragged steps give what each clip gives alone, whatever its neighbours keep; a step may be left empty."""
    kept = [torch.tensor([0, 5, 17, 40, 41, 42, 127]), torch.arange(30), torch.arange(0, 128, 3)]
    batch = to_batch(CLIPS[:3], "cpu")
    with torch.inference_mode():
        tokens = model.embed(batch.pixels, Selection.of_clips(kept, torch.device("cpu")), registry_dense(model))
    assert sum(tokens.lengths) == sum(map(len, kept)) + 3 * model.grid.slots
    assert tokens.lengths[:8] == (1 + 2, 1 + 1, 1 + 3, 1, 1, 1, 1, 1 + 1)
    starts = torch.tensor([0, *tokens.lengths[:-1]]).cumsum(0)
    assert (tokens.index[starts] == -1).all()
    assert int((tokens.index == -1).sum()) == len(tokens.lengths)


def registry_dense(model: ViViT) -> Any:
    return load_method("dense")().attach(model)


@pytest.mark.parametrize("name", SERVED)
def test_methods_inside_steps_keep_the_contract(name: str, model: ViViT) -> None:
    method = ready(name, 0.5, model)
    assert method.supports(model) is None
    assert model.refuses(method.attach(model)) is None
    together = run(model, method)
    alone = torch.cat([run(model, method, [clip]).logits for clip in CLIPS])
    torch.testing.assert_close(together.logits, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(run(model, ready(name, 1.0, model)).logits, run(model, ready("dense", 1, model)).logits)
    last = together.counts[-1].mlp[0] - model.grid.slots
    # the shift drops after its last block too, where nothing counts any more; see commands/contract for what is left
    if name not in ("dense", "rlt", "downsample", "representation_shift"):
        assert last / model.grid.tokens == pytest.approx(0.5, abs=0.07)


@pytest.mark.parametrize("name", SERVED)
def test_operators_counted_equal_the_closed_form(name: str, model: ViViT) -> None:
    batch, pruner = to_batch(CLIPS[:1], "cpu"), ready(name, 0.5, model).attach(model)
    with torch.inference_mode():
        out = model(batch, pruner)
    closed = out.macs[0] + pruner.macs(tuple(c.attention[0] for c in out.counts)) - pruner.uncounted_macs()
    assert operators.count_operators(lambda: model(batch, pruner)) == pytest.approx(closed, rel=1e-3)


@pytest.mark.parametrize("name", [name for name in PLAIN if name not in SERVED])
def test_others_are_refused_with_the_reason(name: str, model: ViViT) -> None:
    method = load_method(name)()
    reason = method.supports(model) or model.refuses(method.attach(model))
    assert reason
    assert "\n" not in reason


@pytest.mark.parametrize("form", ["merge", "drop", "hybrid", "random_merge"])
def test_class_tokens_survive_merging(form: str, model: ViViT) -> None:
    pruner = Tome(r=5, form=form, proportional=True).attach(model)
    seen: list[Tensor] = []
    original = pruner.after_attention
    pruner.after_attention = lambda *a: seen.append((out := original(*a)).index) or out  # type: ignore[method-assign,func-returns-value]
    with torch.inference_mode():
        model(to_batch(CLIPS, "cpu"), pruner)
    for index in seen:
        steps = index.view(len(CLIPS) * model.grid.slots, -1)
        assert (steps[:, 0] == -1).all()
        assert (steps[:, 1:] >= 0).all()


def test_topk_keeps_what_class_tokens_look_at(model: ViViT) -> None:
    pruner = Topk(rho=0.25).attach(model)
    pruner.record = {}
    with torch.inference_mode():
        model(to_batch(CLIPS[:1], "cpu"), pruner)
    scores = pruner.record["block1.score"]
    torch.testing.assert_close(scores.sum(1), torch.ones(len(scores)))


def test_other_sizes_get_resampled_positions(model: ViViT) -> None:
    torch.manual_seed(0)
    large = ViViT(replace(CONFIG, height=48, width=48, positions=(4, 4))).eval()
    assert large.positions(large.grid).shape == (1 + 36, CONFIG.dim)
    own = ViViT(CONFIG).eval()
    own.resize(None, 48, "interpolate")
    assert own.grid.per_slot == 36
    with pytest.raises(UsageError, match="temporal encoder"):
        own.resize(8, None, "interpolate")
    with pytest.raises(UsageError, match="learned"):
        own.resize(None, 32, "recompute")
    with pytest.raises(UsageError, match="multiples"):
        own.resize(None, 50, "interpolate")


@pytest.mark.parametrize("name", ["dense", "random", "topk", "tome", "rgtp"])
def test_full_size_forward_never_asks_the_device(name: str) -> None:
    """On the meta device there are no values, so whoever asks for one fails: so would every wait for a GPU."""
    with torch.device("meta"):
        large = classifier("vivit_b_k400").eval().requires_grad_(False)
    method = load_method(name)().at_keep(1.0 if name == "dense" else 0.5, large, [])
    pixels = torch.empty(2, 32, 224, 224, 3, dtype=torch.uint8, device="meta")
    with torch.inference_mode():
        out = large(ClipBatch(pixels, ("a", "b")), method.attach(large))
    assert out.logits.shape == (2, 400)
    reached = (out.counts[-1].mlp[0] - 16) / large.grid.tokens
    # tome removes whole tokens in each of 12 blocks: 8 of 196, which leaves 100
    asked = {"dense": 1.0, "tome": 100 / 196}.get(name, 0.5)
    assert reached == pytest.approx(asked, abs=0.01)


def test_counts_that_follow_the_clip_say_so() -> None:
    done = vpbench("flops", "--method", "tdiff", "--keep", "0.5", "--backbone", "vivit_b_k400")
    assert done.returncode == 2
    assert "--clip counts on one" in done.stderr


def test_a_number_of_tokens_is_not_enough_where_steps_are_encoded_one_by_one() -> None:
    done = vpbench("flops", "--method", "rlt", "--tokens", "800", "--backbone", "vivit_b_k400")
    assert done.returncode == 2
    assert "how its tokens fall on the steps" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
