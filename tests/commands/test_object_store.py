"""Results in an object store: what lies there is what would lie on a disk, whole, and read by every command."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from golden_rows import clip_rows, measured
from helpers import vpbench
from object_store import served

from vpbench.errors import UsageError
from vpbench.rows.store import Store, results_folders
from vpbench.run.lease import Leases
from vpbench.storage import create, on_disk, path_of, write_whole

s3fs = pytest.importorskip("s3fs")
RUN = ("--method", "rlt", "--keep", "0.5", "--split", "ci", "--limit", "3", "--only", "predict", "--threads", "1")


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with served() as address:
        yield address


def test_rows_come_back_as_from_a_disk(bucket: str, tmp_path: Path) -> None:
    there, here = Store(path_of(f"{bucket}/rows")), Store(tmp_path)
    for store in (there, here):
        store.write("results", "rlt", [measured("rlt", 0.4)])
        store.write_together("all", {"clips": clip_rows("rlt", 0.4)})
        store.write("results", "sta", [measured("sta", 0.4)])
        store.drop("results", "sta")
    for table in ("results", "clips"):
        pd.testing.assert_frame_equal(there.read(table), here.read(table))
    assert there.parts("results") == {"rlt"}
    assert there.has("clips", "all")
    assert not there.has("results", "sta")
    assert results_folders(path_of(bucket)) == [there.folder]


def test_a_torn_object_is_named_and_skipped(bucket: str) -> None:
    store = Store(path_of(f"{bucket}/torn"))
    store.write("results", "whole", [measured()])
    path = store.folder / "results.parquet" / "whole.parquet"
    (store.folder / "results.parquet" / "cut.parquet").write_bytes(path.read_bytes()[:300])
    assert len(store.read("results")) == 1
    assert "cut.parquet" in store.problems[0]


def test_only_one_of_many_creates_an_object(bucket: str) -> None:
    path, won = path_of(f"{bucket}/leases/one"), list[int]()

    def try_it(number: int) -> None:
        try:
            create(path, str(number).encode())
        except FileExistsError:
            return
        won.append(number)

    threads = [threading.Thread(target=try_it, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [int(path.read_bytes())] == won


def test_a_lease_is_one_workers_until_that_is_dead(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = path_of(f"{bucket}/leased")
    first, second = Leases(folder, "host-1-0"), Leases(folder, "other-2-0")
    lease = first.take("piece")
    assert lease is not None
    assert second.take("piece") is None
    monkeypatch.setattr("vpbench.run.lease.STALE_S", 0.0)
    taken = second.take("piece")
    assert taken is not None
    assert second.look(["piece"])["piece"].generation == 2
    monkeypatch.setattr("vpbench.run.lease.BEAT_S", 0.01)
    with lease:
        lease._thread.join(timeout=10)  # its next beat finds the successor
    with taken:
        pass
    assert not second.look(["piece"])


@pytest.mark.usefixtures("small", "hasty")
def test_a_run_is_the_one_of_a_disk_and_every_command_reads_it(bucket: str, tmp_path: Path) -> None:
    out = f"{bucket}/my runs/one"
    assert vpbench("run", *RUN, "--out", out).returncode == 0
    assert vpbench("run", *RUN, "--out", tmp_path).returncode == 0
    again = vpbench("run", *RUN, "--out", out)
    assert "nothing to measure" in again.stdout
    there, here = Store(path_of(out), writable=False), Store(tmp_path)
    for table in ("videos", "clips"):
        one, other = (store.read(table).drop(columns="run_id") for store in (there, here))
        times = [name for name in one.columns if name.endswith("_ms")]
        pd.testing.assert_frame_equal(one.drop(columns=times), other.drop(columns=times))
    found = vpbench("table", f"{bucket}/my runs")
    assert found.returncode == 0
    assert "rlt" in found.stdout
    for command in (("report", out), ("plot", out, "--figure", "tokens"), ("power", out), ("finish", out)):
        done = vpbench(*command)
        assert done.returncode == 0, done.stderr
    written = [path_of(out) / "report.html", *(path_of(out) / "figures").iterdir()]
    assert all(path.stat().st_size > 1000 for path in written)
    assert vpbench("table", out, "--out", f"{bucket}/table.md").returncode == 0
    assert "rlt" in path_of(f"{bucket}/table.md").read_text()


def test_what_is_not_there_or_not_reached_is_said_in_a_line(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for given, says in (
        (("table", f"{bucket}/none"), "no such results folder"),
        (("run", *RUN, "--out", "s3://misspelt/x"), "cannot write results here"),
        (("table", "abc://bucket/x"), "cannot be reached"),
    ):
        done = vpbench(*given)
        assert done.returncode == 2, done.stderr
        assert says in done.stderr
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()  # it read the environment when it was made
    with pytest.raises(UsageError, match="cannot be reached"):
        path_of("s3://elsewhere/x")


def test_names_and_addresses_of_a_disk_are_paths(tmp_path: Path) -> None:
    assert path_of("out") == Path("out")
    assert path_of(f"file://{tmp_path}/a%20b") == tmp_path / "a b"
    assert on_disk(path_of("C:/x"))


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", b"one")
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "none" / "a", b"two")
    write_whole(tmp_path / "a", b"two")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"two"]
