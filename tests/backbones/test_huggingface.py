"""Classifiers of transformers, run by its own code: equal to it where dense, and to its masked attention where not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import moving_clip
from helpers import construct
from tiny_backbones import CONFIGS, WRAPPED
from torch import Tensor
from torch.nn import functional as F

from vpbench import registry
from vpbench.api import Classifier, ClipBatch, Pruner, Selection, Tokens, Trace
from vpbench.api.method import load_method
from vpbench.backbones import loading, plain
from vpbench.commands.contract import masking
from vpbench.data.protocols import catalog
from vpbench.data.protocols.shape import Shape
from vpbench.errors import UsageError
from vpbench.measure.operators import operators
from vpbench.tasks.recognition.session import to_batch

library = pytest.importorskip("transformers")
Mask = Callable[[int], Tensor]


def seeded(name: str) -> Any:
    torch.manual_seed(0)
    found = construct(CONFIGS[name]).eval().requires_grad_(False)
    for parameter in found.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    return found


def theirs(model: Any, attention: str = "eager") -> Any:
    """Return the library's own model with the same weights, which knows nothing of us."""
    found = type(model.network)(type(model.network.config)(**model.config.keywords())).eval()
    left = found.load_state_dict(model.network.state_dict(), strict=False)
    assert not left.unexpected_keys
    assert all(".predictor." in name for name in left.missing_keys)
    if model.flow == "stream":  # TimeSformer asks no interface
        found.set_attn_implementation(attention)
    return found


def clips(model: Any, count: int = 3) -> ClipBatch:
    return to_batch([moving_clip(n, model.config) for n in range(count)], "cpu")


def run(model: Any, batch: ClipBatch, pruner: Pruner | None = None) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(batch, pruner or Pruner()).logits
    return found


def library_logits(network: Any, model: Any, batch: ClipBatch) -> Tensor:
    with torch.no_grad():
        found: Tensor = network(model.normalise(batch.pixels).permute(0, 1, 4, 2, 3)).logits
    return found


@pytest.mark.parametrize("name", [*WRAPPED, "hf_timesformer"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_dense_is_the_library(name: str, attention: str) -> None:
    model = seeded(name)
    batch = clips(model)
    expected = library_logits(theirs(model, attention), model, batch)
    torch.testing.assert_close(run(model, batch), expected, atol=1e-5, rtol=0)


class Dropped(Pruner):
    """Keeps `places[b]` of each clip, before block 0 or after a block."""

    def __init__(self, kept: list[Tensor], after: int | None) -> None:
        self.places, self.after = kept, after

    def video(self, batch: ClipBatch) -> Selection | None:
        return Selection.of_clips(self.places, torch.device("cpu")) if self.after is None else None

    def after_block(self, layer: int, tokens: Tokens) -> Tokens:
        if layer != self.after:
            return tokens
        starts = [clip * tokens.lengths[0] for clip in range(len(self.places))]
        rows = torch.cat([start + kept for start, kept in zip(starts, self.places, strict=True)])
        return tokens.take(rows, tuple(len(each) for each in self.places))


KEPT = [torch.tensor([1, 5, 6, 17, 40, 90, 127]), torch.arange(0, 128, 3), torch.tensor([0, 64])]


def masked(model: Any, batch: ClipBatch, after: int | None) -> Tensor:
    """Run the library's dense model, with its own positions, whose tokens do not look at what is to be dropped."""
    classed, seen = model.classed, []
    kept = torch.zeros(len(KEPT), classed + model.grid.tokens, dtype=torch.bool)
    kept[:, :classed] = True
    for clip, places in enumerate(KEPT):
        kept[clip, classed + places] = True
    calls = 0

    def attention(module: Any, q: Tensor, k: Tensor, v: Tensor, _: Tensor | None, **__: Any) -> tuple[Tensor, None]:
        nonlocal calls
        whole = after is not None and calls <= after
        calls += 1
        mask = None if whole else kept[:, None, None].expand(-1, 1, q.shape[2], -1)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2), None

    library.AttentionInterface.register("masked_for_a_test", attention)
    network = theirs(model, "masked_for_a_test")
    if hasattr(network, "fc_norm"):  # it takes the mean over all tokens: here, over those that are kept
        share = kept.float() / kept.sum(dim=1, keepdim=True)
        network.videomae.register_forward_hook(lambda _, __, out: seen.append(out.last_hidden_state))
        library_logits(network, model, batch)
        with torch.no_grad():
            return network.classifier(network.fc_norm((seen[0] * share[..., None]).sum(dim=1)))
    return library_logits(network, model, batch)


@pytest.mark.parametrize("after", [None, 0, 1])
@pytest.mark.parametrize("name", WRAPPED)
def test_dropping_is_masking(name: str, after: int | None) -> None:
    model = seeded(name)
    batch = clips(model)
    expected = masked(model, batch, after)
    assert float((expected - run(model, batch)).abs().max()) > 1e-3, "what is dropped matters"
    torch.testing.assert_close(run(model, batch, Dropped(KEPT, after)), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("after", [None, 1])
def test_positions_in_the_order_of_tokens_are_found_out(after: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    model = seeded("hf_vjepa2")
    batch = clips(model)
    for layer in model.layers:
        own = type(layer.attention).get_position_ids
        monkeypatch.setattr(layer.attention, "get_position_ids", own.__get__(layer.attention))
    expected = library_logits(theirs(model), model, batch)
    torch.testing.assert_close(run(model, clips(model, 1)), expected[:1], atol=1e-5, rtol=0)
    pruner = Dropped(KEPT[:1], after)
    wrong = run(model, clips(model, 1), pruner) - masked(model, batch, after)[:1]
    assert float(wrong.abs().max()) > 1e-3


@pytest.mark.parametrize("name", WRAPPED)
def test_all_methods_keep_all_as_dense_and_cost_what_is_counted(name: str) -> None:
    model, ran = seeded(name), []
    batch, known = clips(model), [moving_clip(n, model.config) for n in range(3)]
    one = clips(model, 1)
    dense = run(model, batch)
    for method in registry.names("methods"):
        try:
            whole, half = (load_method(method)().at_keep(keep, model, known) for keep in (1.0, 0.5))
        except UsageError:
            continue
        if model.flow not in half.flows or half.supports(model) or model.refuses(half.attach(model)):
            continue
        torch.testing.assert_close(run(model, batch, whole.attach(model)), dense, atol=1e-5, rtol=0)
        pruner = half.attach(model)
        out = model(one, pruner)
        closed = out.macs[0] + pruner.macs(tuple(count.attention[0] for count in out.counts)) - pruner.uncounted_macs()
        seen = operators(lambda pruner=pruner: model(one, pruner))  # type: ignore[misc]
        assert not seen.uncounted
        assert seen.macs == pytest.approx(closed, rel=1e-3), method
        ran.append(method)
    expected = "random rlt tdiff topk tome sta ats vidtldr pitome wpr oracle evs"
    assert {*expected.split()} <= {*ran}


@pytest.mark.parametrize("name", WRAPPED)
def test_what_blocks_start_from_is_shown_of_patches_alone(name: str) -> None:
    model = seeded(name)
    shifts = []

    class Shifts(Pruner):
        def after_attention(self, layer: int, tokens: Tokens, trace: Trace) -> Tokens:
            assert trace.entered is not None
            shifts.append((tokens.x - trace.entered).norm(dim=-1))
            return tokens

    run(model, clips(model), Shifts())
    assert [len(each) for each in shifts] == [3 * model.grid.tokens] * model.depth
    assert all((each > 0).all() for each in shifts)
    for method in ("topk", "vidtldr"):
        pruner = load_method(method)(score="shift").attach(model)  # type: ignore[call-arg]
        run(model, clips(model), pruner)


def test_a_class_token_is_no_pruners_business() -> None:
    class Seen(Pruner):
        def wants_received(self, layer: int) -> bool:
            return True

        def after_attention(self, layer: int, tokens: Tokens, trace: Trace) -> Tokens:
            assert tokens.lengths == trace.lengths
            assert torch.equal(
                tokens.index.sort().values[:: len(tokens.lengths)], torch.arange(128)[: tokens.lengths[0]]
            )
            sums.append(trace.received().view(len(tokens.lengths), -1, 2).sum(dim=1))
            return tokens

    sums: list[Tensor] = []
    model = seeded("hf_vivit")
    run(model, clips(model), Seen())
    # patches pay their class token a part of their attention, and get none from it here
    assert all((each < model.grid.tokens).all() and (each > 0).all() for each in sums)
    assert len(sums) == model.depth


def test_merged_tokens_have_a_caveat_where_positions_are_rotary() -> None:
    rotary, added = seeded("hf_vjepa2"), seeded("hf_videomae")
    tome, rlt = (load_method(name)() for name in ("tome", "rlt"))
    assert "place" in rotary.caveat(tome.attach(rotary))
    assert not rotary.caveat(rlt.attach(rotary))
    assert not added.caveat(tome.attach(added))


@pytest.mark.parametrize("name", [*WRAPPED, "hf_timesformer"])
def test_a_folder_is_run_as_the_library_runs_it(name: str, tmp_path: Path) -> None:
    model = seeded(name)
    network = theirs(model)
    network.save_pretrained(tmp_path)
    assert loading.meant("hf", str(tmp_path)) == name
    read: Classifier = loading.build(name, str(tmp_path), 0)
    batch = clips(model)
    torch.testing.assert_close(run(read, batch), library_logits(network, model, batch), atol=1e-5, rtol=0)
    assert read.config.classes == 5


def test_what_is_no_folder_of_such_a_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give --weights FOLDER"):
        loading.build("hf", "random", 0)
    network = theirs(seeded("hf_videomae"))
    network.save_pretrained(tmp_path)
    with pytest.raises(UsageError, match=r"is not hf_videomae_b.*hf_videomae"):
        loading.build("hf_videomae_b", str(tmp_path), 0)
    with pytest.raises(UsageError, match="is not hf_vivit"):
        loading.build("hf_vivit", str(tmp_path), 0)


def test_timesformer_takes_what_leaves_a_grid_and_its_cost_is_what_is_counted() -> None:
    model, ran = seeded("hf_timesformer"), []
    one, known = clips(model, 1), [moving_clip(n, model.config) for n in range(2)]
    for method in registry.names("methods"):
        try:
            half = load_method(method)().at_keep(1.0 if method == "dense" else 0.5, model, known)
        except UsageError:
            continue
        if model.flow not in half.flows or half.supports(model) or model.refuses(half.attach(model)):
            continue
        pruner = half.attach(model)
        out = model(one, pruner)
        seen = operators(lambda pruner=pruner: model(one, pruner))  # type: ignore[misc]
        own = pruner.macs(tuple(count.attention[0] for count in out.counts))
        assert out.macs[0] + own == pytest.approx(seen.macs, rel=1e-3), method
        ran.append(method)
    assert {"dense", "frame_stride", "downsample", "stts_random", "stts_uniform"} <= {*ran}
    assert "holes" in str(model.refuses(load_method("random")().attach(model)))


class Frames(Pruner):
    """Keeps some frames and a window of places before a block."""

    def stage(self, block: int, x: Tensor) -> Tensor:
        return x[:, ::2, 1:7, 2:8] if block == self.block else x

    def __init__(self, block: int) -> None:
        self.block = block


@pytest.mark.parametrize("block", [0, 2])
def test_dropping_frames_and_places_of_timesformer_is_masking(block: int) -> None:
    model = seeded("hf_timesformer")
    batch, network = clips(model, 2), theirs(model)
    kept = torch.zeros(16, 8, 8, dtype=torch.bool)
    kept[::2, 1:7, 2:8] = True
    places, calls = kept.permute(1, 2, 0).flatten(0, 1), 0

    def masked_attention(module: Any, hidden: Any, *_: Any) -> tuple[Tensor]:
        nonlocal calls
        number, in_time = divmod(calls, 2)[0], calls % 2 == 0
        calls += 1
        of_clip = places if in_time else torch.cat([torch.ones(16, 1, dtype=torch.bool), kept.flatten(1)], dim=1)
        mask = of_clip.repeat(2, 1)[:, None, None]
        mask = mask | ~mask.any(dim=-1, keepdim=True) if number >= block else torch.ones_like(mask)
        q, k, v = module.qkv(hidden).unflatten(-1, (3, module.num_heads, -1)).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        if not in_time and number >= block:  # the class token's mean is over the frames that are left
            left = torch.arange(16).repeat(2) % 2 == 0
            out = out.clone()
            out[:, 0] = torch.where(left[:, None], out[:, 0], torch.nan)
        return (out,)

    for layer in network.timesformer.encoder.layer:
        for attention in (layer.temporal_attention.attention, layer.attention.attention):
            attention.forward = masked_attention.__get__(attention)
    own_mean = torch.mean
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "mean", lambda x, dim, keep: torch.nanmean(x, dim, keep))
        expected = library_logits(network, model, batch)
    assert torch.mean is own_mean
    torch.testing.assert_close(run(model, batch, Frames(block)), expected, atol=1e-5, rtol=0)


PROCESSOR: dict[str, Any] = {
    "size": {"shortest_edge": 36},
    "crop_size": {"height": 32, "width": 32},
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.2, 0.2, 0.3],
    "resample": 2,
}


def test_the_checkpoints_own_preparation_is_the_protocol(tmp_path: Path) -> None:
    theirs(seeded("hf_videomae")).save_pretrained(tmp_path)
    assert loading.preparation("hf_videomae", str(tmp_path)) is None
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    stated = loading.preparation("hf_videomae", str(tmp_path))
    assert stated is not None
    assert loading.preparation("videomae_b", str(tmp_path)) is None
    assert catalog.default("first", None, stated) == "checkpoint"
    frames = np.random.default_rng(0).integers(0, 256, (16, 70, 52, 3), dtype=np.uint8)
    rule = catalog.find("checkpoint", 0, None, stated)
    shape = Shape(16, 32, 32, 4)
    (cut,) = rule.spatial.crops(rule.spatial.resized(frames, 32, 32), 32, 32)
    own = library.models.videomae.image_processing_pil_videomae.VideoMAEImageProcessorPil(**PROCESSOR)
    expected = own([list(frames)], return_tensors="pt")["pixel_values"][0].permute(0, 2, 3, 1)
    model = loading.build("hf_videomae", str(tmp_path), 0)
    levels = (model.normalise(torch.from_numpy(cut.copy())) - expected).abs() * torch.tensor([0.2, 0.2, 0.3]) * 255
    assert float(levels.max()) < 1.01, "Pillow rounds after each axis, as torch does, with weights of less precision"
    assert float((levels > 0.01).float().mean()) < 0.1
    # 16 frames 4 apart, in the middle of 100
    assert rule.temporal.indices(100, None, shape, "v") == [list(range(18, 82, 4))]


def test_vivits_processor_takes_one_off_what_it_rescales(tmp_path: Path) -> None:
    theirs(seeded("hf_vivit")).save_pretrained(tmp_path)
    said = PROCESSOR | {"rescale_factor": 1 / 127.5, "offset": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    model = loading.build("hf_vivit", str(tmp_path), 0)
    pixels = torch.tensor([[0.0, 127.5, 255.0]])
    expected = (pixels / 127.5 - 1 - torch.tensor([0.4, 0.5, 0.6])) / torch.tensor([0.2, 0.2, 0.3])
    torch.testing.assert_close(model.normalise(pixels), expected)


def test_without_stated_preparation_the_protocol_is_refused() -> None:
    with pytest.raises(UsageError, match="processor's settings"):
        catalog.find("checkpoint", 0)


OWN_KEPT = {"videomae": KEPT, "vivit": [torch.arange(0, 360, 2), torch.tensor([0, 40, 359]), torch.arange(100, 300)]}


@pytest.mark.parametrize("after", [None, 1])
@pytest.mark.parametrize("name", OWN_KEPT)
def test_dropping_is_masking_in_our_own_networks(name: str, after: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    model, kept = seeded(name), OWN_KEPT[name]
    batch = clips(model)
    if name == "vivit" and after is not None:  # its steps are sequences of their own
        found = run(model, batch, masking.dropping(kept, model, after))
        assert float((found - run(model, batch)).abs().max()) > 1e-3, "what is dropped matters"
        torch.testing.assert_close(found, masking.masked(model, batch, kept, after), atol=1e-5, rtol=0)
        return
    found = run(model, batch, Dropped(kept, after))
    steps, classed = (model.grid.slots, 1) if name == "vivit" else (1, 0)
    seen = torch.zeros(len(kept), model.grid.tokens, dtype=torch.bool)
    for clip, places in enumerate(kept):
        seen[clip, places] = True
    seen = F.pad(seen.view(len(kept) * steps, -1), (classed, 0), value=True)
    calls = 0

    def attention(q: Tensor, k: Tensor, v: Tensor, lengths: tuple[int, ...], size: Tensor | None = None) -> Tensor:
        nonlocal calls
        calls += 1
        whole = lengths[0] != seen.shape[1] or (after is not None and calls <= after + 1)
        q, k, v = (each.view(len(lengths), lengths[0], *each.shape[1:]).transpose(1, 2) for each in (q, k, v))
        mask = None if whole else seen[:, None, None].expand(-1, 1, q.shape[2], -1)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(0, 1)

    monkeypatch.setattr(plain, "attend", attention)
    # the mean of ours is over what is left after the last block
    pruner = Dropped(kept, model.depth - 1) if name == "videomae" else Pruner()
    torch.testing.assert_close(found, run(model, batch, pruner), atol=1e-5, rtol=0)
    assert calls >= model.depth
