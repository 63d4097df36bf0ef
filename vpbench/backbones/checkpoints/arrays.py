"""Read pickles of NumPy arrays, as detectron2's model zoo has them, with neither pickle's nor NumPy's own machinery.

Names in a pickle find inert classes of this file alone, which remember what they are told. Arrays are then made from
plain bytes of a known type and length.
"""

import pickle
from collections.abc import Mapping
from math import prod
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

#: how every torch checkpoint starts that is a pickle; what else is a pickle may hold arrays
TORCH = b"\x80\x02\x8a\nl\xfc\x9c"
_TYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1")


class ForeignNameError(Exception):
    """A pickle asks for something that is no part of an array."""


class _Type:
    """Stands for `numpy.dtype`: its code, and its byte order once the pickle says it."""

    def __init__(self, code: object = "", *_: object) -> None:
        self.code, self.order = str(code), "<"

    def __setstate__(self, state: Any) -> None:
        self.order = str(state[1])


class _Array:
    """Stands for an array: the state that the pickle gives it."""

    def __init__(self, *_: object) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def tensor(self) -> Tensor | None:
        """Return the array as a tensor of its own, None if it is not made of plain numbers or of another length."""
        _, shape, kind, by_columns, raw = self.state
        raw = raw.encode("latin1") if isinstance(raw, str) else raw
        if not isinstance(kind, _Type) or kind.code not in _TYPES or kind.order not in "<|=":
            return None
        if not isinstance(raw, bytes) or not all(isinstance(n, int) and n >= 0 for n in shape):
            return None
        if len(raw) != prod(shape) * int(kind.code[1]):
            return None
        flat = np.frombuffer(raw, np.dtype(f"<{kind.code}"))
        return torch.from_numpy(flat.reshape(shape, order="F" if by_columns else "C").copy())


class _Scalar:
    """Stands for a single number, which no weight is."""

    def __init__(self, *_: object) -> None:
        pass


def _encoded(text: object, encoding: object) -> bytes:
    return str(text).encode("latin1") if encoding == "latin1" else b""


def _no_bytes(*_: object) -> bytes:
    # how protocol 2 writes an empty array's; any other number of bytes would be a claim on memory
    return b""


_STANDINS: dict[str, Any] = {
    "_reconstruct": _Array,
    "ndarray": _Array,
    "dtype": _Type,
    "scalar": _Scalar,
    "encode": _encoded,
    "bytes": _no_bytes,
    "OrderedDict": dict,
}
_HOMES = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray", "_codecs", "collections", "__builtin__")


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a name; raises ForeignNameError for all but those of arrays."""
        if module not in _HOMES or name not in _STANDINS:
            raise ForeignNameError(f"{module}.{name}")
        return _STANDINS[name]

    def persistent_load(self, pid: Any) -> Any:
        """Refuse what lies outside the pickle."""
        raise ForeignNameError("persistent id")


def read(stream: BinaryIO) -> Any:
    """Read a pickle, arrays as tensors; raises ForeignNameError for names that are no part of arrays.

    A damaged pickle can raise anything. Arrays of anything but plain numbers stay what no tensor is.
    """
    return _with_tensors(_Reader(stream, encoding="latin1").load())


def _with_tensors(tree: Any) -> Any:
    """Replace arrays in mappings by tensors."""
    if isinstance(tree, Mapping):
        return {key: _with_tensors(value) for key, value in tree.items()}
    if isinstance(tree, _Array) and isinstance(tree.state, tuple) and len(tree.state) == 5:
        tensor = tree.tensor()
        return tree if tensor is None else tensor
    return tree
