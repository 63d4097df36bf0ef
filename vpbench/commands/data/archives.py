"""Members of tar and zip archives one after the other, read without trusting them."""

import bz2
import contextlib
import gzip
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from vpbench.errors import UsageError, VpbenchError

#: what is read at once; a header that asks for more is none (long names have some kB)
MAX_READ = 1 << 20
_COMPRESSIONS: dict[bytes, Callable[[BinaryIO], object]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


@dataclass(frozen=True)
class Member:
    """`kind`: `file`, `folder`, or the name of something else; `done`: bytes of the archive up to here.

    `open` gives its content, until the next member is asked for.
    """

    name: str
    size: int
    kind: str
    done: int
    open: Callable[[], IO[bytes]]


def members(path: Path) -> Iterator[Member]:
    """Yield the members of an archive in their order, in constant memory.

    Raises UsageError if there is no such file, VpbenchError for a damaged one and for what is no archive.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file; name the archive with --archive")
    with _explained(path), path.open("rb") as raw:
        yield from _zip(raw) if zipfile.is_zipfile(raw) else _tar(raw)


def chunks(path: Path, member: Member) -> Iterator[bytes]:
    """Yield the content of a member, and at most one byte more than it said it has; raises VpbenchError."""
    left = member.size + 1
    with _explained(path), member.open() as content:
        while chunk := content.read(min(MAX_READ, left)):
            left -= len(chunk)
            yield chunk


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what a damaged archive raises, also while a member is read, into a VpbenchError."""
    try:
        yield
    except _DAMAGED as error:
        raise _damaged(path, error) from error
    except (NotImplementedError, RuntimeError) as error:  # what zipfile raises for methods and passwords
        raise VpbenchError(f"{path}: {error}; pack it again without that") from error
    except OSError as error:
        raise VpbenchError(f"{path}: cannot be read ({error.strerror or error}); run the same command again") from error


def _damaged(path: Path, error: Exception) -> VpbenchError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return VpbenchError(
        f"{path}: truncated or damaged, or no tar or zip archive ({reason}); download it again, and run the same "
        "command: what is unpacked stays"
    )


def _tar(raw: BinaryIO) -> Iterator[Member]:
    raw.seek(0)
    head = raw.read(6)
    raw.seek(0)
    unpack = next((unpack for magic, unpack in _COMPRESSIONS.items() if head.startswith(magic)), None)
    stream = _Forward(raw if unpack is None else cast(BinaryIO, unpack(raw)))
    with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r:") as archive:
        while (info := archive.next()) is not None:
            cast(Any, archive).members.clear()  # the list of 3 million members would fill the memory
            yield Member(info.name, info.size, _kind(info), raw.tell(), _opener(archive, info))
        if not stream.ended_well:
            raise tarfile.ReadError("no end mark")  # tarfile takes a broken header for the end


def _kind(info: tarfile.TarInfo) -> str:
    if info.issym() or info.islnk():
        return "link"
    if info.isdir():
        return "folder"
    if info.isreg() and not info.issparse():
        return "file"
    return "sparse file" if info.issparse() else "device"


def _opener(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Callable[[], IO[bytes]]:
    def opened() -> IO[bytes]:
        content = archive.extractfile(info)
        assert content is not None, "only files are opened"
        return content

    return opened


class _Forward:
    """A stream that is read forward only, in bounded pieces: long headers are not taken into memory."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._at, self._last = stream, 0, b""

    @property
    def ended_well(self) -> bool:
        """Whether what was read last is the block of zeros at the end of an archive."""
        return len(self._last) == tarfile.BLOCKSIZE and not any(self._last)

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_READ:
            raise tarfile.ReadError("a header is larger than any of a real archive")
        self._last = self._stream.read(size)
        self._at += len(self._last)
        return self._last

    def tell(self) -> int:
        return self._at

    def seek(self, place: int, whence: int = 0) -> int:
        if whence != 0 or place < self._at:
            raise tarfile.ReadError("its headers lead backwards")
        while self._at < place and self.read(min(MAX_READ, place - self._at)):
            pass
        return self._at

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._stream.close()


def _zip(raw: BinaryIO) -> Iterator[Member]:
    with zipfile.ZipFile(raw) as archive:
        done = 0
        for info in archive.infolist():
            done += info.compress_size
            yield Member(info.filename, info.file_size, _zip_kind(info), done, partial(archive.open, info))


def _zip_kind(info: zipfile.ZipInfo) -> str:
    """Unix puts the kind of a file into the upper half of its attributes; others leave that empty."""
    mode = info.external_attr >> 16
    if info.is_dir():
        return "folder"
    if stat.S_ISLNK(mode):
        return "link"
    return "file" if not stat.S_IFMT(mode) or stat.S_ISREG(mode) else "device"
