"""Heat maps of values per token, laid over frames. Knows no torch."""

import numpy as np
from numpy.typing import NDArray

from vpbench.render.pictures.draw import Pixels

Floats = NDArray[np.float32]
#: corners of matplotlib's colour map `jet`: position and value, channel by channel
_JET = (
    ((0.0, 0.35, 0.66, 0.89, 1.0), (0.0, 0.0, 1.0, 1.0, 0.5)),
    ((0.0, 0.125, 0.375, 0.64, 0.91, 1.0), (0.0, 0.0, 1.0, 1.0, 0.0, 0.0)),
    ((0.0, 0.11, 0.34, 0.65, 1.0), (0.5, 1.0, 1.0, 0.0, 0.0)),
)
#: where a token has no value
_NO_VALUE = np.array((190, 190, 190), np.float64)


def overlay(frames: Pixels, values: Floats, *, per_frame: bool = False) -> Pixels:
    """Mix frames `[n, H, W, 3]`, one per slot, half and half with the heat of their tokens `[n, rows, columns]`.

    Values are scaled from lowest to highest of the clip, or of each frame; all equal ones are cold. Maps are enlarged
    linearly. Tokens whose value is NaN are grey.
    """
    heat = enlarged(scaled(values, per_frame=per_frame), *frames.shape[1:3])
    known = (
        np.isfinite(values).repeat(frames.shape[1] // values.shape[1], 1).repeat(frames.shape[2] // values.shape[2], 2)
    )
    colour = np.where(known[..., None], jet(np.nan_to_num(heat)), _NO_VALUE)
    return (0.5 * frames + 0.5 * colour).round().astype(np.uint8)


def scaled(values: Floats, *, per_frame: bool = False) -> Floats:
    """Bring values `[n, rows, columns]` to [0, 1], over all or frame by frame; all equal ones become 0."""
    if per_frame:
        return np.stack([scaled(each[None])[0] for each in values])
    known = values[np.isfinite(values)]
    low, high = (known.min(), known.max()) if known.size else (0.0, 0.0)
    if high == low:
        return np.where(np.isnan(values), values, np.float32(0))
    return ((values - low) / (high - low)).astype(np.float32)


def enlarged(maps: Floats, height: int, width: int) -> NDArray[np.float64]:
    """Enlarge maps `[n, rows, columns]` to `[n, height, width]`, linearly between the middles of tokens.

    What is NaN takes no part; where only such tokens are near, the result is NaN.
    """
    known = np.isfinite(maps).astype(np.float64)
    down, across = _weights(maps.shape[1], height), _weights(maps.shape[2], width)
    total = down @ np.nan_to_num(maps).astype(np.float64) @ across.T
    share = down @ known @ across.T
    return np.divide(total, share, out=np.full(total.shape, np.nan), where=share > 0)


def jet(heat: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the colours `[..., 3]`, 0 to 255, of values in [0, 1]."""
    return 255 * np.stack([np.interp(heat, *corners) for corners in _JET], axis=-1)


def _weights(old: int, new: int) -> NDArray[np.float64]:
    """Return how much each of `old` cells counts at each of `new` positions, `[new, old]`; corners are not aligned."""
    at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, old - 1)
    weights = np.zeros((new, old))
    np.add.at(weights, (np.arange(new), low), 1 - (at - low))
    np.add.at(weights, (np.arange(new), high), at - low)
    return weights
