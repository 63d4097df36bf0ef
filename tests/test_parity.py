"""Our methods against tensors computed with the published implementations; see parity/README.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from vpbench.commands.verify.case import find, load
from vpbench.commands.verify.cases import results_of

CASES = Path(__file__).parent / "parity"


def test_cases_are_there() -> None:
    expected = {
        "rlt": 7,
        "sta": 5,
        "tome": 2,
        "stts-mvit": 6,
        "stts-swin": 4,
        "rgtp-vivit": 3,
        "rgtp-vitdet": 4,
        "eventful": 2,
    }
    assert {method: len(find(CASES / method)) for method in expected} == expected


@pytest.mark.parametrize("folder", find(CASES), ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_case(folder: Path) -> None:
    case = load(folder)
    results = results_of(case)
    assert not [str(result) for result in results if not result.ok]
    assert case.expected.keys() <= {result.name for result in results}
