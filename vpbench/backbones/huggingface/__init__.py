"""Video classifiers of `transformers`, run by its own modules. Loads neither it nor torch: listing is instant."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from vpbench.registry import Entry

# ImageNet statistics: what is taken where no processor's settings lie beside the weights.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
#: what transformers calls the frames and the side of a clip, by the type of its model
FRAMES = {"videomae": "num_frames", "vivit": "num_frames", "timesformer": "num_frames", "vjepa2": "frames_per_clip"}
SIDE = {"videomae": "image_size", "vivit": "image_size", "timesformer": "image_size", "vjepa2": "crop_size"}


@dataclass(frozen=True)
class HuggingFaceConfig:
    """Sizes of a video classifier of `transformers`.

    `settings`: what else its own configuration is made with, as JSON, so that sizes can be compared and written down.
    `stride`: between frames of a clip, which no configuration states. `mean`, `std`: of the colours in [0, 1].
    `any_size`: of an entry that takes folders of any size.
    """

    model_type: str
    frames: int
    height: int
    width: int
    classes: int = 400
    stride: int = 4
    settings: str = "{}"
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD
    any_size: bool = False

    def keywords(self) -> dict[str, Any]:
        """Return what the library's own configuration of this type is made with."""
        side: Any = self.height if self.height == self.width else [self.height, self.width]
        given: dict[str, Any] = json.loads(self.settings)
        return given | {FRAMES[self.model_type]: self.frames, SIDE[self.model_type]: side, "num_labels": self.classes}


@dataclass(frozen=True)
class TimeSformerConfig(HuggingFaceConfig):
    """Sizes of the one whose tokens are a grid."""


#: types whose sizes are a class of their own, since their tokens flow otherwise
CLASSES: dict[str, type[HuggingFaceConfig]] = {"timesformer": TimeSformerConfig}


def settings(**given: Any) -> str:
    """Return settings as `HuggingFaceConfig` keeps them."""
    return json.dumps(given, sort_keys=True)


_TINY: dict[str, Any] = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 96}
_PRETRAINING = {"pred_hidden_size": 24, "pred_num_hidden_layers": 1, "pred_num_attention_heads": 2}
_VJEPA2: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "num_pooler_layers": 2}
TINY: dict[str, HuggingFaceConfig] = {
    "videomae": HuggingFaceConfig("videomae", 16, 32, 32, 5, settings=settings(**_TINY, patch_size=8)),
    "vivit": HuggingFaceConfig("vivit", 16, 32, 32, 5, settings=settings(**_TINY, tubelet_size=[2, 8, 8])),
    "vjepa2": HuggingFaceConfig("vjepa2", 16, 32, 32, 5, settings=settings(**_PRETRAINING, **_VJEPA2, patch_size=8)),
    "timesformer": TimeSformerConfig("timesformer", 16, 64, 64, 5, settings=settings(**_TINY, patch_size=8)),
}


def _entry(summary: str, sizes: HuggingFaceConfig, **more: Any) -> Entry:
    grid = sizes.model_type == "timesformer"
    module = f"{__name__}.{'timesformer:TimeSformer' if grid else 'network:wrapped'}"
    found: Mapping[str, Any] = {
        "flow": "grid" if grid else "stream", "build": module, "protocol": "videomae_5x3",
        "layouts": f"{__name__}.layouts", "needs": "hf", "tiny": TINY.get(sizes.model_type),
    }  # fmt: skip
    return Entry(summary, sizes, **{**found, **more})


VIDEOMAE_B = HuggingFaceConfig("videomae", 16, 224, 224)
VIVIT_B = HuggingFaceConfig("vivit", 32, 224, 224, stride=2)
TIMESFORMER_B = TimeSformerConfig("timesformer", 8, 224, 224, stride=32)
VJEPA2_L = HuggingFaceConfig("vjepa2", 16, 256, 256, classes=174)
VJEPA2_L_64 = HuggingFaceConfig("vjepa2", 64, 256, 256)
_FOLDER = "by transformers' code, of the sizes in the config.json of a folder (--backbone hf finds the type out)"
_TYPES = (
    ("VideoMAE", VIDEOMAE_B),
    ("ViViT, joint attention,", VIVIT_B),
    ("TimeSformer", TIMESFORMER_B),
    ("V-JEPA 2", VJEPA2_L),
)
ENTRIES: dict[str, Entry] = {
    "hf": _entry(
        "the video classifier in a folder of transformers, by its code: --weights FOLDER or org/name",
        HuggingFaceConfig("", 16, 224, 224),
    ),
    **{f"hf_{sizes.model_type}": _entry(f"{name} {_FOLDER}", replace(sizes, any_size=True)) for name, sizes in _TYPES},
    "hf_videomae_b": _entry("VideoMAE ViT-B by transformers' code, 16x224x224, 1568 tokens", VIDEOMAE_B),
    "hf_vivit_b": _entry("ViViT-B, joint attention, by transformers' code, 32x224x224, 3136 tokens", VIVIT_B),
    "hf_timesformer_b": _entry("TimeSformer-B by transformers' code, 8x224x224, 1568 tokens", TIMESFORMER_B),
    "hf_vjepa2_l": _entry("V-JEPA 2 ViT-L by transformers' code, 16x256x256, 2048 tokens", VJEPA2_L),
    "hf_vjepa2_l_64f": _entry("V-JEPA 2 ViT-L by transformers' code, 64x256x256, 8192 tokens", VJEPA2_L_64),
}
