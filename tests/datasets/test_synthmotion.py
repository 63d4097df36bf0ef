from __future__ import annotations

import csv
import hashlib
import json
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vpbench import registry
from vpbench.backbones import loading
from vpbench.commands.train.augment import recolour, symmetric
from vpbench.datasets.synthmotion import HERE, SynthMotion
from vpbench.datasets.synthmotion.encode import build_split, decode, encode
from vpbench.datasets.synthmotion.scene import CLASSES, MOVES, render
from vpbench.errors import UsageError


def manifest(folder: str) -> list[dict[str, str]]:
    with (HERE / folder / "manifest.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_clip_depends_on_seed_and_label_alone() -> None:
    one = render(7, 3)
    render(8, 4)
    again = render(7, 3)
    assert np.array_equal(one.frames, again.frames)
    assert np.array_equal(one.targets, again.targets)
    assert not np.array_equal(one.frames, render(8, 3).frames)
    assert one.frames.shape == (32, 64, 64, 3)
    assert one.targets.shape == (8, 8, 8, 7)


@pytest.mark.parametrize("folder", ["clips", "calibration"])
def test_committed_clips_are_what_the_manifest_says(folder: str) -> None:
    rows = manifest(folder)
    for row in rows:
        assert hashlib.sha256((HERE / folder / row["file"]).read_bytes()).hexdigest() == row["sha256"]
        assert CLASSES[int(row["label"])] == row["label_name"]
    assert len(set(Counter(row["label"] for row in rows).values())) == 1
    assert len({row["clip_id"] for row in rows}) == len(rows)


def test_splits_share_no_seed() -> None:
    assert not {r["seed"] for r in manifest("clips")} & {r["seed"] for r in manifest("calibration")}
    assert len(SynthMotion().videos("test")) == 504
    assert [v.video_id for v in SynthMotion().videos("ci")] == [v.video_id for v in SynthMotion().videos("test")][:60]


def test_committed_clips_show_what_the_generator_draws() -> None:
    for row in manifest("clips")[::60]:
        drawn = render(int(row["seed"]), int(row["label"])).frames
        stored = decode((HERE / "clips" / row["file"]).read_bytes())
        error = np.mean((drawn.astype(float) - stored) ** 2)
        # halved chroma costs saturated 64-pixel clips most (23 dB measured); any other clip is below 20 dB
        assert 10 * np.log10(255**2 / error) > 22, row["file"]


def test_encoding_repeats_itself_and_keeps_every_frame() -> None:
    frames = render(1, 0).frames
    content = encode(frames)
    time.sleep(1.1)  # a header with the time of day would differ by now
    assert encode(frames) == content
    assert decode(content).shape == frames.shape


def test_building_a_split_resumes(tmp_path: Path) -> None:
    build_split(tmp_path, "val", 4)
    first = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("*.mp4")}
    (tmp_path / "manifest.csv").unlink()
    (tmp_path / sorted(first)[0]).unlink()
    build_split(tmp_path, "val", 4)
    again = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("*.mp4")}
    assert again.keys() == first.keys()
    assert sum(again[name] == first[name] for name in first) == 3


@pytest.mark.parametrize(
    "content", ["file,label\nx.mp4,0\n", "clip_id,file,label\na,../x.mp4,0\n", "clip_id,file,label\na,x.mp4,99\n"]
)
def test_wrong_manifests_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.csv").write_text(content)
    with pytest.raises(UsageError, match="line 2"):
        SynthMotion(tmp_path).videos("test")


def velocity(label: int) -> tuple[int, int]:
    """Sign of the motion on the screen: x to the right, y down."""
    angle = label * np.pi / 4
    return int(np.sign(round(np.cos(angle), 6))), int(np.sign(round(-np.sin(angle), 6)))


@pytest.mark.parametrize("which", range(16))
@pytest.mark.parametrize("label", range(8))
def test_symmetries_move_label_and_target_together(which: int, label: int) -> None:
    scene = render(11, label)
    pixels, targets, turned = symmetric(
        torch.from_numpy(scene.frames[::2]), torch.from_numpy(scene.targets).float(), label, which
    )
    assert CLASSES[turned] in MOVES
    x, y = (float(targets[..., channel].sum()) for channel in (1, 2))
    for sign, total, other in ((velocity(turned)[0], x, y), (velocity(turned)[1], y, x)):
        if sign:
            assert np.sign(total) == sign
        else:
            assert abs(total) < abs(other) * 0.3
    assert pixels.shape == (16, 64, 64, 3)


@pytest.mark.parametrize(
    ("name", "reversed_name"), [("grow", "shrink"), ("appear", "vanish"), ("hop", "hop"), ("spin", "spin")]
)
def test_time_reversal_renames(name: str, reversed_name: str) -> None:
    pixels, targets = torch.zeros(16, 64, 64, 3, dtype=torch.uint8), torch.ones(8, 8, 8, 7)
    _, turned, label = symmetric(pixels, targets, CLASSES.index(name), 8)
    assert CLASSES[label] == reversed_name
    assert turned[0, 0, 0].tolist() == [1, -1, -1, -1, -1, -1, 1]


def test_recolouring_keeps_shape_and_type() -> None:
    pixels = torch.randint(0, 256, (4, 8, 8, 3), dtype=torch.uint8)
    changed = recolour(pixels, torch.Generator().manual_seed(0))
    assert changed.dtype == torch.uint8
    assert changed.shape == pixels.shape


def test_embedded_weights_are_the_recorded_ones_and_load_strictly() -> None:
    file = registry.backbone("videomae_embedded").weights
    assert file is not None
    assert file.stat().st_size < 10e6
    record = json.loads(file.with_suffix(".json").read_text())
    assert hashlib.sha256(file.read_bytes()).hexdigest() == record["sha256"]
    assert record["test_clips"] == 504
    assert file.with_suffix(".log.jsonl").read_text().count("\n") >= 10
    model = loading.build("videomae_embedded", "embedded", seed=0)
    assert all(torch.equal(v, load_file(file)[k].float()) for k, v in model.state_dict().items())


def test_damaged_weights_are_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "w.safetensors"
    broken.write_bytes(b"\x80\x04code")
    with pytest.raises(UsageError, match="not a readable"):
        loading.build("videomae_embedded", str(broken), seed=0)
    with pytest.raises(UsageError, match="use --backbone videomae_embedded"):
        loading.build("videomae_s", str(registry.backbone("videomae_embedded").weights), seed=0)
