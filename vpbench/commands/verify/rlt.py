"""Cases of RLT (arXiv 2411.05222) and of the baselines that its code ships: dense, random dropping, token merging."""

from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field, PositiveInt
from torch import Tensor

from vpbench.api import ClipBatch, Method, Pruner, Selection
from vpbench.backbones.videomae.network import MEAN, STD, VideoMAE
from vpbench.commands.verify import merging
from vpbench.commands.verify.case import Case
from vpbench.commands.verify.compare import EXACT, Check, Rule
from vpbench.commands.verify.videomae import Architecture, Recording, attach, build, record
from vpbench.methods.dense import Dense
from vpbench.methods.rlt import Rlt
from vpbench.methods.tome import Tome

# the published code marks the first slot, which has no predecessor, with this score
FIRST_SCORE = 255.0


class MethodConfig(BaseModel):
    """What was run; `tome_r`, where given, is token merging: a count for all blocks, or one for each."""

    drop_policy: Literal["none", "rlt", "random"]
    drop_param: float | None = Field(default=None, allow_inf_nan=False)
    tome_r: int | list[int] | None = None
    encode_length: bool = False


class Input(BaseModel):
    """How frames are laid out and normalised."""

    views_per_video: PositiveInt
    normalize_mean: tuple[float, float, float] = MEAN
    normalize_std: tuple[float, float, float] = STD


class Tolerance(BaseModel):
    """What floats may differ by, and the tensors that have to be equal."""

    atol: float = Field(ge=0, allow_inf_nan=False)
    rtol: float = Field(ge=0, allow_inf_nan=False)
    exact: tuple[str, ...] = ()


class Settings(BaseModel):
    """What of `case.json` is read."""

    arch: Architecture
    method_config: MethodConfig
    input: Input
    tolerance: Tolerance


class Given(Pruner):
    """Keep a selection that is known beforehand."""

    gives_run_lengths = True

    def __init__(self, selection: Selection) -> None:
        self.selection = selection

    def video(self, batch: ClipBatch) -> Selection:
        """Return the selection, whatever the pixels are."""
        return self.selection


def run(case: Case) -> dict[str, Tensor]:
    """Compute every tensor that such a case may hold; raises UsageError for settings that are none of the method."""
    settings = case.parse(Settings)
    if (settings.input.normalize_mean, settings.input.normalize_std) != (MEAN, STD):
        raise case.wrong("case.json, input: frames are normalised with the ImageNet statistics, not with others")
    model = build(case, settings.arch)
    batch = frames(case, settings.input.views_per_video, model)
    pruner = pruner_of(case, settings, model, len(batch.ids))
    found = record(model, batch, pruner)
    views = settings.input.views_per_video
    if settings.method_config.tome_r is not None:
        tensors = tokens_of(found, model) | merged(found, pruner.record or {}) | per_video(found.output.logits, views)
        return tensors | {"pooled": found.pooled, "features": found.features}
    tensors = tokens_of(found, model) | per_video(found.output.logits, views)
    tensors |= {f"block{i}_out": tokens.x for i, tokens in enumerate(found.blocks)}
    tensors |= {name: by_view(x, views) for name, x in (("pooled", found.pooled), ("features", found.features))}
    if pruner.record:
        tensors["scores"] = F.pad(pruner.record["scores"], (0, 0, 0, 0, 1, 0), value=FIRST_SCORE)
        tensors |= with_lengths(model, batch, found, pruner.record["run_lengths"], views)
    return tensors


def checks(case: Case, ours: dict[str, Tensor]) -> dict[str, Check]:
    """Exact where the case lists a name as exact or the tensor holds whole numbers, within its tolerance elsewhere."""
    tolerance = case.parse(Settings).tolerance
    within = Rule(tolerance.atol, tolerance.rtol)
    return {
        name: Check(tensor, within if tensor.is_floating_point() and name not in tolerance.exact else EXACT)
        for name, tensor in ours.items()
    }


def frames(case: Case, views: int, model: VideoMAE) -> ClipBatch:
    """Return all views of all videos as one batch, views of a video one after the other."""
    config = model.config
    found = case.given("frames", torch.uint8, (None, views * config.frames, config.height, config.width, 3))
    ids = tuple(f"{video}/{view}" for video in range(len(found)) for view in range(views))
    return ClipBatch(found.view(-1, config.frames, *found.shape[2:]).contiguous(), ids)


def pruner_of(case: Case, settings: Settings, model: VideoMAE, clips: int) -> Pruner:
    """Return the pruner that the settings name; raises UsageError if they contradict each other."""
    config = settings.method_config
    if settings.arch.run_lengths and (config.drop_policy == "random" or not config.encode_length):
        raise case.wrong("case.json: use_length_embed needs encode_length, and a drop_policy that knows run lengths")
    if config.tome_r is not None:
        if config.drop_policy != "none":
            raise case.wrong("case.json: tome_r goes with drop_policy none")
        per_block = config.tome_r if isinstance(config.tome_r, list) else [config.tome_r] * model.depth
        schedule = merging.schedule(per_block, model.depth)
        return attach(case, Tome(schedule=schedule, proportional=True, weighted_pooling=False), model)
    if config.drop_policy == "none":
        return attach(case, Dense(), model)
    if config.drop_param is None:
        raise case.wrong(f"case.json: drop_policy {config.drop_policy} needs a number as drop_param")
    if config.drop_policy == "random":
        return Given(random_selection(case, config.drop_param, (clips, model.grid.tokens)))
    method: Method = Rlt(config.drop_param)
    return attach(case, method, model)


def random_selection(case: Case, keep: float, shape: tuple[int, int]) -> Selection:
    """Keep the draws strictly below the k-th smallest: the published control keeps one less than the share asked."""
    values = case.given("random_values", torch.float32, shape)
    kth = int(shape[1] * keep)
    if not 2 <= kth <= shape[1]:
        raise case.wrong(f"case.json: drop_param {keep:g} keeps none, or more than all, of {shape[1]} tokens")
    mask = values < values.sort(dim=1).values[:, kth - 1 : kth]
    if not mask.any(dim=1).all():
        raise case.wrong("input 'random_values' keeps no token of some clip")
    return Selection.from_mask(mask)


def tokens_of(found: Recording, model: VideoMAE) -> dict[str, Tensor]:
    """Return what entered block 0: which tokens, how many, and their features."""
    entered = found.entered
    mask = torch.zeros(len(entered.lengths), model.grid.tokens, dtype=torch.uint8)
    for row, kept in zip(mask, entered.split(entered.index), strict=True):
        row[kept] = 1
    counts = torch.tensor(entered.lengths)
    return {"token_mask": mask, "num_tokens": counts, "kept_index": entered.index, "embed": entered.x}


def merged(found: Recording, notes: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a token-merging case, whose clips all have the same number of tokens."""
    clips, tokens = len(found.entered.lengths), found.entered.lengths[0]
    group = merging.groups(notes, clips, tokens, len(found.blocks))
    last = torch.arange(found.blocks[-1].lengths[0])
    tensors = {
        "embed": found.entered.x.view(clips, tokens, -1),
        "tokens_per_block": torch.tensor([block.lengths[0] for block in found.blocks]),
        "source": (group[:, None, :] == last[:, None]).to(torch.uint8),
    }
    for i, block in enumerate(found.blocks):
        tensors[f"block{i}_out"] = block.x.view(clips, block.lengths[0], -1)
        tensors[f"block{i}_size"] = merging.sizes(block)[..., None]
    return tensors


def per_video(logits: Tensor, views: int, suffix: str = "") -> dict[str, Tensor]:
    """Return logits per view `[B, V, classes]`, the mean of their probabilities `[B, classes]`, and its best class."""
    by = by_view(logits, views)
    probs = by.softmax(dim=-1).mean(dim=1)
    return {f"logits{suffix}": by, f"probs{suffix}": probs, f"pred{suffix}": probs.argmax(dim=-1)}


def by_view(rows: Tensor, views: int) -> Tensor:
    """Turn `[B*V, D]` into `[B, V, D]`."""
    return rows.view(-1, views, rows.shape[-1])


def with_lengths(model: VideoMAE, batch: ClipBatch, found: Recording, lengths: Tensor, views: int) -> dict[str, Tensor]:
    """Return run lengths, and what the published code computes with them: it gives them to the wrong tokens.

    It computes lengths in the order (row, column, slot) and adds them to tokens packed in the order (slot, row,
    column). Ours go to their own tokens; the published order is kept as documentation of that difference.
    """
    index = found.entered.index
    places = (index % model.grid.per_slot) * model.grid.slots + index // model.grid.per_slot
    parts = zip(found.entered.split(lengths), found.entered.split(places), strict=True)
    upstream = torch.cat([own[place.argsort()] for own, place in parts])
    tensors: dict[str, Tensor] = {"run_lengths": lengths, "run_lengths_upstream_order": upstream}
    if model.reads_run_lengths:
        clip = torch.arange(len(batch.ids)).repeat_interleave(torch.tensor(found.entered.lengths))
        selection = Selection(index, clip, found.entered.lengths)
        other = record(model, batch, Given(replace(selection, run_lengths=upstream)))
        tensors |= per_video(other.output.logits, views, "_upstream_order")
        tensors["embed_upstream_order"] = other.entered.x
    return tensors
