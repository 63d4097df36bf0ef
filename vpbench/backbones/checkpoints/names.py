"""What the layouts of all families share: prefixes, renaming, and the checks that come before a model is built."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from operator import methodcaller

import torch
from torch import Tensor

from vpbench.errors import UsageError

Tensors = dict[str, Tensor]
Rules = tuple[tuple[str, str], ...]
#: the parts of the token selection that STTS trains along with the backbone
SCORERS = ("time_score_predictor.", "space_score_predictor.")
_BLOCK = re.compile(r"(?:^|\.)(?:blocks|layers?)\.([0-9]+)\.")
# a norm and a matrix before the scores, three matrices that give them
_SCORER = re.compile(r"\w+\.[0-9]+\.score_network\.(in_conv\.[01]|out_conv\.[024])\.(weight|bias)$")
# what torch puts around modules, a whole model or any part of it, each with what does so
_AROUND = {
    "_orig_mod": "torch.compile",
    "_fsdp_wrapped_module": "FSDP",
    "_checkpoint_wrapped_module": "activation checkpointing",
}
_WRAPPED = re.compile(rf"(?:(?<=\.)|^)({'|'.join(_AROUND)})\.")
# Half precision becomes float32; anything else was not written by a training run.
_PRECISIONS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def unwrapped(state: Mapping[str, Tensor], where: str) -> tuple[Tensors, str]:
    """Return the tensors without the names that torch puts around modules, and what put them there.

    Raises UsageError if two names become one.
    """
    found = dict.fromkeys(each for name in state for each in _WRAPPED.findall(name))
    said = ", ".join(f"{_AROUND[each]} ({each})" for each in found)
    return with_names(lambda name: _WRAPPED.sub("", name), state, where), said


def without_prefixes(
    state: Mapping[str, Tensor], prefixes: tuple[str, ...], where: str, anchors: tuple[str, ...] = ("patch_embed",)
) -> tuple[Tensors, tuple[str, ...]]:
    """Strip wrappers' prefixes from names as long as a name with one of the `anchors` in it starts with one.

    Returns the prefixes as well, outermost first. Raises UsageError if two names become one.
    """
    names, found = dict(state), []
    while prefix := next((p for p in prefixes if any(n.startswith(p) and _holds(n, anchors) for n in names)), ""):
        names = with_names(methodcaller("removeprefix", prefix), names, where)
        found.append(prefix)
    return names, tuple(found)


def _holds(name: str, parts: tuple[str, ...]) -> bool:
    return any(part in name for part in parts)


def with_names(rename: Callable[[str], str], tensors: Mapping[str, Tensor], where: str) -> Tensors:
    """Return the tensors under the names that `rename` gives them; raises UsageError if two become one."""
    found: Tensors = {}
    for name, tensor in tensors.items():
        add(found, rename(name), tensor, where)
    return found


def add(found: Tensors, name: str, tensor: Tensor, where: str) -> None:
    """Add a tensor that must not be there yet: which of two is meant, nobody can tell. Raises UsageError if it is."""
    if name in found:
        raise UsageError(f"{where}: two tensors stand for {name!r}; save the one that counts alone")
    found[name] = tensor


def renamer(rules: Rules) -> Callable[[str], str]:
    """Return a function that applies the first rule (pattern of a name's start, replacement) that matches a name."""
    compiled = [(re.compile(f"^{pattern}"), ours) for pattern, ours in rules]

    def rename(name: str) -> str:
        return next((p.sub(ours, name) for p, ours in compiled if p.match(name)), name)

    return rename


def split(tensors: Mapping[str, Tensor], wanted: Callable[[str], object]) -> tuple[Tensors, Tensors]:
    """Return the tensors whose name is wanted, and the others."""
    chosen = {name: tensor for name, tensor in tensors.items() if wanted(name)}
    return chosen, {name: tensor for name, tensor in tensors.items() if name not in chosen}


def without_scorers(tensors: Mapping[str, Tensor], where: str) -> tuple[Tensors, Tensors]:
    """Return STTS's scorers, and the other tensors; raises UsageError for tensors that no scorer has."""
    scorers, others = split(tensors, lambda name: name.startswith(SCORERS))
    odd = next((name for name in scorers if not _SCORER.match(name)), None)
    if odd is not None:
        raise UsageError(f"{where}: {odd!r} is no part of an STTS scorer; save the checkpoint without it")
    return scorers, others


def check_precision(tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise UsageError for tensors that are not of half, single or double precision."""
    for name, tensor in tensors.items():
        if tensor.dtype not in _PRECISIONS:
            raise UsageError(f"{where}: tensor {name!r} is {tensor.dtype}; save it in half, single or double precision")


def check_patches(tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise UsageError unless 'patch_embed.proj.weight' is a 3-D convolution `[width, 3, t, h, w]`."""
    patch = tensors.get("patch_embed.proj.weight")
    if patch is None or patch.ndim != 5:
        said = "is missing" if patch is None else "is no 3-D convolution, so this is no video model"
        raise UsageError(f"{where}: 'patch_embed.proj.weight' {said}")


def check_head(tensors: Mapping[str, Tensor], name: str, where: str, missing: str = "it has no classifier") -> None:
    """Raise UsageError unless the classifier's weight is there as `[classes, width]`."""
    head = tensors.get(name)
    if head is None:
        raise UsageError(f"{where}: {missing} ({name!r}); fine-tune it first")
    if head.ndim != 2 or 0 in head.shape:
        raise UsageError(f"{where}: {name!r} is {shape(head)}, not [classes, width]")


def single(tensors: Mapping[str, Tensor], where: str) -> Tensors:
    """Return the tensors in float32; raises UsageError if one is not finite then."""
    found = {name: tensor.float() for name, tensor in tensors.items()}
    broken = next((name for name, tensor in found.items() if not tensor.isfinite().all()), None)
    if broken is not None:
        raise UsageError(f"{where}: tensor {broken!r} holds NaN or infinity, or numbers beyond float32")
    return found


def foreign(where: str, kind: str, state: Mapping[str, Tensor]) -> UsageError:
    """Return the error for files of which no tensor fits a `kind` of model."""
    first = ", ".join(repr(name) for name in sorted(state)[:3])
    inner: dict[str, set[str]] = {}
    for name in state:
        network, _, rest = name.partition(".")
        inner.setdefault(network, set()).add(rest)
    if len(inner) > 1 and len(set(map(frozenset, inner.values()))) == 1 and "" not in next(iter(inner.values())):
        several = ", ".join(sorted(inner))
        return UsageError(f"{where}: {len(inner)} networks of the same names ({several}); save one of them alone")
    return UsageError(f"{where}: not {kind}, no tensor fits; its first names are {first or 'none'}")


def numbered(tensors: Iterable[str], prefix: str) -> list[int]:
    """Return the numbers that follow `prefix` in the names, sorted, each once."""
    pattern = re.compile(rf"{re.escape(prefix)}([0-9]+)\.")
    return sorted({int(match[1]) for name in tensors if (match := pattern.match(name))})


def part_of_a_model(state: Mapping[str, Tensor]) -> str:
    """Say that tensors are blocks without what comes before them, as a shard of several has; "" where they are not."""
    blocks = [match[1] for name in state if (match := _BLOCK.search(name))]
    embedded = any("patch_embed" in name for name in state)
    if len(blocks) < 4 or embedded:
        return ""
    return f"{len(state)} tensors of {len(set(blocks))} blocks, a part of a model"


def grouped(names: Iterable[str]) -> list[str]:
    """Say many names in few: those that differ in numbers alone become one, with `*` for the numbers and a count."""
    counts = Counter(re.sub(r"(?<=\.)[0-9]+(?=\.)", "*", name) for name in names)
    return [f"{name} ({count})" if count > 1 else name for name, count in counts.items()]


def shape(tensor: Tensor) -> str:
    """Say a tensor's shape, as `[2, 3]`."""
    return str(list(tensor.shape))
