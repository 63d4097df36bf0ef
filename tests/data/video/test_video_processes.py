"""Readers in worker processes, where decord gets a process of its own that nothing outlives."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import psutil
import pytest
from numbered import numbers, write_numbered

from vpbench.data import decord_worker
from vpbench.data.video import decode
from vpbench.data.video.reader import DecodeError

METHODS = [method for method in ("spawn", "forkserver") if method in multiprocessing.get_all_start_methods()]


def _numbers(path: Path, indices: list[int], decoder: str) -> list[int]:
    return numbers(decode(path, indices, decoder))


def _decord_of_this(path: Path) -> tuple[int, list[int]]:
    decode(path, [0], "decord")
    return os.getpid(), [child.pid for child in psutil.Process().children() if "spawn_main" in str(child.cmdline())]


def _from_fork(path: Path, pipe: object) -> None:
    pipe.send(_numbers(path, [9, 2], "decord"))  # type: ignore[attr-defined]


def gone(pid: int) -> bool:
    """Wait until a process has ended."""
    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.1)
    return False


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("decord", reason="decord has no build for this platform")
    return write_numbered(tmp_path_factory.mktemp("processes") / "clip.mp4")


@pytest.mark.parametrize("method", METHODS)
def test_both_decoders_in_a_pool(clip: Path, tmp_path: Path, method: str) -> None:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
        jobs = [pool.submit(_numbers, clip, [n, 47 - n], decoder) for n in range(6) for decoder in ("pyav", "decord")]
        assert [job.result() for job in jobs] == [[n, 47 - n] for n in range(6) for _ in range(2)]
        with pytest.raises(DecodeError, match=r"none\.mp4: No such file"):  # the error crosses to the parent
            pool.submit(_numbers, tmp_path / "none.mp4", [0], "decord").result()


@pytest.mark.parametrize("method", METHODS)
def test_decord_ends_with_the_process_that_uses_it(clip: Path, method: str) -> None:
    """Neither a pool that is shut down nor a worker that is killed leaves one behind."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        _, decords = pool.submit(_decord_of_this, clip).result()
    assert decords
    assert all(gone(pid) for pid in decords)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        worker, decords = pool.submit(_decord_of_this, clip).result()
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(BrokenProcessPool):
            pool.submit(_decord_of_this, clip).result()
    assert decords
    assert all(gone(pid) for pid in decords)


@pytest.mark.skipif(sys.platform != "linux", reason="forks with threads are for Linux only")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_does_not_talk_to_the_decord_of_its_parent(clip: Path) -> None:
    assert _numbers(clip, [5], "decord") == [5]
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=_from_fork, args=(clip, there))
    before = list(decord_worker.shared()._server._held)
    child.start()
    assert here.poll(60)
    assert here.recv() == [9, 2]
    child.join()
    assert decord_worker.shared()._server._held == before
    assert _numbers(clip, [7], "decord") == [7]
