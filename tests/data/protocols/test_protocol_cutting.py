"""Whole protocols: which are there, which one is the default, and videos cut into clips."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vpbench import registry
from vpbench.data import Clip, Video
from vpbench.data.protocols import catalog
from vpbench.data.protocols.protocol import Protocol
from vpbench.data.protocols.shape import Shape
from vpbench.data.video.reader import DecodeError
from vpbench.errors import UsageError
from vpbench.registry import Sizes

VIDEO = Video("v1", Path("v1.mp4"), label=7)

VIEWS = {
    "first": (1, 1),
    "videomae_5x3": (5, 3),
    "spread_2x3": (2, 3),
    "rlt_4x3": (4, 3),
    "mvit_5x1": (5, 1),
    "mvit_10x1": (10, 1),
    "videoswin_4x3": (4, 3),
    "vivit_4x3": (4, 3),
}


class Numbered:
    """A video whose pixels say where they are: frame number (two digits to the base 200), and column."""

    def __init__(self, total: int, rows: int, cols: int, fps: float | None = 30.0) -> None:
        self.total, self.rows, self.cols, self.fps = total, rows, cols, fps
        self.asked: list[Sequence[int]] = []

    def __len__(self) -> int:
        return self.total

    def read(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        self.asked.append(indices)
        frames = np.empty((len(indices), self.rows, self.cols, 3), np.uint8)
        frames[..., 0] = np.array([i // 200 for i in indices])[:, None, None]
        frames[..., 1] = np.array([i % 200 for i in indices])[:, None, None]
        frames[..., 2] = np.arange(self.cols) % 251
        return frames


def clips_of(protocol: Protocol, video: Numbered, named: Video, shape: Shape) -> list[Clip]:
    plan = protocol.plan(video, named, shape)
    return protocol.crop(video.read(plan.wanted), plan, named, shape)


def shape_of(config: Sizes) -> Shape:
    return Shape(config.frames, config.height, config.width, config.stride)


def where(clip: Clip) -> tuple[list[int], int]:
    """The frame numbers of a clip of unresized frames, and its first column."""
    corner = clip.pixels[:, 0, 0].astype(int)
    return (corner[:, 0] * 200 + corner[:, 1]).tolist(), int(corner[0, 2])


def test_names_and_summaries() -> None:
    assert set(catalog.names()) == {*VIEWS, "single", "checkpoint"}
    assert list(catalog.summaries()) == catalog.names()
    assert all(20 < len(line) < 110 for line in catalog.summaries().values())
    for name, views in VIEWS.items():
        found = catalog.find(name, seed=0)
        assert (found.name, found.views, found.summary) == (name, views, catalog.summaries()[name])
        assert found.average == ("logits" if name == "vivit_4x3" else "probabilities")


def test_listing_imports_no_torch() -> None:
    code = "import sys; from vpbench.data import protocols; protocols.summaries(); protocols.find('rlt_4x3', 0); "
    subprocess.run([sys.executable, "-c", code + "assert 'torch' not in sys.modules"], check=True)


def test_unknown_names_are_answered_with_near_ones() -> None:
    with pytest.raises(UsageError, match=r"unknown protocol 'videomae_4x3'; did you mean 'videomae_5x3'"):
        catalog.find("videomae_4x3", seed=0)


@pytest.mark.parametrize(
    ("backbone", "name"),
    [
        ("videomae_b", "videomae_5x3"),
        ("mvit_b_16x4", "mvit_5x1"),
        ("videoswin_b", "videoswin_4x3"),
        ("vivit_b_k400", "vivit_4x3"),
        ("vivit_b_epic", "vivit_4x3"),
    ],
)
def test_default_is_the_data_sets_own_or_else_the_backbones(backbone: str, name: str) -> None:
    own = registry.backbone(backbone).protocol
    assert catalog.default(None, own) == name
    assert catalog.default("spread_2x3", own) == "spread_2x3"


def test_detectors_have_no_protocol() -> None:
    with pytest.raises(UsageError, match="detectors"):
        catalog.default(None, registry.backbone("vitdet_b_672").protocol)


@pytest.mark.parametrize("full", VIEWS)
def test_single_is_one_view_of_another_protocol(full: str) -> None:
    single = catalog.find("single", 0, full)
    assert (single.name, single.views) == ("single", (1, 1))
    assert type(single.spatial) is type(catalog.find(full, 0).spatial)
    (clip,) = clips_of(single, Numbered(300, 240, 320), VIDEO, shape_of(registry.backbone("videomae_b").sizes))
    assert (clip.clip_id, clip.view) == ("v1", 0)


@pytest.mark.parametrize("full", [None, "single"])
def test_single_of_nothing_is_refused(full: str | None) -> None:
    with pytest.raises(UsageError, match="one view of another"):
        catalog.find("single", 0, full)


def test_views_are_numbered_by_time_first_and_read_at_once() -> None:
    reader = Numbered(300, 224, 298)
    clips = clips_of(catalog.find("videomae_5x3", 0), reader, VIDEO, Shape(16, 224, 224, 4))
    assert [clip.clip_id for clip in clips] == [f"v1/{n}" for n in range(15)]
    assert {(clip.video_id, clip.label) for clip in clips} == {("v1", 7)}
    starts = [start for start in (0, 56, 116, 176, 236) for _ in range(3)]
    assert [where(clip) for clip in clips] == [
        (list(range(start, start + 61, 4)), left) for start, left in zip(starts, [0, 37, 74] * 5, strict=True)
    ]
    assert [list(asked) for asked in reader.asked] == [list(range(0, 297, 4))]


def test_frames_of_something_something_for_each_backbone() -> None:
    for name, count in (("videomae_b", 16), ("mvit_b_16x4", 16), ("videoswin_b", 32)):
        shape = shape_of(registry.backbone(name).sizes)
        clips = clips_of(catalog.find("spread_2x3", 0), Numbered(45, 240, 427), VIDEO, shape)
        assert [clip.pixels.shape for clip in clips] == [(count, 224, 224, 3)] * 6


def test_frame_rates_matter_to_windows_of_seconds_alone() -> None:
    for name in VIEWS:
        cut = [
            clips_of(catalog.find(name, 0), Numbered(300, 32, 40, fps), VIDEO, Shape(16, 32, 32, 4))
            for fps in (25, 30, None)
        ]
        same = all(np.array_equal(a.pixels, b.pixels) for a, b in zip(cut[0], cut[1], strict=True))
        assert same != name.startswith("mvit")
        assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(cut[1], cut[2], strict=True))


def test_random_views_depend_on_seed_and_video_alone() -> None:
    def starts(seed: int, video_id: str) -> list[int]:
        video = Video(video_id, Path("x"), 0)
        clips = clips_of(catalog.find("rlt_4x3", seed), Numbered(400, 16, 16), video, Shape(16, 16, 16, 4))
        return [where(clip)[0][0] for clip in clips]

    first = starts(0, "a")
    assert starts(0, "b") != first != starts(1, "a")
    assert starts(0, "a") == first


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize(("rows", "cols"), [(48, 64), (64, 48), (40, 40), (9, 13)])
@pytest.mark.parametrize("total", [1, 10, 45, 60, 300])
def test_any_video_gives_whole_contiguous_clips(name: str, rows: int, cols: int, total: int) -> None:
    protocol, shape = catalog.find(name, 0), Shape(8, 40, 40, 4)
    if name == "first" and total < 29:
        with pytest.raises(DecodeError, match="too short"):
            clips_of(protocol, Numbered(total, rows, cols), VIDEO, shape)
        return
    clips = clips_of(protocol, Numbered(total, rows, cols), VIDEO, shape)
    assert len(clips) == VIEWS[name][0] * VIEWS[name][1]
    assert all(clip.pixels.shape == (8, 40, 40, 3) and clip.pixels.flags.c_contiguous for clip in clips)
    assert len({clip.clip_id for clip in clips}) == len(clips)


def test_first_is_the_clip_itself_where_it_fits() -> None:
    reader = Numbered(32, 64, 64)
    (clip,) = clips_of(catalog.find("first", 0), reader, VIDEO, Shape(16, 64, 64, 2))
    assert clip.clip_id == "v1"
    assert np.array_equal(clip.pixels, reader.read(range(0, 32, 2)))


def test_views_share_no_memory_with_each_other() -> None:
    clips = clips_of(catalog.find("videomae_5x3", 0), Numbered(70, 224, 224), VIDEO, Shape(16, 224, 224, 4))
    clips[0].pixels[:] = 0
    assert clips[1].pixels[:, :, 5, 2].min() == 5
