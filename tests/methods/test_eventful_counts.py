"""What Eventful Transformers cost, as it runs and as it was published; what is refused; the control."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from conftest import TINY as CLIP
from gated import FORMS, SIZES, detector, video, vivit

from vpbench import plan
from vpbench.api import UsageError
from vpbench.backbones.videomae.network import VideoMAE
from vpbench.backbones.vitdet import TINY as DETECTOR
from vpbench.backbones.vitdet.network import Segments, ViTDet
from vpbench.measure.operators import count_operators
from vpbench.methods.eventful import Eventful
from vpbench.methods.eventful.pruner import GATES
from vpbench.methods.eventful_random import EventfulRandom
from vpbench.plan import presets
from vpbench.rows import published
from vpbench.tasks.detection import count


@pytest.mark.parametrize("form", FORMS)
def test_closed_forms_are_what_operators_do(form: str) -> None:
    model = detector(SIZES["resized tables"])
    embedded, pruner, other = video(model, 3, 1), *(FORMS[form].attach(model) for _ in range(2))
    fixed = pruner.kept is not None
    for frame in embedded:
        state = copy.deepcopy(vars(pruner))
        with torch.inference_mode():
            found = model.run_parts(frame[None], pruner)
        vars(pruner).update(state)
        with torch.no_grad():
            counted = count_operators(lambda frame=frame: model.run_parts(frame[None], pruner))  # type: ignore[misc]
        assert sum(sum(each.macs) for each in found.ran) + found.padding == counted
        for layer, (ran, parts) in enumerate(zip(found.ran, model.net.blocks, strict=True) if fixed else ()):
            told = other.foreseen(layer, frame[None], parts)  # type: ignore[arg-type]
            assert replace(told, x=ran.x) == ran


@pytest.mark.parametrize(
    ("preset", "tokens", "later"),
    [("vid672_k128", 128, 19.28), ("vid672_k1024", 1024, 114.88), ("vid672_stgt_k768", 768, 89.87),
     ("vid1024_k512", 512, 86.39)],
)  # fmt: skip
def test_published_presets_count_as_published(preset: str, tokens: int, later: float) -> None:
    """Per later frame as derived from the definition; the mean with first frames as the paper prints it."""
    asked = plan.options(presets.find(f"eventful/{preset}"))
    cells = plan.cells(asked, plan.setting(asked, 1))
    model = count.detector(cells[0].setting)
    _, own, random = (count.counts(model, cell) for cell in cells)
    assert own.pruned is not None
    assert own.mean is not None
    assert own.kept == random.kept == tokens
    assert own.pruned.rgtp / 1e9 == pytest.approx(later, abs=0.005)
    [figure] = [f for f in published.figures() if (f.preset, f.metric) == (f"eventful/{preset}", "gmacs_per_frame")]
    assert own.mean.rgtp / 1e9 == pytest.approx(figure.value, abs=0.0501)
    assert own.pruned == random.pruned


def test_to_pass_everything_costs_more_than_dense() -> None:
    model = detector()
    pruner = Eventful(64).attach(model)
    first, later = (count.ran_count(model, pruner) for _ in range(2))
    assert later.ours > first.ours
    assert later.rgtp > first.rgtp


def test_what_cannot_be_is_refused() -> None:
    detects, steps = detector(), vivit()
    for wrong, said in {
        Eventful(policy="best"): "policy is one of top, threshold",
        Eventful(level="half"): "level is one of",
        Eventful(k=-1): "at least 0",
        Eventful(threshold=float("nan")): "at least 0",
        Eventful(compare="previous"): "level=tokenwise",
        Eventful(level="tokenwise", pooled=True): "pooled and cast are for the other levels",
        Eventful(level="scores", cast="float16"): "cast is for",
    }.items():
        assert said in (wrong.supports(detects) or ""), wrong
        assert said in (wrong.supports(steps) or ""), wrong
    assert "class tokens" in (Eventful(pooled=True).supports(steps) or "")
    odd = ViTDet(replace(DETECTOR, side=72))
    assert "9 x 9" in (Eventful(pooled=True).supports(odd) or "")
    assert Eventful().supports(odd) is None
    assert "policy=top" in (EventfulRandom(policy="threshold").supports(detects) or "")
    with pytest.raises(UsageError, match="the first step is whole"):
        Eventful().at_keep(0.05, steps, ())
    with pytest.raises(UsageError, match="give --set threshold"):
        Eventful(policy="threshold").at_keep(0.5, steps, ())
    assert "residual stream" in Eventful(0).attach(detects).caveat
    assert "all steps of a clip at once" in (Eventful().supports(VideoMAE(CLIP)) or "")


@pytest.mark.parametrize("pooled", [False, True])
def test_the_control_draws_as_many(pooled: bool) -> None:
    """What is drawn is up to (seed, video, frame) alone; references move with it, as they do for chosen tokens."""
    model = detector()
    frames = torch.randint(0, 256, (4, 2, 64, 64, 3), dtype=torch.uint8)
    sets: list[dict[str, list[int]]] = []
    for seed, videos in ((0, ("a", "b")), (0, ("b", "a")), (1, ("a", "b"))):
        pruner = EventfulRandom(19, pooled=pooled, seed=seed).attach(model)
        pruner.restart([(video, 3) for video in videos])
        drawn: dict[str, list[int]] = {}
        for number, pixels in enumerate(frames):
            pruner.record = {}
            with torch.inference_mode():
                frame = model.transform(pixels, Segments(), pruner)
            for name, value in pruner.record.items():
                if name.endswith(GATES):
                    for video, own in zip(videos, value.view(2, -1), strict=True):
                        drawn[f"{video}/{number}/{name}"] = own.tolist()
        assert frame.kept == 19
        sets.append(drawn)
    assert sets[0] == sets[1] != sets[2]
    assert {len(own) for own in sets[0].values()} == {19}
    assert len({tuple(own) for own in sets[0].values()}) == len(sets[0])
