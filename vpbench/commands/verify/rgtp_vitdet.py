"""Cases of RGTP (ICIP 2025) on ViTDet: every frame's tokens, features, heat map, proposals and boxes."""

import itertools
import re
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from vpbench.api import DENSE, Pruner
from vpbench.backbones.checkpoints.reading import load_strictly
from vpbench.backbones.vitdet import HeadConfig, ViTDetConfig, layouts
from vpbench.backbones.vitdet.network import Segments, ViTDet
from vpbench.commands.verify.case import Case, Sizes, read
from vpbench.commands.verify.compare import EXACT, SETS, Check, Rule
from vpbench.data.protocols.whole import resize, scale_of
from vpbench.methods.rgtp.selection import Split
from vpbench.methods.rgtp.vitdet import VideoPruner

Pair = tuple[PositiveInt, PositiveInt]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_SCORES = re.compile(r"frame\d+\.(scores|objectness)$")
_BOXES = re.compile(r"(frame\d+\.(boxes|proposals)|resized_boxes)$")


class TransformerSizes(Sizes):
    """Sizes of the transformer, as `case.json` names them; what is always the same is checked to be so."""

    input_shape_chw: tuple[Literal[3], PositiveInt, PositiveInt]
    patch_size: Pair
    dim: PositiveInt
    heads: PositiveInt
    mlp_ratio: float = Field(gt=0, allow_inf_nan=False)
    depth: PositiveInt
    windowed: tuple[NonNegativeInt, ...] = Field(alias="window_block_indices")
    window_size: Pair
    position_encoding_grid: Pair
    relative_embedding_size_global: Pair
    eps: float = Field(gt=0, allow_inf_nan=False, alias="layer_norm_eps")
    qkv_bias: Literal[True]
    gelu: Literal["erf"]
    mean: tuple[float, float, float] = Field(alias="pixel_mean")
    std: tuple[float, float, float] = Field(alias="pixel_std")

    def config(self, head: HeadConfig) -> ViTDetConfig:
        """Return the backbone's configuration."""
        return self.into(
            ViTDetConfig,
            side=self.input_shape_chw[1],
            patch=self.patch_size[0],
            window=self.window_size[0],
            positions=self.position_encoding_grid[0],
            global_table=self.relative_embedding_size_global[0],
            head=head,
        )

    @property
    def pairs(self) -> dict[str, tuple[int, int]]:
        """What has to be square."""
        return {
            "input_shape_chw": self.input_shape_chw[1:],
            "patch_size": self.patch_size,
            "window_size": self.window_size,
            "position_encoding_grid": self.position_encoding_grid,
            "relative_embedding_size_global": self.relative_embedding_size_global,
        }

    def check(self, case: Case) -> None:
        """Raise UsageError for what is no square, or cannot be cut into patches or heads."""
        for name, (height, width) in self.pairs.items():
            if height != width:
                raise case.wrong(f"case.json, architecture.{name}: only squares are known, not {height}x{width}")
        for name, odd in {
            "input_shape_chw": self.input_shape_chw[1] % self.patch_size[0],
            "heads": self.dim % self.heads,
        }.items():
            if odd:
                raise case.wrong(f"case.json, architecture.{name}: does not fit the sizes of the model")


class Architecture(TransformerSizes):
    """Sizes of the model: of the transformer, and of what it feeds."""

    classes: PositiveInt
    scales: tuple[PositiveFloat, ...] = Field(min_length=1, alias="pyramid_scale_factors")


class Head(Sizes):
    """Sizes and thresholds of the detection head; what is always the same is checked to be so."""

    channels: PositiveInt
    fc_dim: PositiveInt
    anchor_sizes: tuple[PositiveInt, ...]
    aspect_ratios: tuple[float, ...] = Field(min_length=1)
    strides: tuple[PositiveInt, ...]
    anchor_offset: float = Field(ge=0, le=0)
    pre_nms: PositiveInt = Field(alias="rpn_pre_nms_topk_per_level")
    post_nms: PositiveInt = Field(alias="rpn_post_nms_topk")
    rpn_nms_threshold: Share = Field(alias="rpn_nms_thresh")
    rpn_delta_weights: tuple[Literal[1], Literal[1], Literal[1], Literal[1]]
    rpn_convs: PositiveInt = Field(alias="rpn_num_convs")
    roi_scales: tuple[float, ...]
    pooled: PositiveInt = Field(alias="roi_output_size")
    roi_sampling_ratio: Literal[0]
    roi_aligned: Literal[True]
    canonical_size: float = Field(gt=0, allow_inf_nan=False, alias="roi_canonical_box_size")
    canonical_level: PositiveInt = Field(alias="roi_canonical_level")
    box_convs: PositiveInt = Field(alias="box_head_convs")
    box_weights: tuple[float, float, float, float] = Field(alias="box_delta_weights")
    score_threshold: Share = Field(alias="score_thresh")
    nms_threshold: Share = Field(alias="nms_thresh")
    max_detections: PositiveInt

    def config(self, classes: int) -> HeadConfig:
        """Return the head's configuration."""
        return self.into(HeadConfig, classes=classes)


class Method(BaseModel):
    """What of the method can be set; what is always the same is checked to be so."""

    reset_period: NonNegativeInt
    keep_ratio: float = Field(gt=0, le=1)
    track_radius: NonNegativeInt
    anchor_score_thresh: Share
    rollout_pool: Literal[0, 2]
    head_fusion: Literal["root_mean_square"]
    rollout_layers: Literal["global only"]

    def pruner(self, model: ViTDet) -> VideoPruner:
        """Return the method, attached to a detector."""
        split, pooled = Split(self.keep_ratio), self.rollout_pool == 2
        return VideoPruner(model, split, self.reset_period, self.track_radius, self.anchor_score_thresh, pooled)


class Settings(BaseModel):
    """What of `case.json` is read."""

    architecture: Architecture
    detection_head: Head
    method_config: Method | None
    segment_starts: tuple[NonNegativeInt, ...] = Field(min_length=1)


def run(case: Case) -> dict[str, Tensor]:
    """Compute every tensor that such a case may hold; raises UsageError for settings that cannot run."""
    settings = case.parse(Settings)
    model = build(case, settings)
    side, starts = model.config.side, settings.segment_starts
    frames = given_frames(case, side, starts)
    with torch.inference_mode():
        embedded = model.embed(frames)
        every = model.forward_frame(embedded, Segments()).output
        if settings.method_config is not None:
            pruner: Pruner = settings.method_config.pruner(model)
            return watch(model, frames, starts, pruner) | {"patch_embed": embedded, "dense_features": every}
        found = watch(model, frames, starts, DENSE) | {"patch_embed": embedded} | resized(case, side)
        for form, pooled in (("pooled", True), ("vector", False)):
            keeping = VideoPruner(model, Split(1.0), 0, 1, 0.1, pooled)
            kept = watch(model, frames, starts, keeping)
            found |= {f"keep_all_{form}.{name}": kept[name] for name in kept if name in found}
        return found


def given_frames(case: Case, side: int, starts: Sequence[int]) -> Tensor:
    """Return the frames `[T, H, W, 3]`; raises UsageError for larger ones, and for segments that are none of them."""
    frames = case.given("frames", torch.uint8, (None, 3, None, None)).permute(0, 2, 3, 1)
    if max(frames.shape[1:3]) > side:
        raise case.wrong(f"frames are larger than the model's {side}x{side} pixels")
    if starts[0] != 0 or list(starts) != sorted({n for n in starts if n < len(frames)}):
        raise case.wrong(f"case.json, segment_starts: give frame numbers that rise from 0 to below {len(frames)}")
    return frames


def build(case: Case, settings: Settings) -> ViTDet:
    """Build the detector with the case's weights; raises UsageError if they, or sizes among themselves, do not fit."""
    architecture, head = settings.architecture, settings.detection_head
    architecture.check(case)
    config = architecture.config(head.config(architecture.classes))
    wrong = {
        "architecture.pyramid_scale_factors": not {4.0, 2.0, 1.0, 0.5}.issuperset(config.scales),
        "architecture.input_shape_chw": config.grid % 2,
        "detection_head.strides": head.strides != config.strides,
        "detection_head.anchor_sizes": len(head.anchor_sizes) != len(config.strides),
        "detection_head.roi_scales": head.roi_scales != tuple(1 / stride for stride in config.strides[:-1]),
    }
    for name, odd in wrong.items():
        if odd:
            raise case.wrong(f"case.json, {name}: does not fit the sizes of the model")
    file = case.folder / "weights.safetensors"
    model = ViTDet(config).eval().requires_grad_(False)
    found = layouts.recognise(read(file, finite=True), str(file))
    load_strictly(model, found.tensors, str(file))
    return model


def watch(model: ViTDet, frames: Tensor, starts: tuple[int, ...], pruner: Pruner) -> dict[str, Tensor]:
    """Run segments of frames `[T, H, W, 3]` one after the other; returns tensors of all frames and of each."""
    found: dict[str, Tensor] = {}
    features, counts, notes = [], [], []
    every = torch.arange(model.config.tokens)
    for start, end in itertools.pairwise((*starts, len(frames))):
        segments = Segments()
        pruner.restart()
        for number in range(start, end):
            pruner.record = {}
            frame, detected = model(frames[number : number + 1], segments, pruner)
            record = {name: value[0] for name, value in pruner.record.items()}
            kept = record.pop("kept", every)
            found |= {f"frame{number:02}.kept": kept} | _outcome(model, frame.output, f"frame{number:02}")
            boxes = {"boxes": detected[0].boxes, "scores": detected[0].scores, "labels": detected[0].labels}
            found |= {f"frame{number:02}.{name}": value for name, value in boxes.items()}
            features.append(frame.output[0])
            counts.append(len(kept))
            notes.append(record)
    pruner.record = None
    found |= {name: torch.stack([note[name] for note in notes]) for name in notes[0]}
    return found | {"features": torch.stack(features), "num_kept": torch.tensor(counts)}


def _outcome(model: ViTDet, output: Tensor, prefix: str) -> dict[str, Tensor]:
    """Return the pyramid and the proposals of one frame."""
    levels = model.pyramid(output)
    proposals = model.propose(levels)
    found = {f"{prefix}.p{number}": level[0] for number, level in enumerate(levels, start=2)}
    return found | {f"{prefix}.proposals": proposals.boxes, f"{prefix}.objectness": proposals.objectness}


def resized(case: Case, longest: int) -> dict[str, Tensor]:
    """Resize the raw frame and its boxes, where a case has them."""
    if "raw_frame" not in case.inputs:
        return {}
    raw = case.given("raw_frame", torch.uint8, (3, None, None)).permute(1, 2, 0)
    boxes = case.given("raw_boxes", torch.float32, (None, 4))
    frame = torch.from_numpy(resize(raw.numpy(), longest)).permute(2, 0, 1)
    return {"resized_frame": frame, "resized_boxes": boxes * scale_of(raw.shape[0], raw.shape[1], longest)}


def checks(case: Case, ours: dict[str, Tensor]) -> dict[str, Check]:
    """Sets, labels and masks exactly, boxes, scores, heat maps and features each within their tolerance."""
    found = {}
    for name, tensor in ours.items():
        plain = re.sub(r"^keep_all_\w+?\.", "", name)
        if plain == name or plain in case.expected:  # keeping all is compared with what the case holds for dense frames
            found[name] = Check(tensor, _rule(case, plain, tensor), None if plain == name else case.expected[plain])
    return found


def _rule(case: Case, name: str, tensor: Tensor) -> Rule:
    if name.endswith(".kept"):
        return SETS
    if not tensor.is_floating_point():
        return EXACT
    if name in ("heatmap", "selection_score"):
        return Rule(atol=case.tolerance("heatmap_atol"))
    if _SCORES.match(name):
        return Rule(atol=case.tolerance("scores_atol"))
    if _BOXES.match(name):
        return Rule(atol=case.tolerance("boxes_atol"))
    return Rule(atol=case.tolerance("features_atol"), rtol=case.tolerance("features_rtol"))
