"""Small trees in the layouts of Something-Something V2: its JSON files, old and new, and its videos."""

from __future__ import annotations

import json
from pathlib import Path

from tiny_videos import write_video

#: as in the real file, the numbers are strings
LABELS = {f"Doing {number:03d} to something": str(number) for number in range(174)}
VAL = {"74225": 1, "100904": 0, "137878": 173}
TRAIN = {str(1000 + number): number % 174 for number in range(200)}


def template(label: int) -> str:
    """The class as entries name it: with brackets around what is replaced."""
    return f"Doing {label:03d} to [something]"


def entries(videos: dict[str, int]) -> str:
    """The JSON text of a split."""
    return json.dumps(
        [
            {"id": video, "label": f"doing {label} to a cup", "template": template(label), "placeholders": ["a cup"]}
            for video, label in videos.items()
        ]
    )


def lists(root: Path, *, newer: bool = False) -> Path:
    """Write the official files: beside the videos, or in `labels` as in the newer release."""
    folder, name = (root / "labels", "{}.json") if newer else (root, "something-something-v2-{}.json")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name.format("labels")).write_text(json.dumps(LABELS))
    (folder / name.format("validation")).write_text(entries(VAL))
    (folder / name.format("train")).write_text(entries(TRAIN))
    (folder / name.format("test")).write_text(json.dumps([{"id": "1"}]))
    return root


def build(root: Path) -> Path:
    """Write the official layout with .webm files that decode."""
    lists(root)
    for place, video in enumerate([*VAL, *list(TRAIN)[:4]]):
        write_video(root / "20bn-something-something-v2" / f"{video}.webm", seed=place)
    return root
