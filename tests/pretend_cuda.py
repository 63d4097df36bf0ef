"""A pretend CUDA device: tensors that say they are on one, and whose numbers are computed on the CPU.

What a forward does is seen operator by operator: a tensor on the wrong device is an error, whatever makes the host wait
for the device is written down with its file and line, and operators that launch kernels are counted. Numbers are right,
so that code which only CUDA runs is compared with the CPU's. Times, memory and the limits of real kernels are not seen.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = Path(__file__).resolve().parent.parent
CUDA = torch.device("cuda", 0)
aten = torch.ops.aten
HALF = (torch.bfloat16, torch.float16)

#: operators that are no views and launch nothing either
_FREE = {
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "_unsafe_view",
    "detach",
    "lift_fresh",
}
#: operators whose result's size, or whose result, the host has to know
_WAITS = {
    "_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select", "bincount", "_unique2", "unique_dim",
    "unique_consecutive", "unique_dim_consecutive",
}  # fmt: skip
#: operators whose second argument is what the first is indexed by
_INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_"}
#: operators whose sums come in the order that threads happen to arrive in
_UNORDERED = {"index_add", "index_add_", "scatter_add", "scatter_add_", "scatter_reduce", "scatter_reduce_"}


#: what lets the build of torch for CPUs take tensors on a CUDA device for such, without a way to compute with them
_GUARD = """#include <c10/core/impl/DeviceGuardImplInterface.h>
C10_REGISTER_GUARD_IMPL(CUDA, c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::CUDA>)
"""


class OnCuda(Tensor):
    """A tensor that says that it is on a CUDA device; `numbers` holds its numbers."""

    numbers: Tensor

    @staticmethod
    def __new__(cls, numbers: Tensor) -> OnCuda:
        made: OnCuda = Tensor._make_wrapper_subclass(
            cls, numbers.shape, strides=numbers.stride(), dtype=numbers.dtype, device=CUDA
        )
        made.numbers = numbers
        return made

    def __init__(self, numbers: Tensor) -> None: ...

    def data_ptr(self) -> int:
        return self.numbers.data_ptr()

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"OnCuda({self.numbers!r})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise RuntimeError(f"{func} was called outside of `pretending`")


class Seen:
    """What was seen of one or several forwards: launches by operator, waits and unordered sums by place."""

    def __init__(self) -> None:
        self.launches: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.unordered: Counter[str] = Counter()

    @property
    def operators(self) -> int:
        return sum(self.launches.values())


class _Device(TorchDispatchMode):
    """Runs operators on the CPU, and judges them as a CUDA device would."""

    def __init__(self, seen: Seen) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen = seen

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled, and importing the compiler takes seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        flat = list(_leaves((args, tuple(kwargs.values()))))
        ours = [each for each in flat if isinstance(each, OnCuda)]
        asked = kwargs.get("device")
        there = bool(ours) if asked is None else torch.device(asked).type == "cuda"
        if not ours and not there:
            return func(*args, **kwargs)
        name = func.overloadpacket.__name__
        self._look(name, func, args, kwargs, flat, there)
        if not func.is_view and name not in _FREE:
            self.seen.launches[name] += 1
        args, kwargs = _changed(args, _on_cpu), {key: _changed(each, _on_cpu) for key, each in kwargs.items()}
        if name == "_to_copy":
            kwargs.pop("non_blocking", None)
        found = _KERNELS.get(name, func)(*args, **kwargs)
        known = {id(each.numbers): each for each in ours}
        return _changed(found, lambda each: _on_cuda(each, known)) if there else found

    def _look(self, name: str, func: Any, args: Any, kwargs: Any, flat: list[Any], there: bool) -> None:
        """Write down what makes the host wait, and refuse what is on the wrong device."""
        hosts = [each for each in flat if isinstance(each, Tensor) and not isinstance(each, OnCuda)]
        if name in ("_to_copy", "copy_"):
            source = args[0] if name == "_to_copy" else args[1]
            blocking = not (kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2]))
            arrives = there and not isinstance(source, OnCuda)
            leaves = isinstance(source, OnCuda) and not (there if name == "_to_copy" else isinstance(args[0], OnCuda))
            if leaves or (arrives and (blocking or not getattr(source, "pinned", False))):
                self.seen.waits[_place()] += 1
            return
        # the host's may be what others are indexed by, and are brought over then
        places = [each for each in args[1] if each is not None] if name in _INDEXED else []
        if wrong := [each for each in hosts if each.ndim and not any(each is place for place in places)]:
            raise RuntimeError(f"{func}: a tensor {list(wrong[0].shape)} is on the CPU, at {_place()}")
        masks = any(each.dtype in (torch.bool, torch.uint8) for each in places)
        brought = any(not isinstance(each, OnCuda) for each in places)
        sized = name == "repeat_interleave" and kwargs.get("output_size") is None
        checks = name == "segment_reduce" and not kwargs.get("unsafe")
        if masks or sized or checks or name in _WAITS or brought:
            self.seen.waits[_place()] += 1
        if name in _UNORDERED and args[0].is_floating_point():
            self.seen.unordered[_place()] += 1


class _Routes(TorchFunctionMode):
    """Takes ways that a build of torch without CUDA lacks: for numbers of the host, pinned memory and attention."""

    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self.seen = seen

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor, Tensor.new_tensor):
            return self._made(func, args, kwargs)
        if func is Tensor.pin_memory:
            args[0].pinned = True
            return args[0]
        if func is Tensor.tolist and isinstance(args[0], OnCuda):
            self.seen.waits[_place()] += 1
            return args[0].numbers.tolist()
        if func is Tensor.__getitem__ and isinstance(args[0], OnCuda):
            args = (args[0], self._places(args[1]))
        if func is F.scaled_dot_product_attention and isinstance(args[0], OnCuda):
            return self._attention(*args, **kwargs)
        return func(*args, **kwargs)

    def _made(self, func: Any, args: Any, kwargs: Any) -> Tensor:
        pinned = kwargs.pop("pin_memory", False)
        device = kwargs.pop("device", None)
        if func is Tensor.new_tensor:
            device, kwargs["dtype"] = device or args[0].device, kwargs.get("dtype") or args[0].dtype
            args = args[1:]
        made = torch.tensor(*args, **kwargs | {"device": "cpu"})
        if device is not None and torch.device(device).type == "cuda":
            self.seen.waits[_place()] += 1
            self.seen.launches["_to_copy"] += 1
            return OnCuda(made)
        made.pinned = pinned  # type: ignore[attr-defined]
        return made

    def _places(self, index: Any) -> Any:
        """Bring lists in an index to the device, as torch does."""
        given = index if isinstance(index, tuple) else (index,)
        found = tuple(
            self._made(torch.tensor, (each,), {"device": CUDA}) if isinstance(each, list) else each for each in given
        )
        return found if isinstance(index, tuple) else found[0]

    def _attention(self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, **named: Any) -> Tensor:
        """One kernel, whatever is in it; under autocast its arguments are cast."""
        given = [q, k, v, *([] if attn_mask is None else [attn_mask])]
        if torch.is_autocast_enabled("cuda"):
            half = torch.get_autocast_dtype("cuda")
            given = [each.to(half) if each.is_floating_point() else each for each in given]
        if any(each.device != CUDA for each in given):
            raise RuntimeError(f"attention among tensors of several devices, at {_place()}")
        self.seen.launches["scaled_dot_product_attention"] += 1
        with torch.utils._python_dispatch._disable_current_modes():
            q, k, v, *mask = (each.numbers for each in given)  # type: ignore[attr-defined]
            out = F.scaled_dot_product_attention(q, k, v, *mask, **named)
        return OnCuda(out)


def _leaves(value: Any) -> Iterator[Any]:
    """Yield what is in nested tuples and lists."""
    if isinstance(value, tuple | list):
        for each in value:
            yield from _leaves(each)
    else:
        yield value


def _changed(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return nested tuples and lists of what `change` makes of what is in them."""
    return type(value)([_changed(each, change) for each in value]) if isinstance(value, tuple | list) else change(value)


def _on_cpu(each: Any) -> Any:
    if isinstance(each, OnCuda):
        return each.numbers
    return torch.device("cpu") if _is_cuda(each) else each


def _on_cuda(each: Any, known: dict[int, OnCuda]) -> Any:
    if not isinstance(each, Tensor):
        return each
    found = known.get(id(each))
    return OnCuda(each) if found is None else found


def _is_cuda(each: object) -> bool:
    return isinstance(each, torch.device | str) and str(each).startswith("cuda")


def _place() -> str:
    """Return where in the project an operator was called: the innermost line, and the one outside of `api` behind."""
    frame, found = sys._getframe(1), []
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT) and not path.is_relative_to(ROOT / "tests") and ".venv" not in path.parts:
            name = "/".join(path.relative_to(ROOT).parts).replace("vpbench/methods", "methods")
            found.append(f"{name}:{frame.f_lineno}")
            if not name.startswith("vpbench/api"):
                break
        frame = frame.f_back  # type: ignore[assignment]
    return found[0] + (f" (from {found[-1]})" if len(found) > 1 else "") if found else "?"


def _fused(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    return aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, attn_mask=bias, scale=scale)


def _alone(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> tuple[Tensor, Tensor]:
    """Attend among the tokens of one clip, `[N, H, D]`."""
    return _fused(q.transpose(0, 1)[None], k.transpose(0, 1)[None], v.transpose(0, 1)[None], None, scale)


def _flash(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None, **named: Any) -> tuple[Any, ...]:
    if q.dtype not in HALF:
        raise RuntimeError("flash attention only supports half precision")
    out, lse = _fused(q, k, v, scale=scale)
    blank = torch.zeros(0, dtype=torch.int64)
    return out, lse, blank, blank, q.shape[2], k.shape[2], blank, blank, blank


def _efficient(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, lse: bool, *, scale: float | None = None
) -> tuple[Any, ...]:
    out, sums = _fused(q, k, v, bias, scale)
    sums = F.pad(sums, (0, -sums.shape[-1] % 32))  # as the kernel does
    blank = torch.zeros(0, dtype=torch.int64)
    return out, sums, blank, blank


def _varlen(q: Tensor, k: Tensor, v: Tensor, ends_q: Tensor, ends_k: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    """Attend clip by clip, as the kernel for clips of different lengths does in one launch."""
    if q.dtype not in HALF:
        raise RuntimeError("flash attention only supports half precision")
    scale, sizes = rest[3], [ends.diff().tolist() for ends in (ends_q, ends_k)]
    found = [_alone(*clip, scale) for clip in zip(q.split(sizes[0]), k.split(sizes[1]), v.split(sizes[1]), strict=True)]
    out = torch.cat([each[0].transpose(0, 1) for each, _ in found])
    return out, torch.cat([lse[0] for _, lse in found], dim=1), torch.zeros(2, dtype=torch.uint64)


def _varlen_efficient(
    q: Tensor, k: Tensor, v: Tensor, bias: None, ends_q: Tensor, ends_k: Tensor, *rest: Any, scale: float | None = None
) -> tuple[Any, ...]:
    """Do as `_varlen`; log-sums come clip by clip, filled up as the kernel does."""
    sizes, longest = ends_q.diff().tolist(), rest[0] + -rest[0] % 32
    found = [
        _alone(*clip, scale)
        for clip in zip(q[0].split(sizes), k[0].split(ends_k.diff().tolist()), v[0].split(sizes), strict=True)
    ]
    lse = torch.stack([F.pad(lse[0], (0, longest - lse.shape[-1])) for _, lse in found])
    blank = torch.zeros(0, dtype=torch.int64)
    return torch.cat([out[0].transpose(0, 1) for out, _ in found])[None], lse, blank, blank, *rest[:2]


#: kernels that a CPU has not
_KERNELS: dict[str, Callable[..., Any]] = {
    "_scaled_dot_product_flash_attention": _flash,
    "_scaled_dot_product_efficient_attention": _efficient,
    "_varlen_attn": _varlen,
    "_efficient_attention_forward": _varlen_efficient,
}


@contextmanager
def pretending(autocast: torch.dtype | None = None) -> Iterator[Seen]:
    """Let `cuda` be a device of this process; yields what is seen of it. autocast: of the device, from here on."""
    seen = Seen()
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        stack.enter_context(torch.no_grad())
        if autocast is not None:
            torch.set_autocast_enabled("cuda", True)
            torch.set_autocast_dtype("cuda", autocast)
            stack.callback(torch.set_autocast_enabled, "cuda", False)
        stack.enter_context(_Routes(seen))
        stack.enter_context(_Device(seen))
        yield seen


def to_cuda(module: nn.Module) -> None:
    """Bring parameters and buffers of a frozen module to the device."""
    for part in module.modules():
        for held in (part._parameters, part._buffers):
            # what two pruners hold is there already when the second one comes
            host = {name: each for name, each in held.items() if each is not None and not isinstance(each, OnCuda)}
            here: dict[str, Any] = {name: OnCuda(each.detach()) for name, each in host.items()}
            held.update(here)


def build_guard(folder: Path) -> None:
    """Let this process believe in CUDA devices, for good; skips the test that asks where no compiler is."""
    if torch.cuda.is_available():
        pytest.skip("a CUDA device is there; this is for machines without one")
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("a pretend CUDA device takes a C++ compiler, and none is installed")
    source, library, root = folder / "guard.cpp", folder / "guard.so", Path(torch.__file__).parent
    source.write_text(_GUARD, encoding="utf-8")
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"
    includes = [f"-I{root / 'include'}", f"-I{root / 'include/torch/csrc/api/include'}"]
    made = subprocess.run(
        [compiler, "-std=c++20", "-O0", "-shared", "-fPIC", abi, *includes, str(source), f"-L{root / 'lib'}", "-lc10",
         "-o", str(library)], capture_output=True, text=True, check=False)  # fmt: skip
    if made.returncode:
        pytest.skip(f"{compiler} cannot build against torch's headers: {made.stderr.strip().splitlines()[0]}")
    torch.ops.load_library(str(library))
