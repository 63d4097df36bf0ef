"""What only a GPU can show: its kernels give what the CPU gives, its graphs replay it, its times are what they say.

`benchmarks/gpu.py` runs these; elsewhere they are skipped.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import moving_clip
from helpers import HASTE, construct, unwatched
from tiny_backbones import CONFIGS
from torch import Tensor

from vpbench import plan, registry
from vpbench.api import Classifier, Clip, ClipBatch, Output, Pruner, attention
from vpbench.api.method import load_method
from vpbench.api.precisions import PRECISIONS
from vpbench.backbones.loading import use_device
from vpbench.errors import UsageError
from vpbench.measure import busy, clock, execution, memory
from vpbench.rows.store import Store, latest
from vpbench.run import group, resolve
from vpbench.tasks.recognition.session import to_batch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
CUDA = "cuda"
LENGTHS = [(64, 64), (50, 1, 90), (300,), tuple(range(20, 52))]
#: what half precision may be off by, in tests of single kernels
ATOL = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 4e-3}


def packed(lengths: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, sum(lengths), 4, 32, generator=draw).to(dtype).unbind(0)
    return q, k, v


@pytest.mark.parametrize("dtype", ATOL)
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("sized", [False, True])
def test_attention_is_that_of_the_cpu(lengths: tuple[int, ...], dtype: torch.dtype, sized: bool) -> None:
    qkv = packed(lengths, dtype)
    size = torch.arange(sum(lengths)).float() % 7 + 1 if sized else None
    q, k, v = (t.double() for t in qkv)
    expected = attention.attend(q, k, v, lengths, size)
    q, k, v = (t.to(CUDA) for t in qkv)
    there = None if size is None else size.to(CUDA)
    alone, with_lse = attention.attend(q, k, v, lengths, there), attention.attend_with_lse(q, k, v, lengths, there)[0]
    for found in (alone, with_lse):
        torch.testing.assert_close(found.cpu().double(), expected, atol=ATOL[dtype], rtol=0)


@pytest.mark.parametrize("dtype", ATOL)
def test_received_attention_is_that_of_the_cpu(dtype: torch.dtype) -> None:
    lengths = (50, 1, 90)
    q, k, v = packed(lengths, dtype)
    _, lse = attention.attend_with_lse(q.double(), k.double(), v.double(), lengths)
    expected = attention.received(q.double(), k.double(), lse.double(), lengths)
    _, own = attention.attend_with_lse(q.to(CUDA), k.to(CUDA), v.to(CUDA), lengths)
    found = attention.received(q.to(CUDA), k.to(CUDA), own, lengths)
    torch.testing.assert_close(found.cpu().double(), expected.double(), atol=ATOL[dtype], rtol=ATOL[dtype])


@pytest.mark.parametrize("dtype", ATOL)
def test_ragged_clips_are_one_kernel(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> Tensor:
        raise AssertionError("a kernel for each clip")

    monkeypatch.setattr(F, "scaled_dot_product_attention", never)
    lengths = tuple(range(20, 52))
    q, k, v = (t.to(CUDA) for t in packed(lengths, dtype))
    attention.attend(q, k, v, lengths)


def loaded(family: str, dtype: str, device: str = CUDA) -> Classifier:
    torch.manual_seed(0)
    asked = plan.options({"method": ("dense",), "dtype": dtype, "device": device})
    return use_device(construct(CONFIGS[family]).eval(), plan.setting(asked, 1))


def pruners(model: Classifier, clips: list[Clip]) -> dict[str, Pruner]:
    found = {}
    for name in registry.names("methods"):
        try:
            method = load_method(name)().at_keep(1.0 if name == "dense" else 0.5, model, clips)
        except UsageError:
            continue
        if not method.supports(model) and not model.refuses(method.attach(model)):
            found[name] = method.attach(model)
    return found


def run(model: Classifier, batch: ClipBatch, pruner: Pruner) -> Output:
    with torch.inference_mode():
        out: Output = model(batch, pruner)
    return out


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("family", CONFIGS)
def test_methods_do_what_they_do_on_the_cpu(family: str, dtype: str) -> None:
    host, own = loaded(family, "fp32", "cpu"), loaded(family, dtype)
    clips = [moving_clip(n, own.config) for n in range(5)]  # type: ignore[arg-type]
    methods = pruners(host, clips)
    assert len(methods) >= 3
    there = pruners(own, clips)
    for name, pruner in methods.items():
        expected = run(host, to_batch(clips, "cpu"), pruner)
        found = run(own, to_batch(clips, CUDA), there[name])
        assert found.logits.dtype == PRECISIONS[dtype].products, name
        assert found.logits.isfinite().all(), name
        if dtype == "fp32":
            assert found.counts == expected.counts, name
            # of two tokens that are equally alike either may be merged, so that most clips have to agree, not all
            near = (found.logits.cpu() - expected.logits).abs().amax(1) < 1e-3 * expected.logits.abs().max()
            assert near.sum() >= 4, name


def test_recorded_forwards_equal_eager_ones() -> None:
    model = loaded("videomae", "amp")
    recorded = execution.forward_of(model, "cudagraph", CUDA)
    pruner = load_method("tdiff")().at_keep(0.5, model, []).attach(model)
    with torch.inference_mode():
        for number in range(6):
            batch = to_batch([moving_clip(number)], CUDA)
            torch.testing.assert_close(recorded(batch, pruner).logits, model(batch, pruner).logits)


@pytest.mark.parametrize("dtype", ["fp32", "amp"])
def test_compiled_parts_give_what_eager_gives(dtype: str) -> None:
    eager, own = loaded("videomae", dtype), loaded("videomae", dtype)
    compiled = execution.forward_of(own, "compile_dynamic", CUDA)
    batch = to_batch([moving_clip(n) for n in range(3)], CUDA)
    pruner = load_method("tdiff")().at_keep(0.5, eager, []).attach(eager)
    with torch.inference_mode():
        found, expected = compiled(batch, pruner).logits.float(), eager(batch, pruner).logits.float()
    tolerance = 1e-4 if dtype == "fp32" else 0.02
    torch.testing.assert_close(found, expected, atol=tolerance * float(expected.abs().max()), rtol=0)


def test_a_gpu_that_waits_for_its_host_is_told_from_one_that_does_not() -> None:
    large, small = (torch.randn(side, side, device=CUDA) for side in (8192, 64))
    synchronize = clock.synchronizer(CUDA)

    def wall_ms(call: object) -> float:
        assert callable(call)
        call(0)
        synchronize()
        began = time.perf_counter()
        call(0)
        synchronize()
        return 1e3 * (time.perf_counter() - began)

    def works(_: int) -> None:
        for _ in range(5):
            large @ large

    def waits(_: int) -> None:
        for _ in range(20):
            small @ small
            time.sleep(1e-3)

    busy_of = {call: busy.busy_ms(call, 3, synchronize) for call in (works, waits)}
    assert busy.launch_bound(wall_ms(works), busy_of[works]) is False
    assert busy.launch_bound(wall_ms(waits), busy_of[waits]) is True


def test_memory_is_that_of_the_tensors() -> None:
    peak = memory.cuda_peak(lambda: torch.empty(100_000_000, dtype=torch.uint8, device=CUDA))
    assert peak.peak_alloc_mb - peak.weights_mb == pytest.approx(100, rel=0.02)


def test_a_sweep_takes_the_defaults_of_gpus_and_fills_their_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(plan.PROFILES, "ci", HASTE)
    unwatched(monkeypatch)
    asked = plan.options({"method": ("rlt", "tome"), "keep": (0.5,), "split": "ci", "limit": 8, "profile": "ci",
                          "device": CUDA, "out": tmp_path})  # fmt: skip
    shared, digests = resolve.resolve(asked)
    cells = plan.cells(asked, shared, digests)
    group.run(cells, digests({cell.method for cell in cells}), Store(tmp_path), "test", force=False)
    rows = latest(Store(tmp_path).read("results"))
    assert set(rows["status"]) == {"ok"}
    assert set(zip(rows["dtype"], rows["batch_size"], strict=True)) == {("amp", 8)}
    for column in ("gpu_ms_p50", "gpu_busy_ms", "launch_bound", "mem_peak_alloc_mb", "h2d_ms"):
        assert rows[column].notna().all(), column
    assert (rows["gpu_busy_ms"] <= 1.05 * rows["gpu_ms_p50"]).all()
