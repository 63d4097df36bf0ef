"""Precisions by their names: what weights are kept in, and what the products of a forward are rounded to."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Precision:
    """`weights`: how parameters are kept; `autocast`: what torch rounds the operands of products to, None: nothing."""

    weights: torch.dtype
    autocast: torch.dtype | None = None

    @property
    def products(self) -> torch.dtype:
        """What queries, keys and values are in."""
        return self.autocast or self.weights


#: the names of `--dtype`; `amp` is what papers and their codes mostly run: torch's autocast over float32 weights
PRECISIONS = {
    "fp32": Precision(torch.float32),
    "bf16": Precision(torch.bfloat16),
    "fp16": Precision(torch.float16),
    "amp": Precision(torch.float32, torch.bfloat16),
    "amp-fp16": Precision(torch.float32, torch.float16),
}
