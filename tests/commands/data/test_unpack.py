"""Archives of ImageNet VID, sound and evil ones."""

from __future__ import annotations

import io
import os
import signal
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import vid_tree
from helpers import vpbench

from vpbench import errors
from vpbench.commands.data import output
from vpbench.commands.data import unpack as members
from vpbench.commands.data.unpack import unpack

LIST = "ILSVRC2015/ImageSets/VID/val.txt"
IMAGE = "ILSVRC2015/Data/VID/val/ILSVRC2015_val_00000000/000000.JPEG"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return vid_tree.build(tmp_path_factory.mktemp("vid") / "ILSVRC2015")


def official(tree: Path, target: Path, mode: str = "w:gz") -> Path:
    with tarfile.open(target, mode) as archive:  # type: ignore[call-overload]
        archive.add(tree, "ILSVRC2015")
        for name in ("ILSVRC2015/devkit/readme.txt", "ILSVRC2015/Data/VID/train/a/b/000000.JPEG"):
            add(archive, name, b"not needed")
    return target


def add(archive: tarfile.TarFile, name: str, content: bytes = b"x", **attributes: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in attributes.items():
        setattr(info, key, value)
    archive.addfile(info, io.BytesIO(content) if info.isreg() else None)


def tar_of(target: Path, *entries: tuple[str, bytes], **attributes: object) -> Path:
    with tarfile.open(target, "w") as archive:
        for name, content in entries:
            add(archive, name, content, **attributes)
    return target


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_official_archive_becomes_the_tree(tree: Path, tmp_path: Path, mode: str) -> None:
    done = unpack(official(tree, tmp_path / "vid.tar", mode), tmp_path / "out")
    unpacked = files(tmp_path / "out")
    unpacked.pop(".lock")
    assert unpacked == files(tree)
    assert (done.written, done.already) == (len(unpacked), 0)
    assert done.skipped > 2  # the folders, and what is not of validation
    assert not (tmp_path / "out" / output.PARTIAL).exists()


@pytest.mark.parametrize("prefix", ["", "vid/", "./", "a/b/"])
@pytest.mark.parametrize("form", ["tar", "zip"])
def test_packed_form_from_tar_and_zip(tmp_path: Path, prefix: str, form: str) -> None:
    content = {f"vid_val/x_00000000_{n:06d}.JPEG": vid_tree.image(n) for n in range(3)}
    content |= {"annotations/vid_val.json": b'{"images": [], "annotations": []}'}
    names = {f"{prefix}{name}": data for name, data in content.items()} | {f"{prefix}det_train/1.JPEG": b"no"}
    archive = tmp_path / f"packed.{form}"
    if form == "tar":
        tar_of(archive, *names.items())
    else:
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, data in names.items():
                packed.writestr(name, data)
    assert unpack(archive, tmp_path / "out").written == 4
    unpacked = files(tmp_path / "out")
    unpacked.pop(".lock")
    assert unpacked == content


def test_a_second_run_writes_only_what_is_missing(tree: Path, tmp_path: Path) -> None:
    archive = official(tree, tmp_path / "vid.tar.gz")
    out = tmp_path / "out"
    first = unpack(archive, out)
    gone = next(out.rglob("*.JPEG"))
    short = next(out.rglob("*.xml"))
    whole = short.read_bytes()
    gone.unlink()
    short.write_bytes(whole[:10])
    again = unpack(archive, out)
    assert (again.written, again.already) == (2, first.written - 2)
    assert short.read_bytes() == whole


EVIL: dict[str, tuple[Callable[[Path], Path], str]] = {
    "escape": (lambda p: tar_of(p, ("../../evil.txt", b"x")), "leave the folder"),
    "escape_inside": (lambda p: tar_of(p, ("ILSVRC2015/Data/VID/val/../../../../../evil.JPEG", b"x")), "leave"),
    "absolute": (lambda p: tar_of(p, ("/tmp/vpbench_evil", b"x")), "absolute"),
    "drive": (lambda p: tar_of(p, ("C:\\evil", b"x")), "absolute"),
    "backslash": (lambda p: tar_of(p, ("a\\..\\evil", b"x")), "leave"),
    "symlink": (lambda p: tar_of(p, (IMAGE, b""), type=tarfile.SYMTYPE, linkname="/etc/passwd"), "is a link"),
    "folder_link": (lambda p: tar_of(p, ("vid_val", b""), type=tarfile.SYMTYPE, linkname="/tmp"), "is a link"),
    "hard_link": (lambda p: tar_of(p, (IMAGE, b""), type=tarfile.LNKTYPE, linkname="/etc/passwd"), "is a link"),
    "device": (lambda p: tar_of(p, (IMAGE, b""), type=tarfile.CHRTYPE), "is a device"),
    "pipe": (lambda p: tar_of(p, (IMAGE, b""), type=tarfile.FIFOTYPE), "is a device"),
    "twice": (lambda p: tar_of(p, (IMAGE, b"1"), (IMAGE, b"2")), "comes twice"),
    "twice_by_prefix": (lambda p: tar_of(p, (IMAGE, b"1"), (IMAGE.removeprefix("ILSVRC2015/"), b"2")), "comes twice"),
    "line_break": (lambda p: tar_of(p, ("a\nb", b"x")), "no proper name"),
    "long_name": (lambda p: tar_of(p, ("a/" * 3000 + "b", b"x")), "no proper name"),
    "large_note": (
        lambda p: tar_of(p, ("Annotations/VID/val/a/000000.xml", b" " * 2_000_000)),
        "more than the 1000000",
    ),
}


@pytest.mark.parametrize("name", EVIL)
def test_evil_archives_are_refused_and_nothing_lies_outside(tmp_path: Path, name: str) -> None:
    make, reason = EVIL[name]
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    archive = make(tmp_path / "evil.tar")
    with pytest.raises(members.Refused, match=reason):
        unpack(archive, inner / "out")
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] in (
        ["evil.tar", ".lock"],
        [".lock", "evil.tar"],
        ["evil.tar", ".lock", "000000.JPEG"],  # the first of two of the same name
    )
    assert not Path("/tmp/vpbench_evil").exists()


@pytest.mark.parametrize(
    ("name", "mode", "reason"),
    [
        ("../evil.JPEG", 0, "leave"),
        ("/evil.JPEG", 0, "absolute"),
        ("vid_val/a_1_2.JPEG", stat.S_IFLNK | 0o777, "is a link"),
        ("vid_val/a_1_2.JPEG", stat.S_IFCHR | 0o600, "is a device"),
    ],
)
def test_evil_zip_members_are_refused(tmp_path: Path, name: str, mode: int, reason: str) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, "x")
    with pytest.raises(members.Refused, match=reason):
        unpack(tmp_path / "evil.zip", tmp_path / "out")


def test_zip_bombs_are_refused_before_they_fill_the_disk(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("vid_val/a_1_2.JPEG", bytes(65_000_000))
    assert (tmp_path / "bomb.zip").stat().st_size < 100_000
    with pytest.raises(members.Refused, match="more than the 64000000"):
        unpack(tmp_path / "bomb.zip", tmp_path / "out")


def test_a_zip_whose_member_is_longer_than_it_says_is_refused(tmp_path: Path) -> None:
    """The central directory claims a single byte; the data are many."""
    path = tmp_path / "liar.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("vid_val/a_1_2.JPEG", bytes(10_000_000))
    content = bytearray(path.read_bytes())
    place = content.index(b"PK\x01\x02") + 24
    content[place : place + 4] = (1).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(errors.VpbenchError):
        unpack(path, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.JPEG"))


def test_sums_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tar_of(tmp_path / "many.tar", *((f"vid_val/a_1_{n}.JPEG", b"12345") for n in range(6)))
    for limit, value in (("MAX_MEMBERS", 5), ("MAX_FILES", 5), ("MAX_TOTAL", 29)):
        with monkeypatch.context() as patch:
            patch.setattr(members, limit, value)
            with pytest.raises(members.Refused, match="more than"):
                unpack(archive, tmp_path / limit)


def test_a_header_of_a_gigabyte_is_not_read_into_memory(tmp_path: Path) -> None:
    """A long name is announced with its size, and tarfile alone would read all of it."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    (tmp_path / "long.tar").write_bytes(info.tobuf() + bytes(4096))
    with pytest.raises(errors.VpbenchError, match="header is larger"):
        unpack(tmp_path / "long.tar", tmp_path / "out")


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_truncated_archives_say_so_and_keep_what_is_whole(tree: Path, tmp_path: Path, mode: str) -> None:
    archive = official(tree, tmp_path / "vid.tar", mode)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(errors.VpbenchError, match=r"truncated or damaged.*download it again"):
        unpack(archive, tmp_path / "out")
    kept = list((tmp_path / "out").rglob("*.JPEG"))
    assert kept
    assert all(p.read_bytes() == (tree / p.relative_to(tmp_path / "out")).read_bytes() for p in kept)
    archive.write_bytes(whole)
    assert unpack(archive, tmp_path / "out").already >= len(kept)


def test_a_broken_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "t.tar", ("vid_val/a_1_1.JPEG", b"x"), ("vid_val/a_1_2.JPEG", b"x"))
    content = bytearray(archive.read_bytes())
    content[1024:1100] = b"?" * 76
    archive.write_bytes(content)
    with pytest.raises(errors.VpbenchError, match="no end mark"):
        unpack(archive, tmp_path / "out")


def test_passwords_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("vid_val/a_1_2.JPEG", b"x")
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(errors.VpbenchError, match="encrypted"):
        unpack(path, tmp_path / "out")


def test_a_link_that_lies_in_the_folder_is_not_followed_out_of_it(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "vid_val").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(errors.VpbenchError, match="leads out"):
        unpack(tar_of(tmp_path / "t.tar", ("vid_val/a_1_1.JPEG", b"x")), tmp_path / "out")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_two_runs_do_not_fill_the_same_folder(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "t.tar", ("vid_val/a_1_1.JPEG", b"x"))
    with output.filling(tmp_path / "out"), pytest.raises(errors.UsageError, match="another run"):
        unpack(archive, tmp_path / "out")


def test_a_full_disk_is_said_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tar_of(tmp_path / "t.tar", ("vid_val/a_1_1.JPEG", b"x" * 100_000))
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    monkeypatch.setattr("vpbench.commands.data.unpack.temporary", lambda partial: Path("/dev/full"))
    with pytest.raises(errors.VpbenchError, match=r"No space left on device.*free some space"):
        unpack(archive, tmp_path / "out")


def test_a_killed_run_leaves_nothing_half_and_the_next_goes_on(tmp_path: Path) -> None:
    content = [(f"vid_val/a_1_{n}.JPEG", os.urandom(400_000)) for n in range(400)]
    archive, out = tar_of(tmp_path / "t.tar", *content), tmp_path / "out"
    command = [sys.executable, "-m", "vpbench", "data", "prepare", "unpack", "imagenet_vid"]
    process = subprocess.Popen([*command, "--archive", str(archive), "--out", str(out)], stderr=subprocess.DEVNULL)
    while process.poll() is None and len(list(out.glob("vid_val/*"))) < 3:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = list(out.glob("vid_val/*"))
    assert kept
    assert all(len(p.read_bytes()) == 400_000 for p in kept)
    done = vpbench("data", "prepare", "unpack", "imagenet_vid", "--archive", archive, "--out", out)
    assert done.returncode == 0, done.stderr
    assert f"{400 - len(kept)} files unpacked, {len(kept)} were there" in done.stdout
    assert {f"vid_val/{p.name}": p.read_bytes() for p in out.glob("vid_val/*")} == dict(content)
    assert not (out / output.PARTIAL).exists()


@pytest.mark.parametrize(
    ("dataset", "archive", "code", "says"),
    [
        ("k400", "t.tar", 2, "imagenet_vid"),
        ("imagenet_vdi", "t.tar", 2, "did you mean 'imagenet_vid'"),
        ("imagenet_vid", "none.tar", 2, "no such file"),
        ("imagenet_vid", "text.tar", 1, "no tar or zip"),
        ("imagenet_vid", "empty.tar", 1, "no tar or zip"),
        ("imagenet_vid", "other.tar", 3, "holds neither"),
    ],
)
def test_what_is_no_archive_of_it(tmp_path: Path, dataset: str, archive: str, code: int, says: str) -> None:
    (tmp_path / "text.tar").write_text("no archive\n" * 100)
    (tmp_path / "empty.tar").touch()
    tar_of(tmp_path / "other.tar", ("readme.txt", b"x"))
    done = vpbench("data", "prepare", "unpack", dataset, "--archive", tmp_path / archive, "--out", tmp_path / "out")
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
