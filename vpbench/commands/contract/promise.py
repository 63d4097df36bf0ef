"""A promise, and what comes of holding somebody to it."""

import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

import torch
from torch import Tensor

from vpbench.errors import VpbenchError, explain

Case = TypeVar("Case")


class Broken(VpbenchError):
    """A broken promise: what was found and what was expected, then what to do."""

    def __init__(self, found: str, do: str) -> None:
        super().__init__(f"{found}; {do}")


class Unchecked(Exception):
    """A promise that cannot be checked here, and why."""


@dataclass(frozen=True)
class Promise(Generic[Case]):
    """What has to hold, in one line, and the check of it, which raises `Broken` or `Unchecked`."""

    name: str
    says: str
    check: Callable[[Case], None]


def promises(*checks: Callable[[Case], None]) -> tuple[Promise[Case], ...]:
    """Make a promise of each check: named as the function is, and saying what the first line of its docstring says."""
    return tuple(Promise(each.__name__, (each.__doc__ or "").partition("\n")[0], each) for each in checks)


@dataclass(frozen=True)
class Verdict:
    """What came of one promise at one place (a backbone, or nothing where a name alone is looked at)."""

    promise: str
    says: str
    place: str
    state: Literal["kept", "broken", "unchecked"]
    text: str = ""


def judge(promise: Promise[Case], case: Case, place: str) -> Verdict:
    """Check one promise; an error of any kind is one that breaks it."""
    try:
        promise.check(case)
    except Unchecked as reason:
        return Verdict(promise.name, promise.says, place, "unchecked", str(reason))
    except Broken as broken:
        return Verdict(promise.name, promise.says, place, "broken", str(broken))
    except Exception as error:
        return Verdict(promise.name, promise.says, place, "broken", f"{explain(error)}, raised in {raised_in(error)}")
    return Verdict(promise.name, promise.says, place, "kept")


#: a piece of a contract's checks
Check = Callable[[], list[Verdict]]


def judged(those: Iterable[Promise[Case]], case: Case, place: str) -> list[Verdict]:
    """Check several promises of the same case."""
    return [judge(each, case, place) for each in those]


def raised_in(error: BaseException) -> str:
    """Return the file and line of the last call that is neither torch's nor the contract's own."""
    here, foreign = str(Path(__file__).parent), str(Path(torch.__file__).parent)
    frames = traceback.extract_tb(error.__traceback__)
    own = [each for each in frames if not each.filename.startswith((here, foreign))] or list(frames)
    return f"{own[-1].filename}:{own[-1].lineno}"


def close(found: Tensor, expected: Tensor, what: str, do: str, atol: float = 1e-5, rtol: float = 0.0) -> None:
    """Raise Broken where two tensors of answers differ by more than `atol + rtol * |expected|`, or in kind."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        raise Broken(f"{what}: {found.dtype} {list(found.shape)}, expected {expected.dtype} {list(expected.shape)}", do)
    if not torch.allclose(found, expected, atol=atol, rtol=rtol):
        gap = float((found.double() - expected.double()).abs().max())
        raise Broken(f"{what} differ by up to {gap:.2g}, expected at most {atol:g}", do)


def same(found: object, expected: object, what: str, do: str) -> None:
    """Raise Broken where two things that can be printed differ."""
    if found != expected:
        raise Broken(f"{what}: {_short(found)}, expected {_short(expected)}", do)


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 120 else text[:117] + "..."
