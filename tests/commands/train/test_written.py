"""Files of a training: whole or not there, and nothing left of writers that were killed."""

from pathlib import Path

import pytest

from vpbench.commands.train.written import whole, write_text
from vpbench.errors import VpbenchError


def test_what_a_killed_writer_left_goes_with_the_next_one(tmp_path: Path) -> None:
    (tmp_path / ".log.12.abc.tmp").write_text("half of it")
    (tmp_path / ".other.12.abc.tmp").write_text("somebody else's")
    write_text(tmp_path / "log.jsonl", "all of it")
    assert {path.name for path in tmp_path.iterdir()} == {"log.jsonl", ".other.12.abc.tmp"}
    assert (tmp_path / "log.jsonl").read_text() == "all of it"


def test_what_was_there_stays_where_writing_fails(tmp_path: Path) -> None:
    write_text(tmp_path / "log.jsonl", "before")

    def fill() -> None:
        with whole(tmp_path / "log.jsonl") as temporary:
            temporary.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(VpbenchError, match="what was there stays"):
        fill()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]
