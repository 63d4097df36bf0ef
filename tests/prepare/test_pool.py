"""Work in processes that may die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vpbench import processes
from vpbench.errors import UsageError


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
    answers = dict(processes.each(misbehave, range(30), 2))
    assert sorted(answers) == list(range(30))
    for item, answer in answers.items():
        if item % 10 in (3, 5, 7):
            assert isinstance(answer, processes.Lost)
            assert {3: "SIGKILL", 5: "exit code 7", 7: "ValueError: seven"}[item % 10] in answer.reason
            assert "more" not in answer.reason
        else:
            assert answer == item * item


def test_our_own_errors_end_the_work() -> None:
    with pytest.raises(UsageError, match="not so"):
        list(processes.each(refuse, [1, 2, 3], 2))


def test_nothing_to_do_starts_nothing() -> None:
    assert list(processes.each(misbehave, [], 4)) == []


PARENT = """
import sys, time
sys.path.insert(0, {folder!r})
from test_pool import rest
from vpbench.commands.data import pool
if __name__ == "__main__":
    for item, answer in pool.each(rest, [0, 1000], 2):
        print(answer, flush=True)
"""


def rest(item: int) -> int:
    time.sleep(item)
    return os.getpid()


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(folder=str(Path(__file__).parent)))
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    process.kill()
    process.wait()
    for _ in range(100):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("the worker lives on")
