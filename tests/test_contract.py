"""What every method must keep to; runs over all methods there are."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
import torch
import vid_tree
from conftest import TINY, moving_clip
from helpers import PLAIN, like
from hypothesis import given, settings
from hypothesis import strategies as st

from vpbench import registry
from vpbench.api import Classifier, ClipBatch, Method, UsageError
from vpbench.api.backbone import classifier
from vpbench.api.method import load_method
from vpbench.backbones.videomae.network import VideoMAE
from vpbench.commands.contract.methods import on_flow
from vpbench.commands.contract.on_frames import ON_FRAMES, FrameTrial
from vpbench.commands.contract.on_name import ON_NAME
from vpbench.commands.contract.on_networks import Subject, apart
from vpbench.commands.contract.promise import Promise, judge
from vpbench.commands.contract.trial import Trial
from vpbench.tasks.recognition.session import to_batch

CLIPS = [moving_clip(n) for n in range(6)]
FRAMES = [name for name in registry.names("methods") if "frames" in load_method(name).flows]


torch.manual_seed(1)
MODEL = VideoMAE(TINY).eval()


def ready(name: str, keep: float, model: VideoMAE) -> Method:
    return load_method(name)().at_keep(1.0 if name == "dense" else keep, model, CLIPS)


@pytest.mark.parametrize("promise", ON_NAME, ids=lambda each: each.name)
@pytest.mark.parametrize("name", registry.names("methods"))
def test_says_what_it_is(name: str, promise: Promise[str]) -> None:
    assert judge(promise, name, "").text == ""


@pytest.mark.parametrize("promise", on_flow("stream"), ids=lambda each: each.name)
@pytest.mark.parametrize("name", PLAIN)
def test_keeps_its_promises_on_a_stream(name: str, promise: Promise[Trial]) -> None:
    verdict = judge(promise, Trial(name, like(TINY)), "")
    assert verdict.state == "kept" or (name, verdict.text) == ("dense", "it prunes nothing"), verdict.text


@pytest.mark.parametrize("promise", ON_FRAMES, ids=lambda each: each.name)
@pytest.mark.parametrize("name", FRAMES)
def test_keeps_its_promises_on_frames(name: str, promise: Promise[FrameTrial]) -> None:
    verdict = judge(promise, FrameTrial(name, like(vid_tree.TINY)), "")
    assert verdict.state == "kept" or (name, verdict.text) == ("dense", "it prunes nothing"), verdict.text


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 128), min_size=2, max_size=4), st.integers(0, 2**16), st.integers(1, 2))
def test_random_lengths_do_not_leak(lengths: list[int], seed: int, threads: int) -> None:
    """Whatever a clip's neighbours, their number, or the threads: the same logits to 1e-5."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        apart(Subject("videomae_s", like(TINY)), lengths, seed)
    finally:
        torch.set_num_threads(before)


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


@pytest.mark.parametrize(
    ("name", "keep"),
    [
        ("rlt", 0.1),
        ("dense", 0.5),
        ("evs", 0.1),
        ("frame_stride", 0.05),
        ("pitome", 0.05),
        ("tome", 0.05),
        ("vidtldr", 0.05),
    ],
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
        ("evs", {"q": 1.1}),
        ("evs", {"form": "pixels"}),
        ("evs", {"form": "words"}),
        ("evs", {"count": "other"}),
        ("evs", {"depth": 1}),
        ("evs", {"form": "depth", "depth": 3}),
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
