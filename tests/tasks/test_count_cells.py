"""Every backbone with every method on the meta device: our closed form against torch's counter, ragged batches too."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch

from vpbench import plan, registry
from vpbench.api import Classifier, ClipBatch
from vpbench.api.backbone import classifier
from vpbench.api.method import load_method
from vpbench.backbones.videomae import VideoMAEConfig
from vpbench.backbones.videoswin import VideoSwinConfig
from vpbench.backbones.vivit import ViViTConfig
from vpbench.errors import UsageError
from vpbench.measure import operators
from vpbench.methods.tome import Tome
from vpbench.tasks.recognition import count

#: those that run another package's code are counted in tests/backbones/test_huggingface.py
BACKBONES = [name for name, each in registry.backbones().items() if each.flow != "frames" and each.needs is None]
METHODS = registry.names("methods")
#: shares of the tokens that three clips of one batch keep
RAGGED = (0.13, 0.5, 0.81)


@cache
def model(name: str) -> Classifier:
    """The backbone on the meta device, its widths and grid as published; of equal blocks three at most, to cost less.

    Of the first of each family there are six. What whole depths cost with each method that has a published table is in
    test_count.py.
    """
    entry = registry.backbone(name)
    config: Any = entry.sizes
    most = 6 if name == next(each for each in BACKBONES if registry.backbone(each).family == entry.family) else 3
    if isinstance(config, VideoMAEConfig | ViViTConfig):
        config = replace(config, depth=min(config.depth, most))
    elif isinstance(config, VideoSwinConfig):
        config = replace(config, depths=tuple(min(depth, most) for depth in config.depths))
    with torch.device("meta"):
        return classifier(name, config).eval().requires_grad_(False)


def cell(backbone: str, method: str) -> plan.Cell:
    keep = () if method == "dense" else (0.5,)
    asked = plan.options({"method": (method,), "keep": keep, "backbone": backbone})
    planned = plan.cells(asked, plan.setting(asked, 1))
    return next(each for each in planned if each.method == method)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_closed_forms_equal_the_operators(backbone: str) -> None:
    compared, refused = [], []
    for method in METHODS:
        try:
            [found] = count.counts(model(backbone), cell(backbone, method), ())
        except UsageError as error:  # its count follows real clips (see test_flops.py), or it is not for this backbone
            refused.append(f"{method}: {error}")
            continue
        if found.operators is None:  # the count was given: that of ragged batches, below
            continue
        assert found.operators == pytest.approx(found.macs, rel=1e-3), method
        compared.append(method)
    assert "dense" in compared
    assert len(compared) >= 4, refused


@pytest.mark.parametrize("name", [n for n in BACKBONES if registry.backbone(n).flow in ("stream", "steps")])
@pytest.mark.parametrize("schedule", ["", "1/2/3"])
def test_every_merge_pays_for_its_matching_whatever_the_depth(name: str, schedule: str) -> None:
    """With whole depths, where a block removes few tokens: even with odd tokens of each sequence, and no forward."""
    with torch.device("meta"):
        dense = classifier(name).eval()
    config: Any = dense.config
    steps, spared = (dense.grid.slots, 1) if registry.backbone(name).flow == "steps" else (1, 0)
    tome = replace(Tome(), schedule=schedule) if schedule else Tome().at_keep(0.9, dense, ())
    removed = tome.per_block(config.depth)
    assert min(removed) < 40
    left, attention, matching = dense.sequence, [], 0
    for r in removed:
        attention.append(steps * left)
        matching += (left + 1) // 2 * (left // 2) * (config.dim // config.heads) if r else 0
        left -= min(r, (left - spared) // 2)
    assert tome.attach(dense).macs(tuple(attention)) == steps * matching > 0


@pytest.mark.parametrize("backbone", [n for n in BACKBONES if registry.backbone(n).flow in ("stream", "steps")])
def test_ragged_batches_cost_the_sum_of_their_clips(backbone: str) -> None:
    dense = model(backbone)
    config, ids = dense.config, ("a", "b", "c")
    counts = {name: round(share * dense.grid.tokens) for name, share in zip(ids, RAGGED, strict=True)}
    pruner = load_method("random")().attach_like(dense, counts)
    if dense.refuses(pruner):
        pytest.skip(f"{backbone} cannot run with random")
    pixels = torch.empty(3, config.frames, config.height, config.width, 3, dtype=torch.uint8, device="meta")
    batch = ClipBatch(pixels, ids)
    with torch.inference_mode():
        out = dense(batch, pruner)
    assert [out.counts[0].attention[i] for i in range(3)] == list(counts.values())
    seen = operators.operators(lambda: dense(batch, pruner))
    assert not seen.uncounted
    assert seen.macs == pytest.approx(sum(out.macs), rel=1e-3)
