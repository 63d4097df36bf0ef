"""Read the pickles in weight files without running anything that they name.

What a pickle names comes out as a `Name`, and what it would make of that as a `Thing`, which remembers what it was told
and can do nothing. Only this file's own code looks at them, and makes tensors of those that stand for numbers, from
plain bytes of a known type and length. So what else lies in a file, from training arguments to a logger, stops nobody.
"""

import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

#: the number that a torch checkpoint from before 1.6 begins with
_MAGIC = 0x1950A86A20F9469CFC6C
_TYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1")
#: what nothing that a training run saves has a use for; refused though it would not be run
_COMMANDS = {
    *("_ctypes", "asyncio", "bdb", "code", "codeop", "commands", "ctypes", "ftplib", "http", "imp", "importlib"),
    *("marshal", "multiprocessing", "nt", "os", "pdb", "pickle", "_pickle", "pip", "platform", "popen2", "posix"),
    *("pty", "runpy", "shutil", "signal", "socket", "subprocess", "sys", "timeit", "urllib", "webbrowser"),
}
_BUILTINS = {"__import__", "breakpoint", "compile", "eval", "exec", "execfile", "input", "open"}
# of opcodes that claim memory or ask for what lies outside the file
_LEFT_OUT = (pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER, pickle.EXT1, pickle.EXT2, pickle.EXT4)


class ForeignNameError(Exception):
    """A pickle names what runs commands, or something outside of it."""


class OddTensorError(Exception):
    """What stands for a tensor is none of plain numbers, or of another length than its bytes."""


class Name(NamedTuple):
    """What a pickle names."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Thing:
    """What a pickle would make by calling a name."""

    of: Name
    arguments: tuple[Any, ...] = ()
    state: Any = None


@dataclass(frozen=True)
class Storage:
    """The numbers behind tensors of a torch checkpoint: their type's name, key in the file, and count."""

    kind: str
    key: str
    count: int


@dataclass
class Pickled:
    """What a file holds: its tree of mappings, and how the bytes of a storage are read."""

    container: str
    tree: Any
    read: Callable[[str], bytearray] = field(default=lambda key: bytearray())
    _flat: dict[str, Tensor] = field(default_factory=dict)

    def tensor(self, thing: Thing) -> Tensor | None:
        """Return the tensor that a thing stands for, None for other things; raises OddTensorError."""
        if thing.of in _ARRAY:
            return _array(thing.state)
        if thing.of in _SAME and thing.arguments:
            return self.tensor(inner) if isinstance(inner := thing.arguments[0], Thing) else None
        if thing.of == _FROM_TYPE and len(thing.arguments) > 2 and isinstance(thing.arguments[0], Name):
            return self.tensor(Thing(thing.arguments[0], tuple(thing.arguments[2])))
        if thing.of in _STRIDED:
            return self._strided(*thing.arguments)
        if thing.of in _ODD:
            raise OddTensorError("is sparse, quantized or empty of data; save it dense")
        return None

    def _strided(self, storage: Any, offset: Any, size: Any, stride: Any, *others: Any) -> Tensor:
        if not isinstance(storage, Storage) or not _counts((offset, *size, *stride)) or len(size) != len(stride):
            raise OddTensorError("is not made of plain numbers")
        named = [each.name for each in others if isinstance(each, Name) and each.module == "torch"]
        if any(isinstance(each, Mapping) and (each.get("conj") or each.get("neg")) for each in others):
            raise OddTensorError("is kept conjugated or negated; save a copy of it")
        flat = self._numbers(storage, named[0] if named else "")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if 0 not in size and last >= len(flat):
            raise OddTensorError(f"claims {prod(size)} numbers, more than are there")
        return flat.as_strided(tuple(size), tuple(stride), offset)

    def _numbers(self, storage: Storage, dtype: str) -> Tensor:
        """Return all numbers of a storage; `dtype`: the type's name, where the tensor says it instead."""
        found = self._flat.get(storage.key)
        stored = _STORAGES.get(storage.kind)
        kind = getattr(torch, dtype, None) if dtype else stored
        if stored is None or not isinstance(kind, torch.dtype):
            raise OddTensorError(f"is of {dtype or storage.kind}; save it dense, in float32")
        if found is None:
            wanted = storage.count * stored.itemsize
            raw = self.read(storage.key)
            if len(raw) != wanted:
                raise OddTensorError(f"has {len(raw)} bytes in the file, not {wanted}")
            found = torch.frombuffer(raw, dtype=torch.uint8) if raw else torch.zeros(0, dtype=torch.uint8)
            self._flat[storage.key] = found
        return found.view(kind)


def _counts(numbers: tuple[Any, ...]) -> bool:
    return all(isinstance(number, int) and number >= 0 for number in numbers)


_UTILS = "torch._utils"
_STRIDED = {Name(_UTILS, f"_rebuild_tensor{version}") for version in ("", "_v2", "_v3")}
#: whose first argument is the tensor
_SAME = {
    Name(_UTILS, f"_rebuild_{what}")
    for what in (
        *("parameter", "parameter_with_state", "device_tensor_from_numpy", "device_tensor_from_cpu_tensor"),
        "xla_tensor",
    )
}
_FROM_TYPE = Name("torch._tensor", "_rebuild_from_type_v2")
_ODD = {
    Name(_UTILS, f"_rebuild_{what}")
    for what in (
        *("sparse_tensor", "sparse_csr_tensor", "nested_tensor", "qtensor", "meta_tensor_no_storage"),
        "wrapper_subclass",
    )
}
_ARRAY = {Name(f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")}
#: names of all that may stand for numbers
TENSORS = _STRIDED | _SAME | _ODD | _ARRAY | {_FROM_TYPE}
_STORAGES = {
    "FloatStorage": torch.float32, "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64, "ComplexDoubleStorage": torch.complex128, "UntypedStorage": torch.uint8,
}  # fmt: skip


def _array(state: Any) -> Tensor | None:
    """Return a NumPy array as a tensor of its own, None if it is not made of plain numbers or of another length."""
    if not isinstance(state, tuple) or len(state) != 5:
        return None
    _, shape, kind, by_columns, raw = state
    raw = raw.encode("latin1") if isinstance(raw, str) else raw
    if not isinstance(kind, Thing) or kind.of != Name("numpy", "dtype") or not isinstance(raw, bytes):
        return None
    code = str(kind.arguments[0]) if kind.arguments else ""
    order = str(kind.state[1]) if isinstance(kind.state, tuple) and len(kind.state) > 1 else "<"
    if code not in _TYPES or order not in "<|=" or not isinstance(shape, tuple) or not _counts(shape):
        return None
    if len(raw) != prod(shape) * int(code[1]):
        return None
    flat = np.frombuffer(raw, np.dtype(f"<{code}"))
    return torch.from_numpy(flat.reshape(shape, order="F" if by_columns else "C").copy())


def _bytes(text: Any = "", encoding: Any = "latin1") -> bytes:
    return str(text).encode("latin1") if encoding == "latin1" else b""


#: what is no more than plain data, and how it is made
_PLAIN: dict[Name, Callable[..., Any]] = {
    Name("collections", "OrderedDict"): dict,
    Name("collections", "defaultdict"): lambda *_: {},
    Name("torch", "Size"): tuple,
    Name("_codecs", "encode"): _bytes,
    # how protocol 2 writes no bytes at all; any other number of them would be a claim on memory
    Name("__builtin__", "bytes"): lambda *_: b"",
    Name("builtins", "bytes"): lambda *_: b"",
}


def _made(of: Any, arguments: Any) -> Any:
    """Return what a call stands for; nothing but what this file names is called."""
    if isinstance(of, Thing):
        return Thing(Name(of.of.module, f"{of.of.name}()"), tuple(arguments))
    if not isinstance(of, Name):
        raise pickle.UnpicklingError("something is called that has no name")
    made = _PLAIN.get(of)
    return Thing(of, tuple(arguments)) if made is None else made(*arguments)


class _Reader(pickle._Unpickler):  # the one in Python: its memo is a mapping, so that no number claims memory
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        code: load for code, load in pickle._Unpickler.dispatch.items() if bytes([code]) not in _LEFT_OUT
    }

    # of the base, which its stubs leave out
    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]

    def find_class(self, module: str, name: str) -> Any:
        """Return the name; raises ForeignNameError for what runs commands."""
        top = module.partition(".")[0]
        if top in _COMMANDS or (top in ("builtins", "__builtin__") and name in _BUILTINS):
            raise ForeignNameError(f"{module}.{name}")
        return Name(module, name)

    def persistent_load(self, pid: Any) -> Any:
        """Return a storage of torch; raises ForeignNameError for whatever else lies outside the pickle."""
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage" or (pid[5:] or (None,))[0]:
            raise ForeignNameError("persistent id")
        _, kind, key, _, count = pid[:5]
        if not isinstance(kind, Name) or not isinstance(key, str) or not _counts((count,)):
            raise ForeignNameError("persistent id")
        return Storage(kind.name, key, count)

    def _instantiate(self, of: Any, arguments: Any) -> None:
        self.append(_made(of, arguments))

    def _load_reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = _made(self.stack[-1], arguments)

    def _load_newobj_ex(self) -> None:
        self.stack.pop()
        self._load_reduce()

    def _load_build(self) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Thing):
            self.stack[-1].state = state

    def _load_append(self) -> None:
        self._extend([self.stack.pop()])

    def _load_appends(self) -> None:
        self._extend(self.pop_mark())

    def _extend(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def _load_additems(self) -> None:
        items = self.pop_mark()
        if isinstance(self.stack[-1], set):
            self.stack[-1].update(items)

    def _load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def _load_setitems(self) -> None:
        self._set(self.pop_mark())

    def _set(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], dict):
            self.stack[-1].update(zip(items[::2], items[1::2], strict=True))


_Reader.dispatch.update(
    (code[0], load)
    for code, load in (
        (pickle.REDUCE, _Reader._load_reduce), (pickle.NEWOBJ, _Reader._load_reduce),
        (pickle.NEWOBJ_EX, _Reader._load_newobj_ex), (pickle.BUILD, _Reader._load_build),
        (pickle.APPEND, _Reader._load_append), (pickle.APPENDS, _Reader._load_appends),
        (pickle.SETITEM, _Reader._load_setitem), (pickle.SETITEMS, _Reader._load_setitems),
        (pickle.ADDITEMS, _Reader._load_additems),
    )
)  # fmt: skip


def _load(stream: BinaryIO) -> Any:
    return _Reader(stream, encoding="latin1").load()


def read(stream: BinaryIO) -> Pickled:
    """Read a pickle of arrays, or a torch checkpoint from before 1.6, from its beginning.

    Raises ForeignNameError for what names commands. A damaged pickle can raise anything.
    """
    tree = _load(stream)
    if tree != _MAGIC:
        return Pickled("pickle of arrays", tree)
    _load(stream)  # the format's version, then the machine's sizes
    if isinstance(machine := _load(stream), dict) and machine.get("little_endian") is False:
        raise ValueError("written on a machine of another byte order")
    tree = _load(stream)
    keys, start = _load(stream), stream.tell()
    kinds = {each.key: each for each in _storages(tree)}
    places: dict[str, tuple[int, int]] = {}
    for key in keys:
        stream.seek(start)
        (count,) = struct.unpack("<q", stream.read(8))
        size = count * _STORAGES[kinds[key].kind].itemsize if key in kinds else 0
        places[key] = (start + 8, size)
        start += 8 + size
    path = Path(stream.name)

    def numbers(key: str) -> bytearray:
        return _at(path, *places[key])

    return Pickled("torch pickle (before 1.6)", tree, numbers)


def _storages(tree: Any) -> list[Storage]:
    """Return the storages in a tree, each thing of which is looked at once."""
    seen, waiting, found = set(), [tree], []
    while waiting:
        each = waiting.pop()
        if isinstance(each, Storage):
            found.append(each)
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, dict):
            waiting += each.values()
        elif isinstance(each, list | tuple | set):
            waiting += each
        elif isinstance(each, Thing):
            waiting += (each.arguments, each.state)
    return found


def read_zip(path: Path) -> Pickled:
    """Read a torch checkpoint; raises as `read` does, ValueError for archives of other kinds."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
    trees = [name for name in entries if name.endswith("/data.pkl")]
    if len(trees) != 1:
        raise ValueError("no archive of torch.save")
    root = trees[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in entries:
        raise ValueError("a TorchScript archive, which is a program; save its state_dict()")

    def record(name: str) -> bytearray:
        entry = entries[root + name]
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError("compressed; torch.save writes plain records")
        with path.open("rb") as stream:
            stream.seek(entry.header_offset)
            head = struct.unpack("<4s5H3I2H", stream.read(30))
        # the sums that torch writes are not always those of a zip, so that Python's reader would refuse them
        return _at(path, entry.header_offset + 30 + head[-2] + head[-1], entry.file_size)

    if f"{root}byteorder" in entries and record("byteorder") != b"little":
        raise ValueError("written on a machine of another byte order")
    return Pickled("torch zip", _load(BytesIO(record("data.pkl"))), lambda key: record(f"data/{key}"))


def _at(path: Path, start: int, size: int) -> bytearray:
    if start < 0 or size < 0 or start + size > path.stat().st_size:
        raise ValueError("the file ends before its numbers do")
    found = bytearray(size)
    with path.open("rb") as stream:
        stream.seek(start)
        stream.readinto(found)
    return found
