"""What methods read of a backbone, and the kinds there are."""

import abc
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vpbench import registry
from vpbench.api.pruner import DENSE, SITES, ClipBatch, Output, Pruner, TokenCounts
from vpbench.api.tokens import Grid, Selection
from vpbench.errors import UsageError, VpbenchError
from vpbench.registry import Flow, Sizes


class Backbone(nn.Module, abc.ABC):
    """A network with named sites; what methods read of it. How it is run is the business of its task."""

    #: how tokens flow, and with it which sites are asked
    flow: ClassVar[Flow]
    #: tokens of what is seen at a time: a clip, or a frame as a clip of one slot
    grid: Grid
    depth: int
    heads: int
    #: width of one attention head's keys
    key_width: int
    #: whether the weights hold run-length embeddings (RLT's, arXiv 2411.05222)
    reads_run_lengths: bool = False
    #: what was done to its weights when they were loaded, in one line for people; empty for nothing
    news: str = ""
    #: how it came by positions for clips of another size than it was trained on (interpolate, recompute); None: its own
    repositioned: str | None = None
    #: how its multiply-accumulates are known: by `closed form`, or `counted` by watching operators on the meta device
    costs: ClassVar[str] = "closed form"
    #: functions that are a stage of a forward, each with its stage; see `measure.stages`
    timed_as: ClassVar[Mapping[str, str]] = {}
    #: kind of device, and what autocast rounds the operands of products to there; None: no autocast
    autocast: tuple[str, torch.dtype] | None = None

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Run `forward` as modules do, in the precision that the network was loaded in."""
        with self.casting():
            return super().__call__(*given, **named)

    def casting(self) -> AbstractContextManager[object]:
        """Enter autocast, if there is any, for one forward.

        Each forward casts its weights, and is timed with that, as in `with torch.autocast(...)` around one call. Its
        cache of cast weights is off: it holds nothing in inference mode anyway, and out of it, inside an autocast
        around many forwards, the first of them would cast for all.
        """
        if self.autocast is None:
            return nullcontext()
        kind, dtype = self.autocast
        return torch.autocast(kind, dtype, cache_enabled=False)

    @property
    def sequence(self) -> int:
        """Patches, all kept, that attend to each other: those of one step where steps are encoded one by one."""
        return self.grid.per_slot if self.flow == "steps" else self.grid.tokens

    def caveat(self, pruner: Pruner) -> str:
        """Return what of running a pruner here is a choice of ours that its rows have to say; "" for nothing."""
        return ""

    def refuses(self, pruner: Pruner) -> str | None:
        """Return why this backbone, as trained, cannot run with a pruner, or None if it can."""
        if not isinstance(pruner, Pruner):
            return f"its attach returned {type(pruner).__name__}, not a Pruner"
        every = frozenset().union(*SITES.values())
        if alien := [site for site in sorted(every - SITES[self.flow]) if pruner.acts_at(site)]:
            return f"it acts in {', '.join(alien)}, which this backbone never asks"
        return None


class Classifier(Backbone):
    """A backbone that classifies clips; `forward(batch, pruner)` gives an `Output`."""

    config: Sizes

    @abc.abstractmethod
    def forward(self, batch: ClipBatch, pruner: Pruner = DENSE) -> Output:
        """Classify a batch of clips, calling the pruner at the sites and nowhere else."""

    @abc.abstractmethod
    def normalise(self, pixels: Tensor) -> Tensor:
        """Return RGB pixels `[..., 3]` from 0 to 255, uint8 or floats, as the floats the network was trained on."""

    def patches(self, pixels: Tensor, selection: Selection | None = None) -> Tensor:
        """Return what the patch embedding makes of the selected tubelets (None: all), `[S, D]`, without positions.

        pixels: `[B, T, H, W, 3]`, uint8, or floats that are normalised already. Raises UsageError where a backbone
        shows nothing of the kind; methods that need it refuse those that do not override this.
        """
        raise UsageError(f"{type(self).__name__} does not show its patch embeddings")

    @abc.abstractmethod
    def resize(self, frames: int | None, size: int | None, positions: str) -> None:
        """Take clips of another number of frames or another side from now on (None: as before).

        positions: `interpolate` the trained table, or `recompute` it where it is a formula. Raises UsageError for clips
        that tubelets do not tile, and for `recompute` where the table was learned.
        """


class SingleStream(Classifier):
    """A backbone whose clip is one stream of tokens, so that its cost follows from the tokens of each block alone."""

    flow: ClassVar[Flow] = "stream"

    def output(self, logits: Tensor, counts: Sequence[TokenCounts]) -> Output:
        """Return logits `[B, classes]` with what each clip cost, from the tokens that each block saw."""
        attention, mlp = (zip(*each, strict=True) for each in zip(*((c.attention, c.mlp) for c in counts), strict=True))
        clips = list(zip(attention, mlp, strict=True))
        macs, normalised = (tuple(of(*clip) for clip in clips) for of in (self.macs, self.normalised_elements))
        return Output(logits, tuple(counts), macs, normalised)

    @abc.abstractmethod
    def macs(self, attention: tuple[int, ...], mlp: tuple[int, ...]) -> int:
        """Closed-form multiply-accumulates of one clip from its tokens per block."""

    @abc.abstractmethod
    def backward_macs(self, tokens: int) -> int:
        """Multiply-accumulates of the last block's and the head's backward pass."""

    @abc.abstractmethod
    def normalised_elements(self, attention: tuple[int, ...], mlp: tuple[int, ...]) -> int:
        """Elements that pass a layer norm in one clip, from its tokens per block."""


class GridBackbone(Classifier):
    """A backbone whose tokens form a grid that pruning may shrink to a smaller grid, but not leave holes in."""

    flow: ClassVar[Flow] = "grid"
    #: tensors of the checkpoint that are not the backbone's own: trained parts of methods, by their published names
    addons: dict[str, Tensor]

    @property
    def sites(self) -> int:
        """Places where `Pruner.stage` is called: blocks, or stages of several blocks."""
        return self.depth

    @property
    @abc.abstractmethod
    def planned_slots(self) -> int:
        """Slices that selections in time are sized for, whatever clip comes."""

    @abc.abstractmethod
    def planned_windows(self, ratios: Mapping[int, float]) -> dict[int, int]:
        """Tokens per slice that windows before these blocks (or stages) are sized for, ratio by ratio."""

    @abc.abstractmethod
    def width_before(self, block: int) -> int:
        """Channels of the tokens that enter a block (or stage)."""

    def refuses(self, pruner: Pruner) -> str | None:
        """Refuse whatever drops single tokens, and say so."""
        own = [site for site in ("video", "after_attention", "after_block") if pruner.acts_at(site)]
        holes = f"it drops single tokens (in {', '.join(own)}), which would leave holes in the grid"
        return holes if own else super().refuses(pruner)


class FrameBackbone(Backbone):
    """A backbone that looks at a video frame by frame, each a square grid of patches, and finds objects there."""

    flow: ClassVar[Flow] = "frames"
    #: pixels along a side of a patch
    patch: int
    #: blocks whose attention is over the whole frame, in order: those whose maps `Pruner.output` gets
    unwindowed: tuple[int, ...]


def network(name: str, sizes: Sizes | None = None) -> Backbone:
    """Build a backbone with initial weights; `sizes`: others of its family. Raises VpbenchError where it is broken."""
    entry = registry.backbone(name)
    with torch.device("cpu"):  # constants of its module, wherever the network itself goes
        build = registry.imported(entry.build)
    found = build(entry.sizes if sizes is None else sizes)
    if not isinstance(found, Backbone):
        raise VpbenchError(f"backbones/{name}: {entry.build} must return a vpbench.api.Backbone")
    return found


def classifier(name: str, sizes: Sizes | None = None) -> Classifier:
    """Build a backbone as `network` does; raises UsageError if it classifies no clips."""
    if registry.backbone(name).task != "recognition":
        raise UsageError(f"{name} finds objects in the frames of videos; it cannot classify clips")
    found = network(name, sizes)
    assert isinstance(found, Classifier)
    return found
