"""Counts of detectors' frames, against the table that was counted with the published code."""

from __future__ import annotations

import pytest
from helpers import ROOT, vpbench

from vpbench import plan
from vpbench.errors import UsageError
from vpbench.plan import presets
from vpbench.rows import published
from vpbench.tasks.detection import count

#: preset -> kept tokens, published GMACs per frame, counted mean, counted dense and pruned frame; all in RGTP's way
RGTP = {
    "vid672_keep768": (767, 93.4, 93.42, 174.84, 81.62),
    "vid672_keep512": (512, 72.6, 72.60, 174.84, 57.78),
    "vid672_keep384": (384, 62.1, 62.14, 174.84, 45.81),
    "vid672_keep196": (196, 46.8, 46.79, 174.84, 28.23),
    "vid672_keep64": (64, 36.0, 36.01, 174.84, 15.88),
    "vid1024_keep2200": (2200, 288.9, 288.95, 467.51, 263.07),
    "vid1024_keep1400": (1401, 213.7, 213.70, 467.51, 176.91),
    "vid1024_keep750": (750, 152.4, 152.38, 467.51, 106.71),
    "vid1024_keep400": (397, 119.1, 119.14, 467.51, 68.64),
    "vid1024_keep75": (75, 88.8, 88.81, 467.51, 33.92),
}


def counted(**given: object) -> list[count.Counts]:
    asked = plan.options(given)
    planned = plan.cells(asked, plan.setting(asked, 1))
    model = count.detector(planned[0].setting)
    return [count.counts(model, cell) for cell in planned]


@pytest.mark.parametrize("preset", RGTP)
def test_presets_count_as_the_authors_do(preset: str) -> None:
    dense, rgtp, random = counted(**presets.find(f"rgtp/{preset}"))
    kept, printed, mean, whole, pruned = RGTP[preset]
    assert rgtp.kept == random.kept == kept
    assert rgtp.mean is not None
    assert rgtp.pruned is not None
    assert rgtp.mean.rgtp / 1e9 == pytest.approx(mean, abs=0.006)
    assert rgtp.dense.rgtp / 1e9 == pytest.approx(whole, abs=0.005)
    assert rgtp.pruned.rgtp / 1e9 == pytest.approx(pruned, abs=0.005)
    assert rgtp.mean.ours < rgtp.mean.rgtp
    assert random.pruned is not None
    assert random.pruned.ours < rgtp.pruned.ours
    [figure] = [f for f in published.figures() if (f.preset, f.metric) == (f"rgtp/{preset}", "gmacs_per_frame")]
    assert (figure.value, figure.convention) == (printed, "rgtp")
    assert figure.value == pytest.approx(mean, abs=0.051)
    [base] = [
        f
        for f in published.figures()
        if (f.method, f.backbone, f.metric) == ("dense", figure.backbone, "gmacs_per_frame")
    ]
    assert dense.dense.rgtp / 1e9 == pytest.approx(base.value, abs=0.05)


def test_ours_charges_rollout_only_in_frames_that_guide_another() -> None:
    """Four maps of 4096 x 4096, one vector through each; of a group's 8 frames the last is followed by a dense one."""
    dense, rgtp, random = counted(**presets.find("rgtp/vid1024_keep750"))
    rollout, tracking = 4 * 4096**2, 9 * 4096 * 768
    assert rgtp.pruned is not None
    assert rgtp.last is not None
    assert rgtp.mean is not None
    assert random.pruned is not None
    assert rgtp.dense.ours - dense.dense.ours == rollout
    assert rgtp.pruned.ours - random.pruned.ours == rollout + tracking
    assert rgtp.last.ours - random.pruned.ours == tracking
    assert rgtp.last.rgtp == rgtp.pruned.rgtp
    assert random.last == random.pruned
    # 12.66 % of the frames are dense; of the groups they begin, all but one for each of 555 videos are whole
    whole = 0.1266 - 555 / 176126
    everywhere = 0.1266 * rgtp.dense.ours + 0.8734 * rgtp.pruned.ours
    assert rgtp.mean.ours == pytest.approx(everywhere - whole * rollout, abs=1)


def test_the_mean_is_known_for_one_schedule_only() -> None:
    _, *found = counted(method=("rgtp",), backbone="vitdet_b_672", set=("rgtp.reset=4,8",))
    assert [each.mean is None for each in found if each.label.startswith("rgtp ")] == [True, False]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"method": ("tome",), "keep": (0.5,)}, "methods that do: dense, eventful, eventful_random, rgtp, rgtp_random"),
        ({"method": ("rgtp",), "keep": (0.0001,)}, "leaves none of 1764"),
        ({"method": ("rgtp",), "set": ("rgtp.threshold=1",)}, "score in"),
        ({"method": ("rgtp",), "size": 656}, "set pooled=false"),
        ({"method": ("rgtp",), "size": 650}, "multiple of 16"),
        ({"method": ("rgtp",), "size": 224}, "at least 240"),
        ({"method": ("rgtp",), "frames": 16}, "leave --frames out"),
        ({"method": ("rgtp",), "positions": "recompute"}, "were learned"),
        ({"method": ("rgtp",), "keep": (0.5,), "set": ("rgtp.keep_ratio=0.4",)}, "not both"),
        ({"method": ("rgtp",), "batch": 2, "set": ("rgtp.reset=0",)}, "give --batch 1"),
    ],
)
def test_what_cannot_run_is_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        counted(**{"backbone": "vitdet_b_672", **given})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_command() -> None:
    done = vpbench("flops", "--preset", "rgtp/vid672_keep384", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "12.66 %" in done.stdout
    assert "62.14" in done.stdout
    assert "published: rgtp imagenet_vid map50_pct 82.38" in done.stdout
