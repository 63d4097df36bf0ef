"""One tiny backbone of each family that classifies clips."""

from __future__ import annotations

from typing import Any

from conftest import TINY

from vpbench.backbones.huggingface import HuggingFaceConfig, TimeSformerConfig, settings
from vpbench.backbones.mvit import MViTConfig
from vpbench.backbones.videoswin import VideoSwinConfig
from vpbench.backbones.vivit import ViViTConfig
from vpbench.registry import Sizes

MVIT = MViTConfig(
    dim=8,
    depth=6,
    heads=1,
    dim_mul=((1, 2.0), (5, 2.0)),
    head_mul=((1, 2.0), (5, 2.0)),
    pool_q_stride=((1, 1, 2, 2), (5, 1, 2, 2)),
    pool_kv_stride_adaptive=(1, 4, 4),
    height=32,
    width=32,
    classes=5,
)
VIDEOSWIN = VideoSwinConfig(
    dim=8, depths=(2, 2), heads=(1, 2), frames=16, height=32, width=32, window=(4, 3, 3), classes=5
)
VIVIT = ViViTConfig(24, 3, 2, temporal_depth=2, frames=20, height=48, width=48, patch=8, classes=5)
_TINY: dict[str, Any] = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 96}
_PRETRAINING = {"pred_hidden_size": 24, "pred_num_hidden_layers": 1, "pred_num_attention_heads": 2}
_VJEPA2: dict[str, Any] = _PRETRAINING | {"num_hidden_layers": 3, "num_attention_heads": 2, "num_pooler_layers": 2}
#: those of transformers that are one stream, run by its code
WRAPPED: dict[str, Sizes] = {
    "hf_videomae": HuggingFaceConfig("videomae", 16, 32, 32, 5, settings=settings(**_TINY, patch_size=8)),
    "hf_vivit": HuggingFaceConfig("vivit", 16, 32, 32, 5, settings=settings(**_TINY, tubelet_size=[2, 8, 8])),
    "hf_vjepa2": HuggingFaceConfig("vjepa2", 16, 32, 32, 5, settings=settings(**_VJEPA2, hidden_size=32, patch_size=8)),
}
TIMESFORMER = TimeSformerConfig("timesformer", 16, 64, 64, 5, settings=settings(**_TINY, patch_size=8))
CONFIGS: dict[str, Sizes] = {
    "videomae": TINY,
    "vivit": VIVIT,
    "mvit": MVIT,
    "videoswin": VIDEOSWIN,
    **WRAPPED,
    "hf_timesformer": TIMESFORMER,
}
