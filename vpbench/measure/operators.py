"""Count multiply-accumulates by watching operators: the cross-check of the closed forms, twice over.

Both counters of the ecosystem see fused attention as free on a CPU; here both are taught what it costs. Neither
counts norms, softmax, activations, sorting or gathering, and neither does the closed form.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vpbench.errors import UsageError

if TYPE_CHECKING:
    from vpbench.api import Classifier, ClipBatch, Pruner


#: what operators are called that multiply sums of products: words of their names, and parts of them
_PRODUCTS = frozenset(("mm", "bmm", "addmm", "addbmm", "baddbmm", "mv", "addmv", "addr", "dot", "vdot", "linear"))
_PRODUCT_PARTS = ("matmul", "einsum", "conv", "attention", "encoder", "dist", "fft", "lstm", "gru", "rnn", "outer")
#: products of activations with weights; all others are products of activations with each other, as in attention
_WEIGHTED = ("aten.mm", "aten.addmm", "aten.convolution")


@dataclass(frozen=True)
class Operators:
    """What torch's operator counter saw in one call.

    `products`: multiply-accumulates by operator; `normalised`: elements that passed a layer norm; `uncounted`:
    operators that the counter takes for free although their names say that they multiply: with any, it is too low.
    """

    products: Mapping[str, int]
    normalised: int
    uncounted: frozenset[str]

    @property
    def macs(self) -> int:
        """All multiply-accumulates."""
        return sum(self.products.values())

    @property
    def mmcv(self) -> int:
        """As mmcv counts, whose hooks sit on layers: 2 for each norm element, and no products of attention."""
        return sum(self.products.get(name, 0) for name in _WEIGHTED) + 2 * self.normalised


def operators(forward: Callable[[], object]) -> Operators:
    """Watch one call with torch's operator counter (which counts two operations for each multiply-accumulate)."""
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    def fused(q: Any, k: Any, v: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
        return int(sdpa_flop_count(q, k, v))

    def elements(x: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
        return prod(x)

    norm = torch.ops.aten.native_layer_norm
    own = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: fused, norm: elements}
    # inference mode hides operators from the counter; no_grad does not
    with torch.no_grad(), _Seen() as seen_by_us, FlopCounterMode(display=False, custom_mapping=own) as counter:
        forward()
    uncounted = frozenset(str(op) for op in seen_by_us.operators - counter.flop_registry.keys() if _multiplies(op))
    seen = {str(name): amount for name, amount in counter.get_flop_counts().get("Global", {}).items()}
    normalised = seen.pop(str(norm), 0)
    return Operators({name: amount // 2 for name, amount in seen.items()}, normalised, uncounted)


class _Seen(TorchDispatchMode):
    """Lists the operators that run, as the counter inside it has left them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators: set[Any] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operators.add(func._overloadpacket)
        return func(*args, **(kwargs or {}))


def _multiplies(operator: Any) -> bool:
    name = str(operator).rpartition(".")[2]
    return not _PRODUCTS.isdisjoint(name.split("_")) or any(part in name for part in _PRODUCT_PARTS)


def count_operators(forward: Callable[[], object]) -> int:
    """Multiply-accumulates of one call, by torch's operator counter."""
    return operators(forward).macs


def by_operator(backbone: "Classifier", batch: "ClipBatch", pruner: "Pruner") -> dict[str, int]:
    """Multiply-accumulates of one forward by kind of operator, by fvcore's tracer; UsageError where there is none."""
    try:
        from fvcore.nn import FlopCountAnalysis
    except ImportError as error:
        raise UsageError(f"this counter needs fvcore ({error}): pip install 'vpbench[flops]'") from error

    analysis = FlopCountAnalysis(_Traceable(backbone, batch, pruner), (batch.pixels,))
    for name in ("scaled_dot_product_attention", "_scaled_dot_product_flash_attention_for_cpu"):
        analysis.set_op_handle(f"aten::{name}", _fused_attention)
    analysis.unsupported_ops_warnings(False)
    analysis.uncalled_modules_warnings(False)
    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    with torch.no_grad():
        counted = analysis.by_operator()
    return {name: int(macs) for name, macs in counted.items() if name != "layer_norm"}


class _Traceable(torch.nn.Module):
    """A backbone as a function of pixels alone, which is what a tracer can follow."""

    def __init__(self, backbone: "Classifier", batch: "ClipBatch", pruner: "Pruner") -> None:
        super().__init__()
        self.backbone, self.batch, self.pruner = backbone, batch, pruner

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.backbone(replace(self.batch, pixels=pixels), self.pruner).logits


def _fused_attention(inputs: list[Any], outputs: list[Any]) -> int:
    """Two products: queries with keys, weights with values."""
    (batch, heads, queries, width), keys = inputs[0].type().sizes(), inputs[1].type().sizes()[2]
    return int(batch * heads * queries * keys * (width + inputs[2].type().sizes()[3]))


def count_three_ways(backbone: "Classifier", batch: "ClipBatch", pruner: "Pruner") -> Iterator[str]:
    """Yield lines that compare the closed form with both counters, for one clip."""
    with torch.inference_mode():
        out = backbone(batch, pruner)
    attention = tuple(c.attention[0] for c in out.counts)
    closed = out.macs[0] + pruner.macs(attention)
    counted = by_operator(backbone, batch, pruner)
    yield f"tokens per block  {', '.join(map(str, attention))}"
    yield f"closed form       {closed / 1e9:.4f} GMACs"
    yield f"torch's counter   {count_operators(lambda: backbone(batch, pruner)) / 1e9:.4f} GMACs"
    yield f"fvcore            {sum(counted.values()) / 1e9:.4f} GMACs"
    for name, macs in sorted(counted.items(), key=lambda item: -item[1]):
        if macs:
            yield f"  {name:<30} {macs / 1e9:.4f}"
