from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vpbench.api import Selection, Tokens
from vpbench.api.attention import attend, explicit_attention

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=5)


@settings(deadline=None, max_examples=40)
@given(LENGTHS, st.integers(0, 2**31))
def test_attention_never_crosses_clips(lengths: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(sum(lengths), 2, 8, generator=generator) for _ in range(3))
    together = attend(q, k, v, tuple(lengths))
    parts = zip(*(t.split(lengths) for t in (q, k, v)), strict=True)
    expected = torch.cat([_reference(*part) for part in parts])
    torch.testing.assert_close(together, expected, atol=1e-5, rtol=1e-5)


def _reference(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    weights = torch.einsum("ihd,jhd->hij", q, k).div(q.shape[-1] ** 0.5).softmax(-1)
    return torch.einsum("hij,jhd->ihd", weights, v)


def test_explicit_attention_is_the_fused_one() -> None:
    q, k, v = torch.randn(3, 2, 3, 17, 8).unbind(0)
    fused = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(explicit_attention(q, k, v), fused, atol=1e-5, rtol=1e-5)


def test_selection_from_mask_and_scores() -> None:
    mask = torch.tensor([[True, False, True], [False, True, False]])
    chosen = Selection.from_mask(mask)
    assert chosen.lengths == (2, 1)
    assert chosen.index.tolist() == [0, 2, 1]
    ties = Selection.top(torch.tensor([[1.0, 3.0, 3.0, 3.0]]), 2)
    assert ties.index.tolist() == [1, 2]


@pytest.mark.parametrize("lengths", [(3, 3), (2, 4)])
def test_mean_is_per_clip_and_weighted_by_size(lengths: tuple[int, ...]) -> None:
    x, size = torch.randn(6, 4), torch.tensor([1.0, 2, 3, 1, 1, 5])
    plain, weighted = Tokens(x, torch.arange(6), lengths), Tokens(x, torch.arange(6), lengths, size)
    for clip, (part, s) in enumerate(zip(x.split(lengths), size.split(lengths), strict=True)):
        torch.testing.assert_close(plain.mean()[clip], part.mean(0))
        torch.testing.assert_close(weighted.mean()[clip], (part * s[:, None]).sum(0) / s.sum())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sized", [False, True])
@pytest.mark.parametrize("lengths", [(400, 400), (500, 300)])
def test_means_in_half_precision_are_rounded_once(dtype: torch.dtype, sized: bool, lengths: tuple[int, ...]) -> None:
    x = (1 + torch.rand(800, 4, generator=torch.Generator().manual_seed(0))).to(dtype)
    tokens = Tokens(x, torch.arange(800), lengths, torch.arange(800).remainder(7) + 1.0 if sized else None)
    exact = replace(tokens, x=x.double().float()).mean()
    assert tokens.mean().dtype == dtype
    torch.testing.assert_close(tokens.mean().float(), exact, atol=0, rtol=torch.finfo(dtype).eps / 2 + 1e-6)


def test_take_keeps_index_and_size_together() -> None:
    tokens = Tokens(torch.arange(8.0)[:, None], torch.arange(8), (4, 4), torch.arange(8.0))
    kept = tokens.take(torch.tensor([3, 1, 6]), (2, 1))
    assert kept.index.tolist() == [3, 1, 6]
    assert kept.x.flatten().tolist() == kept.size.tolist() == [3.0, 1.0, 6.0]  # type: ignore[union-attr]


def test_tokens_are_kept_by_place_as_by_row_and_say_later_where_they_lie() -> None:
    tokens = Tokens(torch.arange(16.0)[:, None], torch.arange(16) % 8, (8, 8), torch.arange(16.0))
    local = torch.tensor([[1, 4, 6], [0, 7, 3]])
    ours, theirs = tokens.keep(local), tokens.take(torch.tensor([1, 4, 6, 8, 15, 11]), (3, 3))
    for found in (ours, theirs, theirs.keep(torch.tensor([[0, 1, 2], [0, 1, 2]]))):
        assert found.x.flatten().tolist() == [1, 4, 6, 8, 15, 11]
        assert found.size is not None
        assert found.size.tolist() == [1, 4, 6, 8, 15, 11]
        assert found.index.tolist() == [1, 4, 6, 0, 7, 3]
        assert found.lengths == (3, 3)
        assert found.with_x(found.x + 1).index is found.index
