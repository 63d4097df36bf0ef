"""What reading costs: nothing is decoded or indexed twice, files are not walked for a short part, memory stays flat."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numbered import numbers, write_numbered

from vpbench.data import Seconds, Video
from vpbench.data.video import index, open_reader, open_video
from vpbench.data.video.pixels import Converter


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 frames with 15 key frames, and B-frames that nothing refers to."""
    return write_numbered(tmp_path_factory.mktemp("economy") / "clip.mp4", frames=240, options={"bf": "2"})


def counted(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[tuple[Any, ...]]:
    """Note the arguments of every call."""
    calls: list[tuple[Any, ...]] = []
    original: Callable[..., Any] = getattr(owner, name)

    def noting(*arguments: Any) -> Any:
        calls.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(owner, name, noting)
    return calls


def test_repeated_and_unsorted_frames_are_converted_once(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    converted = counted(monkeypatch, Converter, "rgb")
    wanted = [200, 7, 7, 90, 7, 200, 91, 0] * 5
    with open_reader(clip, "pyav") as reader:
        assert numbers(reader.read(wanted)) == wanted
    assert len(converted) == len(set(wanted))


def test_a_part_in_the_middle_is_not_decoded_from_the_start(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = counted(monkeypatch, index, "later")
    monkeypatch.setattr("vpbench.data.video.pyav.later", index.later)
    with open_video(Video("v", clip, 0, Seconds(7.0, 7.8)), "pyav") as reader:
        assert numbers(reader.read(range(20))) == list(range(175, 195))
        assert len(decoded) <= 20 + 16
        decoded.clear()
        assert numbers(reader.read([0, 19])) == [175, 194]
        assert len(decoded) <= 15 + 2  # the key frames are 16 apart, and B-frames that nobody wants are left out


def test_frames_far_apart_are_reached_by_jumps(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = counted(monkeypatch, index, "later")
    monkeypatch.setattr("vpbench.data.video.pyav.later", index.later)
    with open_reader(clip, "pyav") as reader:
        assert numbers(reader.read([1, 230, 100])) == [1, 230, 100]
    assert len(decoded) < 3 * 16


def test_the_index_of_a_file_is_kept_until_the_file_changes(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(shutil.copy(clip, tmp_path / "clip.mp4"))
    built = counted(monkeypatch, index, "_read")
    for start in range(5):
        with open_video(Video("v", path, 0, Seconds(start, start + 1)), "pyav") as reader:
            assert numbers(reader.read([0])) == [start * 25]
    assert len(built) == 1
    write_numbered(path, frames=10)
    with open_reader(path, "pyav") as reader:
        assert len(reader) == 10
    assert len(built) == 2


def test_few_indices_are_kept(tmp_path: Path) -> None:
    for number in range(index.KEPT + 3):
        with open_reader(write_numbered(tmp_path / f"{number}.mp4", frames=2), "pyav"):
            pass
    assert len(index._kept) == index.KEPT


def test_memory_is_flat_over_many_files(tmp_path: Path, clip: Path) -> None:
    def read(number: int) -> None:
        path = Path(shutil.copy(clip, tmp_path / f"{number}.mp4"))
        with open_reader(path, "pyav") as reader:
            reader.read(range(0, 240, 15))
        path.unlink()

    process = psutil.Process()
    for number in range(50):
        read(number)
    before, files = process.memory_info().rss, process.num_fds()
    for number in range(50, 350):
        read(number)
    assert process.memory_info().rss - before < 12e6
    assert process.num_fds() == files


def test_b_frames_left_out_change_no_pixel(tmp_path: Path) -> None:
    """Against plain sequential decoding, over noise that B-frames, pyramids and several references have to code."""
    import av

    for number, (pyramid, gop) in enumerate(itertools.product(("none", "normal"), ("open-gop=1", "slices=4"))):
        path = tmp_path / f"{number}.mp4"
        options = {"bf": "5", "crf": "30", "g": "20", "x264-params": f"b-pyramid={pyramid}:ref=4:{gop}"}
        write_numbered(path, frames=60, size=(320, 192), options=options)
        with av.open(str(path)) as container:
            every = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        with open_reader(path, "pyav") as reader:
            for wanted in (range(0, 60, 7), range(3, 60, 4), [59], [41, 13]):
                assert np.array_equal(reader.read(wanted), np.stack([every[i] for i in wanted]))
