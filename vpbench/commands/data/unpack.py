"""Unpack the validation part of an ImageNet VID archive: never outside the folder asked for, and resumably."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from vpbench.commands.data.archives import Member, chunks, members
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


def _one(archive: Path, member: Member, guard: "Guard", out: Path, partial: Path, done: Unpacked) -> None:
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


def _copy(archive: Path, member: Member, target: Path, guard: "Guard") -> None:
    """Write a member, if it is of the size that it says."""
    left = member.size
    with disk_errors(target), target.open("wb") as stream:
        for chunk in chunks(archive, member):
            left -= len(chunk)
            stream.write(chunk)
    if left:
        raise guard.refusal(member.name, "is not of the size that it says")


#: what the data set reads, in its official layout and in the packed one; folders around them are left out
_WANTED = re.compile(
    r"(?:[A-Za-z0-9._-]+/){0,2}?("
    r"Data/VID/val/[A-Za-z0-9_-]+/[0-9]{1,9}\.JPEG|"
    r"Annotations/VID/val/[A-Za-z0-9_-]+/[0-9]{1,9}\.xml|"
    r"ImageSets/VID/val\.txt|"
    r"annotations/vid_val\.json|"
    r"vid_val/[A-Za-z0-9_-]+\.(?:JPEG|jpeg|JPG|jpg)"
    r")"
)
#: far above what real files have: images of 1 MB, annotations of 10 kB, a list of 6 MB, packed annotations of 100 MB
MAX_BYTES = {".jpeg": 64_000_000, ".jpg": 64_000_000, ".xml": 1_000_000, ".txt": 100_000_000, ".json": 1_000_000_000}
#: the whole archive, with what is not unpacked, has 3 million members; validation has 350,000 files and 12 GB
MAX_MEMBERS, MAX_FILES, MAX_TOTAL = 10_000_000, 1_000_000, 100_000_000_000
#: longer than any path in such an archive
MAX_NAME = 1_000


class Refused(VpbenchError):
    """An archive with something in it that no real one has."""


class Guard:
    """What has been seen of one archive, so that no sum of members goes too far."""

    def __init__(self, archive: str) -> None:
        self.archive = archive
        self._members, self._total = 0, 0
        self._targets: set[str] = set()

    def admit(self, name: str, size: int, kind: str) -> PurePosixPath | None:
        """Return where to put a member, below the folder asked for; None if it is not needed.

        `kind`: `file`, `folder`, or the name of something else. Raises Refused.
        """
        self._members += 1
        if self._members > MAX_MEMBERS:
            raise Refused(f"{self.archive}: more than {MAX_MEMBERS} members, which no archive of ImageNet VID has")
        if reason := _danger(name, kind):
            raise self.refusal(name, reason)
        match = _WANTED.fullmatch(name.removeprefix("./"))
        if match is None or kind != "file":
            return None
        self._count(name, match[1], size)
        return PurePosixPath(match[1])

    def refusal(self, name: str, reason: str) -> Refused:
        """Return an error about one member."""
        return Refused(f"{self.archive}: member {name[:100]!r} {reason}; nothing of it is used, get the archive again")

    def _count(self, name: str, target: str, size: int) -> None:
        if target in self._targets:
            raise self.refusal(name, "comes twice")
        self._targets.add(target)
        self._total += size
        limit = MAX_BYTES[PurePosixPath(target).suffix.lower()]
        if size > limit:
            raise self.refusal(name, f"is of {size} bytes, more than the {limit} of any such file")
        if len(self._targets) > MAX_FILES or self._total > MAX_TOTAL:
            raise Refused(f"{self.archive}: unpacks to more than any archive of ImageNet VID; get it again")


def _danger(name: str, kind: str) -> str | None:
    path = PurePosixPath(name)
    if kind not in ("file", "folder"):
        return f"is a {kind}"
    if len(name) > MAX_NAME or not name.isprintable():
        return "has no proper name"
    if path.is_absolute() or PureWindowsPath(name).anchor:
        return "has an absolute path"
    if ".." in path.parts or "\\" in name:
        return "would leave the folder"
    return None
