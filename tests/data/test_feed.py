"""Videos become clips: in this process, in workers, from the cache; and what happens when a worker dies."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tiny_videos import write_video

from vpbench.data import Video, feed
from vpbench.data import video as data_video
from vpbench.data.cache import ClipCache
from vpbench.data.feed import Feed, Loaded, ViewLoader
from vpbench.data.protocols import catalog, shape
from vpbench.errors import UsageError

SHAPE = shape.Shape(frames=4, height=16, width=16, stride=2)


def loader(decoder: str = "pyav", cache: ClipCache | None = None, protocol: str = "videomae_5x3") -> ViewLoader:
    return ViewLoader(catalog.find(protocol, seed=0), SHAPE, decoder, cache)


@pytest.fixture
def videos(tmp_path: Path) -> list[Video]:
    """Six videos; the third is no video and the fifth is not there."""
    paths = [write_video(tmp_path / f"{number}.mp4", seed=number) for number in range(6)]
    paths[2].write_text("this is no video")
    paths[4].unlink()
    return [Video(path.stem, path, number) for number, path in enumerate(paths)]


def same(one: Loaded, other: Loaded) -> bool:
    pixels = zip(one.clips, other.clips, strict=True)
    return (one.video, one.error) == (other.video, other.error) and all(
        (a.clip_id, a.view, a.label) == (b.clip_id, b.view, b.label) and np.array_equal(a.pixels, b.pixels)
        for a, b in pixels
    )


def test_one_result_for_each_video_and_all_its_views(videos: list[Video]) -> None:
    found = list(Feed(loader()).stream(videos))
    assert [each.video.video_id for each in found] == ["0", "1", "2", "3", "4", "5"]
    assert [len(each.clips) for each in found] == [15, 15, 0, 15, 0, 15]
    assert [each.error is None for each in found] == [True, True, False, True, False, True]
    assert "2.mp4" in str(found[2].error)
    assert "4.mp4" in str(found[4].error)
    assert [clip.view for clip in found[0].clips] == list(range(15))
    assert found[0].clips[3].pixels.shape == (4, 16, 16, 3)
    assert found[0].decode_ms > 0
    assert found[0].preprocess_ms > 0


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_workers_change_nothing(videos: list[Video], decoder: str) -> None:
    alone, together = Feed(loader(decoder)), Feed(loader(decoder), workers=2)
    try:
        pairs = zip(alone.stream(videos), together.stream(videos), strict=True)
        assert all(same(one, other) for one, other in pairs)
        assert together.waited_s > 0
    finally:
        together.close()


@dataclass(frozen=True)
class Deadly(ViewLoader):
    """Kills its worker: always at the video `always`, and once, as the flag file tells, at the video `once`."""

    always: str = ""
    once: str = ""
    flag: Path = Path()

    def load(self, video: Video) -> Loaded:
        if video.video_id == self.always:
            os.kill(os.getpid(), signal.SIGKILL)
        if video.video_id == self.once and not self.flag.exists():
            self.flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().load(video)


def test_a_worker_that_dies_is_replaced_and_loses_nothing(videos: list[Video], tmp_path: Path) -> None:
    whole = list(Feed(loader()).stream(videos))
    plain = loader()
    deadly = Deadly(plain.protocol, plain.shape, plain.decoder, once="1", flag=tmp_path / "died")
    mended = Feed(deadly, workers=2)
    try:
        assert all(same(one, other) for one, other in zip(whole, mended.stream(videos), strict=True))
    finally:
        mended.close()
    assert deadly.flag.exists()


def test_a_video_that_kills_every_worker_is_a_failure_of_its_own(videos: list[Video]) -> None:
    whole = list(Feed(loader()).stream(videos))
    plain = loader()
    stricken = Feed(Deadly(plain.protocol, plain.shape, plain.decoder, always="1"), workers=2)
    try:
        found = list(stricken.stream(videos))
    finally:
        stricken.close()
    assert found[1].clips == ()
    assert "died" in str(found[1].error)
    assert all(same(a, b) for a, b in zip(whole, found, strict=True) if a.video.video_id != "1")


def test_a_consumer_that_stops_early_leaves_no_worker(videos: list[Video]) -> None:
    part = Feed(loader(), workers=2)
    stream = part.stream(videos)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    part.close()
    assert next(iter(part.stream(videos[:1]))).clips, "it can be used again"
    part.close()


def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note which videos are opened from now on."""
    found: list[str] = []
    original = data_video.open_video

    def noting(video: Video, decoder: str):  # type: ignore[no-untyped-def]
        found.append(video.video_id)
        return original(video, decoder)

    monkeypatch.setattr(feed, "open_video", noting)
    return found


@pytest.mark.parametrize("protocol", ["videomae_5x3", "vivit_4x3"])
def test_the_cache_gives_the_same_clips_without_opening(
    videos: list[Video], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    cached = loader(cache=ClipCache(tmp_path / "cache", 10**9), protocol=protocol)
    first = cached.load(videos[0])
    notes = opened(monkeypatch)
    again = cached.load(videos[0])
    assert again.cached
    assert same(first, again)
    assert notes == []
    write_video(videos[0].path, seed=7)
    assert not same(first, cached.load(videos[0])), "a file that changed is read again"
    assert notes == ["0"]
    assert cached.load(videos[2]).error, "what cannot be read is not cached"


def test_other_views_are_other_entries(videos: list[Video], tmp_path: Path) -> None:
    cache = ClipCache(tmp_path / "cache", 10**9)
    assert len(loader(cache=cache).load(videos[0]).clips) == 15
    assert len(loader(cache=cache, protocol="spread_2x3").load(videos[0]).clips) == 6


def test_the_least_used_make_room(videos: list[Video], tmp_path: Path) -> None:
    views = loader().load(videos[0]).clips
    room = 2.5 * sum(clip.pixels.nbytes for clip in views)
    cached = loader(cache=ClipCache(tmp_path / "cache", round(room)))
    for number, video in enumerate((videos[0], videos[1])):
        cached.load(video)
        for path in (tmp_path / "cache").glob("*.npy"):  # clocks of files are coarse: make the order plain
            os.utime(path, (path.stat().st_atime, min(path.stat().st_mtime, 1e9 + number)))
    assert cached.load(videos[0]).cached, "using it makes it the newest"
    cached.load(videos[3])
    assert cached.load(videos[0]).cached
    assert not cached.load(videos[1]).cached


def test_a_torn_entry_is_read_again(videos: list[Video], tmp_path: Path) -> None:
    cached = loader(cache=ClipCache(tmp_path / "cache", 10**9))
    first = cached.load(videos[0])
    entry = next((tmp_path / "cache").glob("*.npy"))
    entry.write_bytes(entry.read_bytes()[:1000])
    again = cached.load(videos[0])
    assert not again.cached
    assert same(first, again)


def test_a_full_disk_is_said_and_survived(
    videos: list[Video], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    cached = loader(cache=ClipCache(tmp_path / "cache", 10**9))
    monkeypatch.setattr(np, "save", full)
    assert cached.load(videos[0]).clips
    assert "No space left" in capsys.readouterr().err
    assert not list((tmp_path / "cache").iterdir())


def test_a_cache_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="--cache"):
        ClipCache(tmp_path / "file" / "cache", 1)
