"""Videos become clips, in this process or in workers ahead of the model; a worker that dies costs one video at most."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from vpbench.data import Clip, Video
from vpbench.data.cache import ClipCache
from vpbench.data.protocols.protocol import Protocol
from vpbench.data.protocols.shape import Shape
from vpbench.data.video import open_video
from vpbench.data.video.reader import DecodeError
from vpbench.processes import Lost, Pool
from vpbench.progress import say

#: videos on their way per worker: one being read, one waiting to be taken
AHEAD = 2


@dataclass(frozen=True)
class Loaded:
    """All views of one video, or the reason why there are none; times in ms for the whole video.

    `cached`: the views came from the cache, so that no time was spent on decoding.
    """

    video: Video
    clips: tuple[Clip, ...] = ()
    error: str | None = None
    decode_ms: float = 0.0
    preprocess_ms: float = 0.0
    cached: bool = False


@dataclass(frozen=True)
class ViewLoader:
    """How videos become clips: what a worker has to know."""

    protocol: Protocol
    shape: Shape
    decoder: str
    cache: ClipCache | None = None

    @property
    def _cut(self) -> str:
        """What the cache has to know of how views are cut."""
        return repr((self.protocol, self.shape, self.decoder))

    def load(self, video: Video) -> Loaded:
        """Read one video once and cut all views from it; a video that cannot be read is said so in the result."""
        if self.cache is not None and (views := self.cache.read(video, self._cut)) is not None:
            found = tuple(self.protocol.clip(video, number, pixels) for number, pixels in enumerate(views))
            return Loaded(video, found, cached=True)
        began = time.perf_counter()
        try:
            with open_video(video, self.decoder) as reader:
                plan = self.protocol.plan(reader, video, self.shape)
                frames = reader.read(plan.wanted)
            decoded = time.perf_counter()
            clips = tuple(self.protocol.crop(frames, plan, video, self.shape))
        except DecodeError as error:
            return Loaded(video, error=str(error))
        done = time.perf_counter()
        if self.cache is not None:
            self.cache.write(video, self._cut, np.stack([clip.pixels for clip in clips]))
        return Loaded(video, clips, decode_ms=1e3 * (decoded - began), preprocess_ms=1e3 * (done - decoded))


class Feed:
    """Clips of videos in the order asked. `waited_s`: seconds in which whoever reads the stream had to wait for it.

    With `workers`, as many processes read ahead. Where one dies (killed for lack of memory, crashed in a decoder), the
    video it was at is read again, and has no result if another one dies of it.
    """

    def __init__(self, loader: ViewLoader, workers: int = 0) -> None:
        self.loader, self.workers, self.waited_s = loader, workers, 0.0
        self._pool: Pool[Video, Loaded] | None = None

    def stream(self, videos: Iterable[Video]) -> Iterator[Loaded]:
        """Load videos, one result for each."""
        found = map(self.loader.load, videos) if self.workers == 0 else self._ahead(videos)
        while True:
            began = time.perf_counter()
            loaded = next(found, None)
            self.waited_s += time.perf_counter() - began
            if loaded is None:
                return
            yield loaded

    def close(self) -> None:
        """End the workers; videos on their way are dropped."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _ahead(self, videos: Iterable[Video]) -> Iterator[Loaded]:
        if self._pool is None:
            self._pool = Pool(self.loader.load, self.workers, start="forkserver", setup=_one_thread, again=_say)
        for video, found in self._pool.each(videos, ahead=AHEAD * self.workers):
            if not isinstance(found, Lost):
                yield found
            elif found.trace:  # a fault of ours, not of the video
                raise RuntimeError(f"{video.path}: {found.reason}\n{found.trace}")
            else:
                yield Loaded(video, error=f"{video.path}: the process that read it died, twice; prepare a sound copy")


def _one_thread() -> None:
    """Set up a worker: there are as many as cores can feed."""
    import torch

    torch.set_num_threads(1)


def _say(video: Video, how: str) -> None:
    say(f"{video.path}: the process that read it died ({how}); it is read again")
