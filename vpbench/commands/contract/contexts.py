"""Contexts of torch that a caller may be in, and what methods answer in them."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor

from vpbench.api import Backbone, Classifier
from vpbench.api.method import load_method
from vpbench.backbones.vitdet.network import Segments, ViTDet
from vpbench.commands.contract.clips import clips, looks
from vpbench.errors import UsageError, VpbenchError
from vpbench.tasks.recognition.session import to_batch


@contextmanager
def double() -> Iterator[None]:
    """Let new tensors be float64."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def deterministic() -> Iterator[None]:
    """Refuse operators whose results depend on the order of threads."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


CONTEXTS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "inference_mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "default dtype": double,
    "default device": lambda: torch.device("meta"),
    "deterministic": deterministic,
}


def answers(network: Backbone, methods: Iterable[str]) -> dict[str, Tensor]:
    """Return what those of the methods that fit give for two clips, or for three frames; constants are made anew."""
    forget_constants(network)
    if isinstance(network, ViTDet):
        return {name: _followed(network, name) for name in methods}
    assert isinstance(network, Classifier)
    given = clips(network.config, 2)
    found = {}
    for name in methods:
        kind = load_method(name)
        if network.flow not in kind.flows:
            continue
        try:
            method = kind().at_keep(0.5 if kind.set_by_keep else 1.0, network, given)
        except UsageError:
            continue
        if not method.supports(network) and not network.refuses(method.attach(network)):
            with torch.no_grad():
                found[name] = network(to_batch(given, "cpu"), method.attach(network)).logits
    return found


def flows_of(name: str) -> frozenset[str]:
    """Return the flows that a method prunes, none where it is broken."""
    try:
        return frozenset(load_method(name).flows)
    except VpbenchError:
        return frozenset()


def _followed(network: ViTDet, name: str) -> Tensor:
    kind = load_method(name)
    pruner = kind().at_keep(0.3 if kind.set_by_keep else 1.0, network, ()).attach(network)
    pruner.restart([("v", 0)])
    segments, outputs = Segments(), []
    with torch.device("cpu"):
        frames = [look.pixels[None] for look in looks(3)]
    with torch.no_grad():
        for frame in frames:
            went, found = network(frame, segments, pruner)
            outputs += [went.output.flatten(), found[0].boxes.flatten(), found[0].scores]
    return torch.cat(outputs)


def forget_constants(network: Backbone) -> None:
    """Forget what functions of the network's package have kept: everything in its modules that has a `cache_clear`."""
    package = type(network).__module__.rpartition(".")[0] or type(network).__module__
    for name, module in list(sys.modules.items()):
        if name == package or name.startswith(f"{package}."):
            for each in vars(module).values():
                # of functions alone: a class's attribute of this name would be another thing
                if callable(each) and hasattr(each, "cache_clear") and not isinstance(each, type):
                    each.cache_clear()
