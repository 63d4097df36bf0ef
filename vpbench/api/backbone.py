"""What methods read of a backbone, and the kinds there are."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from vpbench.api.pruner import DENSE, ClipBatch, Output, Pruner
from vpbench.api.tokens import Grid

if TYPE_CHECKING:
    from vpbench.backbones.catalog import Config


class Backbone(nn.Module, abc.ABC):
    """A network with named sites; `forward(batch, pruner)` gives an `Output`."""

    config: Config
    grid: Grid
    depth: int
    heads: int
    #: width of one attention head's keys
    key_width: int
    #: whether tokens are a plain stream that can lose any of them; if not, they form a grid that must stay one
    plain: bool = True
    #: whether each step (slot) of a clip is encoded on its own, so that `Pruner.waves` and `embedded` are asked
    stepwise: bool = False
    #: whether the weights hold run-length embeddings (RLT's, arXiv 2411.05222)
    reads_run_lengths: bool = False
    #: functions that are a stage of a forward, each with its stage; see `measure.stages`
    timed_as: ClassVar[Mapping[str, str]] = {}

    @property
    def sequence(self) -> int:
        """Patches of a dense clip that attend to each other: those of one step where steps are encoded one by one."""
        return self.grid.per_slot if self.stepwise else self.grid.tokens

    @abc.abstractmethod
    def forward(self, batch: ClipBatch, pruner: Pruner = DENSE) -> Output:
        """Classify a batch of clips, calling the pruner at the sites and nowhere else."""

    @abc.abstractmethod
    def normalise(self, pixels: Tensor) -> Tensor:
        """Return RGB pixels `[..., 3]` from 0 to 255, uint8 or floats, as the floats the network was trained on."""

    @abc.abstractmethod
    def resize(self, frames: int | None, size: int | None, positions: str) -> None:
        """Take clips of another number of frames or another side from now on (None: as before).

        positions: `interpolate` the trained table, or `recompute` it where it is a formula. Raises UsageError for clips
        that tubelets do not tile, and for `recompute` where the table was learned.
        """

    @abc.abstractmethod
    def refuses(self, pruner: Pruner) -> str | None:
        """Return why this backbone, as trained, cannot run with a pruner, or None if it can."""


class SingleStream(Backbone):
    """A backbone whose clip is one stream of tokens, so that its cost follows from the tokens of each block alone."""

    @abc.abstractmethod
    def macs(self, attention: tuple[int, ...], mlp: tuple[int, ...]) -> int:
        """Closed-form multiply-accumulates of one clip from its tokens per block."""

    @abc.abstractmethod
    def backward_macs(self, tokens: int) -> int:
        """Multiply-accumulates of the last block's and the head's backward pass."""

    @abc.abstractmethod
    def normalised_elements(self, attention: tuple[int, ...], mlp: tuple[int, ...]) -> int:
        """Elements that pass a layer norm in one clip, from its tokens per block."""


class GridBackbone(Backbone):
    """A backbone whose tokens form a grid that pruning may shrink to a smaller grid, but not leave holes in."""

    plain = False
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
        """Refuse whatever drops single tokens."""
        sites = ("video", "after_attention", "after_block")
        own = [site for site in sites if getattr(type(pruner), site) is not getattr(Pruner, site)]
        return f"it drops single tokens (in {', '.join(own)}), which would leave holes in the grid" if own else None
