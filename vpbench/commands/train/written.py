"""Files that are written whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from vpbench import storage
from vpbench.errors import VpbenchError


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all; raises VpbenchError if it cannot be written."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a temporary file that becomes `path` when the block ends; raises VpbenchError if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{path.stem}.*.tmp"):
            left.unlink(missing_ok=True)  # of a training that was killed; one process writes at a time
        with storage.whole(path) as temporary:
            yield temporary
    except (OSError, RuntimeError, SafetensorError) as error:
        raise VpbenchError(f"{path} cannot be written: {str(error).splitlines()[0]}; what was there stays") from error
