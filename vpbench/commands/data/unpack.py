"""Unpack the validation part of an ImageNet VID archive: never outside the folder asked for, and resumably."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vpbench.commands.data.archives import Member, chunks, members
from vpbench.commands.data.members import Guard
from vpbench.commands.data.output import disk_errors, filling, finish, temporary
from vpbench.errors import NothingMeasured, VpbenchError
from vpbench.progress import task

MEGABYTE = 1_000_000


@dataclass
class Unpacked:
    """Files written, files that were there already, members that are not needed."""

    written: int = 0
    already: int = 0
    skipped: int = 0


def unpack(archive: Path, out: Path) -> Unpacked:
    """Unpack what the data set reads; files that are there in full are left as they are.

    Raises UsageError if there is no archive or no place for it; Refused for an archive that is not to be trusted;
    VpbenchError for a damaged one and for a disk that is full, after which the same command goes on; NothingMeasured
    if the archive holds nothing of the kind.
    """
    done, guard = Unpacked(), Guard(str(archive))
    with filling(out) as partial:
        total = archive.stat().st_size // MEGABYTE if archive.is_file() else 0
        with task("unpacking", total, "MB") as progress:
            shown = 0
            for member in members(archive):
                _one(archive, member, guard, out, partial, done)
                progress.advance(member.done // MEGABYTE - shown)
                shown = member.done // MEGABYTE
    if not done.written + done.already:
        raise NothingMeasured(
            f"{archive}: holds neither Data/VID/val of the official archive nor vid_val and annotations/vid_val.json"
        )
    return done


def _one(archive: Path, member: Member, guard: Guard, out: Path, partial: Path, done: Unpacked) -> None:
    place = guard.admit(member.name, member.size, member.kind)
    if place is None:
        done.skipped += 1
        return
    target = _below(out, place)
    if target.is_file() and target.stat().st_size == member.size:
        done.already += 1
        return
    unfinished = temporary(partial)
    _copy(archive, member, unfinished, guard)
    with disk_errors(target):
        finish(unfinished, target)
    done.written += 1


def _below(out: Path, place: PurePosixPath) -> Path:
    """Return the path of a file in the folder; raises VpbenchError if a link that lies there leads out of it."""
    target = out / place
    if not target.parent.resolve().is_relative_to(out.resolve()):
        raise VpbenchError(f"{target.parent}: leads out of {out} by way of a link; name another folder with --out")
    return target


def _copy(archive: Path, member: Member, target: Path, guard: Guard) -> None:
    """Write a member, if it is of the size that it says."""
    left = member.size
    with disk_errors(target), target.open("wb") as stream:
        for chunk in chunks(archive, member):
            left -= len(chunk)
            stream.write(chunk)
    if left:
        raise guard.refusal(member.name, "is not of the size that it says")
