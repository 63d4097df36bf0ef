"""Our methods against tensors computed with the published implementations (see the README of each parity folder)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from vpbench.api import ClipBatch, Method, Selection, Tokens, temporal_difference
from vpbench.backbones.videomae import VideoMAE, VideoMAEConfig
from vpbench.methods.dense import Dense
from vpbench.methods.rlt import Rlt
from vpbench.methods.sta import Sta

CASES = Path(__file__).parent / "parity"
RLT = sorted(p.parent for p in CASES.glob("rlt/*/case.json"))
STA = sorted(p.parent for p in CASES.glob("sta/*/case.json"))


def load(folder: Path, key: str) -> tuple[dict[str, Any], VideoMAE, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    case = json.loads((folder / "case.json").read_text())
    arch = case[key]
    side = arch["img_size"] if isinstance(arch["img_size"], int) else arch["img_size"][0]
    config = VideoMAEConfig(
        dim=arch["embed_dim"],
        depth=arch["depth"],
        heads=arch["num_heads"],
        frames=arch["num_frames"],
        size=side,
        tubelet=arch["tubelet_size"],
        patch=arch["patch_size"],
        classes=arch["num_classes"],
        eps=arch.get("norm_eps") or arch["layer_norm_eps"],
    )
    model = VideoMAE(config).eval()
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    return case, model, load_file(folder / "inputs.safetensors"), load_file(folder / "expected.safetensors")


def test_cases_are_there() -> None:
    assert len(RLT) == 5
    assert len(STA) == 5


@pytest.mark.parametrize("folder", RLT, ids=lambda p: p.name)
def test_rlt_case(folder: Path) -> None:
    case, model, inputs, expected = load(folder, "arch")
    settings, views = case["method_config"], case["input"]["views_per_video"]
    pixels = inputs["frames"].view(-1, model.config.frames, *inputs["frames"].shape[2:])
    batch = ClipBatch(pixels, tuple(str(i) for i in range(len(pixels))))
    if settings["drop_policy"] == "random":
        selection = random_of_the_case(inputs["random_values"], settings["drop_param"])
    else:
        method: Method = Rlt(settings["drop_param"]) if settings["drop_policy"] == "rlt" else Dense()
        chosen = method.attach(model).video(batch)
        selection = chosen or Selection.everything(len(pixels), model.grid.tokens, pixels.device)
    assert list(selection.lengths) == expected["num_tokens"].tolist()
    assert torch.equal(selection.index, expected["kept_index"])
    if "scores" in expected:
        ours = temporal_difference(pixels, model.grid, "ends")
        torch.testing.assert_close(ours, expected["scores"][:, 1:], atol=1e-5, rtol=1e-5)
    with torch.inference_mode():
        tokens: Tokens = model.embed(pixels, selection)
        torch.testing.assert_close(tokens.x, expected["embed"], atol=1e-4, rtol=1e-4)
        for block in model.blocks:
            tokens = block(tokens)
            name = f"block{block.layer}_out"
            if name in expected:
                torch.testing.assert_close(tokens.x, expected[name], atol=1e-4, rtol=1e-4)
        logits = model.classify(tokens).view(expected["logits"].shape)
    torch.testing.assert_close(logits, expected["logits"], atol=1e-4, rtol=1e-4)
    probs = logits.softmax(-1).view(-1, views, logits.shape[-1]).mean(1)
    torch.testing.assert_close(probs, expected["probs"], atol=1e-4, rtol=1e-4)
    assert torch.equal(probs.argmax(-1), expected["pred"])


def random_of_the_case(values: torch.Tensor, keep: float) -> Selection:
    """The published random control keeps one less than asked: those strictly below the k-th smallest draw."""
    cut = values.sort(dim=1).values[:, int(values.shape[1] * keep) - 1]
    return Selection.from_mask(values < cut[:, None])


@pytest.mark.parametrize("folder", STA, ids=lambda p: p.name)
def test_sta_case(folder: Path) -> None:
    case, model, inputs, expected = load(folder, "architecture")
    pixels = inputs["video"].permute(0, 2, 3, 4, 1).contiguous()
    pruner = Sta(case["method_config"]["r"]).attach(model)
    stage_after = {block: f"stage{i + 1}.kept" for i, block in enumerate(case["method_config"]["stage_blocks"])}
    counts: list[Any] = []
    with torch.inference_mode():
        tokens = model.embed(pixels)
        for block in model.blocks:
            tokens = block(tokens, pruner, counts)
            kept = stage_after.get(block.layer, "")
            if kept in expected:
                groups = expected[kept.replace("kept", "kept_local")].shape[1]
                ours = tokens.index.view(len(pixels), groups, -1).sort(-1).values
                theirs = expected[kept].view(len(pixels), groups, -1).sort(-1).values
                assert torch.equal(ours, theirs), kept
        logits = model.classify(tokens)
    seen = [c.attention[0] for c in counts] + [tokens.lengths[0]]
    assert seen == expected["tokens_per_block"].tolist()
    torch.testing.assert_close(logits, expected["logits"], atol=1e-4, rtol=0)
    order = tokens.index.view(len(pixels), -1).argsort(-1)
    final = tokens.x.view(len(pixels), -1, tokens.x.shape[1])
    ids = expected["stage3.kept"].argsort(-1) if "stage3.kept" in expected and seen[0] != seen[-1] else None
    theirs = expected["final_tokens"]
    if ids is not None:
        theirs = theirs.gather(1, ids[..., None].expand_as(theirs))
    ours = final.gather(1, order[..., None].expand_as(final))
    torch.testing.assert_close(ours, theirs, atol=5e-4, rtol=0)
