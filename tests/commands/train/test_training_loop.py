"""Every recipe: a stopped and resumed run ends with the weights of a whole one, and a foreign checkpoint is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import construct
from torch import Tensor

from vpbench import registry
from vpbench.backbones.mvit import MViTConfig
from vpbench.backbones.mvit.network import MViT
from vpbench.backbones.vivit import ViViTConfig
from vpbench.backbones.vivit.network import ViViT
from vpbench.commands.train import finetune, loop, rgtp_temporal, stts
from vpbench.commands.train.clips import smoothed
from vpbench.commands.train.embedded import ClassifierTraining, grid, videomae, vitdet, vivit
from vpbench.commands.train.finetune_recipes import FinetuneRecipe
from vpbench.commands.train.loop import Batch, Job
from vpbench.commands.train.rgtp_temporal import RGTPTemporalRecipe, RGTPTemporalTraining
from vpbench.commands.train.spatial import Labelled, Videos
from vpbench.commands.train.stts_recipes import STTSRecipe
from vpbench.datasets.synthmotion import HERE, SynthMotion
from vpbench.datasets.synthmotion_boxes import SynthMotionBoxes
from vpbench.errors import UsageError
from vpbench.methods.rgtp import Rgtp
from vpbench.methods.stts import Stts

#: arrays of generated clips, of which there are so many in each split
CLIPS = 6
STEPS = 3
QUICK = {"steps": STEPS, "batch": 2, "train_clips": CLIPS, "val_clips": CLIPS, "warm_up": 2}


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder of arrays as the generated clips have them, filled with noise."""
    cache, draw = tmp_path_factory.mktemp("cache"), np.random.default_rng(0)
    (cache / "synthmotion").mkdir()
    corner = draw.uniform(0, 40, (CLIPS, 16, 4, 2))
    arrays = {
        "frames": draw.integers(0, 256, (CLIPS, 16, 64, 64, 3), np.uint8),
        "targets": draw.random((CLIPS, 8, 8, 8, 7)).astype(np.float16),
        "labels": np.arange(CLIPS),
        "boxes": np.concatenate([corner, corner + 20], axis=-1).astype(np.float32),
        "shapes": draw.integers(-1, 6, (CLIPS, 16, 4)),
    }
    for split in ("train", "val"):
        for name, array in arrays.items():
            np.save(cache / "synthmotion" / f"{split}-{CLIPS}-{name}.npy", array)
    return cache


@pytest.fixture(autouse=True)
def small(noise: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Little to train and to test on; saved at each step."""
    monkeypatch.setenv("VPBENCH_CACHE", str(noise))
    for source in (SynthMotion, SynthMotionBoxes):
        monkeypatch.setattr(source, "videos", lambda self, split, videos=source.videos: videos(self, split)[:1])
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0.0)
    for module, name, dim in (
        (videomae, "VIDEOMAE_EMBEDDED", 48),
        (vivit, "VIVIT_EMBEDDED", 48),
        (vitdet, "VITDET_EMBEDDED", 32),
    ):
        monkeypatch.setattr(module, name, replace(getattr(module, name), dim=dim))
    for name in grid.names():
        entry = registry.backbone(name)
        narrow = replace(entry.sizes, dim=24)
        monkeypatch.setitem(registry.entries(), name, replace(entry, sizes=narrow))


class Noise:
    """Random clips of five classes, for STTS."""

    per_epoch = 8

    def __init__(self, name: str = "noise") -> None:
        self.name = name

    def batch(self, number: int) -> Batch:
        draw = torch.Generator().manual_seed(number)
        labels = torch.randint(5, (2,), generator=draw)
        return Batch((torch.randn(2, 8, 32, 32, 3, generator=draw), smoothed(labels, 5, 0.1)), 2)


def views(number: int) -> Labelled | None:
    draw = torch.Generator().manual_seed(number)
    return str(number), number % 3, torch.randint(256, (1, 8, 32, 32, 3), generator=draw, dtype=torch.uint8)


def scorers(out: Path, source: Noise | None = None, weights: str = "random", **changes: Any) -> Path:
    pooled = {"pool_q_stride": ((1, 1, 2, 2),), "pool_kv_stride_adaptive": (1, 2, 2), "patch_stride": (2, 8, 8)}
    widths = {"dim_mul": ((1, 2.0),), "head_mul": ((1, 2.0),), "frames": 8, "height": 32, "width": 32}
    recipe = STTSRecipe(epochs=1, batch=2, lr=1e-2, backbone_lr=1e-3, clip_norm=1.0, sigma_falls=True, seed=3)
    recipe = replace(recipe, frozen_epochs=0.5, accumulate=2, drop_path=0.3, dropout=0.2)
    torch.manual_seed(0)
    config = MViTConfig(dim=16, depth=2, heads=1, classes=5, **pooled, **widths, drop_path=0.3, dropout=0.2)  # type: ignore[arg-type]
    model = construct(config)
    assert isinstance(model, MViT)
    method = Stts(time=changes.pop("time", "0:2"))
    job = Job("mvit_embedded", weights, method, replace(recipe, **changes), out, steps=STEPS)
    return stts.train(job, source or Noise(), model.train(), "test")


def temporal(out: Path, names: str = "noise", keep_ratio: float = 0.3, **changes: Any) -> Path:
    torch.manual_seed(0)
    config = ViViTConfig(16, 2, 2, temporal_depth=1, frames=8, height=32, width=32, patch=8, classes=3)
    model = ViViT(config).eval().requires_grad_(False)
    recipe = replace(RGTPTemporalRecipe(lr=1e-2, batch=4, epochs=2, twice=False), **changes)
    job = Job("vivit_embedded", "random", Rgtp(keep_ratio, reset=2), recipe, out)
    return rgtp_temporal.train(job, model, Videos(7, views), Videos(4, views), names, "test")


@dataclass(frozen=True)
class Case:
    """A training of `STEPS` steps into a folder, with some numbers of its recipe changed."""

    train: Callable[..., Path]
    kind: type[loop.Training[Any, Any, Any]]


def embedded(train: Callable[..., Path], recipe: Any) -> Callable[..., Path]:
    return lambda out, **changes: train(replace(recipe, **changes), out, "test")


def on_grid(backbone: str) -> Callable[..., Path]:
    return embedded(lambda *given: grid.train(backbone, *given), grid.GridRecipe(**QUICK))  # type: ignore[arg-type]


def finetuned(out: Path, **changes: Any) -> Path:
    recipe = FinetuneRecipe(lr=1e-2, batch=2, epochs=1, clip_norm=1.0, drop_path=0.3, dropout=0.2, mixup=0.8, ema=0.9)
    root = HERE / "clips"
    asked = finetune.Asked("videomae_embedded", "random", "random", {"keep": 0.5}, None, "r", "synthmotion", "ci", root)
    return loop.run(finetune.prepared(asked, replace(recipe, **changes), out, "cpu", STEPS), "test")


CASES = {
    "videomae": Case(embedded(videomae.train, videomae.VideoMAERecipe(**QUICK)), ClassifierTraining),  # type: ignore[arg-type]
    "vivit": Case(embedded(vivit.train, vivit.ViViTRecipe(**QUICK)), ClassifierTraining),  # type: ignore[arg-type]
    "mvit": Case(on_grid("mvit_embedded"), ClassifierTraining),
    "videoswin": Case(on_grid("videoswin_embedded"), ClassifierTraining),
    "vitdet": Case(embedded(vitdet.train, vitdet.ViTDetRecipe(**QUICK)), vitdet.DetectorTraining),  # type: ignore[arg-type]
    "stts": Case(scorers, stts.STTSTraining),
    "rgtp_temporal": Case(temporal, RGTPTemporalTraining),
    "finetune": Case(finetuned, finetune.Finetuning),
}


def stopped(case: Case, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run into Ctrl-C in the second step, when weights have moved but the step is not counted."""
    real = case.kind.step

    def stopping(self: Any) -> dict[str, float]:
        losses = real(self)
        if self.state.step == 1:
            raise KeyboardInterrupt
        return losses

    with monkeypatch.context() as patch:
        patch.setattr(case.kind, "step", stopping)
        with pytest.raises(KeyboardInterrupt):
            case.train(out)


def left(path: Path) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Return all that was trained, in full precision, and the log without times."""
    content = torch.load(path.parent / "checkpoint.pt", weights_only=True)
    tensors = {f"{part}.{name}": t for part in ("model", "extra", "average") for name, t in content[part].items()}
    for number, optimizer in enumerate(content["optimizers"]):
        moments = [(f"{number}.{p}.{name}", t) for p, each in optimizer["state"].items() for name, t in each.items()]
        tensors |= dict(moments)
    lines = next(path.parent.glob("*.log.jsonl")).read_text().splitlines()
    times = ("cpu_s", "wall_s", "seconds", "clips_per_s")
    return tensors, [{k: v for k, v in json.loads(line).items() if k not in times} for line in lines]


@pytest.mark.parametrize("name", CASES)
def test_a_resumed_run_is_a_whole_one_and_another_recipe_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    case = CASES[name]
    whole, whole_log = left(case.train(tmp_path / "whole"))
    stopped(case, tmp_path / "parts", monkeypatch)
    with pytest.raises(UsageError, match=r"other settings; give another --out$"):
        case.train(tmp_path / "parts", seed=1)
    capfd.readouterr()
    parts, parts_log = left(case.train(tmp_path / "parts"))
    assert "resuming at step 1\n" in capfd.readouterr().err
    assert parts.keys() == whole.keys()
    assert [key for key in whole if not torch.equal(whole[key], parts[key])] == []
    assert parts_log == whole_log


@pytest.mark.parametrize("changed", [{"source": Noise("others")}, {"time": "0:3"}, {"weights": "embedded"}])
def test_scorers_of_other_data_method_or_weights_are_refused(changed: dict[str, Any], tmp_path: Path) -> None:
    scorers(tmp_path)
    with pytest.raises(UsageError, match="other settings"):
        scorers(tmp_path, **changed)


def test_a_kill_while_writing_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, written = torch.save, []

    def dying(content: Any, path: Path) -> None:
        written.append(path)
        if len(written) == 2:
            path.write_bytes(b"half")
            raise KeyboardInterrupt
        real(content, path)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", dying)
        with pytest.raises(KeyboardInterrupt):
            scorers(tmp_path / "parts")
    parts, whole = left(scorers(tmp_path / "parts"))[0], left(scorers(tmp_path / "whole"))[0]
    assert [key for key in whole if not torch.equal(whole[key], parts[key])] == []
