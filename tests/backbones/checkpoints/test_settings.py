"""Selections in the settings of a run, as YAML and as Python write them; and texts that mean harm."""

from __future__ import annotations

import time

import pytest

from vpbench.backbones.checkpoints.reading import selection

YAML = """
MVIT:
  MLP_RATIO: 4.0
  TIME_LOC:
  - 0
  TIME_RATIO:
  - 0.875
  SPACE_LOC: [4, 8]
  SPACE_RATIO: [0.863, 0.7]
  SPATIAL_SIZE: 224
NUM_GPUS: 8
"""
PYTHON = "model = dict(backbone=dict(type='X', time_ratio=(0.5625, ), time_loc=[\n    0\n], space_ratio=None))"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (YAML, "TIME_LOC 0; TIME_RATIO 0.875; SPACE_LOC 4, 8; SPACE_RATIO 0.863, 0.7"),
        (YAML.replace("\n", "\r\n").replace("\r\n  -", "\n  -"), "SPACE_LOC 4, 8; SPACE_RATIO 0.863, 0.7"),
        (PYTHON, "time_ratio 0.5625; time_loc 0"),
        ("{'time_left_ratio': 0.5}", "time_left_ratio 0.5"),
        ("mlp_ratio: 4.0\nlearning_rate: 1", ""),
        ("time_ratio: !!python/object/apply:os.system [ls]", ""),
        ("", ""),
    ],
)
def test_ratios_are_found(text: str, says: str) -> None:
    assert selection(text).endswith(says)
    assert selection(text).isprintable()


@pytest.mark.parametrize("unit", ["time_ratio", "time_ratio: [", "time_ratio: 1 ", "\n- 1", " ", "[1,", "a:\n- 1"])
def test_hostile_texts_end_soon(unit: str) -> None:
    start = time.perf_counter()
    assert len(selection(unit * 100_000)) < 1000
    assert time.perf_counter() - start < 5  # it takes some 0.05 s
