"""Cases of ToMe (arXiv 2210.09461) on VideoMAE."""

from typing import Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from vpbench.commands.verify import merging
from vpbench.commands.verify.case import Case
from vpbench.commands.verify.compare import EXACT, Check, Rule
from vpbench.commands.verify.videomae import Architecture, attach, build, record, video_batch
from vpbench.methods.tome import Tome

ATOL = {"logits": "logits_atol", "pooled": "pooled_atol", "final_tokens": "final_tokens_atol"}


class MethodConfig(BaseModel):
    """What was run; `r_per_block` is what `r` and `r_mode` mean, before the limit of half the tokens."""

    r: int | list[float] | None = None
    r_mode: str = "list"
    r_per_block: list[int]
    prop_attn: bool
    pooling: Literal["size_weighted_mean", "mean"]
    class_token: Literal[False] = Field(default=False)


class Settings(BaseModel):
    """What of `case.json` is read."""

    architecture: Architecture
    method_config: MethodConfig


def run(case: Case) -> dict[str, Tensor]:
    """Compute every tensor that such a case may hold, and `r_per_block` from `r`; raises as `attach` does."""
    settings = case.parse(Settings)
    config = settings.method_config
    model = build(case, settings.architecture)
    method = Tome(
        schedule=merging.schedule(config.r_per_block, model.depth),
        proportional=config.prop_attn,
        weighted_pooling=config.pooling == "size_weighted_mean",
    )
    pruner = attach(case, method, model)
    found = record(model, video_batch(case, model.config), pruner)
    notes = pruner.record or {}
    last = found.blocks[-1]
    clips, tokens = len(last.lengths), model.grid.tokens
    return notes | {
        "logits": found.output.logits,
        "pooled": found.features,
        "final_tokens": last.x.view(clips, last.lengths[0], -1),
        "final_size": merging.sizes(last),
        "final_group": merging.groups(notes, clips, tokens, model.depth),
        "tokens_per_block": found.tokens_per_block,
        "r_per_block": torch.tensor(resolved(config, model.depth)),
    }


def resolved(config: MethodConfig, depth: int) -> list[int]:
    """Return the merges per block that our method derives from `r`; what it does not derive, as it is given."""
    if config.r_mode == "constant" and isinstance(config.r, int):
        return Tome(r=config.r).per_block(depth)
    if config.r_mode == "decreasing" and isinstance(config.r, list) and len(config.r) == 2:
        return Tome(r=int(config.r[0]), inflect=config.r[1]).per_block(depth)
    return config.r_per_block


def checks(case: Case, ours: dict[str, Tensor]) -> dict[str, Check]:
    """Exact but for features and similarities; sources of equal similarity may stand in any order."""
    found = {name: Check(tensor, _rule(case, name)) for name, tensor in ours.items()}
    found["r_per_block"] = Check(
        ours["r_per_block"], theirs=torch.tensor(case.parse(Settings).method_config.r_per_block)
    )
    for name in ours:
        if name.endswith(".src_idx"):
            found |= _sources(case, name.removesuffix("src_idx"), ours)
    return found


def _rule(case: Case, name: str) -> Rule:
    if name in ATOL:
        return Rule(atol=case.tolerance(ATOL[name]))
    return Rule(atol=case.tolerance("node_max_atol")) if name.endswith(".node_max") else EXACT


def _sources(case: Case, block: str, ours: dict[str, Tensor]) -> dict[str, Check]:
    """Align sources, with their partners, where they differ from ours only in the order of near-equal similarities.

    The sum over merged tokens does not depend on that order, and nothing else does.
    """
    source, best = ours[f"{block}src_idx"], ours[f"{block}node_max"]
    theirs = [case.expected.get(f"{block}{name}") for name in ("src_idx", "dst_idx")]
    if any(t is None or t.shape != source.shape for t in theirs):
        return {}
    src, dst = (t for t in theirs if t is not None)
    if not torch.equal(src.sort(dim=1).values, source.sort(dim=1).values):
        return {}
    order = src.argsort(dim=1).gather(1, source.argsort(dim=1).argsort(dim=1))
    gap = (best.gather(1, src) - best.gather(1, source)).abs()
    if gap.max() > case.tolerance("node_max_atol"):
        return {}
    return {
        f"{block}{name}": Check(ours[f"{block}{name}"], theirs=t.gather(1, order))
        for name, t in (("src_idx", src), ("dst_idx", dst))
    }
