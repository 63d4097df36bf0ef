"""Contexts of torch that a caller may be in must change no result: ways out of them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")
HALF = (torch.bfloat16, torch.float16)


def precise(x: Tensor) -> Tensor:
    """Return `x` in float32 where it is in half precision: what is summed or compared is not rounded on the way."""
    return x.float() if x.dtype in HALF else x


def in_its_own_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function compute outside of any autocast, which would round the operands of all its products.

    Written so that torch can compile what it is called in as a whole.
    """

    @wraps(function)
    def asked(*arguments: P.args, **named: P.kwargs) -> R:
        if not (torch.is_autocast_enabled("cuda") or torch.is_autocast_enabled("cpu")):
            return function(*arguments, **named)
        with torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
            return function(*arguments, **named)

    return asked


@contextmanager
def plain() -> Iterator[None]:
    """Make constants and networks as in no context at all: on the CPU, in float32, and fit for training."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"), torch.inference_mode(False):
            yield
    finally:
        torch.set_default_dtype(before)


def kept(make: Callable[P, R]) -> Callable[P, R]:
    """Let a function make its constants once for the same arguments, in no context: nobody may change them.

    A recorded CUDA graph reads them where they were. Compiled code makes them anew, as a part of its graph.
    """
    known = lru_cache(maxsize=1024)(plain()(make))

    @wraps(make)
    def found(*given: P.args, **named: P.kwargs) -> R:
        return make(*given, **named) if torch.compiler.is_compiling() else known(*given, **named)  # type: ignore[arg-type]

    return found
