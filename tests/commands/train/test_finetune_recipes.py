"""The numbers of a fine-tuning: published recipes, rates by batch and layer, what is dropped, which frames."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from noise_clips import PLAIN_RECIPE, Noise, tiny

from vpbench.api import ClipBatch
from vpbench.backbones.layers import drop_packed
from vpbench.commands.train import finetune_recipes
from vpbench.commands.train.clips import spread, window
from vpbench.commands.train.layers import groups, layers
from vpbench.errors import UsageError
from vpbench.methods.tdiff import Tdiff


def test_published_recipes_have_their_rates() -> None:
    k400 = finetune_recipes.recipe("videomae_k400", {}, ())
    assert k400.rate(0) == 0
    assert k400.rate(5) == pytest.approx(5e-4 * 384 / 256)
    assert k400.rate(75) == pytest.approx(1e-6 * 384 / 256)
    assert k400.rate(40) == pytest.approx((7.5e-4 + 1.5e-6) / 2)
    rlt = finetune_recipes.recipe("rlt_k400", {}, ())
    assert rlt.rate(5) == pytest.approx(1.5e-3 * 48 / 256)
    assert rlt.rate(0) == pytest.approx(1e-6 * 48 / 256)
    assert finetune_recipes.recipe("videomae_ssv2", {}, ()).flip is False


def test_every_recipe_is_whole_and_says_where_it_is_from() -> None:
    for name, table in finetune_recipes.named().items():
        assert table["source"]
        assert table["about"]
        finetune_recipes.recipe(name, {}, ())


def test_rates_follow_the_batch_unless_they_are_given() -> None:
    smaller = finetune_recipes.recipe("videomae_k400", {"batch": 96}, ())
    assert smaller.lr == pytest.approx(7.5e-4 / 4)
    assert smaller.min_lr == pytest.approx(1.5e-6 / 4)
    given = finetune_recipes.recipe(
        "videomae_k400", {"batch": 96, "lr": 1e-3}, [("mixup", "0.2"), ("crop", "[0.5, 1]")]
    )
    assert (given.lr, given.mixup, given.crop) == (1e-3, 0.2, (0.5, 1.0))


@pytest.mark.parametrize(
    ("name", "assignments", "said"),
    [
        ("videomae_k4", (), "did you mean 'videomae_k400'"),
        ("embedded", (("mixpu", "0.1"),), "did you mean 'mixup'"),
        ("embedded", (("drop_path", "much"),), "drop_path"),
        ("embedded", (("drop_path", "1.0"),), "drop_path cannot be 1"),
        ("embedded", (("batch", "0"),), "batch cannot be 0"),
    ],
)
def test_wrong_numbers_are_named(name: str, assignments: tuple[tuple[str, str], ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        finetune_recipes.recipe(name, {}, assignments)


def test_deeper_layers_learn_slower_and_vectors_do_not_decay() -> None:
    model, recipe = tiny(), replace(PLAIN_RECIPE, layer_decay=0.5)
    of = layers(model)
    assert of["patch_embed.proj.weight"] == 0
    assert [of[f"blocks.{n}.attn.qkv.weight"] for n in range(3)] == [1, 2, 3]
    assert of["head.weight"] == of["fc_norm.bias"] == 4
    found = {id(p): g for g in groups(model, recipe) for p in g["params"]}
    assert len(found) == len(list(model.parameters()))
    shares = {name: found[id(p)]["share"] for name, p in model.named_parameters()}
    assert [shares["head.weight"], shares["blocks.2.norm1.weight"], shares["patch_embed.proj.bias"]] == [1, 0.5, 0.5**4]
    decays = {name: found[id(p)]["weight_decay"] for name, p in model.named_parameters()}
    assert [decays["head.weight"], decays["head.bias"], decays["blocks.0.attn.q_bias"]] == [0.05, 0, 0]


def test_branches_of_whole_sequences_are_dropped_in_training_alone() -> None:
    branch, lengths = torch.ones(12, 2), (3, 4, 5)
    torch.manual_seed(1)
    found = torch.stack([drop_packed(branch, lengths, 0.25) for _ in range(400)])
    assert set(found.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert all((part == part[:, :1, :1]).all() for part in found.split(lengths, dim=1))
    assert 0.9 < float(found.mean()) < 1.1
    model = tiny()
    batch, pruner = ClipBatch(Noise(4).batch(0).given[0], ("",) * 4), Tdiff(0.5).attach(model)
    whole = model(batch, pruner).logits
    for block in model.blocks:
        block.drop = 0.5  # type: ignore[assignment]
    assert not torch.allclose(model(batch, pruner).logits, whole)
    torch.testing.assert_close(model.eval()(batch, pruner).logits, whole)


def test_frames_are_spread_over_the_video_or_a_window_of_it() -> None:
    draw = torch.Generator().manual_seed(0)
    for length in (16, 40, 300, 5):
        found = spread(length, 16, 4, draw)
        assert len(found) == 16
        assert found == sorted(found)
        assert all(n * length / 16 - 1 < frame < (n + 1) * length / 16 for n, frame in enumerate(found))
    assert max(window(61, 16, 4, draw)) == 60
    assert {window(100, 16, 4, draw)[0] for _ in range(200)} == set(range(40))
