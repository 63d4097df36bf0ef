"""Cases of Eventful Transformers (ICCV 2023) on ViTDet: every gate's tokens, features and counts of every frame."""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import BaseModel, Field, NonNegativeFloat, NonNegativeInt
from torch import Tensor

from vpbench.backbones.checkpoints.reading import load_strictly
from vpbench.backbones.vitdet import HeadConfig, layouts
from vpbench.backbones.vitdet.network import Segments, ViTDet
from vpbench.commands.verify.case import Case, read
from vpbench.commands.verify.compare import EXACT, SETS, Check, Rule
from vpbench.commands.verify.rgtp_vitdet import TransformerSizes, given_frames
from vpbench.methods.eventful import Eventful
from vpbench.methods.eventful.costs import KINDS, Work, published
from vpbench.methods.eventful.pruner import GATES, GatedPruner
from vpbench.tasks.attach import attached

#: how many of a gate's tokens a threshold lets through is up to the frame: shorter sets are filled up with this
NOBODY = -1


class Method(BaseModel):
    """The method's parameters on any backbone, as `case.json` names them."""

    policy: Literal["top_r", "threshold"] = "top_r"
    k: NonNegativeInt = 0
    threshold: NonNegativeFloat = 0.0
    norm_order: Literal[2]
    gate_before_ln: bool
    cast: Literal["float16", "bfloat16"] | None = Field(alias="value_product_cast")

    def method(self, level: str, pool: int = 1) -> Eventful:
        """Return our method with these parameters."""
        return Eventful(
            self.k,
            "top" if self.policy == "top_r" else "threshold",
            self.threshold,
            level,
            pool == 2,
            self.cast or "none",
            self.gate_before_ln,
        )


class FrameMethod(Method):
    """The method's parameters on a detector."""

    pool: Literal[1, 2] = Field(default=1, alias="key_value_pool")
    windowed_level: Literal["tokenwise"]
    global_level: Literal["full", "scores", "tokenwise"]


class Settings(BaseModel):
    """What of `case.json` is read."""

    architecture: TransformerSizes
    method_config: FrameMethod
    segment_starts: tuple[NonNegativeInt, ...] = Field(min_length=1)


def run(case: Case) -> dict[str, Tensor]:
    """Compute every tensor that such a case may hold; raises UsageError for settings that cannot run."""
    settings = case.parse(Settings)
    model, given, starts = build(case, settings), settings.method_config, settings.segment_starts
    method = given.method(given.global_level, given.pool)
    frames = given_frames(case, model.config.side, starts)
    with torch.inference_mode():
        embedded = model.embed(frames)
        found = {"patch_embed": embedded, **watch(case, model, embedded, starts, method)}
        whole = watch(case, model, embedded, starts, replace(method, level="none", policy="top"))
        found |= {f"dense_{name}": each for name, each in whole.items() if name == "features" or "op_counts" in name}
        if "features_float16" in case.expected:
            half = watch(case, model, embedded, starts, replace(method, cast="float16"))
            found["features_float16"] = half["features"]
        every, nothing = (replace(method, k=k, policy="top") for k in (model.config.tokens, 0))
        found["keep_all.features"] = watch(case, model, embedded, starts, every)["features"]
        found["keep_none.features"] = watch(case, model, embedded, starts, nothing)["features"]
    return found


def build(case: Case, settings: Settings) -> ViTDet:
    """Build the detector with the case's weights, which hold a transformer alone; raises UsageError if they misfit."""
    settings.architecture.check(case)
    file = case.folder / "weights.safetensors"
    head = HeadConfig(classes=1, channels=8, fc_dim=8)  # is not run
    model = ViTDet(settings.architecture.config(head)).eval().requires_grad_(False)
    load_strictly(model.net, layouts.transformer(read(file, finite=True), str(file)), str(file))
    return model


def watch(case: Case, model: ViTDet, embedded: Tensor, starts: Sequence[int], method: Eventful) -> dict[str, Tensor]:
    """Run segments of patches `[T, N, D]` one after the other; returns features, sets and counts of all frames."""
    pruner = attached(method, model, case.wrong)
    if not isinstance(pruner, GatedPruner):  # no gates, and nothing else: dense
        frames = [model.forward_frame(each[None], Segments()).output for each in embedded]
        whole = dense(model.net.blocks, model.config.tokens, model.config.dim)
        kinds = whole + Counter({"add": embedded[0].numel()})
        return {"features": torch.cat(frames), **{f"op_counts.00.{kind}": torch.tensor(n) for kind, n in kinds.items()}}
    features, records = [], list[dict[str, Tensor]]()
    for start, end in itertools.pairwise((*starts, len(embedded))):
        pruner.restart()
        for number in range(start, end):
            pruner.record = {}
            features.append(model.run_parts(embedded[number : number + 1], pruner).output[0])
            records.append(pruner.record)
    selected = [sets(record, "", model.depth) for record in records]
    layers, none = range(model.depth), torch.zeros(1)
    keys = [[int(record.get(f"block{layer}.keys", none).sum()) for layer in layers] for record in records]
    return {
        "features": torch.stack(features),
        "selected": filled(selected),
        "keys_updated": torch.tensor(keys),
        **{
            f"op_counts.{number:02}.{kind}": torch.tensor(n)
            for number, record in enumerate(records)
            for kind, n in (counts([record], model.depth) + Counter({"add": embedded[0].numel()})).items()
        },
    }


def counts(records: Sequence[Mapping[str, Tensor]], depth: int, prefixes: Sequence[str] = ("",)) -> Counter[str]:
    """Add up, kind by kind, what the blocks of all items took."""
    own = [r[f"{prefix}block{layer}.counts"].sum(0) for r in records for prefix in prefixes for layer in range(depth)]
    return Counter(dict(zip(KINDS, torch.stack(own).sum(0).tolist(), strict=True)))


def dense(blocks: Iterable[Any], tokens: int, width: int) -> Counter[str]:
    """Count, kind by kind, what blocks (`BlockParts`) take of so many tokens without gates."""
    work = Work(tokens, tokens, tokens, tokens, gated=False)
    return sum((published(block, width, work) for block in blocks), Counter[str]())


def sets(record: Mapping[str, Tensor], prefix: str, depth: int) -> list[Tensor | None]:
    """Return what the gates of all blocks let through, in their order; None where all passed."""
    return [record.get(f"{prefix}block{layer}.{gate}") for layer in range(depth) for gate in GATES]


def filled(selected: Sequence[Sequence[Tensor | None]]) -> Tensor:
    """Return sets of frames as one tensor `[T, L, 3, k]`, short ones filled up, those that are everything as well."""
    most = max((len(own) for frame in selected for own in frame if own is not None), default=0)
    rows = [torch.full((most,), NOBODY) if own is None else own for frame in selected for own in frame]
    padded = [torch.nn.functional.pad(own, (0, most - len(own)), value=NOBODY) for own in rows]
    return torch.stack(padded).view(len(selected), len(selected[0]) // len(GATES), len(GATES), most)


def checks(case: Case, ours: dict[str, Tensor]) -> dict[str, Check]:
    """Sets and counts exactly, features within their tolerance; what keeps all, or nothing, by what it has to be."""
    settings = case.parse(Settings)
    near = Rule(atol=case.tolerance("features_atol"), rtol=case.tolerance("features_rtol"))
    rules = {"selected": SETS, "keys_updated": EXACT}
    found = {name: Check(tensor, rules.get(name, near)) for name, tensor in ours.items() if "." not in name}
    if "features_float16" in case.expected:
        wide = Rule(atol=case.tolerance("features_float16_atol"))
        found["features_float16"] = Check(ours["features_float16"], wide)
    counts = case.settings.get("op_counts")
    if isinstance(counts, dict):
        listed = {f"op_counts.{number:02}": own for number, own in enumerate(counts.get("per_frame", []))}
        found |= counted(ours, {**listed, "dense_op_counts.00": counts.get("dense_frame", {})})
    if {"features", "dense_features", "patch_embed"} <= case.expected.keys():
        found["keep_all.features"] = Check(ours["keep_all.features"], near, case.expected["dense_features"])
        moved = _moved(case.expected["features"], case.expected["patch_embed"], settings.segment_starts)
        found["keep_none.features"] = Check(ours["keep_none.features"], near, moved)
    return found


def counted(ours: Mapping[str, Tensor], theirs: Mapping[str, Mapping[str, Any]]) -> dict[str, Check]:
    """Compare operations by kind, each exactly, under names like `op_counts.03.matmul`."""
    found = {}
    for prefix, own in theirs.items():
        for kind in (kind for kind, count in own.items() if isinstance(count, int)):
            name = f"{prefix}.{kind}"
            found[name] = Check(ours.get(name, torch.tensor(0)), EXACT, torch.tensor(own[kind]))
    return found


def _moved(features: Tensor, embedded: Tensor, starts: Sequence[int]) -> Tensor:
    """Return what comes of frames of which no gate lets anything through: the first one's, and how patches moved."""
    parts = [
        features[start] + embedded[start:end] - embedded[start]
        for start, end in itertools.pairwise((*starts, len(features)))
    ]
    return torch.cat(parts)
