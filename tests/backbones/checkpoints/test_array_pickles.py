"""Pickles of NumPy arrays: read without running anything, or refused in one line."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vpbench.backbones.checkpoints import files
from vpbench.errors import UsageError

ARRAYS = {
    "a.weight": np.arange(12, dtype=np.float32).reshape(3, 4) / 7,
    "a.bias": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "half": np.array([1.5, -2], np.float16),
    "count": np.array(7, np.int64),
    "empty": np.zeros((0, 3), np.float32),
}


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_arrays_become_tensors(tmp_path: Path, protocol: int) -> None:
    file = tmp_path / "model.pkl"
    tree = {"model": OrderedDict(ARRAYS), "__author__": "somebody", "iteration": np.float64(3)}
    file.write_bytes(pickle.dumps(tree, protocol=protocol))
    contents = files.read(file)
    assert (contents.container, contents.wrapper) == ("pickle of arrays", "model")
    assert contents.others == ("__author__", "iteration")
    assert contents.tensors.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert torch.equal(contents.tensors[name], torch.from_numpy(np.array(array))), name
        assert contents.tensors[name].dtype == torch.from_numpy(np.array(array)).dtype
    contents.tensors["a.weight"].add_(1)  # not a view of the file


def test_strings_of_python_2_hold_bytes(tmp_path: Path) -> None:
    """Its pickles have arrays' bytes as plain strings: here written by hand, opcode by opcode."""
    raw = np.array([1.0, 200.5], np.float32).tobytes()
    body = (
        b"\x80\x02}U\x01wcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U" + bytes([len(raw)]) + raw + b"tbs."
    )
    file = tmp_path / "old.pkl"
    file.write_bytes(body)
    assert files.read(file).tensors["w"].tolist() == [1.0, 200.5]


class Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ({"model": ARRAYS, "x": Runs()}, r"refused, it holds code \((posix|nt)\.mkdir\)"),
        ({"model": {"w": np.array([{}, Runs()], dtype=object)}}, "refused, it holds code"),
        ({"model": {"w": np.array([1, "a"], dtype=object)}}, "no tensors"),
        ({"model": {"w": np.array(["text"])}}, "no tensors"),
        ({"model": {"w": np.zeros(3, ">f4")}}, "no tensors"),
        ({"model": {"w": np.zeros(3, np.complex64)}}, "no tensors"),
        ([1, 2], "holds a list, not a state dict"),
        (np.zeros(3), "holds a pickled _reconstruct, not a state dict"),
    ],
)
def test_what_is_refused(tree: Any, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "model.pkl"
    file.write_bytes(pickle.dumps(tree, protocol=4))
    with pytest.raises(UsageError, match=says) as error:
        files.read(file)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("change", ["cut", "longer", "shape", "names"])
def test_damaged_pickles_are_refused(change: str, tmp_path: Path) -> None:
    whole = pickle.dumps({"w": np.arange(3, dtype=np.float32)}, protocol=3)
    raw = np.arange(3, dtype=np.float32).tobytes()
    changed = {
        "cut": whole[:-9],
        "longer": whole.replace(b"C\x0c" + raw, b"C\x10" + raw + b"\0\0\0\0"),
        "shape": whole.replace(b"K\x03\x85", b"K\x04\x85", 1),
        "names": whole.replace(b"cnumpy\ndtype", b"cnumpy\nsave."),
    }[change]
    assert changed != whole
    file = tmp_path / "model.pkl"
    file.write_bytes(changed)
    with pytest.raises(UsageError, match=r"model\.pkl: (not a readable|no tensors|refused)") as error:
        files.read(file)
    assert "\n" not in str(error.value)
