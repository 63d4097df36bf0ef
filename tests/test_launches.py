"""What forwards do to a CUDA device, seen on a pretended one: operators launched, waits for it, devices, numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import torch
from launches import FILE, PRECISIONS, SIZES, Detector, Family, Forward, torch_version
from pretend_cuda import OnCuda, build_guard, pretending

from vpbench.api import Selection, attention

#: operators of a forward, in those of a dense one: of methods that drop tokens, and of those that merge
LIMIT, MERGING = 1.2, 3.0
#: and of those that need more, each for what it says
LIMITS = {
    # 9 operators more in each of three scored blocks; in half precision 12, to keep the second pass's bias exact
    ("videomae", "topk", "bf16"): 1.26,
    # 7 passes over the attention, of which 4 begin with what the last one gave: 13 operators a scored block
    ("videomae", "wpr", "fp32"): 1.29, ("videomae", "wpr", "bf16"): 1.46, ("videomae", "wpr", "amp"): 1.25,
    # scores of 9 operators a scored block, 13 to sample by them, and 7 more where clips differ in length
    ("videomae", "ats", "fp32"): 1.54, ("videomae", "ats", "bf16"): 1.58, ("videomae", "ats", "amp"): 1.31,
    # its groups of frames wait for one another: 11 steps of a product, a score, a sort and what is left, beside three
    # scored blocks of 22
    ("videomae", "sta", "fp32"): 1.80, ("videomae", "sta", "bf16"): 1.80, ("videomae", "sta", "amp"): 1.42,
    # the steps of a clip are encoded in nine waves, one after the other, of which a dense forward has one
    **{("vivit", "rgtp", precision): 16.0 for precision in PRECISIONS},
    **{("vitdet", "rgtp", precision): 1.4 for precision in PRECISIONS},
    # gates remember from step to step: sixteen steps one after the other, 100 operators a block, of gates and products
    **{("vivit", name, precision): 116.0 for name in ("eventful", "eventful_random") for precision in PRECISIONS},
    **{("vitdet", name, precision): 2.5 for name in ("eventful", "eventful_random") for precision in PRECISIONS},
    # all tubelets are embedded before some are chosen, and those once more
    **{(family, "evs", precision): 1.3 for family in ("videomae", "vivit") for precision in PRECISIONS},
    # 12 operators in each of three scored blocks, in half precision some more
    **{("videomae", "representation_shift", precision): 1.25 for precision in PRECISIONS},
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
    over = {}
    for each in seen:
        times = each.seen.operators / dense[each.precision]
        if times > LIMITS.get((family, each.method, each.precision), MERGING if each.merges else LIMIT):
            over[each.method, each.precision] = round(times, 3)
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
