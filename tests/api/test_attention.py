"""The fused attention and its scores against the attention map written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import moving_clip
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vpbench.api import Trace, attention
from vpbench.api.method import load_method
from vpbench.backbones.videomae.network import VideoMAE
from vpbench.tasks.recognition.session import to_batch

LENGTHS = [(7, 7), (5, 1, 9), (12,), (130, 3)]


def packed(lengths: tuple[int, ...], heads: int = 3, width: int = 16, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, sum(lengths), heads, width, generator=generator).unbind(0)
    return 2 * q, k, v


def maps(q: Tensor, k: Tensor, lengths: tuple[int, ...], size: Tensor | None = None) -> list[Tensor]:
    """The attention map `[H, N, N]` of each clip, in float64."""
    found = []
    sizes = (torch.ones(len(q)) if size is None else size).split(lengths)
    for queries, keys, own in zip(q.double().split(lengths), k.double().split(lengths), sizes, strict=True):
        logits = torch.einsum("ihd,jhd->hij", queries, keys) * q.shape[-1] ** -0.5
        found.append((logits + own.double().log()).softmax(-1))
    return found


def attended(q: Tensor, k: Tensor, v: Tensor, lengths: tuple[int, ...], size: Tensor | None = None) -> Tensor:
    values = v.double().split(lengths)
    weights = maps(q, k, lengths, size)
    return torch.cat([torch.einsum("hij,jhd->ihd", a, own) for a, own in zip(weights, values, strict=True)])


@pytest.mark.parametrize("lengths", LENGTHS)
def test_attend(lengths: tuple[int, ...]) -> None:
    q, k, v = packed(lengths)
    torch.testing.assert_close(
        attention.attend(q, k, v, lengths).double(), attended(q, k, v, lengths), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("lengths", LENGTHS)
def test_sizes_bias_the_keys(lengths: tuple[int, ...]) -> None:
    q, k, v = packed(lengths)
    size = torch.arange(sum(lengths)).remainder(5) + 1.0
    ours = attention.attend(q, k, v, lengths, size)
    torch.testing.assert_close(ours.double(), attended(q, k, v, lengths, size), atol=1e-5, rtol=0)
    assert (ours - attention.attend(q, k, v, lengths)).abs().max() > 1e-2


def test_a_bias_channel_does_what_the_mask_does() -> None:
    q, k, v = (t.view(1, 12, 3, 16).transpose(1, 2) for t in packed((12,)))
    bias = torch.linspace(-1, 2, 12).view(1, 1, 12, 1)
    wide = attention._with_bias_channels(q, k, v, bias)
    ours = torch.nn.functional.scaled_dot_product_attention(*wide, scale=16**-0.5)[..., :16]
    torch.testing.assert_close(ours, attention._biased(q, k, v, bias)[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("cast", [False, True])
@pytest.mark.parametrize("channels", [False, True])
def test_biases_by_size_are_not_rounded_to_half_precision(channels: bool, cast: bool) -> None:
    """Values are 1 for one token alone, so that what comes out is its weight; sizes of hundreds need nine bits."""
    q, k, v = (torch.zeros(1, 2, 400, 24, dtype=torch.bfloat16) for _ in range(3))
    v[:, :, 0] = 1
    size = torch.full((400,), 3.0)
    size[0] = 765.0
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=cast):
        if channels:
            *wide, _ = attention._with_bias_channels(q, k, v, size.log().view(1, 1, -1, 1))
            logits = (wide[0].double() @ wide[1].double().transpose(-2, -1)).float() * 24**-0.5
            torch.testing.assert_close(logits, size.log().expand_as(logits), atol=1e-5, rtol=0)
        else:
            queries, keys, values = (t[0].transpose(0, 1) for t in (q, k, v))
            ours = attention.attend(queries, keys, values, (400,), size).float()
            torch.testing.assert_close(ours, (size[0] / size.sum()).expand_as(ours), atol=0, rtol=2**-8)


@pytest.mark.parametrize("lengths", [(7, 7), (12,)])
def test_scores_are_of_the_attention_with_its_bias(lengths: tuple[int, ...]) -> None:
    q, k, v = packed(lengths)
    size = torch.arange(sum(lengths)).remainder(5) + 1.0
    biased, expected = maps(q, k, lengths, size), attention.attend(q, k, v, lengths, size)
    out, lse = attention.attend_with_lse(q, k, v, lengths, size)
    also, fused = attention.attend_with_fused(q, k, v, lengths, size)
    trace = Trace(q, k, v, lengths, lse, fused, size)
    for ours in (out, also):
        torch.testing.assert_close(ours, expected, atol=1e-6, rtol=0)
    sums, row = torch.cat([a.sum(1).T for a in biased]), torch.stack([a.mean(0)[0] for a in biased])
    torch.testing.assert_close(trace.received().double(), sums, atol=0, rtol=2e-5)
    torch.testing.assert_close(trace.class_row().double(), row, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        fused.double(), torch.stack([a.square().mean(0).sqrt() for a in biased]), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("asked", ["wants_received", "wants_fused"])
def test_asking_for_scores_keeps_the_bias_by_size(asked: str, tiny: VideoMAE) -> None:
    """A pruner that merges, with proportional attention, gives the same whether it looks at attention or not."""
    merging, other = (load_method("tome")(r=12, proportional=each) for each in (True, False))  # type: ignore[call-arg]
    clips = to_batch([moving_clip(n) for n in range(2)], "cpu")
    asking = merging.attach(tiny)
    setattr(asking, asked, lambda layer: True)
    with torch.inference_mode():
        plain, ours = (tiny(clips, pruner).logits for pruner in (merging.attach(tiny), asking))
        unbiased = tiny(clips, other.attach(tiny)).logits
    torch.testing.assert_close(ours, plain, atol=1e-6, rtol=0)
    assert (unbiased - plain).abs().max() > 1e-5


@pytest.mark.parametrize("lengths", LENGTHS)
def test_log_sum_exp(lengths: tuple[int, ...]) -> None:
    q, k, v = packed(lengths)
    out, lse = attention.attend_with_lse(q, k, v, lengths)
    torch.testing.assert_close(out, attention.attend(q, k, v, lengths), atol=1e-6, rtol=0)
    logits = [torch.einsum("ihd,jhd->ihj", a, b) / 4 for a, b in zip(q.split(lengths), k.split(lengths), strict=True)]
    torch.testing.assert_close(lse, torch.cat([x.logsumexp(-1) for x in logits]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("weighted", [False, True])
def test_received_is_the_column_sum(lengths: tuple[int, ...], weighted: bool) -> None:
    q, k, v = packed(lengths)
    _, lse = attention.attend_with_lse(q, k, v, lengths)
    weight = torch.rand(sum(lengths), 3, generator=torch.Generator().manual_seed(1)) + 0.01 if weighted else None
    ours = attention.received(q, k, lse, lengths, weight)
    given = (torch.ones(sum(lengths), 3) if weight is None else weight).double().split(lengths)
    brute = torch.cat([torch.einsum("ih,hij->jh", w, a) for w, a in zip(given, maps(q, k, lengths), strict=True)])
    torch.testing.assert_close(ours.double(), brute, atol=0, rtol=2e-5)


@pytest.mark.parametrize("steps", [1, 3])
def test_a_walk_is_a_power_of_the_map(steps: int) -> None:
    lengths = (7, 7)
    q, k, v = packed(lengths)
    _, lse = attention.attend_with_lse(q, k, v, lengths)
    power = [torch.linalg.matrix_power(a, steps).sum(1).mean(0) for a in maps(q, k, lengths)]
    torch.testing.assert_close(
        attention.walked(q, k, lse, lengths, steps).double(), torch.cat(power), atol=0, rtol=2e-5
    )


def test_received_in_bfloat16_keeps_the_bias_exact() -> None:
    """One channel would round the bias to 8 bits and be off by 1e-2; q and k themselves are compared as rounded."""
    lengths = (300,)
    q, k, v = (t.bfloat16() for t in packed(lengths))
    _, lse = attention.attend_with_lse(q, k, v, lengths)
    [brute] = maps(q, k, lengths)
    ours = attention.received(q, k, lse, lengths)
    torch.testing.assert_close(ours.double(), brute.sum(1).T, atol=0, rtol=1e-4)


@pytest.mark.parametrize("lengths", LENGTHS)
def test_entropy_of_the_mean_map(lengths: tuple[int, ...]) -> None:
    q, k, _ = packed(lengths)
    mean = [a.mean(0) for a in maps(q, k, lengths)]
    brute = torch.cat([torch.xlogy(a, a).sum(-1) for a in mean])
    torch.testing.assert_close(attention.map_entropy(q, k, lengths).double(), brute, atol=1e-5, rtol=0)


def test_entropy_of_a_row_that_underflows_is_no_nan() -> None:
    q, k, _ = packed((6,))
    assert attention.map_entropy(200 * q, k, (6,)).isfinite().all()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=2, max_size=5), st.integers(0, 2**16))
def test_a_clip_does_not_feel_its_neighbours(lengths: list[int], seed: int) -> None:
    q, k, v = packed(tuple(lengths), seed=seed)
    together = attention.attend(q, k, v, tuple(lengths)).split(lengths)
    for ours, q_own, k_own, v_own in zip(together, q.split(lengths), k.split(lengths), v.split(lengths), strict=True):
        torch.testing.assert_close(ours, attention.attend(q_own, k_own, v_own, (len(ours),)), atol=1e-5, rtol=0)


@pytest.fixture
def on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `attend` choose its kernel as on CUDA."""
    fits = attention._varlen_fits
    monkeypatch.setattr(attention, "_varlen_fits", lambda device, dtype, lengths: fits("cuda", dtype, lengths))


def per_clip(q: Tensor, k: Tensor, v: Tensor, ends: Tensor, scale: float) -> Tensor:
    """What variable-length kernels promise; they themselves exist on CUDA only."""
    parts = [t.tensor_split(ends[1:-1].long()) for t in (q * scale * q.shape[-1] ** 0.5, k, v)]
    return torch.cat([attention.attend(a, b, c, (len(a),)) for a, b, c in zip(*parts, strict=True)])


def sized_clips(sized: bool) -> tuple[tuple[Any, ...], Tensor]:
    """Clips of three lengths, sizes or none, and what attention among them gives."""
    lengths = (5, 1, 9)
    given = (*packed(lengths), lengths, torch.arange(15.0) + 1 if sized else None)
    return given, attention.attend(*given)


@pytest.mark.parametrize("sized", [False, True])
def test_the_variable_length_kernel_gets_the_borders_of_the_clips(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, sized: bool
) -> None:
    given, expected = sized_clips(sized)

    def varlen_attn(
        q: Tensor, k: Tensor, v: Tensor, ends: Tensor, same: Tensor, *longest: int, scale: float, return_aux: Any = None
    ) -> Any:
        assert ends.dtype == torch.int32
        assert ends.tolist() == same.tolist() == [0, 5, 6, 15]
        assert longest == (9, 9)
        out = per_clip(q, k, v, ends, scale)
        return out if return_aux is None else (out, q.new_zeros(q.shape[1], q.shape[0]))

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_attn)
    monkeypatch.setattr(attention, "HALF", (torch.float32,))  # nothing is rounded, so that nothing else can hide
    request.getfixturevalue("on_cuda")
    torch.testing.assert_close(attention.attend(*given), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("sized", [False, True])
def test_ragged_float32_clips_are_one_call_of_the_efficient_kernel(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, sized: bool
) -> None:
    given, expected = sized_clips(sized)
    calls = 0

    def efficient(q: Tensor, k: Tensor, v: Tensor, bias: None, ends: Tensor, *rest: Any, scale: float) -> list[Tensor]:
        nonlocal calls
        calls += 1
        same, *longest, dropout, mask, with_lse = rest
        assert ends.tolist() == same.tolist() == [0, 5, 6, 15]
        assert (bias, *longest, dropout, mask, with_lse) == (None, 9, 9, 0.0, 0, False)
        return [per_clip(q[0], k[0], v[0], ends, scale)[None], q.new_zeros(0)]

    monkeypatch.setattr(torch.ops.aten, "_efficient_attention_forward", efficient)
    request.getfixturevalue("on_cuda")
    torch.testing.assert_close(attention.attend(*given), expected, atol=1e-5, rtol=0)
    assert calls == 1


@pytest.mark.usefixtures("on_cuda")
@pytest.mark.parametrize("sized", [False, True])
def test_the_efficient_kernel_takes_what_it_is_given(sized: bool) -> None:
    """On the meta device torch checks arguments and tells shapes, without the kernel that CUDA alone has."""
    lengths = (5, 1, 9)
    q, k, v = (t.to("meta") for t in packed(lengths))
    size = torch.ones(15, device="meta") if sized else None
    assert attention.attend(q, k, v, lengths, size).shape == v.shape


def test_the_variable_length_kernel_runs_only_where_it_exists() -> None:
    assert attention._varlen_fits("cuda", torch.bfloat16, (3, 4))
    assert attention._varlen_fits("cuda", torch.float32, (3, 4))
    assert not attention._varlen_fits("cuda", torch.float64, (3, 4))
    assert not attention._varlen_fits("cuda", torch.bfloat16, (4, 4))
    assert not attention._varlen_fits("cpu", torch.bfloat16, (3, 4))
    assert attention.kernel_name("cuda:0", torch.bfloat16, ragged=True) == "varlen"
    assert attention.kernel_name("cuda:0", torch.float32, ragged=True) == "varlen_efficient"
    assert attention.kernel_name("cpu", torch.float32, ragged=True) == "sdpa_per_clip"
    assert attention.kernel_name("cuda:0", torch.float64, ragged=True) == "sdpa_per_clip"
    assert attention.kernel_name("cpu", torch.bfloat16, ragged=False) == "sdpa"
