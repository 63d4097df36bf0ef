"""Heads of Kinetics-710's classes, for data of Kinetics-400's, which are among them."""

from dataclasses import replace

from vpbench.backbones.checkpoints.recognised import Recognised
from vpbench.errors import UsageError

CLASSES = 710
#: datasets whose classes are the first so many of mmaction2's list, in the same order: of k400's 400 names 387 are
#: equal there, and 13 stand in their places as Kinetics-700 calls them ("tying tie" is "tying necktie")
_FIRST = {"k400": 400}
SOURCE = "tools/data/kinetics710/label_map_k710.txt in open-mmlab/mmaction2, commit e10347b"


def narrowed(found: Recognised, dataset: str | None, where: str) -> tuple[Recognised, str]:
    """Return a checkpoint with the outputs that a dataset asks for, and a line that says which map that is by.

    Other checkpoints come back as they are. Raises UsageError for heads whose order of classes is not known here: those
    of other code than mmaction2's.
    """
    if found.classes != CLASSES or dataset not in _FIRST:
        return found, ""
    first = _FIRST[dataset]
    if not found.layout.startswith("mmaction2"):
        raise UsageError(
            f"{where}: 710 classes (Kinetics-710), and {dataset} has {first}; which of them those are is known of "
            "mmaction2's files alone: select the rows of the head by the map of its own code (VideoMAE V2: "
            f"misc/label_710to{first}.json), and save that"
        )
    head = found.head.removesuffix(".weight")
    rows = {f"{head}.{kind}": found.tensors[f"{head}.{kind}"][:first] for kind in ("weight", "bias")}
    line = f"{where}: of its 710 classes the first {first} are those of {dataset}, by {SOURCE}"
    return replace(found, tensors=found.tensors | rows), line
