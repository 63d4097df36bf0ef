"""Time of this code over that of another commit: two processes, one of each tree, that take turns round by round."""

import contextlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vpbench import CHECKOUT
from vpbench.commands.check.cells import Cells
from vpbench.commands.check.speed import Speed
from vpbench.errors import UsageError, VpbenchError
from vpbench.measure.rounds import BLOCK
from vpbench.rows.statistics.intervals import median_interval
from vpbench.tasks.task import Attached

_DENSE, _TWIN = "dense", "aa"
_TURNS = Path(__file__).with_name("turns.py")


@contextmanager
def checked_out(ref: str) -> Iterator[Path]:
    """Yield a folder with the files of a commit, which goes again; raises UsageError where there is no such commit."""
    with tempfile.TemporaryDirectory(prefix="vpbench-") as folder:
        packed = Path(folder) / "tree.tar"
        command = ["git", "-C", str(CHECKOUT), "archive", "--format=tar", f"--output={packed}", "--end-of-options", ref]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise UsageError(f"--against {ref}: git cannot be run ({error.strerror})") from error
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["git failed"])[0]
            raise UsageError(f"--against {ref}: {CHECKOUT} has no such commit ({said}); fetch it first")
        tree = Path(folder) / "tree"
        with tarfile.open(packed) as archive:
            archive.extractall(tree, filter="data")
        packed.unlink()
        if not (tree / "vpbench" / "commands" / "check").is_dir():
            raise UsageError(f"--against {ref}: there is no gate in that commit yet")
        yield tree


class Tree:
    """A process that runs the cells of one tree when it is asked to."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        environment = os.environ | {"PYTHONPATH": str(folder), "OMP_WAIT_POLICY": "PASSIVE"}
        # -P: nothing beside the script is taken for a module
        self._process = subprocess.Popen(
            (sys.executable, "-P", str(_TURNS)), cwd=folder, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def ask(self, **question: Any) -> Any:
        """Return the answer to a question; raises VpbenchError where the process has ended instead."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(question), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            said = (self._process.communicate()[1].strip().splitlines() or ["it said nothing"])[-1]
            raise VpbenchError(f"{self.name} cannot be timed here: {said}")
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


class Turns:
    """Times cells of this tree over those of another, as `gate.check` asks for them."""

    def __init__(self, other: Path, ref: str) -> None:
        self.other, self.ref = other, ref

    def measure(self, cells: Cells, found: Mapping[str, Attached], rounds: int) -> dict[str, Speed]:
        """Time cells, block by block, each block in two new processes; cells that the other tree lacks are left out."""
        names, speeds = list(found), dict[str, Speed]()
        for start in range(0, len(names), BLOCK):
            some = names[start : start + BLOCK]
            asked = {name: (found[name].cell.method, found[name].cell.keep) for name in some}
            speeds |= self._block(cells.name, asked, rounds)
        return speeds

    def _block(self, backbone: str, asked: Mapping[str, tuple[str, float | None]], rounds: int) -> dict[str, Speed]:
        both = {"here": Tree(CHECKOUT, "this tree"), "there": Tree(self.other, self.ref)}
        try:
            known = [set(tree.ask(backbone=backbone, cells=asked)) for tree in both.values()]
            names = [name for name in asked if all(name in each for each in known)]
            draw = np.random.default_rng(zlib.crc32(",".join([backbone, *names]).encode()))
            self._round(both, draw, [_DENSE, _TWIN, *names], warm=True)
            took = [self._round(both, draw, [_DENSE, _TWIN, *names]) for _ in range(rounds)]
        finally:
            for tree in both.values():
                tree.close()
        return {name: _speed(took, name) for name in names}

    def _round(
        self, both: Mapping[str, Tree], draw: np.random.Generator, names: Sequence[str], warm: bool = False
    ) -> dict[str, dict[str, int]]:
        """Let both trees run each cell once, one after the other; returns nanoseconds by tree and cell."""
        took: dict[str, dict[str, int]] = {tree: {} for tree in both}
        for name in draw.permutation(names).tolist():
            for tree in draw.permutation(list(both)).tolist():
                took[tree][name] = both[tree].ask(run=name, times=2 if warm else 1)
        return took


def _speed(took: Sequence[Mapping[str, Mapping[str, int]]], name: str) -> Speed:
    """Compare a cell's time here with its time there, and the second dense here with the first."""
    here, there = (np.array([each[tree][name] for each in took]) for tree in ("here", "there"))
    dense, twin = (np.array([each["here"][key] for each in took]) for key in (_DENSE, _TWIN))
    process = np.zeros(len(took))
    ratio, control = median_interval(here / there, process), median_interval(twin / dense, process)
    return Speed(ratio, control, float(here.min() / there.min()))
