"""From files to answers: how fast each cell is with decoding, preprocessing and copying in the way, as users run it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from vpbench.api import Clip, Pruner, Video
from vpbench.data.feed import Feed
from vpbench.measure.rounds import Pass
from vpbench.tasks.recognition.session import Session, batch_for

#: clips of one pass, at least (fewer where the split has fewer), by profile
CLIPS = {"ci": 40, "standard": 500, "publication": 500}
#: passes of each configuration, in random order within each
PASSES = {"ci": 1, "standard": 3, "publication": 3}


def time_passes(
    session: Session, pruners: Mapping[str, Pruner], synchronize: Callable[[], None], rng: np.random.Generator
) -> dict[str, list[Pass]]:
    """Run every configuration from the files to logits on the host, with the workers that were asked for.

    The cache of decoded clips is left out: what it saves is not what is asked. Videos that cannot be read take their
    time and give no clips. One video goes first, untimed, to start the workers.
    """
    profile = session.setting.profile
    count = min(len(session.videos), -(-CLIPS[profile] // session.views))
    numbers = np.linspace(0, len(session.videos) - 1, count).round().astype(int).tolist()
    videos = [session.videos[number] for number in numbers]
    feed = Feed(dataclasses.replace(session.feed.loader, cache=None), session.setting.workers)
    found: dict[str, list[Pass]] = {name: [] for name in pruners}
    try:
        for _ in feed.stream(videos[: session.setting.workers or 1]):
            pass
        for number in range(PASSES[profile]):
            for order, name in enumerate(rng.permutation(list(pruners)).tolist()):
                waited, began = feed.waited_s, time.perf_counter_ns()
                clips = _walk(session, feed, videos, pruners[name])
                synchronize()
                wall = time.perf_counter_ns() - began
                found[name].append(Pass(number, order, wall, clips, feed.waited_s - waited))
    finally:
        feed.close()
    return found


def columns(passes: Sequence[Pass]) -> dict[str, float]:
    """Return the columns of the results table; empty without passes or clips."""
    clips, seconds = sum(p.clips for p in passes), sum(p.wall_ns for p in passes) / 1e9
    if not clips:
        return {}
    return {"e2e_clips_per_s": clips / seconds, "device_wait_frac": sum(p.waited_s for p in passes) / seconds}


def _walk(session: Session, feed: Feed, videos: Sequence[Video], pruner: Pruner) -> int:
    pending: list[Clip] = []
    done, size = 0, session.setting.batch

    def forward(clips: Sequence[Clip]) -> None:
        with torch.inference_mode():
            session.forward(batch_for(session.backbone, clips, session.setting.device), pruner).logits.cpu()

    for loaded in feed.stream(videos):
        pending += loaded.clips
        while len(pending) >= size:
            forward(pending[:size])
            del pending[:size]
            done += size
    if pending:
        forward(pending)
    return done + len(pending)
