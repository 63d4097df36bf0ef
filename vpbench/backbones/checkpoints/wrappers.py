"""Which of the mappings in a checkpoint holds the weights: plain ones, averaged ones (EMA), or what is asked for."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vpbench.backbones.checkpoints.pickles import TENSORS, Pickled, Thing
from vpbench.errors import UsageError

#: where training code keeps weights; the first of a file's counts
PLAIN = ("model", "module", "model_state", "state_dict", "model_state_dict")
#: where it keeps their running average
AVERAGED = ("model_ema", "state_dict_ema", "ema_state_dict", "ema_state", "ema", "model_ema_state_dict")
#: of files with both: keys that are there, the one that their own evaluation takes, and whose that is
_RECIPES = (
    (("state_dict_ema",), "state_dict_ema", "the average, as timm does"),
    (("state_dict", "ema_state_dict"), "state_dict", "where mmengine puts the average when it saves"),
    (("state_dict", "current_model_state"), "state_dict", "where Lightning puts the average when it saves"),
    (("model", "model_ema"), "model", "not the average, as VideoMAE's own evaluation does"),
    (("module", "model_ema"), "module", "not the average, as VideoMAE's own evaluation does"),
)
#: how deep mappings are looked into, and how many of them
_DEEPEST, _MOST = 3, 5000
#: what an optimizer and a loop keep is made of tensors as well
_STATE = ("optimizer", "lr_scheduler", "scaler", "loops", "callbacks", "averaging_state", "rng", "criterion", "loss")


@dataclass(frozen=True)
class Chosen:
    """A mapping of weights: its key ("" for the top), its content, the keys of others, and why it was taken."""

    key: str
    state: Mapping[Any, Any]
    others: tuple[str, ...]
    why: str = ""


def choose(pickled: Pickled, key: str | None, where: str) -> Chosen:
    """Return the mapping of weights in a file: that of a key (`a.b` is `b` in `a`), or the one that is meant.

    Raises UsageError in one line, with the keys that hold tensors, where nothing tells which is meant.
    """
    tree = pickled.tree
    if not isinstance(tree, Mapping):
        raise UsageError(f"{where}: holds {_kind(tree)}, not a state dict")
    found = dict(_candidates(tree))
    if key is not None:
        if key not in found:
            raise UsageError(f"{where}: no tensors under {key!r}; --weights-key takes {_listed(found) or 'nothing'}")
        return _chosen(found, key, "as asked for")
    for keys, taken, why in _RECIPES:
        if all(each in found for each in keys) and (len(keys) > 1 or any(each in found for each in PLAIN)):
            return _chosen(found, taken, why)
    known = next((each for each in (*PLAIN, *AVERAGED) if each in found), "")
    if known or "" in found:
        return _chosen(found, known, "")
    if found:
        raise UsageError(f"{where}: tensors are under {_listed(found)}; give --weights-key {next(iter(found))}")
    raise UsageError(f"{where}: no tensors at the top or under {', '.join(PLAIN)}")


def _chosen(found: Mapping[str, Mapping[Any, Any]], key: str, why: str) -> Chosen:
    others = tuple(each for each in found if each not in (key, "") and not each.startswith(f"{key}."))
    return Chosen(key, found[key], others, why if others else "")


def _listed(found: Mapping[str, Any]) -> str:
    return " or ".join(repr(key) for key in list(found)[:5] if key)


def _kind(tree: Any) -> str:
    if isinstance(tree, Thing):
        whole = isinstance(tree.state, Mapping) and "_modules" in tree.state
        return f"a pickled {tree.of.name}" + (" (a whole model; save its state_dict())" if whole else "")
    return f"a {type(tree).__name__}"


def _candidates(tree: Mapping[Any, Any]) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Yield the mappings that hold tensors themselves, by the keys that lead there."""
    waiting: list[tuple[str, Mapping[Any, Any]]] = [("", tree)]
    for _ in range(_MOST):
        if not waiting:
            return
        path, state = waiting.pop(0)
        if any(is_tensor(value) for value in state.values()):
            yield path, state
        if path.count(".") < _DEEPEST - 1:
            inner = ((str(key), value) for key, value in state.items() if isinstance(value, Mapping))
            waiting += [(f"{path}.{key}".lstrip("."), value) for key, value in inner if not key.startswith(_STATE)]


def is_tensor(value: Any) -> bool:
    """Whether a value of a pickle stands for numbers."""
    return isinstance(value, Thing) and value.of in TENSORS
