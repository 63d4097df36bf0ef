"""Hold a backbone to its contract, and the methods that run on it to what they promise there."""

from functools import partial

from vpbench import registry
from vpbench.commands.contract.contexts import flows_of
from vpbench.commands.contract.methods import at
from vpbench.commands.contract.networks import tiny
from vpbench.commands.contract.on_networks import ON_NETWORK, Subject
from vpbench.commands.contract.promise import Check, Verdict, judged


def checks(name: str) -> list[Check]:
    """Return all that is to be checked of a backbone; raises VpbenchError where it cannot be built."""
    entry = registry.backbone(name)
    tiny(entry)
    if entry.task == "detection":
        own: list[Check] = []
    else:
        own = [partial(judged, (promise,), Subject(name, entry), "") for promise in ON_NETWORK]
    return [
        *own,
        *(partial(on_it, name, method) for method in registry.names("methods") if entry.flow in flows_of(method)),
    ]


def on_it(name: str, method: str) -> list[Verdict]:
    """Check what one of our methods promises on a backbone; what breaks is named with the method."""
    entry = registry.backbone(name)
    return list(at(method, f"it with {method}", entry))
