"""Frames through a detector: what is watched is what the detector itself reports."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import vid_tree

from vpbench import registry
from vpbench.api import Pruner
from vpbench.api.method import load_method
from vpbench.backbones.vitdet.network import ViTDet
from vpbench.rows.fates import DROPPED
from vpbench.tasks.detection.follow import Follower, Look
from vpbench.tasks.detection.watched import as_seen, watched_frames


@pytest.fixture(scope="module")
def model() -> ViTDet:
    return vid_tree.random_detector()


def looks(count: int) -> list[Look]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 90, (count, 48, 64, 3), generator=generator, dtype=torch.uint8)
    for t in range(count):
        pixels[t, 6 + t : 30 + t, 8 + 2 * t : 36 + 2 * t] = 220
    return [Look("v", t, each, 1.0) for t, each in enumerate(pixels)]


METHODS = [name for name in registry.names("methods") if "frames" in load_method(name).flows]


def pruner(model: ViTDet, name: str) -> Pruner:
    return load_method(name)().at_keep(1.0 if name == "dense" else 0.25, model, ()).attach(model)


@pytest.mark.parametrize("name", METHODS)
def test_as_many_go_on_as_the_detector_counts(name: str, model: ViTDet) -> None:
    shown = looks(10)
    found = watched_frames(model, shown, pruner(model, name), values=True)
    follower = Follower(model, pruner(model, name))
    follower.start(shown[:1])
    drops_none = pruner(model, name).acts_at("run_block")  # gates compute some tokens anew, and all go on
    kept = found.fate.final.reshape(10, -1) != DROPPED
    for number, look in enumerate(shown):
        with torch.inference_mode():
            [expected] = follower.step([look])
        going = model.config.tokens if expected.kept is None or drops_none else expected.kept
        assert kept[number].sum() == going
        torch.testing.assert_close(found.output[number].boxes, expected.detections.boxes, atol=1e-4, rtol=0)


def test_kept_tokens_are_rated_highest(model: ViTDet) -> None:
    found = watched_frames(model, looks(4), pruner(model, "rgtp"), values=True)
    rated = found.values["selection_score"].reshape(4, -1)
    kept = found.fate.final.reshape(4, -1) != DROPPED
    for frame in (1, 2, 3):
        assert rated[frame][kept[frame]].min() >= rated[frame][~kept[frame]].max()
    assert set(found.values) == {"selection_score", "heatmap"}
    np.testing.assert_allclose(found.values["heatmap"].sum(axis=(1, 2)), 1, rtol=1e-4)


def test_frames_are_seen_with_their_edges(model: ViTDet) -> None:
    seen = as_seen(model, looks(2))
    side = model.config.side
    assert seen.shape == (2, side, side, 3)
    np.testing.assert_array_equal(seen[1, :48, :64], looks(2)[1].pixels.numpy())
    assert not seen[:, 48:].any()
