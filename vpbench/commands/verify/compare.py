"""Compare tensors by rule: exactly, as sets per group, or within a tolerance; knows no method and no backbone."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vpbench.commands.verify.case import size


@dataclass(frozen=True)
class Rule:
    """How two tensors of the same shape have to agree: `|ours - theirs| <= atol + rtol * |scale|` everywhere.

    `sets`: the last axis is a set, its order does not count. `nan`: NaN on both sides agrees; otherwise it never does.
    `scale`: what `rtol` refers to, one value per element, in words `of`; None means the expected tensor itself.
    """

    atol: float = 0.0
    rtol: float = 0.0
    sets: bool = False
    nan: bool = False
    scale: Tensor | None = None
    of: str = ""

    @property
    def text(self) -> str:
        """The rule in words, for the report."""
        if self.sets:
            return "set per group"
        if not self.atol and not self.rtol:
            return "exact"
        parts = (("atol", self.atol, ""), ("rtol", self.rtol, f" of {self.of}" if self.of else ""))
        return ", ".join(f"{name} {value:g}{of}" for name, value, of in parts if value)


EXACT = Rule()
SETS = Rule(sets=True)


@dataclass(frozen=True)
class Check:
    """One tensor of ours with its rule; `theirs` replaces the stored expected tensor where that had to be aligned."""

    ours: Tensor
    rule: Rule = EXACT
    theirs: Tensor | None = None


@dataclass(frozen=True)
class Result:
    """What came of one tensor; `error` is the largest absolute difference, None where there was nothing to subtract."""

    name: str
    shape: str
    rule: str
    ok: bool
    error: float | None = None
    remark: str = ""

    def __str__(self) -> str:
        error = "-" if self.error is None else f"{self.error:.2e}"
        line = f"  {'ok' if self.ok else 'MISS':<4}  {self.name:<30} {self.shape:<14} max error {error:<9} {self.rule}"
        return f"{line.rstrip()}  ({self.remark})" if self.remark else line.rstrip()


def compare(expected: Mapping[str, Tensor], checks: Mapping[str, Check]) -> list[Result]:
    """Compare every expected tensor, by name, and what checks bring along as `theirs`; one result for each.

    An expected tensor without a check is a miss: nobody knows what it should be compared with.
    """
    results = []
    for name in sorted(expected.keys() | {name for name, check in checks.items() if check.theirs is not None}):
        if name in checks:
            theirs = checks[name].theirs
            results.append(compare_one(name, checks[name], expected[name] if theirs is None else theirs))
        else:
            remark = "not known for this method and these settings, so not compared"
            results.append(Result(name, size(expected[name]), "-", ok=False, remark=remark))
    return results


def compare_one(name: str, check: Check, theirs: Tensor) -> Result:
    """Compare one tensor with `theirs` by the rule of its check."""
    ours, rule = check.ours.detach().cpu(), check.rule
    if ours.shape != theirs.shape:
        return Result(name, size(theirs), rule.text, ok=False, remark=f"ours is {size(ours)}")
    exact_type = torch.float64 if ours.is_floating_point() or theirs.is_floating_point() else torch.int64
    ours, theirs = ours.to(exact_type), theirs.to(exact_type)
    if rule.sets:
        ours, theirs = ours.sort(dim=-1).values, theirs.sort(dim=-1).values
    error = (ours - theirs).abs()
    agrees = error <= rule.atol + rule.rtol * (theirs if rule.scale is None else rule.scale).abs()
    if rule.nan:
        both = ours.isnan() & theirs.isnan()
        agrees, error = agrees | both, error.masked_fill(both, 0)
    missed = int((~agrees).sum())
    remark = f"{missed} of {agrees.numel()} elements" if missed else ""
    largest = float(error.max()) if error.numel() else 0.0
    return Result(name, size(theirs), rule.text, ok=not missed, error=largest, remark=remark)
