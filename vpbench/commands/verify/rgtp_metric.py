"""Cases of `kind: "metric"`: average precision of stored detections, no model."""

from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, Field
from torch import Tensor

from vpbench.commands.verify.case import Case
from vpbench.commands.verify.compare import Check, Rule
from vpbench.tasks.detection.boxes import Detections, Truth
from vpbench.tasks.detection.precision import evaluate


class Settings(BaseModel):
    """What `case.json` says; definitions other than ours are refused rather than compared."""

    num_frames: int = Field(gt=0)
    num_classes: int = Field(gt=0)
    iou_threshold: float = Field(ge=0.5, le=0.5)
    recall_points: Literal[101]
    max_detections_per_frame_and_class: Literal[100]


def run(case: Case) -> dict[str, Tensor]:
    """Compute the metrics; raises UsageError for inputs that do not fit together."""
    settings = case.parse(Settings)
    sides = []
    for side in ("gt", "det"):
        boxes = case.given(f"{side}_boxes", torch.float32, (None, 4))
        rows = [case.given(f"{side}_{name}", torch.int64, (len(boxes),)) for name in ("frame", "labels")]
        sides.append((*(row.numpy() for row in rows), boxes.double().numpy()))
    scores = case.given("det_scores", torch.float32, (len(sides[1][0]),)).double().numpy()
    (frame, label, boxes_there), (det_frame, det_label, det_boxes) = sides
    numbers = np.arange(settings.num_frames)
    try:
        truth = Truth(
            settings.num_classes,
            ("case",),
            np.zeros_like(numbers),
            numbers,
            frame,
            label,
            boxes_there,
            -np.ones_like(frame),
        )
        found = evaluate(truth, Detections(det_frame, det_label, scores, det_boxes))
    except ValueError as error:
        raise case.wrong(f"inputs.safetensors: {error}") from error
    return {
        "ap50_per_class": torch.from_numpy(found.ap50_per_class),
        "map50": torch.tensor([found.map50], dtype=torch.float64),
        "map": torch.tensor([found.map], dtype=torch.float64),
    }


def checks(case: Case, ours: dict[str, Tensor]) -> dict[str, Check]:
    """Compare every metric within the case's tolerance."""
    rule = Rule(atol=case.tolerance("atol"))
    return {name: Check(tensor, rule) for name, tensor in ours.items()}
