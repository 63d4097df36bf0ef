"""Videos become clips, in this process or in workers ahead of the model; a worker that dies costs one video at most."""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice

import numpy as np

from vpbench import processes
from vpbench.data import Clip, Video
from vpbench.data.cache import ClipCache
from vpbench.data.protocols.protocol import Protocol
from vpbench.data.protocols.shape import Shape
from vpbench.data.video import open_video
from vpbench.data.video.reader import DecodeError
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
    videos that were on their way are read again one by one, and only the one it dies of has no result.
    """

    def __init__(self, loader: ViewLoader, workers: int = 0) -> None:
        self.loader, self.workers, self.waited_s = loader, workers, 0.0
        self._pool: ProcessPoolExecutor | None = None

    def stream(self, videos: Iterable[Video]) -> Iterator[Loaded]:
        """Load videos, one result for each."""
        found = map(self.loader.load, videos) if self.workers == 0 else self._ahead(iter(videos))
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
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _ahead(self, videos: Iterator[Video]) -> Iterator[Loaded]:
        under_way: deque[tuple[Video, Future[Loaded]]] = deque()
        try:
            while True:
                for video in islice(videos, AHEAD * self.workers - len(under_way)):
                    under_way.append((video, self._submit(video)))
                if not under_way:
                    return
                try:
                    loaded = under_way[0][1].result()
                except BrokenProcessPool:
                    say("a worker that reads videos died; the videos on their way are read again one by one")
                    yield from self._one_by_one(under_way)
                    continue
                under_way.popleft()
                yield loaded
        finally:
            for _, future in under_way:
                future.cancel()

    def _one_by_one(self, under_way: deque[tuple[Video, Future[Loaded]]]) -> Iterator[Loaded]:
        """Take all that was under way, reading again what was lost."""
        self.close()  # a pool without its worker takes no more work
        while under_way:
            video, future = under_way.popleft()
            if future.done() and not future.cancelled() and future.exception() is None:
                yield future.result()
                continue
            try:
                yield self._submit(video).result()
            except BrokenProcessPool:
                self.close()
                yield Loaded(video, error=f"{video.path}: the process that read it died, twice; prepare a sound copy")

    def _submit(self, video: Video) -> Future[Loaded]:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self.workers, processes.context(), initializer=_begin, initargs=(self.loader,)
            )
        try:
            return self._pool.submit(_load, video)
        except BrokenProcessPool as error:  # it died while nobody was waiting: found out as any other death is
            broken: Future[Loaded] = Future()
            broken.set_exception(error)
            return broken


_loader: ViewLoader | None = None


def _begin(loader: ViewLoader) -> None:
    """Set up a worker: one thread, since there are as many workers as cores can feed; Ctrl-C is the parent's."""
    global _loader
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    _loader = loader


def _load(video: Video) -> Loaded:
    assert _loader is not None, "a worker is set up before it gets work"
    return _loader.load(video)
