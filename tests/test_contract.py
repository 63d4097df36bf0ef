"""What every method must keep to; runs over all methods there are."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
import vid_tree
from conftest import TINY, moving_clip
from helpers import PLAIN
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vpbench import plan, registry
from vpbench.api import Classifier, ClipBatch, Method, Output, Pruner, Selection, Tokens, UsageError
from vpbench.api.backbone import classifier
from vpbench.api.method import load_method
from vpbench.backbones.videomae.network import VideoMAE
from vpbench.backbones.vitdet.costs import frame_macs
from vpbench.backbones.vitdet.network import ViTDet
from vpbench.measure.operators import count_operators
from vpbench.tasks.detection.follow import Follower, Found, Lanes, Look
from vpbench.tasks.recognition.session import to_batch

CLIPS = [moving_clip(n) for n in range(6)]
FRAMES = [name for name in registry.names("methods") if "frames" in load_method(name).flows]


torch.manual_seed(1)
MODEL = VideoMAE(TINY).eval()


def ready(name: str, keep: float, model: VideoMAE) -> Method:
    return load_method(name)().at_keep(1.0 if name == "dense" else keep, model, CLIPS)


def ragged(model: VideoMAE, lengths: list[int], seed: int) -> Tokens:
    """Tokens of clips that keep `lengths` random tubelets each."""
    generator = torch.Generator().manual_seed(seed)
    kept = [torch.randperm(model.grid.tokens, generator=generator)[:n].sort().values for n in lengths]
    pixels = torch.from_numpy(np.stack([moving_clip(seed % 97 + n).pixels for n in range(len(lengths))]))
    return model.embed(pixels, Selection.of_clips(kept, torch.device("cpu")))


def run(model: VideoMAE, method: Method, clips: Any = CLIPS) -> Output:
    with torch.inference_mode():
        out: Output = model(to_batch(clips, "cpu"), method.attach(model))
    return out


@pytest.mark.parametrize("name", PLAIN)
def test_describes_itself(name: str) -> None:
    assert registry.summary("methods", name).endswith(".")
    kind = load_method(name)
    assert kind.reference
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert all(f.default is not dataclasses.MISSING for f in dataclasses.fields(kind))
    assert set(plan.parameters(name).values()) <= {int, float, str, bool}


@pytest.mark.parametrize("name", PLAIN)
def test_names_what_a_keep_ratio_sets(name: str, tiny: VideoMAE) -> None:
    if name == "dense":
        return
    plain = load_method(name)()
    derived = [plain.at_keep(keep, tiny, CLIPS) for keep in (0.3, 0.5, 0.7)]
    names = [f.name for f in dataclasses.fields(plain)]
    changed = {each for each in names for one in derived if getattr(one, each) != getattr(plain, each)}
    assert changed, "no keep ratio does anything"
    assert changed <= set(plain.set_by_keep) <= set(names)


@pytest.mark.parametrize("name", PLAIN)
def test_keep_all_is_dense(name: str, tiny: VideoMAE) -> None:
    torch.testing.assert_close(run(tiny, ready(name, 1.0, tiny)).logits, run(tiny, ready("dense", 1.0, tiny)).logits)


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("keep", [0.25, 0.5, 0.75])
def test_final_tokens_follow_the_keep_ratio(name: str, keep: float, tiny: VideoMAE) -> None:
    method = ready(name, keep, tiny)
    assert method.supports(tiny) is None
    last = run(tiny, method).counts[-1].mlp
    assert len(last) == len(CLIPS)
    if name == "dense":
        assert set(last) == {tiny.grid.tokens}
    elif name != "sta":  # sta prunes once more after the last block that counts
        step = 0.07 if name == "downsample" else 0.03  # sides of 4 tokens make coarse steps
        assert sum(last) / len(last) / tiny.grid.tokens == pytest.approx(keep, abs=step)


@pytest.mark.parametrize("name", PLAIN)
def test_a_clip_does_not_depend_on_its_neighbours(name: str, tiny: VideoMAE) -> None:
    method = ready(name, 0.5, tiny)
    together = run(tiny, method).logits
    alone = torch.cat([run(tiny, method, [clip]).logits for clip in CLIPS])
    shuffled = run(tiny, method, CLIPS[::-1]).logits.flip(0)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(together, shuffled, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", PLAIN)
def test_threads_do_not_change_logits(name: str, tiny: VideoMAE) -> None:
    method, before = ready(name, 0.5, tiny), torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(run(tiny, method).logits)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 128), min_size=2, max_size=4), st.integers(0, 2**16), st.integers(1, 2))
def test_random_lengths_do_not_leak(lengths: list[int], seed: int, threads: int) -> None:
    """Whatever a clip's neighbours, their number, or the threads: the same logits to 1e-5."""
    before = torch.get_num_threads()
    try:
        with torch.inference_mode():
            torch.set_num_threads(threads)
            together = logits_of(MODEL, ragged(MODEL, lengths, seed))
            torch.set_num_threads(3 - threads)
            tokens = ragged(MODEL, lengths, seed)
            alone = [
                logits_of(MODEL, Tokens(x, index, (len(x),)))
                for x, index in zip(tokens.split(tokens.x), tokens.split(tokens.index), strict=True)
            ]
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)


def logits_of(model: VideoMAE, tokens: Tokens) -> Tensor:
    for block in model.blocks:
        tokens = block(tokens)
    return model.classify(tokens)


@lru_cache
def full_size(backbone: str) -> Classifier:
    with torch.device("meta"):
        return classifier(backbone).eval().requires_grad_(False)


@pytest.mark.parametrize("name", [name for name in PLAIN if not load_method(name).adaptive])
@pytest.mark.parametrize(
    ("backbone", "keep"), [("videomae_s", 0.25), ("videomae_s", 0.5), ("videomae_s", 0.75), ("videomae_b", 0.5)]
)
def test_full_size_forward_never_asks_the_device(name: str, backbone: str, keep: float) -> None:
    """On the meta device there are no values, so whoever asks for one fails: so would every wait for a GPU."""
    model = full_size(backbone)
    pixels = torch.empty(2, 16, 224, 224, 3, dtype=torch.uint8, device="meta")
    method = load_method(name)().at_keep(1.0 if name == "dense" else keep, model, [])
    assert method.supports(model) is None
    with torch.inference_mode():
        out = model(ClipBatch(pixels, ("a", "b"), (0, 1)), method.attach(model))
    assert out.logits.shape == (2, 400)
    reached = out.counts[-1].mlp[0] / model.grid.tokens
    assert reached == (1.0 if name == "dense" else pytest.approx(keep, abs=0.08 if name == "sta" else 0.03))


@pytest.mark.parametrize("name", PLAIN)
def test_counts_are_what_the_tokens_were(name: str, tiny: VideoMAE) -> None:
    method = ready(name, 0.5, tiny)
    pruner = method.attach(tiny)
    pixels = to_batch(CLIPS, "cpu")
    with torch.inference_mode():
        pixels = pruner.resample(pixels)
        tokens = tiny.embed(pixels.pixels, pruner.video(pixels))
        seen = []
        for block in tiny.blocks:
            seen.append(tokens.lengths)
            assert tokens.x.shape[0] == tokens.index.shape[0] == sum(tokens.lengths)
            for index in tokens.split(tokens.index):
                assert len(index.unique()) == len(index)
                assert 0 <= int(index.min()) <= int(index.max()) < tiny.grid.tokens
            tokens = block(tokens, pruner)
    assert [c.attention for c in run(tiny, method).counts] == seen


@pytest.mark.parametrize(
    ("name", "keep"),
    [("rlt", 0.1), ("dense", 0.5), ("frame_stride", 0.05), ("pitome", 0.05), ("tome", 0.05), ("vidtldr", 0.05)],
)
def test_refuses_what_it_cannot_reach(name: str, keep: float, tiny: VideoMAE) -> None:
    with pytest.raises(UsageError):
        load_method(name)().at_keep(keep, tiny, CLIPS)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("sta", {"r": 10}),
        ("sta", {"r": -1}),
        ("random", {"keep": 0.001}),
        ("tdiff", {"keep": 0.1}),
        ("tdiff", {"pair": "other"}),
        ("centre", {"keep": 0.001}),
        ("random_tube", {"keep": 0.01}),
        ("oracle", {"keep": 0.0}),
        ("frame_stride", {"stride": 0.5}),
        ("frame_stride", {"stride": 17.0}),
        ("frame_stride", {"unit": "second"}),
        ("downsample", {"scale": 0.1}),
        ("downsample", {"scale": 1.5}),
        ("tome", {"r": -1}),
        ("tome", {"form": "magic"}),
        ("tome", {"schedule": "3/x"}),
        ("tome", {"schedule": "1/1/1/1"}),
        ("topk", {"rho": 0.0}),
        ("topk", {"keyframe": 8}),
        ("topk", {"rho": 0.3, "keyframe": 0}),
        ("wpr", {"early": 0}),
        ("wpr", {"rho": 1.1}),
        ("vidtldr", {"schedule": "3/x"}),
        ("vidtldr", {"schedule": "-1"}),
        ("vidtldr", {"schedule": "1/1/1/1"}),
        ("pitome", {"ratio": 0.4}),
        ("ats", {"budget": -1.0}),
    ],
)
def test_refuses_parameters_with_a_reason(name: str, params: dict[str, Any], tiny: VideoMAE) -> None:
    assert load_method(name)(**params).supports(tiny)


def test_random_depends_on_seed_and_clip_only(tiny: VideoMAE) -> None:
    kind = load_method("random")
    batch = to_batch(CLIPS[:2], "cpu")
    one, again, other = (kind(keep=0.5, seed=s).attach(tiny).video(batch) for s in (0, 0, 1))  # type: ignore[call-arg]
    assert one is not None
    assert again is not None
    assert other is not None
    assert torch.equal(one.index, again.index)
    assert not torch.equal(one.index, other.index)
    assert not torch.equal(*one.index.split(one.lengths))


def test_random_can_copy_token_counts(tiny: VideoMAE) -> None:
    counts = {clip.clip_id: 3 + n for n, clip in enumerate(CLIPS)}
    selection = load_method("random")().attach_like(tiny, counts).video(to_batch(CLIPS, "cpu"))
    assert selection is not None
    assert selection.lengths == tuple(counts.values())


def test_uint8_and_normalised_pixels_agree(tiny: VideoMAE) -> None:
    raw = to_batch(CLIPS, "cpu")
    normalised = ClipBatch(tiny.normalise(raw.pixels), raw.ids)
    method = ready("rlt", 0.5, tiny).attach(tiny)
    with torch.inference_mode():
        torch.testing.assert_close(tiny(raw, method).logits, tiny(normalised, method).logits, atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def detector() -> ViTDet:
    return vid_tree.random_detector()


def following(name: str, keep: float, model: ViTDet) -> Pruner:
    return load_method(name)().at_keep(1.0 if name == "dense" else keep, model, ()).attach(model)


def looks(count: int, video: str = "v", first: int = 0) -> list[Look]:
    """Frames with a square that moves over noise."""
    generator = torch.Generator().manual_seed(len(video))
    pixels = torch.randint(0, 90, (count, 48, 64, 3), generator=generator, dtype=torch.uint8)
    for t in range(count):
        pixels[t, 6 + t : 30 + t, 8 + 2 * t : 36 + 2 * t] = 220
    return [Look(video, first + t, each, 1.0) for t, each in enumerate(pixels)]


def follow(model: ViTDet, pruner: Pruner, frames: list[Look], batch: int = 1) -> list[Found]:
    lanes = Lanes(Follower(model, pruner), batch)
    with torch.inference_mode():
        found = [each for number, look in enumerate(frames) for each in lanes.add(look, fresh=number == 0)]
        return sorted([*found, *lanes.flush()], key=lambda each: each.look.number)


def close(ours: list[Found], theirs: list[Found]) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert (a.look, a.kept) == (b.look, b.kept)
        assert torch.equal(a.detections.labels, b.detections.labels)
        torch.testing.assert_close(a.detections.scores, b.detections.scores, atol=1e-5, rtol=0)
        # boxes in pixels of a frame of 64
        torch.testing.assert_close(a.detections.boxes / 64, b.detections.boxes / 64, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", FRAMES)
def test_keeping_all_of_frames_is_dense(name: str, detector: ViTDet) -> None:
    frames = looks(4)
    found = follow(detector, following(name, 1.0, detector), frames)
    assert sum(len(each.detections.boxes) for each in found) > 4
    for each, dense in zip(found, follow(detector, Pruner(), frames), strict=True):
        torch.testing.assert_close(each.detections.boxes, dense.detections.boxes, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("name", [name for name in FRAMES if name != "dense"])
@pytest.mark.parametrize("keep", [0.2, 0.7])
def test_pruned_frames_keep_the_share_and_others_are_dense(name: str, keep: float, detector: ViTDet) -> None:
    pruner = following(name, keep, detector)
    found = follow(detector, pruner, looks(pruner.period + 2))
    assert pruner.kept == round(keep * 64)
    expected = [None, *[round(keep * 64)] * (pruner.period - 1)] * 2
    assert [each.kept for each in found] == expected[: len(found)]


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("batch", [2, 5])
def test_groups_in_lockstep_find_the_same(name: str, batch: int, detector: ViTDet) -> None:
    pruner = following(name, 0.3, detector)
    frames = looks(3 * max(2, pruner.period) - 2)
    close(follow(detector, pruner, frames, batch), follow(detector, pruner, frames))


@pytest.mark.parametrize("name", FRAMES)
def test_nothing_is_remembered_across_segments(name: str, detector: ViTDet) -> None:
    pruner, frames = following(name, 0.3, detector), looks(3)
    alone = follow(detector, pruner, frames)
    follow(detector, pruner, looks(5, "another"))
    close(follow(detector, pruner, frames), alone)


@pytest.mark.parametrize("name", FRAMES)
def test_operators_of_frames_counted_equal_the_closed_form(name: str, detector: ViTDet) -> None:
    """Of the transformer and the method, over two frames; which rollout a frame needs depends on the next."""
    pruner, frames = following(name, 0.3, detector), looks(2)
    found = follow(detector, pruner, frames)
    follower = Follower(detector, pruner)

    def run() -> None:
        follower.start(frames[:1])
        for look, each in zip(frames, found, strict=True):
            follower.transform(look.pixels[None], [each.detections])

    closed = sum(
        frame_macs(detector.config, each.kept) + pruner.frame_macs(each.kept, each.traced) + each.padding
        for each in found
    )
    assert count_operators(run) == pytest.approx(closed, rel=0.01)
