"""A simple feature pyramid: every level is made from the last map of a plain backbone (arXiv 2203.16527)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each position."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to the same."""
        last = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps)
        return last.permute(0, 3, 1, 2)


class NormedConv(nn.Conv2d):
    """A convolution without bias that keeps the map's size, and a norm over channels."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, eps: float) -> None:
        super().__init__(channels_in, channels_out, kernel, padding=kernel // 2, bias=False)
        self.norm = ChannelNorm(channels_out, eps)

    def forward(self, input: Tensor) -> Tensor:
        """Map `[B, C_in, H, W]` to `[B, C_out, H, W]`."""
        return self.norm(super().forward(input))


class PyramidStage(nn.Sequential):
    """One level from the backbone's map; `scale` is 4, 2, 1 or 0.5. Modules are numbered as published."""

    def __init__(self, dim: int, channels: int, scale: float, eps: float) -> None:
        half, quarter = dim // 2, dim // 4
        layers: dict[float, list[nn.Module]] = {
            4.0: [
                nn.ConvTranspose2d(dim, half, 2, 2),
                ChannelNorm(half, eps),
                nn.GELU(),
                nn.ConvTranspose2d(half, quarter, 2, 2),
            ],
            2.0: [nn.ConvTranspose2d(dim, half, 2, 2)],
            1.0: [],
            0.5: [nn.MaxPool2d(2, 2)],
        }
        width = {4.0: quarter, 2.0: half}.get(scale, dim)
        super().__init__(*layers[scale], NormedConv(width, channels, 1, eps), NormedConv(channels, channels, 3, eps))
