"""Layers that backbones share."""

from collections.abc import Callable
from types import UnionType
from typing import Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

T = TypeVar("T")
#: tokens that pass an MLP at a time on a CPU
_ROWS = 800


def parts_of(x: Tensor) -> tuple[Tensor, ...]:
    """Cut tokens `[S, C]` into what passes an MLP at a time: on a CPU some rows, whose hidden layer stays in cache.

    Measured on an MLP of ViT-B, one thread: 5 % less time for 1568 tokens, 9 % for 3200. Under autocast each part would
    cast the weights anew, and in compiled code their number would tie it to the number of tokens: both take all rows.
    """
    small = x.device.type == "cpu" and not torch.is_grad_enabled()
    small = small and not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling()
    return x.tensor_split(max(1, -(-x.shape[0] // _ROWS)) if small else 1)


def residual(branch: Tensor, x: Tensor) -> Tensor:
    """Add x to what a branch made of it, in place unless that cuts a gradient or, as under autocast, rounds x."""
    in_place = not torch.is_grad_enabled() and branch.dtype == x.dtype
    return branch.add_(x) if in_place else x + branch


class Derived(Generic[T]):
    """What is made of parameters, kept in evaluation for as long as they stay as they are."""

    def __init__(self, make: Callable[..., T]) -> None:
        self._make = make
        self._state: tuple[object, ...] | None = None

    def __call__(self, *parameters: Tensor, **sizes: int) -> T:
        """Return what `make` makes of these; changes of tensors made in inference mode are not counted by anybody."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or any(each.is_inference() for each in parameters):
            return self._make(*parameters, **sizes)
        state = (sizes, *((t.device, t.dtype, t.shape, t.data_ptr(), t._version) for t in parameters))
        if self._state != state:
            self._state, self._found = state, self._make(*parameters, **sizes)
        return self._found


class Mlp(nn.Module):
    """Two linear layers with the exact (erf) GELU between them."""

    def __init__(self, dim: int, hidden: int, dim_out: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `[S, C]` to `[S, C_out]`."""
        hidden = self.fc1(x)
        return self.fc2(F.gelu(hidden) if torch.is_grad_enabled() else torch.ops.aten.gelu_(hidden))


def drop_path(branch: Tensor, rate: float, training: bool) -> Tensor:
    """Drop a residual branch `[B, ...]` of each clip with probability `rate`, and scale up the others, in training."""
    if not training or rate == 0:
        return branch
    keep = torch.rand(branch.shape[0], *[1] * (branch.ndim - 1), device=branch.device) >= rate
    return branch * keep / (1 - rate)


def drop_packed(branch: Tensor, lengths: tuple[int, ...], rate: float) -> Tensor:
    """Do as `drop_path` in training, for the packed branch `[S, C]` of sequences that are so long."""
    keep = torch.rand(len(lengths), device=branch.device) >= rate
    share = (keep / (1 - rate)).to(branch.dtype)
    return (
        branch * share.repeat_interleave(torch.tensor(lengths, device=branch.device), output_size=len(branch))[:, None]
    )


def drop_rates(last: float, depth: int) -> list[float]:
    """Return the rate of each block, rising linearly from 0 to `last`."""
    return [last * number / max(depth - 1, 1) for number in range(depth)]


def initialise(module: nn.Module, kinds: type[nn.Linear] | UnionType = nn.Linear) -> None:
    """Draw a layer of these kinds as the published training runs start: truncated normal 0.02, bias 0."""
    if isinstance(module, kinds):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
