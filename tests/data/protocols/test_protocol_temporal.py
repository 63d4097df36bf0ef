"""Frame numbers of each protocol, against vectors worked out by hand from the published rules."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from vpbench.data.protocols.shape import Shape
from vpbench.data.protocols.temporal import (
    First,
    RandomWindows,
    Seconds,
    Segments,
    Spread,
    Strided,
    Temporal,
    Windows,
    spread,
)
from vpbench.data.video.reader import DecodeError

OF_16 = Shape(frames=16, height=224, width=224, stride=4)
OF_32 = Shape(frames=32, height=224, width=224, stride=2)
EPIC = Shape(frames=32, height=320, width=320, stride=1)

RULES: dict[str, tuple[Temporal, Shape]] = {
    "strided": (Strided(5), OF_16),
    "spread": (Spread(2), OF_16),
    "random": (RandomWindows(4), OF_16),
    "seconds": (Seconds(5), OF_16),
    "segments": (Segments(4), OF_32),
    "windows": (Windows(4), OF_32),
    "windows-epic": (Windows(4), EPIC),
}


def indices(rule: Temporal, total: int, shape: Shape, fps: float | None = None, video_id: str = "v") -> list[list[int]]:
    return rule.indices(total, fps, shape, video_id)


def moved(starts: Sequence[int], ticks: Sequence[int]) -> list[list[int]]:
    return [[start + tick for tick in ticks] for start in starts]


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("total", [1, 2, 3, 4, 5, 10, 15, 16, 17, 31, 45, 60, 63, 64, 65, 256, 257, 300, 100_000])
def test_every_rule_gives_whole_views_of_frames_that_exist(name: str, total: int) -> None:
    rule, shape = RULES[name]
    for each in (rule, rule.single()):
        found = indices(each, total, shape)
        assert len(found) == each.views
        assert all(len(view) == shape.frames for view in found)
        assert all(0 <= number < total for view in found for number in view)
        if not isinstance(rule, Segments):  # the one that starts over where a video is too short
            assert all(view == sorted(view) for view in found)


@pytest.mark.parametrize("name", sorted(RULES.keys() - {"random"}))
def test_single_view_is_in_the_middle(name: str) -> None:
    rule, shape = RULES[name]
    (view,) = indices(rule.single(), 300, shape, 30)
    assert abs((view[0] + view[-1]) / 2 - 149.5) <= 5


def test_first_is_from_frame_0_on_and_refuses_what_is_too_short() -> None:
    assert indices(First(), 100, OF_16) == [list(range(0, 64, 4))]
    assert indices(First(), 61, OF_16) == [list(range(0, 64, 4))]
    with pytest.raises(DecodeError, match="too short: 60 frames"):
        indices(First(), 60, OF_16)


def test_strided_windows_of_300_frames() -> None:
    # 75 frames are looked at, (75 - 16) / 4 = 14.75: they start at the 0th, 14th, 29th, 44th and 59th
    found = indices(Strided(5), 300, OF_16)
    assert [(view[0], view[-1]) for view in found] == [(0, 60), (56, 116), (116, 176), (176, 236), (236, 296)]
    assert found[1] == [56, 60, 64, 68, 72, 76, 80, 84, 88, 92, 96, 100, 104, 108, 112, 116]
    assert indices(Strided(1), 300, OF_16) == [found[2]]  # 59 // 2 = 29


@pytest.mark.parametrize(
    ("total", "view"),
    [(60, [*range(0, 60, 4), 56]), (45, [*range(0, 45, 4), 44, 44, 44, 44]), (10, [0, 4] + [8] * 14), (1, [0] * 16)],
)
def test_strided_windows_of_short_videos_repeat_the_last_frame_looked_at(total: int, view: list[int]) -> None:
    assert indices(Strided(5), total, OF_16) == [view] * 5


def test_strided_windows_of_hardly_more_than_one() -> None:
    # 17 frames are looked at, (17 - 16) / 4 = 0.25: the last view alone moves on
    assert [view[0] for view in indices(Strided(5), 65, OF_16)] == [0, 0, 0, 0, 4]


SPREAD_45 = [
    [0, 2, 5, 8, 11, 14, 16, 19, 22, 25, 28, 30, 33, 36, 39, 42],
    # 1.40625 + 2.8125 k
    [1, 4, 7, 9, 12, 15, 18, 21, 23, 26, 29, 32, 35, 37, 40, 43],
]
# 0.625 k and 0.3125 + 0.625 k
SPREAD_10 = [[0, 0, 1, 1, 2, 3, 3, 4, 5, 5, 6, 6, 7, 8, 8, 9], [0, 0, 1, 2, 2, 3, 4, 4, 5, 5, 6, 7, 7, 8, 9, 9]]


@pytest.mark.parametrize(("total", "views"), [(45, SPREAD_45), (10, SPREAD_10), (1, [[0] * 16] * 2)])
def test_spread_over_the_whole_video(total: int, views: list[list[int]]) -> None:
    assert indices(Spread(2), total, OF_16) == views
    assert indices(Spread(1), total, OF_16) == [views[1]]


def test_spread_takes_as_many_frames_as_a_clip_has() -> None:
    # one frame in 2 starts a part, the others are their middles
    assert indices(Spread(2), 64, OF_32) == [list(range(0, 64, 2)), list(range(1, 64, 2))]


# 64 i / 15, the last one is the window's last frame instead of the next one's first
RLT_TICKS = [0, 4, 8, 12, 17, 21, 25, 29, 34, 38, 42, 46, 51, 55, 59, 63]


@pytest.mark.parametrize(
    ("total", "views"),
    [
        (256, moved([0, 64, 128, 192], RLT_TICKS)),  # parts of 64: as long as a window
        (263, moved([0, 65, 130, 195], RLT_TICKS)),  # parts of 65: there is one place for a window
        (60, moved([0, 15, 30, 45], [0, 7] + [14] * 14)),  # parts of 15: 0, 7.5 and 15
        (45, moved([0, 11, 22, 33], [0] + [10] * 15)),  # parts of 11: 0 and 11
        (10, moved([0, 2, 4, 6], [1] * 16)),  # parts of 2, too short for any
        (3, [[0] * 16] * 4),  # parts of nothing
    ],
)
def test_random_windows_where_nothing_is_left_to_draw(total: int, views: list[list[int]]) -> None:
    assert indices(RandomWindows(4), total, OF_16) == views


def test_random_windows_are_drawn_from_seed_video_and_part() -> None:
    # parts of 75: windows of 64 start at 0 to 10 in each
    drawn = [indices(RandomWindows(4, seed), 300, OF_16, video_id=f"v{n}") for seed in (0, 1) for n in range(100)]
    starts = [[view[0] - 75 * part for part, view in enumerate(views)] for views in drawn]
    assert {start for four in starts for start in four} == set(range(11))
    assert len({tuple(four) for four in starts}) > 190
    for views in drawn:
        assert all([tick - view[0] for tick in view] == RLT_TICKS for view in views)
    assert indices(RandomWindows(4, 1), 300, OF_16, video_id="v7") == drawn[107]
    # held for good: other draws would be other views under the same name
    assert starts[0] == [3, 7, 4, 1]


def test_random_windows_round_as_numpy_does() -> None:
    for part in range(65):
        ours = indices(RandomWindows(1), max(part, 1), OF_16)[0]
        ticks = np.concatenate([np.linspace(0, part, part // 4), np.full(16 - part // 4, part)])
        assert ours == np.clip(ticks, 0, max(part - 1, 0)).astype(int).tolist()


# 4.2 apart, since 16 frames go from the first to the last of 64
MVIT_TICKS = [0, 4, 8, 12, 16, 21, 25, 29, 33, 37, 42, 46, 50, 54, 58, 63]


@pytest.mark.parametrize("fps", [30.0, None])
def test_windows_of_seconds_at_30_frames_per_second(fps: float | None) -> None:
    # 300 - 64 = 236 are free: 236 / 4 = 59 and 236 / 9 = 26.2
    assert indices(Seconds(5), 300, OF_16, fps) == moved([0, 59, 118, 177, 236], MVIT_TICKS)
    assert indices(Seconds(10), 300, OF_16, fps) == moved(range(0, 235, 26), MVIT_TICKS)
    assert indices(Seconds(1), 300, OF_16, fps) == moved([118], MVIT_TICKS)


def test_windows_of_seconds_at_other_rates() -> None:
    # 53.3 frames, 250 - 53.3 = 196.7 are free, 196.7 / 4 = 49.2; 52.3 / 15 = 3.489 apart
    ticks = [0, 3, 6, 10, 13, 17, 20, 24, 27, 31, 34, 38, 41, 45, 48, 52]
    assert indices(Seconds(5), 250, OF_16, 25) == moved([0, 49, 98, 147, 196], ticks)
    # 128 frames, 472 are free; 127 / 15 = 8.467 apart
    ticks = [0, 8, 16, 25, 33, 42, 50, 59, 67, 76, 84, 93, 101, 110, 118, 127]
    assert indices(Seconds(5), 600, OF_16, 60) == moved([0, 118, 236, 354, 472], ticks)
    # less than a frame
    assert indices(Seconds(5), 20, OF_16, 0.4) == [[start] * 16 for start in (0, 4, 8, 12, 16)]


@pytest.mark.parametrize(("total", "last"), [(60, [54, 58, 59]), (10, [9, 9, 9]), (1, [0, 0, 0])])
def test_windows_of_seconds_in_short_videos_end_with_the_last_frame(total: int, last: list[int]) -> None:
    (view, *others) = indices(Seconds(5), total, OF_16, 30)
    assert view[-3:] == last
    assert view == [min(tick, total - 1) for tick in MVIT_TICKS]
    assert others == [view] * 4


@pytest.mark.parametrize(
    "fps", [10, 12, 12.5, 15, 20, 23.976, 24000 / 1001, 24, 25, 29.97, 30000 / 1001, 30, 48, 50, 60]
)
def test_windows_of_seconds_round_as_torch_does(fps: float) -> None:
    size = 4 * 16 / 30 * fps
    assert indices(Seconds(1), 10**4, OF_16, fps) == moved(
        [int((10**4 - size) // 2)], torch.linspace(0, size - 1, 16).long().tolist()
    )


@pytest.mark.parametrize(
    ("total", "views"),
    [
        (300, moved([29, 88, 148, 207], range(0, 64, 2))),  # parts of 59.25, half of one is 29.625
        (64, [list(range(0, 64, 2))] * 4),  # parts of 0.25
        (60, [[*range(0, 60, 2), 0, 2]] * 4),
        (45, [[*range(0, 45, 2), *range(1, 18, 2)]] * 4),
        (10, [[0, 2, 4, 6, 8] * 6 + [0, 2]] * 4),
        (1, [[0] * 32] * 4),
    ],
)
def test_segments(total: int, views: list[list[int]]) -> None:
    assert indices(Segments(4), total, OF_32) == views


def test_one_segment_is_centred() -> None:
    assert indices(Segments(1), 300, OF_32) == moved([118], range(0, 64, 2))  # 237 / 2


@pytest.mark.parametrize(
    ("shape", "total", "views"),
    [
        (OF_32, 300, moved([0, 78, 157, 236], range(0, 64, 2))),  # 236 / 3 = 78.67
        (OF_32, 60, [[*range(0, 60, 2), 59, 59]] * 4),
        (OF_32, 45, [[*range(0, 45, 2)] + [44] * 9] * 4),
        (OF_32, 1, [[0] * 32] * 4),
        (EPIC, 300, moved([0, 89, 178, 268], range(32))),  # 268 / 3 = 89.33
        (EPIC, 10, [[*range(10)] + [9] * 22] * 4),
    ],
)
def test_windows(shape: Shape, total: int, views: list[list[int]]) -> None:
    assert indices(Windows(4), total, shape) == views


def test_one_window_is_centred() -> None:
    assert indices(Windows(1), 301, OF_32) == moved([118], range(0, 64, 2))


def test_starts_are_spread_from_end_to_end() -> None:
    assert spread(75, 3) == [0, 37, 75]
    assert spread(75, 1) == [37]
    assert spread(0, 3) == [0, 0, 0]


def test_parts_have_two_kinds_of_frames_only() -> None:
    with pytest.raises(ValueError, match="not 3"):
        Spread(3)
