"""Training of STTS: rates and groups of the published recipes, augmentation, resuming, what the file holds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import construct, vpbench
from torch import Tensor

from vpbench.api import GridBackbone
from vpbench.backbones.checkpoints import files
from vpbench.backbones.mvit import MViTConfig
from vpbench.commands.train import clips, loop, stts
from vpbench.commands.train.augment import _KINDS, erase, rand_augment, resized_crop
from vpbench.commands.train.loop import Batch, Job
from vpbench.commands.train.stts_recipes import RECIPES
from vpbench.commands.train.stts_recipes import STTSRecipe as Recipe
from vpbench.datasets.synthmotion import HERE, SynthMotion
from vpbench.errors import UsageError, VpbenchError
from vpbench.methods.stts import Stts, SttsPruner

MVIT, LITERAL, SWIN = (RECIPES[name] for name in ("mvit", "videoswin_literal", "videoswin"))
QUICK = Recipe(epochs=1, batch=2, lr=1e-2, backbone_lr=1e-3, frozen_epochs=0.5, clip_norm=1.0, sigma_falls=True)
TINY = MViTConfig(
    dim=16,
    depth=2,
    heads=1,
    dim_mul=((1, 2.0),),
    head_mul=((1, 2.0),),
    pool_q_stride=((1, 1, 2, 2),),
    pool_kv_stride_adaptive=(1, 2, 2),
    frames=8,
    height=32,
    width=32,
    patch_stride=(2, 8, 8),
    classes=5,
)


class Noise:
    """Random clips of five classes, in a backbone's size."""

    name, per_epoch = "noise", 8

    def batch(self, number: int) -> Batch:
        draw = torch.Generator().manual_seed(number)
        labels = torch.randint(5, (2,), generator=draw)
        return Batch((torch.randn(2, 8, 32, 32, 3, generator=draw), clips.smoothed(labels, 5, 0.1)), 2)


def tiny(recipe: Recipe) -> GridBackbone:
    torch.manual_seed(0)
    model = construct(replace(TINY, drop_path=recipe.drop_path, dropout=recipe.dropout))
    assert isinstance(model, GridBackbone)
    return model.train()


def run(out: Path, recipe: Recipe = QUICK, steps: int | None = None, method: Stts | None = None) -> dict[str, Tensor]:
    job = Job("mvit_embedded", "random", method or Stts(time="0:2", space="0:3"), recipe, out, steps=steps)
    return files.read(stts.train(job, Noise(), tiny(recipe), "test")).tensors


def test_mvit_rates_are_the_published_ones() -> None:
    assert MVIT.scorer_rate(0) == pytest.approx(1e-4)
    assert MVIT.scorer_rate(10) == pytest.approx(1e-6 + (1e-4 - 1e-6) / 2)
    assert MVIT.scorer_rate(20) == pytest.approx(1e-6)
    assert [MVIT.backbone_rate(epoch) for epoch in (0, 2.99)] == [0, 0]
    assert MVIT.backbone_rate(3) == pytest.approx(1e-5)
    assert MVIT.backbone_rate(19.9) == pytest.approx(MVIT.scorer_rate(19.9))
    assert [MVIT.noise(done) for done in (0, 0.5, 1)] == pytest.approx([0.1, 0.05, 0])


def test_videoswin_rates_are_the_published_ones_or_the_other_way_round() -> None:
    assert LITERAL.backbone_rate(0.8) == pytest.approx(3e-4 * LITERAL.scorer_rate(0.8) / 3e-7)
    assert LITERAL.scorer_rate(0.4) == pytest.approx(1.5e-7)
    assert LITERAL.backbone_rate(5) == pytest.approx(1.5e-4)
    assert LITERAL.backbone_rate(10) == pytest.approx(0)
    assert LITERAL.noise(0.9) == 0.05
    assert SWIN.backbone_rate(1) == 0
    assert SWIN.backbone_rate(5) == pytest.approx(SWIN.scorer_rate(5) / 10)


def test_groups_say_what_is_trained_and_decayed() -> None:
    model = tiny(MVIT)
    pruner = SttsPruner(Stts(time="0:2"), model)
    pruner.scorers.requires_grad_(True)
    found = list(stts.groups(model, pruner, MVIT))
    assert [(g["part"], g["weight_decay"]) for g in found] == [("scorers", 0.05), ("backbone", 0.05), ("backbone", 0.0)]
    spared = {id(p) for p in found[2]["params"]}
    assert {id(model.get_parameter(n)) for n in ("cls_token", "pos_embed_spatial", "norm.weight")} <= spared
    model.requires_grad_(False)
    assert {g["part"] for g in stts.groups(model, pruner, RECIPES["embedded"])} == {"scorers"}


def test_scorers_move_first_and_the_file_loads_with_them(tmp_path: Path) -> None:
    frozen = run(tmp_path / "a", replace(QUICK, frozen_epochs=2))
    before = {name: t.half() for name, t in tiny(QUICK).state_dict().items()}
    assert all(torch.equal(frozen[name], t) for name, t in before.items())
    moved = run(tmp_path / "b")
    assert not torch.equal(moved["blocks.0.mlp.fc1.weight"], before["blocks.0.mlp.fc1.weight"])
    scorers = {name for name in moved if "score_predictor" in name}
    assert scorers
    assert scorers == moved.keys() - before.keys()
    assert any(not torch.equal(moved[name], frozen[name]) for name in scorers)
    record = json.loads((tmp_path / "b" / "mvit_embedded.stts.json").read_text())
    assert record["recipe"]["lr"] == 1e-2
    assert record["steps"] == 8
    model = tiny(QUICK).eval()
    model.addons = {name: moved[name].float() for name in scorers}
    assert SttsPruner(Stts(time="0:3", space="0:2"), model).caveat == ""


def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(QUICK, drop_path=0.3, dropout=0.2)
    whole = run(tmp_path / "whole", recipe)
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0.0)
    real, calls = stts.STTSTraining.step, []

    def stopping(*arguments: object) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(stts.STTSTraining, "step", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", recipe)
    monkeypatch.setattr(stts.STTSTraining, "step", real)
    parts = run(tmp_path / "parts", recipe)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    with pytest.raises(UsageError, match="another --out"):
        run(tmp_path / "parts", QUICK)


def test_a_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(UsageError, match="no checkpoint of this training"):
        run(tmp_path)


def test_augmentation_keeps_size_and_follows_its_generator() -> None:
    frames = torch.randint(256, (4, 48, 64, 3), dtype=torch.uint8)

    def every(seed: int) -> list[Tensor]:
        draw = torch.Generator().manual_seed(seed)
        return [
            resized_crop(frames, 32, (0.08, 1.0), draw),
            erase(frames, 1.0, draw),
            rand_augment(frames, 4, 7.0, 0.5, draw),
        ]

    assert [tuple(t.shape) for t in every(0)] == [(4, 32, 32, 3), (4, 48, 64, 3), (4, 48, 64, 3)]
    assert all(t.dtype == torch.uint8 for t in every(0))
    assert all(torch.equal(a, b) for a, b in zip(every(3), every(3), strict=True))
    assert not torch.equal(every(3)[0], every(4)[0])
    assert torch.equal(erase(frames, 0.0, torch.Generator()), frames)
    assert not torch.equal(every(0)[1], frames)


@pytest.mark.parametrize("which", range(15))
def test_every_operation_of_rand_augment_changes_frames_alike(which: int, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = torch.arange(32 * 32 * 3).view(32, 32, 3).remainder(200).to(torch.uint8)
    monkeypatch.setattr("vpbench.commands.train.augment._KINDS", _KINDS[which : which + 1])
    seeds = (torch.Generator().manual_seed(seed) for seed in range(12))
    found = [rand_augment(torch.stack([frame, frame]), 2, 9.0, 0.0, draw) for draw in seeds]
    assert all(torch.equal(clip[0], clip[1]) for clip in found)
    assert any(not torch.equal(clip[0], frame) for clip in found)


def test_mixing_keeps_probabilities_and_both_ways_occur() -> None:
    pixels, target = torch.rand(4, 2, 16, 16, 3), clips.smoothed(torch.arange(4), 4, 0.1)
    shares = []
    for seed in range(20):
        found, mixed = clips.mixed(pixels, target, MVIT, torch.Generator().manual_seed(seed))
        torch.testing.assert_close(mixed.sum(-1), torch.ones(4))
        cut = ((found == pixels) | (found == pixels.flip(0))).all()
        shares.append(bool(cut))
        if cut:
            own = (found == pixels).all(-1).float().mean(dim=(1, 2, 3))
            torch.testing.assert_close((mixed[0, 0] - 0.025) / 0.9, own[0], atol=1e-5, rtol=0)
    assert set(shares) == {True, False}


def test_batches_of_videos_are_the_same_each_time_and_skip_broken_files(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    videos = SynthMotion().videos("ci")[:3]
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"\0" * 100)
    model = construct(replace(TINY, classes=18))
    assert isinstance(model, GridBackbone)
    recipe = replace(MVIT, batch=4)
    source = clips.VideoClips([*videos, replace(videos[0], path=broken)], model, recipe, "pyav")
    ((pixels, target), count), ((again, _), _) = source.batch(5), source.batch(5)
    assert count == 6
    assert torch.equal(pixels, again)
    assert pixels.shape == (6, 8, 32, 32, 3)
    assert target.shape == (6, 18)
    assert "unreadable, left out" in capfd.readouterr().err
    with pytest.raises(VpbenchError, match="none of the 1 videos"):
        clips.VideoClips([replace(videos[0], path=broken)], model, replace(recipe, batch=1), "pyav").batch(0)


def test_the_command_trains_on_videos_of_a_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # a published batch is 512 clips a step, which takes minutes
    monkeypatch.setitem(RECIPES, "videoswin_literal", replace(LITERAL, batch=2, accumulate=2))
    done = vpbench(
        *("train", "stts", "--backbone", "videoswin_embedded", "--weights", "random", "--recipe", "videoswin_literal"),
        *("--root", str(HERE / "clips"), "--split", "ci", "--steps", "1", "--threads", "1", "--out", str(tmp_path)),
    )
    assert done.returncode == 0, done.stderr
    found = vpbench("flops", "--method", "stts", "--backbone", "videoswin_embedded", "--clip", "--keep", "0.5",
                    "--weights", done.stdout.strip())  # fmt: skip
    assert found.returncode == 0
    assert "untrained" not in found.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--backbone", "videomae_embedded"), "has no grid of tokens"),
        (("--backbone", "mvit_embedded", "--recipe", "mvti"), "did you mean 'mvit'"),
        (("--backbone", "mvit_b_16x4", "--weights", "random"), "400 classes, synthmotion has 18"),
        (("--backbone", "mvit_embedded", "--weights", "random", "--time", "9:0.5"), "blocks are 0 to 6"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = vpbench("train", "stts", *arguments, "--root", str(HERE / "clips"), "--split", "ci", "--out", str(tmp_path))
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
