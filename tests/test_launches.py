"""What forwards do to a CUDA device, seen on a pretended one: operators launched, waits of the host, devices, numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import torch
from launches import CLIPS, FILE, SIZES, Family, Forward, torch_version
from pretend_cuda import OnCuda, build_guard, pretending

from vpbench.api import attention

AGAIN = "if that is meant, write them down again with `python tests/launches.py`"


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    build_guard(tmp_path_factory.mktemp("guard"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=SIZES)
def forwards(guard: None, request: pytest.FixtureRequest) -> tuple[str, list[Forward]]:
    return request.param, list(Family(request.param).forwards())


def test_no_method_launches_more_than_before(forwards: tuple[str, list[Forward]]) -> None:
    known = json.loads(FILE.read_text(encoding="utf-8"))
    if known["torch"] != torch_version():
        pytest.skip(f"operators were written down with torch {known['torch']}, and others are made of others")
    assert known["clips"] == CLIPS
    family, seen = forwards
    before = {(key, precision): n for key, each in known["operators"].items() for precision, n in each.items()}
    grown = {
        key: (each.seen.operators, before.get(key))
        for each in seen
        if each.seen.operators > before.get(key := (f"{family}/{each.method}", each.precision), 0)
    }
    assert not grown, f"operators of a forward grew (now, before): {grown}; {AGAIN}"


def test_the_device_computes_what_the_cpu_does(forwards: tuple[str, list[Forward]]) -> None:
    for each in forwards[1]:
        if each.precision == "fp32":
            expected = each.expected()
            far = float((each.logits - expected).abs().max() / expected.abs().max())
            assert far < 1e-3, f"{each.method}: logits are {far:.1e} of the largest one off"


@pytest.mark.usefixtures("guard")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sized", [False, True])
@pytest.mark.parametrize("lengths", [(5, 1, 9), (6, 6)])
def test_attention_and_its_scores_are_the_same_by_other_kernels(
    lengths: tuple[int, ...], sized: bool, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, sum(lengths), 2, 8, generator=generator).to(dtype).unbind(0)
    size = torch.arange(float(sum(lengths))) + 1 if sized else None
    out, lse = attention.attend_with_lse(q, k, v, lengths, size)
    expected = (attention.attend(q, k, v, lengths, size), out, lse, attention.received(q, k, lse, lengths))
    with pretending() as seen:
        q, k, v, lse = (OnCuda(each) for each in (q, k, v, lse))
        size = None if size is None else OnCuda(size)
        found = (
            attention.attend(q, k, v, lengths, size),
            *attention.attend_with_lse(q, k, v, lengths, size),
            attention.received(q, k, lse, lengths),
        )
    attending = [name for name in seen.launches if "attention" in name or "attn" in name]
    assert sum(seen.launches[name] for name in attending) == 3  # one for each, however many clips there are
    for ours, theirs in zip(found, expected, strict=True):
        assert isinstance(ours, OnCuda)
        tolerance = 1e-5 if dtype == torch.float32 else 2e-2
        torch.testing.assert_close(ours.numbers.float(), theirs.float(), atol=tolerance, rtol=tolerance)
