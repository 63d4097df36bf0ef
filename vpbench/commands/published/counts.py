"""What settings of published figures cost here.

To count one builds its network and takes most of a second, so counts are kept in a file, each with the code that it was
made by; one made by other code, or of a setting that is not there, is counted anew. A test counts all of them anew.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from vpbench import plan, registry
from vpbench.plan import identity
from vpbench.rows.published import VIEWS, Figure

if TYPE_CHECKING:
    from vpbench.api import Classifier
    from vpbench.backbones.vitdet.network import ViTDet

#: counted in the figure's convention, and in ours; None where the count follows the content of clips
Pair = tuple[float | None, float | None]
Kept = dict[str, Pair]
FILE = Path(__file__).with_suffix(".json")


def stored() -> Kept:
    """Return the counts that come with the package."""
    return {key: (first, second) for key, (first, second) in json.loads(FILE.read_text(encoding="utf-8")).items()}


class Counter:
    """Counts settings that are not known yet, and adds them; networks are built on the meta device, and stay."""

    def __init__(self, known: Kept) -> None:
        self.known = known
        self._models: dict[plan.Setting, Classifier] = {}
        self._detectors: dict[plan.Setting, ViTDet] = {}
        self._code: dict[str, str] = {}

    def count(self, cell: plan.Cell, figure: Figure) -> Pair:
        """Return the GMACs of a cell in the figure's convention and in ours, per view, video or frame as it says."""
        way, whole = figure.convention or "fvcore", figure.metric == "gmacs_per_video"
        key = self._key(cell, way, whole)
        if key not in self.known:
            detects = registry.backbone(cell.setting.backbone).task == "detection"
            found = self._frames(cell) if detects else self._clip(cell, way)
            times = (VIEWS if whole else 1) / 1e9
            self.known[key] = (found[0] and found[0] * times, found[1] and found[1] * times)
        return self.known[key]

    def _key(self, cell: plan.Cell, way: str, whole: bool) -> str:
        """Name a setting, and the code that counts it: the method's, and `NUMBERS` for all that methods share."""
        if cell.method not in self._code:
            self._code[cell.method] = identity.code_digest(cell.method)[:12]
        unit = "video" if whole else "view"
        return f"{cell.setting.backbone} {cell.label}, {way} {unit} {self._code[cell.method]}.{identity.NUMBERS}"

    def _frames(self, cell: plan.Cell) -> tuple[float | None, float | None]:
        from vpbench.tasks.detection import count as count_frames

        if cell.setting not in self._detectors:
            self._detectors[cell.setting] = count_frames.detector(cell.setting)
        if count_frames.follows_content(self._detectors[cell.setting], cell):
            return None, None
        mean = count_frames.counts(self._detectors[cell.setting], cell).mean
        return (None, None) if mean is None else (mean.rgtp, mean.ours)

    def _clip(self, cell: plan.Cell, way: str) -> tuple[float | None, float | None]:
        from vpbench.tasks.recognition import count

        if cell.setting not in self._models:
            self._models[cell.setting] = count.backbone(cell.setting)
        found = count.counts(self._models[cell.setting], cell, (), "torch" if way == "mmcv" else None)
        if not found:
            return None, None  # the count follows the content of clips
        return {"fvcore": found[0].published_macs, "mmcv": found[0].mmcv, "rgtp": found[0].rgtp}[way], found[0].macs
