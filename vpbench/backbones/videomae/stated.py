"""Sizes of a VideoMAE that no tensor shows, from what is written down beside them; nobody vouches for that either."""

import json
from collections.abc import Mapping
from typing import Any

from vpbench.errors import UsageError

#: eps of the norm before the classifier, which `transformers` leaves at torch's default
_FC_EPS = 1e-5
_ACTIVATIONS = ("gelu", "gelu_python")
#: of a size that is written down twice, what transformers calls it and what it is here
_SIZES = {"num_attention_heads": "heads", "num_frames": "frames"}


def from_transformers(config: Mapping[str, Any], processor: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return sizes from the `config.json` of a `transformers` VideoMAE, and colours from its processor's.

    Raises UsageError for settings that the network here does not have, and for values that are none.
    """
    tinted = colours(processor, where)
    where = f"{where}: its config.json"
    if (channels := config.get("num_channels", 3)) != 3:
        raise UsageError(f"{where} says num_channels {channels}; clips have 3")
    if (activation := config.get("hidden_act", "gelu")) not in _ACTIVATIONS:
        raise UsageError(f"{where} says hidden_act {str(activation)[:40]!r}; only VideoMAEs with gelu are read")
    if config.get("use_mean_pooling", True) is not True:
        raise UsageError(
            f"{where} says use_mean_pooling false: the class is read off the first token, which pruning may drop; only "
            "mean-pooled VideoMAEs are read"
        )
    found: dict[str, Any] = {ours: _whole(config, theirs, where) for theirs, ours in _SIZES.items() if theirs in config}
    if "image_size" in config:
        found["height"], found["width"] = _pair(config, "image_size", where)
    if "layer_norm_eps" in config:
        found["eps"], found["fc_eps"] = _share(config["layer_norm_eps"], f"{where}: layer_norm_eps"), _FC_EPS
    return found | tinted


def from_metadata(text: str, where: str) -> dict[str, Any]:
    """Return sizes from the metadata that `checkpoint convert` writes; raises UsageError for values that are none."""
    where = f"{where}: its metadata 'sizes'"
    try:
        sizes = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(sizes, dict) or "mean" not in sizes:  # written before colours were
        return {}
    found: dict[str, Any] = {name: _whole(sizes, name, where) for name in ("heads", "frames", "height", "width")}
    found |= {name: _three(sizes.get(name), f"{where}: {name}") for name in ("mean", "std")}
    if sizes.get("fc_eps") is not None:
        found["fc_eps"] = _share(sizes["fc_eps"], f"{where}: fc_eps")
    return found


def colours(processor: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return mean and deviation of colours in [0, 1] that frames are normalised with; nothing where none are stated."""
    where = f"{where}: its processor's settings"
    if processor.get("do_normalize", True) is False:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    elif "image_mean" in processor and "image_std" in processor:
        mean, std = (_three(processor[name], f"{where}: {name}") for name in ("image_mean", "image_std"))
        if min(std) <= 0:
            raise UsageError(f"{where}: image_std is {list(std)}; deviations are above 0")
    else:
        return {}
    factor = processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) is not False else 1.0
    scale = 255 * _share(factor, f"{where}: rescale_factor", most=1.0)
    if abs(scale - 1) > 1e-9:  # colours are in [0, scale] there
        mean, std = (_three([each / scale for each in three], where) for three in (mean, std))
    return {"mean": mean, "std": std}


def _whole(values: Mapping[str, Any], name: str, where: str) -> int:
    value = values.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 100_000:
        raise UsageError(f"{where}: {name} is {str(value)[:40]!r}, not a whole number above 0")
    return value


def _pair(values: Mapping[str, Any], name: str, where: str) -> tuple[int, int]:
    value = values[name]
    both = value if isinstance(value, list) and len(value) == 2 else [value, value]
    return _whole({name: both[0]}, name, where), _whole({name: both[1]}, name, where)


def _share(value: Any, where: str, most: float = 0.999) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
        raise UsageError(f"{where} is {str(value)[:40]!r}, not a number above 0")
    return float(value)


def _three(values: Any, where: str) -> tuple[float, float, float]:
    three = values if isinstance(values, list) else [values] * 3
    if len(three) != 3 or not all(isinstance(v, int | float) and -1e3 < v < 1e3 for v in three):
        raise UsageError(f"{where} is {str(values)[:40]!r}, not three numbers")
    return float(three[0]), float(three[1]), float(three[2])
