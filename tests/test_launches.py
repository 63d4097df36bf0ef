"""What forwards do to a CUDA device, seen on a pretended one: operators launched, waits for it, devices, numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import torch
from launches import FILE, SIZES, Detector, Family, Forward, torch_version
from pretend_cuda import OnCuda, build_guard, pretending

from vpbench.api import Selection, attention

#: operators of a forward, in those of a dense one: what is chosen before the network costs next to nothing
LIMIT = 1.2
#: what is scored inside it costs more, and merging is done in every block; rgtp on ViViT encodes the steps of a clip in
#: nine waves, one after the other, of which a dense forward has one; evs embeds all tubelets before it chooses
LIMITS = {
    ("videomae", "evs"): 1.3, ("vivit", "evs"): 1.3,
    ("videomae", "representation_shift"): 1.4, ("vivit", "representation_shift"): 1.4,
    ("videomae", "topk"): 1.5, ("videomae", "wpr"): 1.9, ("videomae", "ats"): 2.3, ("videomae", "sta"): 2.3,
    ("videomae", "tome"): 3.0, ("videomae", "vidtldr"): 3.1, ("videomae", "pitome"): 3.8,
    ("vivit", "topk"): 1.3, ("vivit", "tome"): 3.0, ("vivit", "rgtp"): 16.0, ("vitdet", "rgtp"): 1.4,
}  # fmt: skip
#: operators of a detector's second stage, of which there were three for each region
REGIONS = 210

AGAIN = "if that is meant, write them down again with `python tests/launches.py`"


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    build_guard(tmp_path_factory.mktemp("guard"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=[*SIZES, "vitdet"])
def forwards(guard: None, request: pytest.FixtureRequest) -> tuple[str, list[Forward]]:
    return request.param, list((Detector() if request.param == "vitdet" else Family(request.param)).forwards())


def test_no_method_launches_more_than_before(forwards: tuple[str, list[Forward]]) -> None:
    known = json.loads(FILE.read_text(encoding="utf-8"))
    if known["torch"] != torch_version():
        pytest.skip(f"operators were written down with torch {known['torch']}, which makes a forward of others")
    family, seen = forwards
    now = {(f"{family}/{each.method}", each.precision): each.seen.operators for each in seen}
    grown = {key: n for key, n in now.items() if n > known["operators"].get(key[0], {}).get(key[1], 0)}
    assert not grown, f"operators of a forward grew to {grown}, or are of a new method; {AGAIN}"


def test_methods_launch_little_more_than_dense(forwards: tuple[str, list[Forward]]) -> None:
    family, seen = forwards
    dense = {each.precision: each.seen.operators for each in seen if each.method == "dense"}
    times = {(each.method, each.precision): each.seen.operators / dense[each.precision] for each in seen}
    over = {key: round(n, 2) for key, n in times.items() if n > LIMITS.get((family, key[0]), LIMIT)}
    assert not over, f"operators of a forward, in those of a dense one: {over}"


def test_the_host_waits_where_a_method_says_so_and_nowhere_else(forwards: tuple[str, list[Forward]]) -> None:
    for each in forwards[1]:
        waits = sum(each.seen.waits.values())
        said = f"{each.method} in {each.precision} waits {waits} times for the device, and says {each.waits}"
        assert waits == each.waits, f"{said}: {dict(each.seen.waits)}"


def test_sums_come_in_the_same_order_each_time(forwards: tuple[str, list[Forward]]) -> None:
    assert not {each.method: dict(each.seen.unordered) for each in forwards[1] if each.seen.unordered}


def test_the_device_computes_what_the_cpu_does(forwards: tuple[str, list[Forward]]) -> None:
    for each in forwards[1]:
        if each.precision == "fp32":
            expected = each.expected()
            assert each.output.shape == expected.shape, each.method
            far = float((each.output - expected).abs().max() / expected.abs().max())
            assert far < 1e-3, f"{each.method}: outputs are {far:.1e} of the largest one off"


def test_what_waits_is_told_with_its_place(guard: None) -> None:
    with pretending() as seen:
        Selection.from_mask(OnCuda(torch.ones(2, 8, dtype=torch.bool)))
        [(place, times)] = seen.waits.items()
        assert (place.partition(":")[0], times) == ("vpbench/api/tokens.py", 1)
        q = OnCuda(torch.ones(4, 1, 8))
        with pytest.raises(RuntimeError, match=r"is on the CPU, at vpbench/api/attention\.py:\d"):
            attention.received(q, q, torch.ones(4, 1), (4,))


@pytest.mark.usefixtures("guard")
@pytest.mark.parametrize(("family", "methods"), [("videomae", ("ats", "rlt", "vidtldr")), ("vivit", ("rgtp",))])
def test_four_times_the_clips_take_no_more_launches(family: str, methods: tuple[str, ...]) -> None:
    few, many = ({each.method: each.seen.operators for each in Family(family, clips).forwards(methods, ["bf16"])}
                 for clips in (8, 32))  # fmt: skip
    assert few == many


@pytest.mark.usefixtures("guard")
def test_regions_of_a_frame_are_pooled_in_few_launches() -> None:
    seen = Detector().regions("fp32")
    assert seen.operators <= REGIONS


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
