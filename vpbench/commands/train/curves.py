"""The curves of a training: loss, accuracy and rate over its steps, as a figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vpbench.commands.train.written import whole

#: what is drawn, by its name in the log
_DRAWN = {"loss": "loss", "accuracy": "accuracy on augmented clips", "lr": "learning rate"}


def draw(log: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw what a log tells of each entry's step, a panel each; raises VpbenchError where it cannot be written."""
    from matplotlib.figure import Figure

    names = [name for name in _DRAWN if any(name in entry for entry in log)]
    figure = Figure(figsize=(3.6 * len(names), 2.8), layout="constrained")
    for number, name in enumerate(names, start=1):
        panel = figure.add_subplot(1, len(names), number)
        entries = [entry for entry in log if name in entry]
        panel.plot([entry["step"] for entry in entries], [entry[name] for entry in entries], linewidth=1.2)
        panel.set(xlabel="step", title=_DRAWN[name])
        panel.grid(alpha=0.3)
    with whole(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
