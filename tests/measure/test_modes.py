"""Execution modes: compiled forwards equal eager ones, and recordings that do not follow the clip are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TINY, moving_clip

from vpbench import plan
from vpbench.api import DENSE, ClipBatch, Output, Pruner
from vpbench.api.method import load_method
from vpbench.backbones.videomae.network import VideoMAE
from vpbench.errors import UsageError
from vpbench.measure import execution
from vpbench.tasks.recognition.session import to_batch


def backbone(depth: int = TINY.depth) -> VideoMAE:
    torch.manual_seed(0)
    return VideoMAE(replace(TINY, depth=depth)).eval().requires_grad_(False)


def batches() -> list[ClipBatch]:
    return [to_batch([moving_clip(n)], "cpu") for n in range(4)]


def follow(run: Callable[[], Output]) -> tuple[Output, Callable[[], None]]:
    """Record as CUDA does where kernels alone decide: replaying writes new logits to the same place."""
    output = run()

    def replay() -> None:
        output.logits.copy_(run().logits)

    return output, replay


def repeat(run: Callable[[], Output]) -> tuple[Output, Callable[[], None]]:
    """Record as CUDA does where the host decided: replaying gives what the first clip gave."""
    return run(), lambda: None


def test_eager_is_the_backbone_itself() -> None:
    model = backbone()
    assert execution.forward_of(model, "eager", "cpu") is model


def test_cudagraph_needs_cuda() -> None:
    with pytest.raises(UsageError, match="--device cuda"):
        execution.forward_of(backbone(), "cudagraph", "cpu")


@pytest.mark.parametrize("mode", ["compile", "compile_dynamic"])
def test_without_a_compiler_it_says_what_to_install(mode: str, tmp_path: Path) -> None:
    import torch._inductor.config as inductor  # takes two seconds, in every process that collects tests

    none = inductor.patch({"cpp.cxx": (None, str(tmp_path / "none"))})
    with none, pytest.raises(UsageError, match=f"mode {mode} needs a C\\+\\+ compiler: install g"):
        execution.forward_of(backbone(), mode, "cpu")


def test_replays_give_what_eager_gives_for_every_clip() -> None:
    model = backbone()
    recorded = execution.Recorded(model, follow)
    for batch in batches() * 2:
        assert torch.equal(recorded(batch, DENSE).logits, model(batch, DENSE).logits)
    assert len(recorded._known) == 1


def test_outputs_are_not_overwritten_by_later_replays() -> None:
    model = backbone()
    recorded, (first, second, *_) = execution.Recorded(model, follow), batches()
    kept = recorded(first, DENSE).logits
    recorded(second, DENSE)
    assert torch.equal(kept, model(first, DENSE).logits)


def test_each_pruner_and_shape_has_its_own_recording() -> None:
    model = backbone()
    recorded = execution.Recorded(model, follow)
    pruner, clips = Pruner(), batches()
    recorded(clips[0], DENSE)
    recorded(clips[0], pruner)
    recorded(to_batch([moving_clip(0), moving_clip(1)], "cpu"), pruner)
    assert len(recorded._known) == 3


def test_a_recording_that_repeats_the_first_clip_is_found_out() -> None:
    recorded, (first, second, *_) = execution.Recorded(backbone(), repeat), batches()
    recorded(first, DENSE)
    with pytest.raises(UsageError, match="repeats the choices"):
        recorded(second, DENSE)


def test_what_cannot_be_recorded_says_why() -> None:
    def refuse(run: Callable[[], Output]) -> tuple[Output, Callable[[], None]]:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    with pytest.raises(UsageError, match=r"not permitted when stream is capturing$"):
        execution.Recorded(backbone(), refuse)(batches()[0], DENSE)


def test_compiled_forwards_equal_eager_ones() -> None:
    model = backbone(depth=1)  # each block is compiled anew, for many seconds
    compiled = execution.forward_of(model, "compile", "cpu")
    pruner = load_method("tdiff")().at_keep(0.5, model, []).attach(model)
    before = execution.compilations()
    with torch.inference_mode():
        for batch in batches():
            own, eager = compiled(batch, pruner), model(batch, pruner)
            assert own.counts == eager.counts
            assert torch.allclose(own.logits, eager.logits, atol=1e-5)
    assert execution.compilations() > before


@pytest.mark.parametrize("mode", ["compile", "cudagraph"])
def test_groups_are_modes_times_batches(mode: plan.Mode) -> None:
    asked = plan.options({"method": ("dense",), "mode": ("eager", mode), "batch": (1, 4, "max")})
    shared = plan.setting(asked, 2)
    found = plan.groups(shared, asked, lambda setting: 4 if setting.mode == "eager" else 9)
    assert [(each.mode, each.batch) for each in found] == [("eager", 1), ("eager", 4), (mode, 1), (mode, 4), (mode, 9)]
    assert all(replace(each, mode="eager", batch=1) == replace(shared, mode="eager", batch=1) for each in found)
