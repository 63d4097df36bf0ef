"""Folders wherever they are: on a disk, or in an object store by their address (`s3://`, `gs://`, any of fsspec's).

An address becomes a `upath.UPath`, which has what `pathlib.Path` has; only how a file is written differs. On a disk it
is written beside its name and moved there; a store shows an object once all of it has come, and knows no moves.
"""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast
from urllib.parse import unquote, urlsplit

from vpbench.errors import UsageError

_EXTRA = "pip install 'vpbench[stores]'"


def path_of(name: str) -> Path:
    """Return the path of a name, or of an address of a store.

    Raises UsageError for a store that is not known, whose library is missing, or that cannot be reached.
    """
    kind, mark, _ = name.partition("://")
    if not mark:
        return Path(name)
    if kind == "file":
        return Path(unquote(urlsplit(name).path))
    try:
        from upath import UPath
    except ImportError as error:
        raise UsageError(f"{name}: {kind}:// needs {_EXTRA}") from error
    try:
        # lists are asked for anew each time, since others write there too
        found = UPath(name, use_listings_cache=False)
        with _as_os_errors():
            found.exists()
    except ImportError as error:
        raise UsageError(f"{name}: {error}; or {_EXTRA}") from error
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{name}: cannot be reached ({error})") from error
    return cast("Path", found)


def on_disk(path: Path) -> bool:
    """Tell whether a path is one of a disk, not of a store."""
    return isinstance(path, Path)


def make_folder(path: Path) -> None:
    """Make a folder with those above it; a store has none, and whoever misspells a bucket wants no new one."""
    if on_disk(path):
        path.mkdir(parents=True, exist_ok=True)


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write a file whole or not at all, in a folder that is there; raises OSError where that is full or refuses."""
    if on_disk(path):
        with whole(path) as temporary:
            temporary.write_bytes(content)
        return
    with _as_os_errors():
        path.write_bytes(content)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield an empty file on the same disk that becomes `path` once it is written, and goes where that fails."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # safetensors leaves its files to their owner alone
        _flush(temporary, os.O_RDWR)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":  # elsewhere a folder cannot be opened, nor need it be
        _flush(path.parent, os.O_RDONLY)  # otherwise the new name may be lost with the power


def _flush(path: Path, flags: int) -> None:
    opened = os.open(path, flags)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def create(path: Path, content: bytes) -> None:
    """Write a file that is not there yet; raises FileExistsError where it is, whoever was quicker, OSError else."""
    with _as_os_errors(), path.open("xb") as stream:
        try:
            stream.write(content)
            stream.flush()
        except OSError:
            path.unlink(missing_ok=True)  # of a full disk
            raise


def overwrite(path: Path, content: bytes) -> None:
    """Write over a file of as many bytes, which may be cut short by a kill; raises FileNotFoundError without one."""
    if on_disk(path):
        with path.open("r+b") as stream:
            stream.write(content)
        return
    with _as_os_errors():
        if not path.exists():
            raise FileNotFoundError(path)
        path.write_bytes(content)


@contextmanager
def _as_os_errors() -> Iterator[None]:
    """Raise what a store's library raises of networks and credentials as OSError, as a disk would."""
    try:
        yield
    except (OSError, ImportError, ValueError, TypeError):
        raise
    except Exception as error:  # each store's library has exceptions of its own
        raise OSError(f"{type(error).__name__}: {error}") from error
