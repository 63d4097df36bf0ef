"""Hold a method to its contract: what it says of itself, then on a tiny backbone of each family that it prunes."""

from collections.abc import Iterator
from functools import partial

from vpbench.api.method import load_method
from vpbench.commands.contract.networks import families, tiny
from vpbench.commands.contract.on_clips import ON_CLIPS
from vpbench.commands.contract.on_frames import ON_FRAMES, FrameTrial
from vpbench.commands.contract.on_grid import ON_GRID
from vpbench.commands.contract.on_name import ON_NAME
from vpbench.commands.contract.on_stream import ON_STREAM
from vpbench.commands.contract.promise import Check, Promise, Verdict, judged, raised_in
from vpbench.commands.contract.trial import Trial
from vpbench.errors import VpbenchError, explain
from vpbench.registry import Entry, Flow

#: what is said of a method at a backbone before its promises are looked at
RUNS = ("runs_here", "it runs on a backbone, or is refused there with a reason")


def on_flow(flow: Flow) -> tuple[Promise[Trial], ...]:
    """Return the promises of a method on a network that classifies clips."""
    return (*ON_CLIPS, *(ON_GRID if flow == "grid" else ON_STREAM))


def checks(name: str) -> list[Check]:
    """Return all that is to be checked of a method, a piece for each backbone; VpbenchError if it cannot be loaded."""
    load_method(name)
    refused: list[str] = []
    places = families()

    def here(place: str, entry: Entry) -> list[Verdict]:
        found = list(at(name, place, entry))
        refused.extend(each.place for each in found if each.promise == RUNS[0] and each.state == "unchecked")
        return found

    def somewhere() -> list[Verdict]:
        if len(refused) < len(places):
            return []
        do = "--verbose says why; let supports and at_keep(0.5) accept one of their flows"
        return [Verdict(*RUNS, "", "broken", f"it is refused on all of {', '.join(places)}; {do}")]

    described = partial(judged, ON_NAME, name, "")
    return [described, *(partial(here, place, entry) for place, entry in places.items()), somewhere]


def at(name: str, place: str, entry: Entry) -> Iterator[Verdict]:
    """Check a method on the tiny network of one entry."""
    try:
        tiny(entry)
        trial = FrameTrial(name, entry) if entry.task == "detection" else Trial(name, entry)
        reason = trial.refused()
    except VpbenchError as error:
        yield Verdict(*RUNS, place, "unchecked", str(error))
        return
    except Exception as error:
        yield Verdict(*RUNS, place, "broken", f"{explain(error)}, raised in {raised_in(error)}")
        return
    if reason is not None:
        yield Verdict(*RUNS, place, "unchecked", f"refused: {reason}")
    elif isinstance(trial, FrameTrial):
        yield from judged(ON_FRAMES, trial, place)
    else:
        yield from judged(on_flow(entry.flow), trial, place)
