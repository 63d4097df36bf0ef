"""A pruner that acts nowhere, and writes down where it is asked."""

from collections.abc import Sequence

from torch import Tensor

from vpbench.api import ClipBatch, Pruner, Selection, Tokens, Trace


class Log(Pruner):
    """Acts nowhere, and writes down where it is asked."""

    stepwise = True

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.wrong: list[str] = []

    def resample(self, batch: ClipBatch) -> ClipBatch:
        """Note it."""
        self.asked.append("resample")
        return batch

    def video(self, batch: ClipBatch) -> Selection | None:
        """Note it."""
        self.asked.append("video")
        return None

    def waves(self, steps: int) -> Sequence[Sequence[int]]:
        """Note it."""
        self.asked.append("waves")
        return (range(steps),)

    def embedded(self, x: Tensor) -> None:
        """Note it."""
        self.asked.append("embedded")

    def stage(self, block: int, x: Tensor) -> Tensor:
        """Note it, and how many axes the grid has."""
        self.asked.append(f"stage {block}")
        if x.ndim != 5:
            self.wrong.append(f"stage gets {list(x.shape)}, expected [clips, slots, rows, columns, width]")
        return x

    def after_attention(self, layer: int, tokens: Tokens, trace: Trace) -> Tokens:
        """Note it, and queries that are not packed like the tokens."""
        self.asked.append(f"after_attention {layer}")
        for each in (trace.queries, trace.keys, trace.values):
            if each.ndim != 3 or len(each) != len(tokens.x) or trace.lengths != tokens.lengths:
                self.wrong.append(f"block {layer} shows queries {list(each.shape)} of {len(tokens.x)} tokens")
        return tokens

    def after_block(self, layer: int, tokens: Tokens) -> Tokens:
        """Note it."""
        self.asked.append(f"after_block {layer}")
        return tokens
