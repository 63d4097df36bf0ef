"""Fine-tuning with a method: gradients against plain torch, recipes, what is refused, what a stopped run leaves."""

from __future__ import annotations

import copy
import errno
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import plain_vit
import pytest
import torch
import torch.nn.functional as F
from helpers import PLAIN, add_backbone, add_broken, clip_folder, construct, vpbench
from noise_clips import CLASSES, PLAIN_RECIPE, Noise, tiny, training
from tiny_backbones import CONFIGS, VIVIT
from torch import Tensor

from vpbench import registry
from vpbench.api import Clip, ClipBatch, Pruner, Selection
from vpbench.api.method import load_method
from vpbench.api.pruner import Trace
from vpbench.api.tokens import Tokens
from vpbench.backbones import loading
from vpbench.backbones.checkpoints import files
from vpbench.commands.train import finetune, loop
from vpbench.commands.train.clips import Ahead, smoothed
from vpbench.commands.train.finetune import Finetuning
from vpbench.commands.train.loop import Batch
from vpbench.datasets.synthmotion import HERE
from vpbench.errors import VpbenchError
from vpbench.methods.rlt import Rlt
from vpbench.methods.tdiff import Tdiff

TRAINED = [name for name in PLAIN if not load_method(name).untrainable]


def stepwise() -> list[str]:
    """Name the methods that train a network which encodes steps one by one, as they come."""
    model = construct(VIVIT)
    found = []
    for name in registry.names("methods"):
        kind = load_method(name)
        if "steps" in kind.flows and not kind.untrainable and not kind().supports(model):
            found += [] if model.refuses(kind().attach(model)) else [name]
    assert {"random", "rlt", "tome", "rgtp"} <= {*found}
    return found


def calibration() -> list[Clip]:
    draw = torch.Generator().manual_seed(7)
    pixels = torch.randint(256, (16, 32, 32, 3), generator=draw, dtype=torch.uint8).numpy()
    return [Clip("c", "c", 0, 0, pixels)]


def gradients(run: Finetuning, number: int = 0) -> tuple[float, dict[str, Tensor]]:
    """Return the loss of a batch and all gradients."""
    losses = run.losses(*run.batch(number).given)
    losses["loss"].backward()
    return float(losses["loss"].detach()), {
        n: p.grad for n, p in run.state.model.named_parameters() if p.grad is not None
    }


def plain(model: Any, pruner: Pruner, pixels: Tensor, name: str) -> Tensor:
    """Return the logits of one normalised clip by plain torch, which asks the pruner what to leave out."""
    batch = pruner.resample(ClipBatch(pixels[None], (name,)))
    selection = pruner.video(batch)
    conv = model.patch_embed.proj
    volume = batch.pixels.to(conv.weight.dtype).permute(0, 4, 1, 2, 3)
    x = F.conv3d(volume, conv.weight, conv.bias, stride=conv.stride)[0].flatten(1).T
    grid = model.patch_embed.grid(*batch.pixels.shape[1:4])
    x = x + model.positions(grid)
    selection = Selection.everything(1, len(x), x.device) if selection is None else selection
    tokens = Tokens(x[selection.index], selection.index, selection.lengths)
    for layer, block in enumerate(model.blocks):
        biased = pruner.size_bias and tokens.size is not None
        bias = torch.cat([block.attn.q_bias, torch.zeros_like(block.attn.q_bias), block.attn.v_bias])
        q, k, v = (
            F.linear(block.norm1(tokens.x), block.attn.qkv.weight, bias)
            .view(len(tokens.x), 3, model.heads, -1)
            .unbind(1)
        )
        scores = torch.einsum("ihd,jhd->hij", q, k) * model.key_width**-0.5
        scores = scores + tokens.size.log() if biased and tokens.size is not None else scores
        weights = scores.softmax(-1)
        out = block.attn.proj(torch.einsum("hij,jhd->ihd", weights, v).flatten(1))
        lse = scores.logsumexp(-1).T.float().detach() if pruner.wants_received(layer) else None
        fused = weights.square().mean(0).sqrt()[None] if pruner.wants_fused(layer) else None
        trace = Trace(q, k, v, tokens.lengths, lse, fused, tokens.size if biased else None, tokens.x)
        tokens = pruner.after_attention(layer, tokens.with_x(tokens.x + out), trace)
        tokens = pruner.after_block(layer, tokens.with_x(tokens.x + plain_vit.mlp(model, layer, tokens.x)))
    share = tokens.size if tokens.size is not None and pruner.size_pooling else torch.ones(len(tokens.x))
    share = share.to(tokens.x.dtype)
    mean = (tokens.x * share[:, None]).sum(0) / share.sum()
    found: Tensor = model.head(model.fc_norm(mean))
    return found


@pytest.mark.parametrize("name", TRAINED)
def test_loss_and_gradients_are_those_of_plain_torch(name: str, tmp_path: Path) -> None:
    dtype = torch.float32 if name == "ats" else torch.float64  # ats takes norms of no more than float32
    model = tiny(dtype)
    method = load_method(name)().at_keep(0.6, model, calibration()) if name != "dense" else load_method(name)()
    run = training(model, method, tmp_path, Noise(3, dtype))
    loss, found = gradients(run)
    again = copy.deepcopy(model)
    again.zero_grad()
    pruner, (pixels, target) = method.attach(again), Noise(3, dtype).batch(0).given
    logits = torch.stack([plain(again, pruner, clip, f"0/{number}") for number, clip in enumerate(pixels)])
    expected = -(target * logits.log_softmax(-1)).sum(-1).mean()
    expected.backward()
    assert loss == pytest.approx(float(expected.detach()), rel=1e-6)
    assert found.keys() == dict(again.named_parameters()).keys()
    every = max(float(p.grad.abs().max()) for p in again.parameters() if p.grad is not None)
    for key, parameter in again.named_parameters():
        assert parameter.grad is not None
        # the weights that vidtldr merges by are float32 and have gradients: entropies divided by how little they differ
        close = 1e-5 * every if name in ("ats", "vidtldr") else 1e-9 * float(parameter.grad.abs().max())
        torch.testing.assert_close(found[key], parameter.grad, rtol=0, atol=close + 1e-12)


@pytest.mark.parametrize("name", stepwise())
def test_gradients_reach_all_of_a_network_that_encodes_steps(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = construct(VIVIT).train()
    config = model.config
    method = load_method(name)()
    draw = torch.randn(2, config.frames, config.height, config.width, 3)
    run = training(model, method, tmp_path)
    run.batch = lambda number: Batch((draw, smoothed(torch.tensor([0, 1]), config.classes, 0.1)), 2)  # type: ignore[method-assign]
    _, found = gradients(run)
    assert found.keys() == dict(model.named_parameters()).keys()
    assert all(bool(gradient.isfinite().all()) for gradient in found.values())


@pytest.mark.parametrize("name", [name for name in TRAINED if name != "dense"])
def test_everything_kept_is_dense_training(name: str, tmp_path: Path) -> None:
    model = tiny()
    method = load_method(name)().at_keep(1.0, model, calibration())
    loss, found = gradients(training(model, method, tmp_path))
    other = tiny()
    dense_loss, dense = gradients(training(other, load_method("dense")(), tmp_path))
    assert loss == pytest.approx(dense_loss, rel=1e-6)
    for key, gradient in dense.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-5, atol=1e-6)


def test_the_method_sees_augmented_and_mixed_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it selects by is what the network gets: cut, mirrored, erased and mixed."""
    seen: list[Tensor] = []
    root = clip_folder(tmp_path / "clips", good=4)
    recipe = replace(
        PLAIN_RECIPE, batch=4, mixup=0.8, cutmix=1.0, crop=(0.3, 1.0), rand_augment=(2, 7.0, 0.5), erase=1.0
    )
    asked = finetune.Asked("videomae_embedded", "random", "tdiff", {"keep": 0.5}, None, "r", "synthmotion", "ci", root)
    run = finetune.prepared(asked, recipe, tmp_path / "out", "cpu", 1)
    kind = type(run.start.pruner)
    real = kind.video

    def video(self: Any, batch: ClipBatch) -> Selection | None:
        seen.append(batch.pixels)
        return real(self, batch)

    monkeypatch.setattr(kind, "video", video)
    run.step()
    assert torch.equal(seen[0], run.batch(0).given[0])
    still = replace(recipe, mixup=0.0, cutmix=0.0, crop=None, rand_augment=None, erase=0.0)
    assert not torch.equal(seen[0], finetune.prepared(asked, still, tmp_path, "cpu", 1).batch(0).given[0])


def test_batches_that_are_made_ahead_are_the_same_ones() -> None:
    ahead, source = Ahead(Noise()), Noise()
    for number in (0, 1, 2, 7, 8, 3):
        assert torch.equal(ahead.batch(number).given[0], source.batch(number).given[0])


def test_weights_say_what_they_were_trained_with(tmp_path: Path) -> None:
    run = training(tiny(), Rlt(0.1), tmp_path, recipe=replace(PLAIN_RECIPE, ema=0.9))
    path = loop.run(run, "as typed")
    found = files.read(path)
    facts = json.loads(found.metadata["finetuned"])
    assert (facts["method"], facts["parameters"], facts["steps"]) == ("rlt", {"threshold": 0.1}, 4)
    assert facts["recipe"]["lr"] == 1e-3
    assert facts["averaged"] is True
    assert loading.weights_kind(str(path)) == "fine-tuned with rlt (threshold 0.1)"
    assert found.classes == tuple(f"class {number}" for number in range(CLASSES))
    assert any(not torch.equal(t, run.state.model.state_dict()[n]) for n, t in found.tensors.items())
    log = [json.loads(line) for line in (tmp_path / "videomae_tiny.finetuned.log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == [1, 2, 3, 4]
    assert all(0 <= entry["accuracy"] <= 1 and entry["loss"] > 0 for entry in log)
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert json.loads((tmp_path / "videomae_tiny.finetuned.json").read_text())["command"] == "as typed"


def test_a_loss_that_is_no_number_is_named_and_the_last_checkpoint_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0.0)

    class Broken(Noise):
        def batch(self, number: int) -> Batch:
            (pixels, target), clips = super().batch(number)
            return Batch((pixels * (math.nan if number == 2 else 1.0), target), clips)

    with pytest.raises(
        VpbenchError, match=r"loss is nan in step 3; the checkpoint before it stays in .*checkpoint\.pt"
    ):
        loop.run(training(tiny(), Tdiff(0.5), tmp_path, Broken()), "")
    kept = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert json.loads(kept["counts"])[0] == 2
    assert all(tensor.isfinite().all() for tensor in kept["model"].values())


def test_weights_that_are_no_numbers_are_never_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0.0)
    run = training(tiny(), Tdiff(0.5), tmp_path)
    real = Finetuning.stepped

    def stepped(self: Finetuning) -> None:
        real(self)
        if self.state.step == 1:
            with torch.no_grad():
                head: Any = self.state.model.head
                head.weight[0, 0] = math.inf

    monkeypatch.setattr(Finetuning, "stepped", stepped)
    with pytest.raises(
        VpbenchError, match=r"head.weight holds no numbers after step 2; the checkpoint before it stays"
    ):
        loop.run(run, "")
    assert json.loads(torch.load(tmp_path / "checkpoint.pt", weights_only=True)["counts"])[0] == 1


def test_a_full_disk_is_named_and_the_last_checkpoint_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0.0)
    real, written = torch.save, []

    def full(content: Any, path: Path) -> None:
        written.append(path)
        if len(written) == 2:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        real(content, path)

    run = training(tiny(), Tdiff(0.5), tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(VpbenchError, match=r"No space left .*; what was there stays"):
            loop.run(run, "")
    assert [path.name for path in tmp_path.iterdir() if path.suffix in (".pt", ".tmp")] == ["checkpoint.pt"]
    whole = files.read(loop.run(training(tiny(), Tdiff(0.5), tmp_path / "whole"), "")).tensors
    parts = files.read(loop.run(training(tiny(), Tdiff(0.5), tmp_path), "")).tensors
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_wrapped_network_is_written_as_its_library_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = replace(CONFIGS["hf_videomae"], classes=18)
    add_backbone(monkeypatch, "hf_videomae_tiny", sizes)
    asked = finetune.Asked(
        "hf_videomae_tiny", "random", "tdiff", {"keep": 0.5}, None, "r", "synthmotion", "ci", HERE / "clips"
    )
    run = finetune.prepared(asked, PLAIN_RECIPE, tmp_path, "cpu", 1)
    draw = torch.randn(2, sizes.frames, sizes.height, sizes.width, 3)
    run.batch = lambda number: Batch((draw, smoothed(torch.tensor([3, 17]), 18, 0.0)), 2)  # type: ignore[method-assign]
    path = loop.run(run, "")
    assert loading.weights_kind(str(tmp_path)) == "fine-tuned with tdiff (keep 0.5, pair ends)"
    again = loading.build("hf_videomae", str(path), seed=0)
    assert loading.outputs("hf_videomae", str(path)).names == run.start.classes  # type: ignore[union-attr]
    batch = ClipBatch(draw, ("", ""))
    run.state.model.eval()
    torch.testing.assert_close(again(batch).logits, run.state.model(batch).logits)


@pytest.mark.slow
def test_the_command_trains_and_run_says_with_what(tmp_path: Path) -> None:
    root = clip_folder(tmp_path / "clips", good=4)
    broken = add_broken(root)
    done = vpbench(
        *("train", "finetune", "--backbone", "videomae_embedded", "--method", "rlt", "--set", "threshold=0.1"),
        *("--set", "mixup=0.5", "--root", root, "--split", "ci", "--steps", "2", "--batch", "7", "--threads", "1"),
        *("--out", tmp_path / "out"),
    )
    assert done.returncode == 0, done.stderr
    for name in broken:
        assert f"{name}.mp4" in done.stderr
    assert "accuracy" in done.stderr
    weights = done.stdout.strip()
    root = clip_folder(tmp_path / "sound", good=2)
    given = ("--weights", weights, "--root", root, "--split", "ci", "--only", "predict", "--threads", "1")
    out = ("--out", tmp_path / "results")
    seen = vpbench("run", "--method", "rlt", *given, *out)
    assert seen.returncode == 0, seen.stderr
    assert (
        vpbench("run", "--method", "rlt", *("--root", root, "--split", "ci", "--only", "predict"), *out).returncode == 0
    )
    table = vpbench("table", tmp_path / "results").stdout
    assert "fine-tuned with rlt (threshold 0.1)" in table


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--method", "oracle"), "it reads the labels"),
        (("--method", "stts"), "`vpbench train stts` trains them"),
        (("--method", "rtl"), "did you mean 'rlt'"),
        (
            ("--method", "rlt", "--set", "treshold=0.1"),
            "neither rlt nor a recipe has 'treshold'; did you mean 'threshold'",
        ),
        (("--method", "rlt", "--set", "threshold=0.1,0.2"), "one training at a time"),
        (("--method", "rlt", "--set", "threshold=0.1", "--keep", "0.4"), "not both"),
        (("--method", "rlt", "--keep", "1.4"), "outside (0, 1]"),
        (("--method", "rlt", "--recipe", "k400"), "no such recipe"),
        (("--method", "rlt", "--device", "cdua"), "there is no such kind"),
        (("--backbone", "videomae_s", "--weights", "random"), "--new-head trains a new classifier"),
        (("--backbone", "vitdet_embedded"), "it cannot classify clips"),
        (("--backbone", "mvit_embedded", "--method", "rlt"), "rlt cannot run on mvit_embedded"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    root = HERE / "clips"
    named = ("--backbone", "videomae_embedded") if "--backbone" not in arguments else ()
    done = vpbench("train", "finetune", *named, *arguments, "--root", root, "--split", "ci", "--out", tmp_path / "out")
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
