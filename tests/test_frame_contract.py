"""What methods must keep to on detectors, which look at videos frame by frame; runs over all that can."""

from __future__ import annotations

import pytest
import torch
import vid_tree

from vpbench import registry
from vpbench.api import FrameMethod, FramePruner
from vpbench.backbones.vitdet.costs import frame_macs
from vpbench.backbones.vitdet.network import ViTDet
from vpbench.measure.operators import count_operators
from vpbench.tasks.detection.follow import Follower, Found, Lanes, Look

METHODS = registry.frame_methods()
PRUNING = [name for name in METHODS if name != "dense"]


@pytest.fixture(scope="module")
def model() -> ViTDet:
    return vid_tree.random_detector()


def method(name: str, keep: float) -> FrameMethod:
    kind = registry.load_method(name)
    assert issubclass(kind, FrameMethod)
    return kind().at_keep_frames(1.0 if name == "dense" else keep)


def looks(count: int, video: str = "v", first: int = 0) -> list[Look]:
    """Frames with a square that moves over noise."""
    generator = torch.Generator().manual_seed(len(video))
    pixels = torch.randint(0, 90, (count, 48, 64, 3), generator=generator, dtype=torch.uint8)
    for t in range(count):
        pixels[t, 6 + t : 30 + t, 8 + 2 * t : 36 + 2 * t] = 220
    return [Look(video, first + t, each, 1.0) for t, each in enumerate(pixels)]


def follow(model: ViTDet, pruner: FramePruner, frames: list[Look], batch: int = 1) -> list[Found]:
    lanes = Lanes(Follower(model, pruner), batch)
    with torch.inference_mode():
        found = [each for number, look in enumerate(frames) for each in lanes.add(look, fresh=number == 0)]
        return sorted([*found, *lanes.flush()], key=lambda each: each.look.number)


def close(ours: list[Found], theirs: list[Found]) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert (a.look, a.kept) == (b.look, b.kept)
        assert torch.equal(a.detections.labels, b.detections.labels)
        torch.testing.assert_close(a.detections.scores, b.detections.scores, atol=1e-5, rtol=0)
        # boxes in pixels of a frame of 64
        torch.testing.assert_close(a.detections.boxes / 64, b.detections.boxes / 64, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", METHODS)
def test_keep_all_is_dense(name: str, model: ViTDet) -> None:
    frames = looks(4)
    found = follow(model, method(name, 1.0).attach_frames(model.config), frames)
    assert sum(len(each.detections.boxes) for each in found) > 4
    for each, dense in zip(found, follow(model, FramePruner(), frames), strict=True):
        torch.testing.assert_close(each.detections.boxes, dense.detections.boxes, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("name", PRUNING)
@pytest.mark.parametrize("keep", [0.2, 0.7])
def test_pruned_frames_keep_the_share_and_others_are_dense(name: str, keep: float, model: ViTDet) -> None:
    own = method(name, keep)
    pruner = own.attach_frames(model.config)
    found = follow(model, pruner, looks(pruner.period + 2))
    assert own.kept(model.config) == round(keep * 64)
    expected = [None, *[round(keep * 64)] * (pruner.period - 1)] * 2
    assert [each.kept for each in found] == expected[: len(found)]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("batch", [2, 5])
def test_groups_in_lockstep_find_the_same(name: str, batch: int, model: ViTDet) -> None:
    pruner = method(name, 0.3).attach_frames(model.config)
    frames = looks(3 * max(2, pruner.period) - 2)
    close(follow(model, pruner, frames, batch), follow(model, pruner, frames))


@pytest.mark.parametrize("name", METHODS)
def test_nothing_is_remembered_across_segments(name: str, model: ViTDet) -> None:
    pruner, frames = method(name, 0.3).attach_frames(model.config), looks(3)
    alone = follow(model, pruner, frames)
    follow(model, pruner, looks(5, "another"))
    close(follow(model, pruner, frames), alone)


@pytest.mark.parametrize("name", METHODS)
def test_operators_counted_equal_the_closed_form(name: str, model: ViTDet) -> None:
    """Of the transformer and the method, over two frames; which rollout a frame needs depends on the next."""
    pruner, frames = method(name, 0.3).attach_frames(model.config), looks(2)
    found = follow(model, pruner, frames)
    follower = Follower(model, pruner)

    def run() -> None:
        follower.start(frames[:1])
        for look, each in zip(frames, found, strict=True):
            follower.transform(look.pixels[None], [each.detections])

    closed = sum(
        frame_macs(model.config, each.kept) + pruner.macs(each.kept, each.traced) + each.padding for each in found
    )
    assert count_operators(run) == pytest.approx(closed, rel=0.01)
