"""Weight files that are hostile or damaged run nothing: they are read, or refused in one line."""

from __future__ import annotations

import os
import pickle
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY
from helpers import add_backbone
from inert import inert
from own_weights import READ, state

from vpbench.backbones.checkpoints import files, reading
from vpbench.errors import UsageError


@pytest.fixture(autouse=True)
def tiny_in_the_catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    add_backbone(monkeypatch, "videomae_tiny", TINY)
    reading.recognise(state(), "here")  # the families' own modules are run as they are imported, which is no harm


class Harm:
    """A pickle that does something when it is opened."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call[0], self.call[1:]


def harms(folder: Path) -> dict[str, Harm]:
    target = folder / "harmed"
    return {
        "a command": Harm(os.system, f"touch {target}"),
        "a method of a path": Harm(Path.touch, target),
        "a process": Harm(subprocess.call, ["touch", str(target)]),
        "an expression": Harm(eval, f"open({str(target)!r}, 'w')"),
        "saving": Harm(np.save, str(target), 1),
    }


def outcome(path: Path) -> files.Contents | str:
    """What a file holds, or the one line that refuses it."""
    try:
        return files.read(path)
    except UsageError as error:
        said = str(error)
    assert "\n" not in said
    return said


@pytest.mark.parametrize("layout", READ)
def test_nothing_in_them_is_run(layout: str, tmp_path: Path) -> None:
    """Each layout with something that does harm beside its weights; where it names no command, it is read."""
    make, _ = READ[layout]
    every = harms(tmp_path)
    for kind in every if layout == "torch.compile" else ("a command", "a method of a path"):
        folder = tmp_path / kind
        folder.mkdir()
        path = make(folder, state(), {"extra": every[kind]})
        with inert():
            found = outcome(path)
        if isinstance(found, str):
            assert "refused, it holds code" in found
            assert kind != "a method of a path"
        else:
            assert len(found.tensors) >= len(state())
        assert not list(tmp_path.rglob("harmed*"))


def test_names_that_stand_for_weights_run_nothing(tmp_path: Path) -> None:
    """Harm in place of a tensor, of its storage, and of what the file is made of."""
    harm = harms(tmp_path)["a method of a path"]
    for name, tree in {
        "tensor": {"model": state() | {"head.bias": harm}},
        "all": harm,
        "mapping": {"model": harm},
    }.items():
        torch.save(tree, tmp_path / f"{name}.pth")
        with inert(), pytest.raises(UsageError):
            reading.inspect(tmp_path / f"{name}.pth")
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_are_read_or_refused(seed: int, tmp_path: Path) -> None:
    """Bytes of files changed at random: contents or one line, and nothing else that happens."""
    rng = np.random.default_rng(seed)
    sources = [
        READ[name][0](tmp_path, {k: v for k, v in state().items() if "blocks.2" not in k}, {})
        for name in ("Lightning with hyper-parameters", "torch before 1.6", "a pickle of arrays")
    ]
    refused = 0
    for source in sources:
        whole = source.read_bytes()
        # most of a file are numbers, a change of which no reader can see: the pickle is at the beginning, or in front
        head = next((n for n in (whole.find(b"data.pkl"), 0) if n >= 0), 0)
        for _ in range(40):
            changed = bytearray(whole)
            for place in rng.integers(head, min(head + 9000, len(whole)), rng.integers(1, 6)):
                changed[place] = rng.integers(256)
            if rng.random() < 0.2:
                changed = changed[: rng.integers(1, len(changed))]
            file = tmp_path / f"changed{source.suffix}"
            file.write_bytes(changed)
            with inert():
                refused += isinstance(outcome(file), str)
    assert refused > 20


def test_pickles_of_all_opcodes_at_random(tmp_path: Path) -> None:
    """Programs of a pickle machine made up of names, calls and states: none reaches anything but this package."""
    rng = np.random.default_rng(0)
    names = [b"cos\nsystem\n", b"cbuiltins\ngetattr\n", b"cpathlib\nPath.touch\n",
             b"ctorch._utils\n_rebuild_tensor_v2\n", b"cnumpy\ndtype\n",
             b"cnumpy.core.multiarray\n_reconstruct\n", b"ccollections\nOrderedDict\n",
             b"cfunctools\npartial\n", b"c__builtin__\nbytes\n"]  # fmt: skip
    pieces = [*names, b"(", b")", b"]", b"}", b"N", b"K\x02", b"U\x01a", b"R", b"b", b"s", b"u", b"a", b"e", b"t",
              b"\x85", b"\x86", b"\x87", b"q\x00", b"h\x00", b"0", b"2", b"\x81", b"\x92", b"\x8f", b"\x90", b"Q", b"o",
              b"ios\nsystem\n", b"\x82\x01", b"r\xff\xff\xff\x7f", b"\x96\xff\xff\xff\xff\xff\xff\xff\x7f"]  # fmt: skip
    file = tmp_path / "random.pkl"
    for _ in range(1500):
        program = b"".join(pieces[n] for n in rng.integers(0, len(pieces), rng.integers(3, 25)))
        file.write_bytes(b"\x80\x04" + program + b".")
        with inert():
            assert isinstance(outcome(file), str)


def test_a_pickle_claims_no_memory(tmp_path: Path) -> None:
    file = tmp_path / "large.pkl"
    for program in (
        b"}r\xff\xff\xff\xff.",
        b"\x96\xff\xff\xff\xff\xff\xff\x00\x00.",
        b"B\xff\xff\xff\x7fabc.",
        b"(" * 10**6,
    ):
        file.write_bytes(b"\x80\x04" + program)
        with pytest.raises(UsageError):
            files.read(file)


def test_pickles_of_today_and_before_are_alike(tmp_path: Path) -> None:
    """Views, shared storages, numbers of all kinds and empty tensors come out as torch has them."""
    base = torch.arange(24.0).reshape(4, 6)
    tree = {
        "a": base, "view": base[1:3, ::2], "turned": base.T, "half": base.half(), "brain": base.bfloat16(),
        "double": base.double(), "long": base.long(), "bool": base > 3, "empty": torch.zeros(0, 3),
        "number": torch.tensor(3.5), "parameter": torch.nn.Parameter(base + 1),
    }  # fmt: skip
    for new in (True, False):
        tree |= {"u16": torch.ones(3, dtype=torch.uint16)} if new else {}  # torch itself reads no old ones
        tree = {name: tensor for name, tensor in tree.items() if new or name != "u16"}
        torch.save({"model": tree}, tmp_path / "file.pth", _use_new_zipfile_serialization=new)
        found = files.read(tmp_path / "file.pth").tensors
        wanted = torch.load(tmp_path / "file.pth", weights_only=True)["model"]
        assert found.keys() == wanted.keys()
        for name, tensor in wanted.items():
            assert (found[name].dtype, found[name].stride()) == (tensor.dtype, tensor.stride()), name
            assert torch.equal(found[name], tensor.detach()), name


def test_a_pickle_of_python_alone(tmp_path: Path) -> None:
    (tmp_path / "file.pkl").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(UsageError, match="no tensors at the top or under model"):
        files.read(tmp_path / "file.pkl")
