"""What a method keeps to on a detector that follows videos frame by frame."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vpbench.api import DENSE, Pruner
from vpbench.api.method import load_method
from vpbench.backbones.vitdet.network import ViTDet
from vpbench.commands.contract import contexts
from vpbench.commands.contract.clips import looks
from vpbench.commands.contract.networks import tiny
from vpbench.commands.contract.promise import Broken, Unchecked, close, promises, same
from vpbench.errors import UsageError
from vpbench.measure.operators import count_operators
from vpbench.registry import Entry
from vpbench.tasks.detection.follow import Follower, Found, Lanes, Look
from vpbench.tasks.detection.predict import transformer_macs


@dataclass(frozen=True)
class FrameTrial:
    """A method on a tiny detector."""

    method: str
    entry: Entry

    @property
    def network(self) -> ViTDet:
        """The detector, with random weights by which it finds boxes."""
        found = tiny(self.entry)
        assert isinstance(found, ViTDet)
        return found

    @property
    def prunes(self) -> bool:
        """Whether a keep ratio says anything: of dense it does not."""
        return bool(load_method(self.method).set_by_keep)

    def pruner(self, keep: float) -> Pruner:
        """Attach the method at a keep ratio; UsageError where it is refused."""
        return load_method(self.method)().at_keep(keep if self.prunes else 1.0, self.network, ()).attach(self.network)

    def refused(self) -> str | None:
        """Return why the method does not run here, None if it does."""
        if "frames" not in load_method(self.method).flows:
            return "it does not prune the flow frames"
        try:
            method = load_method(self.method)().at_keep(0.3 if self.prunes else 1.0, self.network, ())
        except UsageError as error:
            return str(error)
        return method.supports(self.network) or self.network.refuses(method.attach(self.network))


def follow(model: ViTDet, pruner: Pruner, frames: Sequence[Look], batch: int = 1) -> list[Found]:
    """Follow the frames of one segment, groups between dense frames in lockstep where `batch` is larger than 1."""
    lanes = Lanes(Follower(model, pruner), batch)
    with torch.inference_mode():
        found = [each for number, look in enumerate(frames) for each in lanes.add(look, fresh=number == 0)]
        return sorted([*found, *lanes.flush()], key=lambda each: each.look.number)


def _alike(found: Sequence[Found], expected: Sequence[Found], what: str, do: str) -> None:
    same(len(found), len(expected), f"frames, {what}", do)
    for ours, theirs in zip(found, expected, strict=True):
        same(ours.look is theirs.look, True, f"the same frame, {what}", do)
        same(ours.kept, theirs.kept, f"tokens of frame {ours.look.number}, {what}", do)
        same(ours.detections.labels.tolist(), theirs.detections.labels.tolist(), f"labels, {what}", do)
        close(ours.detections.scores, theirs.detections.scores, f"scores, {what}", do)
        # boxes in pixels of a frame of 64
        close(ours.detections.boxes / 64, theirs.detections.boxes / 64, f"boxes over 64, {what}", do)


def keeps_all_at_one(trial: FrameTrial) -> None:
    """keep 1.0 finds the boxes of dense"""
    frames = looks(4)
    ours, dense = (follow(trial.network, pruner, frames) for pruner in (trial.pruner(1.0), DENSE))
    assert sum(len(each.detections.boxes) for each in ours) > 4, "boxes are found"
    for each, other in zip(ours, dense, strict=True):
        close(
            each.detections.boxes, other.detections.boxes, "boxes at keep 1.0 and dense ones",
            "let at_keep(1.0) leave every token", 1e-3, 1e-4,
        )  # fmt: skip


def reaches_the_keep_ratio(trial: FrameTrial) -> None:
    """pruned frames keep the share that at_keep was asked for, and those between periods are dense"""
    if not trial.prunes:
        raise Unchecked("it prunes nothing")
    tokens = trial.network.grid.tokens
    for keep in (0.2, 0.7):
        pruner = trial.pruner(keep)
        found = [each.kept for each in follow(trial.network, pruner, looks((pruner.period or 4) + 2))]
        dense = range(0, len(found), pruner.period or len(found))
        expected = [None if number in dense else round(keep * tokens) for number in range(len(found))]
        same(found, expected, f"tokens of frames at keep {keep:g}", "keep that share of each frame")
        same(pruner.kept, round(keep * tokens), f"Pruner.kept at keep {keep:g}", "say how many tokens go on")


def finds_the_same_in_lockstep(trial: FrameTrial) -> None:
    """groups of frames in lockstep find what one after the other does"""
    pruner = trial.pruner(0.3)
    frames = looks(3 * max(2, pruner.period) - 2)
    alone = follow(trial.network, pruner, frames)
    for batch in (2, 5):
        found = follow(trial.network, pruner, frames, batch)
        _alike(found, alone, f"{batch} groups at a time", "decide for each segment from its own frames")


def remembers_nothing(trial: FrameTrial) -> None:
    """nothing is remembered across segments"""
    pruner, frames = trial.pruner(0.3), looks(3)
    alone = follow(trial.network, pruner, frames)
    follow(trial.network, pruner, looks(5, "another"))
    again = follow(trial.network, pruner, frames)
    _alike(again, alone, "after another video", "let restart forget everything")


def costs_what_is_counted(trial: FrameTrial) -> None:
    """multiply-accumulates of transformer and method in closed form are those of torch's operator counter, to 1 %"""
    pruner, frames = trial.pruner(0.3), looks(2)
    found = follow(trial.network, pruner, frames)
    follower = Follower(trial.network, pruner)

    def both() -> None:  # which rollout a frame needs depends on the next
        follower.start(frames[:1])
        for look, each in zip(frames, found, strict=True):
            follower.transform(look.pixels[None], [each.detections])

    closed = sum(transformer_macs(trial.network.config, pruner, each) for each in found)
    counted = count_operators(both)
    if abs(counted - closed) > 0.01 * closed:
        raise Broken(
            f"closed form {closed}, counted {counted} multiply-accumulates",
            "let Pruner.frame_macs return those of the method's own products on one frame",
        )


def stands_every_context(trial: FrameTrial) -> None:
    """inference mode, no_grad, another default dtype or device, and deterministic algorithms change nothing"""
    expected = contexts.answers(trial.network, [trial.method])[trial.method]
    for name, context in contexts.CONTEXTS.items():
        with context():
            found = contexts.answers(trial.network, [trial.method])[trial.method]
        close(found, expected, f"answers in {name} and in no context", "make constants by vpbench.api.kept", 0.0)


ON_FRAMES = promises(
    keeps_all_at_one,
    reaches_the_keep_ratio,
    finds_the_same_in_lockstep,
    remembers_nothing,
    costs_what_is_counted,
    stands_every_context,
)
