"""Leases: files that say which process is at which piece of work, for as long as a counter in them goes on.

No clock of another machine is asked. A lease whose counter has stood still for `STALE_S` seconds of the watcher's own
steady clock is dead, and so, at once, is that of a process of this host that is no more. Whoever takes over writes the
file of the next generation, which only one can create; the process before it, should it wake up, sees that file, and
has lost its piece. Parts that both have written hold the same rows, and readers take the newest.
"""

import errno
import hashlib
import os
import platform
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import TracebackType

import psutil

from vpbench.errors import VpbenchError
from vpbench.storage import create, make_folder, overwrite

FOLDER = "leases"
#: seconds from one heartbeat to the next, and without any until a lease is dead
BEAT_S, STALE_S = 5.0, 60.0
_BOOT, _NUMBERED = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")


@dataclass(frozen=True)
class Held:
    """A lease as it lies on disk: its piece, how often it was taken over, whose it is, heartbeats, steps done."""

    piece: str
    generation: int
    owner: str
    beat: int
    steps: int


class Lost(Exception):
    """Another process took this piece over, since this one gave no sign of life for too long."""


class Lease:
    """A piece of work that is this process's own while it is open; a thread keeps its counter going."""

    def __init__(self, path: Path, owner: str) -> None:
        self._path, self._owner, self._beat = path, owner, 0
        piece, _, generation = path.name.rpartition(".")
        #: the files of this lease: those before it stay until it ends, since whoever saw none would begin anew
        self._paths = [path.with_name(f"{piece}.{number}") for number in range(1, int(generation) + 1)]
        self._next = path.with_name(f"{piece}.{int(generation) + 1}")
        #: steps of the piece that are done
        self.steps = 0
        self._ended = threading.Event()
        self._lost = False
        self._thread = threading.Thread(target=self._go_on, daemon=True)

    def __enter__(self) -> "Lease":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
        for path in self._paths if not self._lost else ():
            path.unlink(missing_ok=True)

    def advance(self, steps: int) -> None:
        """Say that steps are done; raises Lost where the piece has gone to another process."""
        self.steps += steps
        if self._lost:
            raise Lost

    def _go_on(self) -> None:
        while not self._ended.wait(BEAT_S):
            self._beat += 1
            try:
                # never created anew: where it is gone, or has a successor, another process has taken the piece over
                overwrite(self._path, _content(self._owner, self._beat, self.steps))
            except FileNotFoundError:
                self._lost = True
            except OSError:
                continue  # a disk that refuses for a moment; where it goes on to, others see no beat and take over
            self._lost = self._lost or self._next.exists()
            if self._lost:
                return


@dataclass
class Leases:
    """The leases of a results folder, and what this process has seen of those of others."""

    folder: Path
    owner: str = field(default_factory=lambda: _owner(os.getpid()))
    #: by piece and generation: what stood in it, and since when, by this process's steady clock
    _seen: dict[tuple[str, int], tuple[Held, float]] = field(default_factory=dict)
    #: those whose counter this process has seen go on
    _alive: set[tuple[str, int]] = field(default_factory=set)

    def take(self, piece: str) -> Lease | None:
        """Return the lease of a piece that nobody is at, or nobody any more; None where another process is, or may be.

        Raises VpbenchError where the folder cannot be written.
        """
        held = self.look([piece]).get(piece)
        if held is not None and not self.dead(held):
            return None
        path = self.folder / FOLDER / f"{piece}.{1 if held is None else held.generation + 1}"
        try:
            make_folder(path.parent)
            create(path, _content(self.owner, 0, 0))
        except FileExistsError:
            return None  # another process was quicker
        except OSError as error:
            raise _unwritable(path, error) from error
        return Lease(path, self.owner)

    def look(self, pieces: Iterable[str] | None = None) -> dict[str, Held]:
        """Return the leases that lie there by piece (of these pieces alone, if some are given), and remember them."""
        wanted = None if pieces is None else set(pieces)
        found: dict[str, Held] = {}
        for name in self._names():
            piece, _, generation = name.rpartition(".")
            if not generation.isdigit() or (wanted is not None and piece not in wanted):
                continue
            held = self._read(name, piece, int(generation))
            if held is not None and (piece not in found or found[piece].generation < held.generation):
                found[piece] = held
        now = time.monotonic()
        for held in found.values():
            key = held.piece, held.generation
            before = self._seen.get(key)
            if before is None or before[0] != held:
                self._alive |= set() if before is None else {key}
                self._seen[key] = held, now
        return found

    def dead(self, held: Held) -> bool:
        """Tell whether a lease that `look` has returned has lost its process, as far as this one can know yet."""
        return _gone(held.owner) or self.silent_s(held) >= STALE_S

    def alive(self, held: Held) -> bool:
        """Tell whether this process has seen the counter of a lease go on, and it has not stood still for long."""
        return (held.piece, held.generation) in self._alive and not self.dead(held)

    def silent_s(self, held: Held) -> float:
        """Return for how many seconds this process has seen a lease's counter stand still."""
        return time.monotonic() - self._seen[held.piece, held.generation][1]

    def _names(self) -> list[str]:
        return [path.name for path in (self.folder / FOLDER).glob("*.*")]

    def _read(self, name: str, piece: str, generation: int) -> Held | None:
        try:
            words = (self.folder / FOLDER / name).read_bytes().decode().split()
            return Held(piece, generation, words[0], int(words[1]), int(words[2]))
        except FileNotFoundError:
            return None  # its owner was done just now
        except (ValueError, IndexError):
            return Held(piece, generation, "?", -1, 0)  # its owner was stopped before it had written anything


def _content(owner: str, beat: int, steps: int) -> bytes:
    """Return what a lease says, always of one length, so that it can be written over even where a disk is full."""
    return f"{owner} {beat:012d} {steps:015d}\n".encode()


def _unwritable(path: Path, error: OSError) -> VpbenchError:
    advice = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "make the folder writable"
    return VpbenchError(f"{path}: cannot write ({error.strerror or error}); {advice} and run the same command again")


@lru_cache(maxsize=1)
def host() -> str:
    """Tell this host since its last start from all others, without its name."""
    started = _BOOT.read_text() if _BOOT.is_file() else f"{platform.node()} {psutil.boot_time():.0f}"
    return hashlib.sha256(started.encode()).hexdigest()[:12]


@lru_cache(maxsize=1)
def _place() -> str:
    """Name where process numbers mean something: a host, or a container on it."""
    numbered = str(_NUMBERED.readlink()) if _NUMBERED.is_symlink() else ""
    return hashlib.sha256(f"{host()} {numbered}".encode()).hexdigest()[:12]


def _owner(pid: int) -> str:
    return f"{_place()}-{pid}-{_started(pid)}"


def _gone(owner: str) -> bool:
    """Tell whether a process was one of this host, and is no more; of other hosts' nothing is known."""
    where, _, process = owner.partition("-")
    pid, _, started = process.partition("-")
    return where == _place() and _started(int(pid)) != started


def _started(pid: int) -> str:
    """Return what tells a process from a later one of the same number; empty where there is none.

    Ticks since the host's start, where the system tells them: a clock that is set anew changes nothing about them.
    """
    if platform.system() == "Linux":
        try:
            state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return ""
        return "" if state in "ZX" else rest[18]
    try:
        return f"{psutil.Process(pid).create_time():.0f}"
    except psutil.NoSuchProcess:
        return ""
