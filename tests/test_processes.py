"""Work in processes that may die, hang, be killed while idle, or lose their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from vpbench.errors import UsageError, VpbenchError
from vpbench.processes import PRELOADED, Died, Late, Lost, Pool, Server, Start, call, each

STARTS: tuple[Start, ...] = ("spawn", "forkserver")
HERE = Path(__file__).parent


def misbehave(item: int) -> int:
    if item % 10 == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if item % 10 == 5:
        os._exit(7)
    if item % 10 == 7:
        raise ValueError("seven\nand more")
    return item * item


def refuse(item: int) -> int:
    raise UsageError("not so")


def test_each_item_has_one_answer_and_those_who_kill_are_named() -> None:
    answers = dict(each(misbehave, range(30), 2))
    assert sorted(answers) == list(range(30))
    for item, answer in answers.items():
        if item % 10 in (3, 5, 7):
            assert isinstance(answer, Lost)
            assert {3: "SIGKILL", 5: "exit code 7", 7: "ValueError: seven"}[item % 10] in answer.reason
            assert "more" not in answer.reason
        else:
            assert answer == item * item


def test_our_own_errors_end_the_work() -> None:
    with pytest.raises(UsageError, match="not so"):
        list(each(refuse, [1, 2, 3], 2))


def test_nothing_to_do_starts_nothing() -> None:
    assert list(each(misbehave, [], 4)) == []


def who(item: int) -> int:
    return os.getpid()


def unsendable(item: int) -> int:
    if item == 1:
        raise ValueError(lambda: "not to be pickled")
    return item


def slowest_first(item: int) -> int:
    time.sleep(0.5 if item % 3 == 0 else 0)
    return item


def dies_once(folder: Path, item: int) -> int:
    """Kill the process at every third item, the first time that it is tried; at item 5 always."""
    flag = folder / str(item)
    if item == 5 or (item % 3 == 0 and not flag.exists()):
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def rest(item: float) -> int:
    time.sleep(item)
    return os.getpid()


def no_setup() -> None:
    raise UsageError("cannot be set up")


def gone(pid: int) -> bool:
    """Wait until a process has ended."""
    for _ in range(200):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.1)
    return False


@pytest.fixture(params=STARTS)
def start(request: pytest.FixtureRequest) -> Start:
    return request.param


def test_an_error_that_cannot_be_pickled_says_where_it_came_from() -> None:
    answers = dict(each(unsendable, range(3), 2))
    assert answers[0] == 0
    assert answers[2] == 2
    lost = answers[1]
    assert isinstance(lost, Lost)
    assert "ValueError" in lost.reason
    assert "in unsendable" in lost.trace


def test_our_own_errors_cross_as_they_are_and_leave_no_process(start: Start) -> None:
    pool = Pool(refuse, 2, start=start)
    with pytest.raises(UsageError, match=r"^not so$"):
        list(pool.each(range(5), ahead=4))
    pids = [process.pid for server in pool._servers for process in server._held]
    assert pids
    pool.close()
    assert all(gone(pid) for pid in pids if pid is not None)
    with pytest.raises(UsageError, match="cannot be set up"):
        list(each(who, [1, 2], 2, setup=no_setup))


def test_results_come_in_the_order_asked_where_that_is_asked() -> None:
    pool = Pool(slowest_first, 3)
    assert [item for item, _ in pool.each(range(9), ahead=6)] == list(range(9))
    as_done = [item for item, _ in pool.each(range(9))]
    assert sorted(as_done) == list(range(9))
    assert as_done != list(range(9))
    pool.close()


def test_items_are_taken_as_work_begins() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    pool = Pool(slowest_first, 2)
    stream = pool.each(items(), ahead=4)
    assert taken == []
    next(stream)
    assert len(taken) == 5, "four on their way, beside the one that was handed over"
    stream.close()  # type: ignore[attr-defined]
    stream = pool.each(items())
    next(stream)
    assert len(taken) == 5 + 3
    pool.close()


def test_what_a_worker_died_of_is_tried_once_more_and_the_order_stays(tmp_path: Path) -> None:
    told: list[tuple[int, str]] = []
    pool = Pool(partial(dies_once, tmp_path), 2, again=lambda item, how: told.append((item, how)))
    found = list(pool.each(range(8), ahead=4))
    pool.close()
    assert [item for item, _ in found] == list(range(8))
    assert [answer for item, answer in found if item != 5] == [0, 1, 2, 3, 4, 6, 7]
    lost = found[5][1]
    assert isinstance(lost, Lost)
    assert "SIGKILL" in lost.reason
    assert not lost.trace
    assert sorted(item for item, _ in told) == [0, 3, 5, 6]
    assert all("SIGKILL" in how for _, how in told)


def test_workers_are_kept_between_streams_and_one_killed_while_idle_costs_nothing(start: Start) -> None:
    pool = Pool(who, 1, start=start)
    (_, worker), *_ = pool.each([0], ahead=2)
    assert isinstance(worker, int)
    assert dict(pool.each([0, 1], ahead=2)) == {0: worker, 1: worker}
    os.kill(worker, signal.SIGKILL)
    assert gone(worker)
    [server] = pool._servers
    while server.alive:  # a fork server says a moment later that its child has ended
        time.sleep(0.01)
    found = dict(pool.each([0, 1, 2], ahead=2))
    assert all(isinstance(answer, int) and answer != worker for answer in found.values()), (worker, found)
    pool.close()


def test_a_pool_can_be_closed_in_the_middle_of_everything() -> None:
    pool = Pool(rest, 2)
    stream = pool.each([0, 1000, 1000, 1000], ahead=4)
    _, worker = next(stream)
    assert isinstance(worker, int)
    began, before = time.monotonic(), threading.active_count()
    pool.close()
    assert time.monotonic() - began < 10
    assert threading.active_count() == before - 2
    assert gone(worker)
    with pytest.raises(Died):
        next(stream)
    with pytest.raises(RuntimeError, match="closed"):
        next(pool.each([1]))


def test_a_server_is_killed_at_its_deadline_and_begun_anew(start: Start) -> None:
    server = Server(rest, start=start)
    first = server.ask(0)
    assert server.ask(0, deadline_s=60) == first
    with pytest.raises(Late, match=r"no result after 0\.5 s"):
        server.ask(1000, deadline_s=0.5)
    assert gone(first)
    assert server.ask(0) != first
    server.close()
    with pytest.raises(Died):
        server.ask(0)


def test_a_call_says_whose_fault_it_was() -> None:
    assert call(who, 1, name="me") != os.getpid()
    with pytest.raises(VpbenchError, match=r"^me: ValueError: seven$"):
        call(misbehave, 7, name="me")
    with pytest.raises(VpbenchError, match=r"^me: not so$"):
        call(refuse, 7, name="me")
    with pytest.raises(VpbenchError, match=r"^me: its process died with signal SIGKILL"):
        call(misbehave, 3, name="me")
    with pytest.raises(VpbenchError, match=r"^me: no result after 1 s"):
        call(rest, 1000, name="me", deadline_s=1)


def test_what_is_preloaded_starts_no_thread_and_is_not_ours() -> None:
    code = (
        f"import {', '.join(PRELOADED)}, os, sys; print(len(os.listdir('/proc/self/task')), 'vpbench' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "1 False\n"
    )


PARENT = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
sys.path.insert(0, {folder!r})
from test_processes import rest
from vpbench.processes import Pool, call
def main():
    if {call}:
        print(1, flush=True)
        call(rest, 1000, name="rest")
    pool = Pool(rest, 2, start={start!r})
    for item, answer in pool.each([0, 1000, 1000], ahead=3):
        print(answer, flush=True)
        if {fails}:
            raise ValueError("the consumer's own")
if __name__ == "__main__":
    main()
"""


def parent(tmp_path: Path, start: Start, *, call: bool = False, fails: bool = False) -> subprocess.Popen[str]:
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(folder=str(HERE), start=start, call=call, fails=fails))
    return subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(HERE.parent)},
    )


def descendants(process: subprocess.Popen[str], least: int) -> list[psutil.Process]:
    """Wait until it has so many (the resource tracker and the fork server among them)."""
    for _ in range(300):
        if len(found := psutil.Process(process.pid).children(recursive=True)) >= least:
            return found
        time.sleep(0.1)
    pytest.fail("there are too few processes")


@pytest.mark.skipif(sys.platform != "linux", reason="signals and process groups")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize(("start", "single"), [("spawn", False), ("forkserver", False), ("forkserver", True)])
def test_workers_end_when_their_parent_is_killed_or_stopped(
    tmp_path: Path, start: Start, single: bool, how: signal.Signals
) -> None:
    process = parent(tmp_path, start, call=single)
    assert process.stdout is not None
    assert process.stdout.readline()
    least = 3 if single or start == "forkserver" else 2
    children = descendants(process, least)
    time.sleep(0.5)
    if how == signal.SIGINT:
        os.killpg(process.pid, how)  # as a terminal does
    else:
        process.kill()
    process.wait(20)
    assert all(gone(child.pid) for child in children)


def test_workers_end_when_their_consumer_fails(tmp_path: Path, start: Start) -> None:
    process = parent(tmp_path, start, fails=True)
    answers, said = process.communicate(timeout=60)  # whoever lives on holds its outputs open
    assert "ValueError: the consumer's own" in said
    assert process.returncode == 1
    assert gone(int(answers.split()[0]))
