"""`transformers` itself: its classifiers by type, and the attention function that they are run with here."""

from typing import Any

from torch import Tensor, nn

from vpbench.api import DENSE, Grid, Pruner, Trace
from vpbench.api.attention import explicit_attention
from vpbench.backbones.huggingface import HuggingFaceConfig
from vpbench.backbones.plain import attended
from vpbench.errors import UsageError

#: the name that the attention function here has in the library's `AttentionInterface`
ATTENTION = "vpbench"


class Call:
    """What the attention of one block is asked for, and what it showed: the library hands on no such thing."""

    def __init__(self) -> None:
        #: of the clips that run now
        self.grid = Grid(1, 1, 1)
        self._done()

    def _done(self) -> None:
        self.lengths: tuple[int, ...] = ()
        self.size: Tensor | None = None
        self.index: Tensor | None = None
        self.pruner, self.layer = DENSE, 0
        self.trace: Trace | None = None

    def ask(
        self, lengths: tuple[int, ...], size: Tensor | None, index: Tensor, pruner: Pruner = DENSE, layer: int = 0
    ) -> None:
        """Take what is asked for: tokens per clip, what keys are biased by, places on the grid, and for whom."""
        self.lengths, self.size, self.index, self.pruner, self.layer = lengths, size, index, pruner, layer

    def places(self, *_: Any, **__: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Return slot, row and column of each token, `[1, 1, S]`; stands in for the library's `get_position_ids`."""
        assert self.index is not None
        index, grid = self.index[None, None], self.grid
        return index // grid.per_slot, index // grid.cols % grid.rows, index % grid.cols

    def answer(self) -> Trace:
        """Return what the attention showed, and keep none of it."""
        found = self.trace
        self._done()
        assert found is not None
        return found


def transformers() -> Any:
    """Import the library; raises UsageError in one line where it is not installed."""
    try:
        import transformers as library
    except ImportError as error:
        raise UsageError(f"backbones hf_... need transformers ({error}): pip install 'vpbench[hf]'") from error
    return library


def kind(model_type: str) -> Any:
    """Return the library's class of classifiers of a type; raises UsageError for others, and where there is none."""
    if model_type == "":
        raise UsageError("hf takes its sizes from a folder's config.json: give --weights FOLDER or org/name")
    library = transformers()
    return {
        "videomae": library.VideoMAEForVideoClassification,
        "vivit": library.VivitForVideoClassification,
        "timesformer": library.TimesformerForVideoClassification,
        "vjepa2": library.VJEPA2ForVideoClassification,
    }[model_type]


def classifier(sizes: HuggingFaceConfig) -> nn.Module:
    """Build the library's own classifier of these sizes, with its initial weights, to attend by `packed`.

    Raises UsageError for settings that it refuses.
    """
    made = kind(sizes.model_type)
    transformers().AttentionInterface.register(ATTENTION, packed)
    try:
        found: nn.Module = made(made.config_class(**sizes.keywords()))
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise UsageError(f"transformers' {sizes.model_type}: {str(error).splitlines()[0]}") from error
    if sizes.model_type != "timesformer":  # whose attention asks no interface
        found.set_attn_implementation(ATTENTION)  # type: ignore[operator]
    return found


def follow(attention: nn.Module, call: Call) -> None:
    """Let an attention module of the library ask `call` for what it is to do."""
    attention.vpbench_call = call  # type: ignore[assignment]


def packed(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **given: Any
) -> tuple[Tensor, None]:
    """Attend among packed tokens `[1, H, S, D/H]`, whose clips the module's `Call` tells; returns `[1, S, H, D/H]`.

    Modules without a call, which see no packed stream, run as the library's own "sdpa".
    """
    call: Call | None = getattr(module, "vpbench_call", None)
    if call is None and key.requires_grad and key.device.type == "cpu" and attention_mask is None:
        return explicit_attention(query, key, value).transpose(1, 2), None  # the fused backward pass is slow there
    if call is None:
        out, _ = transformers().AttentionInterface()["sdpa"](module, query, key, value, attention_mask, **given)
        return out, None
    q, k, v = (each[0].transpose(0, 1) for each in (query, key, value))
    out, call.trace = attended(q, k, v, call.lengths, call.size, call.pruner, call.layer)
    return out[None], None
