"""Leases: one owner at a time, taken over by whoever has watched them stand still, whatever clocks say."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vpbench.errors import VpbenchError
from vpbench.run import lease
from vpbench.run.lease import Leases, Lost


class Clock:
    """A steady clock that goes as far as it is told."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr("vpbench.run.lease.time.monotonic", found.monotonic)
    return found


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.01)


def other(folder: Path, name: str = "elsewhere-1-1") -> Leases:
    """The leases as a process of another host sees them."""
    return Leases(folder, name)


def until(true: Callable[[], bool]) -> None:
    deadline = time.perf_counter() + 20
    while not true() and time.perf_counter() < deadline:
        time.sleep(0.005)
    assert true()


def test_a_piece_has_one_owner_until_it_is_given_back(tmp_path: Path) -> None:
    mine, others = Leases(tmp_path), other(tmp_path)
    taken = mine.take("a")
    assert taken is not None
    with taken:
        assert others.take("a") is None
        assert others.take("b") is not None
    assert others.take("a") is not None


def test_a_lease_that_stands_still_is_taken_over_and_its_owner_has_lost_it(tmp_path: Path, clock: Clock) -> None:
    others, mine = other(tmp_path), Leases(tmp_path)
    stuck = others.take("a")
    assert stuck is not None
    assert mine.take("a") is None
    clock.now += lease.STALE_S - 1
    assert mine.take("a") is None
    clock.now += 2
    taken = mine.take("a")
    assert taken is not None
    with taken:
        assert mine.look()["a"].generation == 2
        with stuck:  # it wakes up
            until(lambda: stuck._lost)
            with pytest.raises(Lost):
                stuck.advance(1)
        assert mine.look()["a"].generation == 2, "what was lost takes nothing away from the new owner"
        taken.advance(1)


def test_a_lease_whose_counter_goes_on_is_alive_whatever_the_clock_of_its_file_says(
    tmp_path: Path, clock: Clock
) -> None:
    taken, mine = other(tmp_path).take("a"), Leases(tmp_path)
    assert taken is not None
    with taken:
        for hours in (-1, 1, 0):
            before = mine.look()["a"]
            assert mine.take("a") is None
            clock.now += lease.STALE_S - 1
            until(lambda beat=before.beat: mine.look()["a"].beat > beat)  # type: ignore[misc]
            os.utime(tmp_path / "leases" / "a.1", (time.time() + 3600 * hours,) * 2)
            clock.now += 2
            assert mine.take("a") is None
        assert mine.alive(mine.look()["a"])
    assert mine.look() == {}


def test_a_process_of_this_host_that_is_no_more_has_lost_its_lease_at_once(tmp_path: Path) -> None:
    code = f"from pathlib import Path; from vpbench.run.lease import Leases; Leases(Path({str(tmp_path)!r})).take('a')"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert list(tmp_path.glob("leases/*"))
    assert Leases(tmp_path).take("a") is not None


def test_of_many_that_take_a_dead_lease_over_one_gets_it(tmp_path: Path, clock: Clock) -> None:
    assert other(tmp_path).take("a") is not None
    many = [other(tmp_path, f"host{number}-1-1") for number in range(8)]
    assert [each.take("a") for each in many] == [None] * 8
    clock.now += lease.STALE_S
    together, found = threading.Barrier(8), list[object]()

    def take(each: Leases) -> None:
        together.wait()
        found.append(each.take("a"))

    threads = [threading.Thread(target=take, args=(each,)) for each in many]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(each is not None for each in found) == 1


def test_an_owner_that_was_stopped_before_it_wrote_anything_is_watched_too(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "leases").mkdir()
    (tmp_path / "leases" / "a.1").touch()
    mine = Leases(tmp_path)
    assert mine.take("a") is None
    clock.now += lease.STALE_S
    assert mine.take("a") is not None


@pytest.mark.parametrize(("number", "advice"), [(errno.ENOSPC, "free some space"), (errno.EROFS, "make the folder")])
def test_a_disk_that_refuses_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, advice: str
) -> None:
    def refuses(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lease, "create", refuses)
    with pytest.raises(VpbenchError, match=advice):
        Leases(tmp_path).take("a")
