"""Fine-tuning a temporal encoder behind a pruned spatial one: the cache on disk, what is trained, what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import clip_folder, vpbench
from torch import Tensor

from vpbench.api import ClipBatch
from vpbench.backbones.checkpoints import files
from vpbench.backbones.vivit import ViViTConfig
from vpbench.backbones.vivit.network import ViViT
from vpbench.commands.train import loop, rgtp_temporal, spatial
from vpbench.commands.train.loop import Job
from vpbench.commands.train.rgtp_temporal import RGTPTemporalRecipe as Recipe
from vpbench.commands.train.rgtp_temporal import RGTPTemporalTraining
from vpbench.commands.train.spatial import Labelled, Outputs, Videos
from vpbench.errors import UsageError, VpbenchError
from vpbench.methods.rgtp import Rgtp

CONFIG = ViViTConfig(16, 2, 2, temporal_depth=1, frames=8, height=32, width=32, patch=8, classes=3)
METHOD = Rgtp(0.3, reset=2)


def video(number: int) -> Labelled | None:
    """Two views of noise; video 5 cannot be read."""
    draw = torch.Generator().manual_seed(number)
    views = torch.randint(256, (2, 8, 32, 32, 3), generator=draw, dtype=torch.uint8)
    return None if number == 5 else (str(number), number % 3, views)


def tiny() -> ViViT:
    torch.manual_seed(0)
    return ViViT(CONFIG).eval().requires_grad_(False)


def doubled(views: Tensor) -> Tensor:
    return views.float().mean(dim=(2, 3))[:, :, :2] * 2


def test_the_cache_holds_every_readable_video_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spatial, "PART", 4)
    seen: list[int] = []

    def read(number: int) -> Labelled | None:
        seen.append(number)
        if len(seen) == 7:
            raise KeyboardInterrupt
        return video(number)

    with pytest.raises(KeyboardInterrupt):
        spatial.build(tmp_path, "a", Videos(10, read), doubled)
    seen[:] = [-1] * 7
    spatial.build(tmp_path, "a", Videos(10, read), doubled)
    assert seen[7:] == [4, 5, 6, 7, 8, 9]
    outputs = spatial.load(tmp_path)
    readable = [found for n in range(10) if (found := video(n)) is not None]
    assert outputs.labels.tolist() == [label for _, label, _ in readable]
    expected = torch.stack([doubled(views) for _, _, views in readable])
    assert torch.equal(torch.cat([part for part, _ in outputs.split(4)]), expected)
    features, labels = outputs.take([8, 0, 3, 4, 8])
    assert torch.equal(features, expected[[8, 0, 3, 4, 8]])
    assert torch.equal(labels, outputs.labels[[8, 0, 3, 4, 8]])


def test_damaged_and_foreign_caches_are_not_trusted(tmp_path: Path) -> None:
    spatial.build(tmp_path, "a", Videos(3, video), doubled)
    [part] = tmp_path.glob("*.safetensors")
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    with pytest.raises(UsageError, match="missing or damaged"):
        spatial.load(tmp_path)
    spatial.build(tmp_path, "a", Videos(3, video), doubled)
    assert len(spatial.load(tmp_path).labels) == 3
    with pytest.raises(UsageError, match="another encoder"):
        spatial.build(tmp_path, "b", Videos(3, video), doubled)
    (tmp_path / "parts.json").write_text("[]")
    with pytest.raises(UsageError, match="not readable"):
        spatial.build(tmp_path, "a", Videos(3, video), doubled)


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(VpbenchError, match="none of the 2 videos"):
        spatial.build(tmp_path, "a", Videos(2, lambda number: None), doubled)


def test_only_what_follows_the_spatial_encoder_is_trained(tmp_path: Path) -> None:
    job = Job("vivit_embedded", "random", METHOD, Recipe(lr=1e-2, batch=4, epochs=3, twice=False), tmp_path)
    model = tiny()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    path = rgtp_temporal.train(job, model, Videos(24, video), Videos(6, video), "noise", "test")
    after = files.read(path).tensors
    moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert moved == {name for name in before if name.startswith(("temporal_", "head."))}
    record = json.loads(path.with_suffix(".json").read_text())
    assert [entry["epoch"] for entry in record["log"]] == [0, 1, 2, 3]
    assert record["log"][3]["loss"] < record["log"][1]["loss"]
    assert record["method"]["keep_ratio"] == 0.3


def test_a_run_killed_in_training_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saved at each step: killed in the middle of the second epoch of three, of three steps each."""
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0.0)

    def run(folder: str) -> Path:
        job = Job(
            "vivit_embedded", "random", METHOD, Recipe(lr=1e-2, batch=4, epochs=3, twice=False), tmp_path / folder
        )
        return rgtp_temporal.train(job, tiny(), Videos(12, video), Videos(6, video), "noise", "test")

    whole, taken, step = run("whole"), [], rgtp_temporal.RGTPTemporalTraining.step

    def dying(training: Any) -> dict[str, float]:
        taken.append(step(training))
        if len(taken) == 5:
            raise KeyboardInterrupt
        return taken[-1]

    monkeypatch.setattr(rgtp_temporal.RGTPTemporalTraining, "step", dying)
    with pytest.raises(KeyboardInterrupt):
        run("killed")
    again = run("killed")
    # the step it died in was not saved
    assert len(taken) == 10
    theirs = files.read(whole).tensors
    for name, tensor in files.read(again).tensors.items():
        assert torch.equal(tensor, theirs[name]), name
    logs = [json.loads(path.with_suffix(".json").read_text())["log"] for path in (whole, again)]
    assert logs[0] == logs[1]


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    def run(epochs: int) -> Path:
        job = Job("vivit_embedded", "random", METHOD, Recipe(lr=1e-2, batch=4, epochs=epochs), tmp_path)
        return rgtp_temporal.train(job, tiny(), Videos(4, video), Videos(4, video), "noise", "test")

    run(1)
    with pytest.raises(UsageError, match="other settings"):
        run(2)
    (tmp_path / "checkpoint.pt").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="no checkpoint"):
        run(1)


def test_views_are_averaged_and_the_loss_may_take_softmax_twice() -> None:
    model = tiny()
    features = torch.randn(2, 3, 4, 16)
    logits = rgtp_temporal.video_logits(model, features)
    each = [model.classify(features[:, view]) for view in range(3)]
    torch.testing.assert_close(logits, torch.stack(each).mean(0))
    labels = torch.tensor([0, 2])
    losses = []
    for twice in (False, True):
        job = Job("", "random", METHOD, Recipe(lr=0.0, batch=2, epochs=1, dropout=0.0, twice=twice), Path())
        training = RGTPTemporalTraining(job, model, Outputs([features], labels), Outputs([features], labels), "")
        losses.append(float(training.losses(features, labels)["loss"].detach()))
    expected = [torch.nn.functional.cross_entropy(x, labels).item() for x in (logits, logits.softmax(-1))]
    assert losses == pytest.approx(expected, rel=1e-5)


def test_cached_outputs_are_the_pruned_encoders(tmp_path: Path) -> None:
    model = tiny()
    encode = rgtp_temporal.encoder(Job("", "", METHOD, Recipe(lr=0, batch=1, epochs=1), tmp_path), model)
    found = video(0)
    assert found is not None
    with torch.inference_mode():
        whole = model(ClipBatch(found[2], ("a", "b")), METHOD.attach(model)).logits
        torch.testing.assert_close(model.classify(encode(found[2])), whole)


def test_the_command_trains_on_videos_of_a_split(tmp_path: Path) -> None:
    root = clip_folder(tmp_path / "clips", good=6)
    done = vpbench(
        *("train", "rgtp-temporal", "--backbone", "vivit_embedded", "--weights", "random", "--set", "keep_ratio=0.2"),
        *("--set", "reset=4", "--root", str(root), "--split", "ci", "--test-split", "ci"),
        *("--threads", "1", "--out", str(tmp_path / "out")),
    )
    assert done.returncode == 0, done.stderr
    assert "fits" in vpbench("checkpoint", "inspect", done.stdout.strip()).stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--backbone", "mvit_embedded"), "no temporal encoder"),
        (("--backbone", "vivit_embedded", "--recipe", "k4000"), "did you mean 'k400'"),
        (("--backbone", "vivit_embedded", "--weights", "random", "--set", "keep=0.1"), "no parameter 'keep'"),
        (("--backbone", "vivit_embedded", "--weights", "random", "--set", "keep_ratio=0.1,0.2"), "one pruning"),
        (("--backbone", "vivit_embedded", "--weights", "random", "--preset", "rgtp/k400"), "did you mean"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = vpbench("train", "rgtp-temporal", *arguments, "--out", str(tmp_path))
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
