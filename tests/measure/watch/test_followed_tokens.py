"""Tokens that are followed: merges, weights of nothing, tokens that a method makes itself, tensors that are moved."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from conftest import TINY, moving_clip

from vpbench.api import ClipBatch, Method, Output, Pruner, Tokens, Trace, UsageError
from vpbench.api.method import load_method
from vpbench.backbones.videomae.network import VideoMAE
from vpbench.measure.watch.clips import Watched, as_seen, watched
from vpbench.measure.watch.followed import Followed, Moves, follow
from vpbench.rows.fates import DROPPED, PIXELS
from vpbench.tasks.recognition.session import to_batch


def followed(rows: list[int]) -> Followed:
    x = torch.arange(12.0).view(6, 2)
    return follow(Tokens(x, torch.arange(6), (6,)), torch.tensor(rows))


def see(tiny: VideoMAE, name: str, **parameters: object) -> Watched[Output]:
    method: Method = load_method(name)(**parameters)
    return watched(tiny, to_batch([moving_clip(3)], "cpu"), method.attach(tiny), values=True)


def test_what_is_taken_stands_where_it_was_put() -> None:
    found = followed([0, 1, 2, 3, 4, 5]).take(torch.tensor([4, 0]), (2,))
    assert isinstance(found, Followed)
    assert found.row.tolist() == [1, -1, -1, -1, 0, -1]
    again = found.with_x(found.x * 2).take(torch.tensor([1]), (1,))
    assert isinstance(again, Followed)
    assert again.row.tolist() == [0, -1, -1, -1, -1, -1]


def test_what_is_merged_stands_with_its_group() -> None:
    into, heads = torch.tensor([0, 0, 1, 1, 1, 2]), torch.tensor([1, 2, 5])
    found = followed([0, 1, 2, 3, 4, 5]).merge(into, heads, (3,))
    assert found.row.tolist() == into.tolist()  # type: ignore[attr-defined]
    assert found.index.tolist() == [1, 2, 5]


def test_what_is_merged_without_weight_is_gone() -> None:
    into, heads = torch.tensor([0, 0, 1, 1, 1, 2]), torch.tensor([0, 2, 5])
    found = followed([0, 1, 2, 3, 4, 5]).merge(into, heads, (3,), torch.tensor([1.0, 0, 1, 0, 1, 1]))
    assert found.row.tolist() == [0, -1, 1, -1, 1, 2]  # type: ignore[attr-defined]


def test_tokens_of_its_own_are_known_by_their_places(tiny: VideoMAE) -> None:
    """EViT's fused token is made anew, at the place of the best token that was dropped."""
    found = see(tiny, "topk", rho=0.5, fuse=True)
    assert found.fate.left() == found.output.counts[-1].mlp[0]
    plain = see(tiny, "topk", rho=0.5)
    assert found.fate.left(0) == plain.fate.left(0) + 1


def test_moves_are_repeated_and_computations_are_not() -> None:
    x, ids = torch.randn(1, 4, 3), torch.arange(12).view(1, 4, 3)
    with Moves(x, ids) as moves:
        moved = x.gather(1, torch.tensor([2, 0])[None, :, None].expand(-1, -1, 3)).flatten(1)[:, 1:]
        computed = moved * 1.0
    assert moves.of(x) is ids
    found = moves.of(moved)
    assert found is not None
    assert found.tolist() == [[7, 8, 0, 1, 2]]
    assert torch.equal(x.flatten()[found[0]], moved[0])
    assert moves.of(computed) is None


@pytest.mark.parametrize("name", ["rlt", "tdiff", "random", "centre"])
def test_what_is_chosen_before_the_network_is_the_methods_selection(name: str, tiny: VideoMAE) -> None:
    method, batch = load_method(name)(), to_batch([moving_clip(3)], "cpu")
    selection = method.attach(tiny).video(batch)
    assert selection is not None
    fate = see(tiny, name).fate
    assert np.flatnonzero(fate.final != DROPPED).tolist() == selection.index.tolist()
    assert [stage.name for stage in fate.stages] == ["input"]


def test_stages_are_nested_and_named_by_their_blocks(tiny: VideoMAE) -> None:
    fate = see(tiny, "sta", r=4).fate
    assert [stage.name for stage in fate.stages] == ["block 0", "block 1", "block 2"]
    kept = [set(np.flatnonzero(stage.token != DROPPED)) for stage in fate.stages]
    assert kept[0] > kept[1] > kept[2]


def test_kept_tokens_are_those_that_sta_itself_names(tiny: VideoMAE) -> None:
    method = load_method("sta")(r=4)  # type: ignore[call-arg]
    pruner = method.attach(tiny)
    pruner.record = {}
    with torch.inference_mode():
        tiny(to_batch([moving_clip(3)], "cpu"), pruner)
    fate = see(tiny, "sta", r=4).fate
    for number, stage in enumerate(fate.stages, start=1):
        named = sorted(pruner.record[f"stage{number}.kept"].flatten().tolist())
        assert np.flatnonzero(stage.token != DROPPED).tolist() == named


def test_merged_sizes_are_the_networks_own(tiny: VideoMAE) -> None:
    pruner = load_method("tome")(r=20).attach(tiny)  # type: ignore[call-arg]
    last: list[Tokens] = []

    def after_block(layer: int, tokens: Tokens) -> Tokens:
        last.append(tokens)
        return tokens

    pruner.after_block = after_block  # type: ignore[method-assign]
    fate = watched(tiny, to_batch([moving_clip(3)], "cpu"), pruner).fate
    size = last[-1].size
    assert size is not None
    ids = last[-1].index
    assert fate.sizes()[ids.numpy()].tolist() == size.int().tolist()
    assert sorted(set(fate.final)) == sorted(ids.tolist())


def test_smaller_frames_share_tokens_and_picked_frames_drop_slots(tiny: VideoMAE) -> None:
    small = see(tiny, "downsample", scale=0.5).fate
    assert [stage.name for stage in small.stages] == [PIXELS]
    assert set(small.sizes()) == {4}
    assert all(np.flatnonzero(small.final == name)[0] == name for name in small.final)  # the first of each group
    few = see(tiny, "frame_stride", stride=4.0).fate
    slots = few.final.reshape(few.grid)
    assert [bool((slot == DROPPED).any()) for slot in slots] == [False, True] * 4  # frames 0, 4, 8 and 12
    assert few.left() == 2 * TINY.height // 8 * TINY.width // 8
    # of 16 frames 7 and 15 go: from 8 on pairs are cut elsewhere, and a slot goes with the first of its frames
    most = see(tiny, "frame_stride", stride=8 / 7).fate
    assert [int(slot.min()) // 16 for slot in most.final.reshape(most.grid)] == [0, 1, 2, 3, 3, 5, 6, 7]


def test_values_lie_where_their_tokens_do(tiny: VideoMAE) -> None:
    from vpbench.api import temporal_difference

    batch = to_batch([moving_clip(3)], "cpu")
    expected = temporal_difference(batch.pixels, tiny.grid, "ends")[0].numpy()
    found = see(tiny, "rlt").values["scores"]
    assert np.isnan(found[0]).all()
    np.testing.assert_array_equal(found[1:], expected)


def test_values_of_later_blocks_are_missing_where_tokens_are_gone(tiny: VideoMAE) -> None:
    found = see(tiny, "topk", rho=0.5)
    assert list(found.values) == ["block0.score", "block1.score", "block2.score"]
    for number, name in enumerate(list(found.values)[1:]):
        gone = found.fate.stages[number].token == DROPPED
        np.testing.assert_array_equal(np.isnan(found.values[name].ravel()), gone)
    # who stays is rated higher than who goes
    rated, kept = found.values["block0.score"].ravel(), found.fate.stages[0].token != DROPPED
    assert rated[kept].min() >= rated[~kept].max()


def test_matching_rates_every_second_token(tiny: VideoMAE) -> None:
    rated = np.isfinite(see(tiny, "tome", r=20).values["block0.node_max"].ravel())
    np.testing.assert_array_equal(np.flatnonzero(rated), np.arange(0, 128, 2))


def test_the_pruner_is_left_as_it_was(tiny: VideoMAE) -> None:
    pruner = load_method("sta")(r=4).attach(tiny)  # type: ignore[call-arg]
    before = {name: value for name, value in vars(pruner).items() if name != "keys"}
    watched(tiny, to_batch([moving_clip(3)], "cpu"), pruner, values=True)
    assert {name: value for name, value in vars(pruner).items() if name not in ("keys", "record")} == before
    assert pruner.record is None


class _Blurs(Pruner):
    def resample(self, batch: ClipBatch) -> ClipBatch:
        return dataclasses.replace(batch, pixels=(batch.pixels[:, ::2].float() / 2 + 1).to(torch.uint8))


class _Replaces(Pruner):
    def after_attention(self, layer: int, tokens: Tokens, trace: Trace) -> Tokens:
        return Tokens(tokens.x[:4] * 2, tokens.index[:4], (4,)) if layer == 0 else tokens


def test_frames_of_its_own_cannot_be_followed(tiny: VideoMAE) -> None:
    with pytest.raises(UsageError, match="frames of its own"):
        watched(tiny, to_batch([moving_clip(3)], "cpu"), _Blurs())


def test_plain_tokens_are_found_again_by_index(tiny: VideoMAE) -> None:
    fate = watched(tiny, to_batch([moving_clip(3)], "cpu"), _Replaces()).fate
    assert np.flatnonzero(fate.final != DROPPED).tolist() == [0, 1, 2, 3]


def test_clips_are_watched_one_at_a_time(tiny: VideoMAE) -> None:
    with pytest.raises(ValueError, match="one clip"):
        watched(tiny, to_batch([moving_clip(1), moving_clip(2)], "cpu"), Pruner())


def test_float_clips_are_seen_as_pictures() -> None:
    clip = moving_clip(1)
    floats = dataclasses.replace(clip, pixels=clip.pixels.astype(np.float32) + 0.3)
    np.testing.assert_array_equal(as_seen(floats), clip.pixels)
    assert as_seen(clip) is clip.pixels


@pytest.mark.parametrize("form", ["merge", "drop", "hybrid", "random_merge"])
def test_every_form_of_merging_leaves_what_the_forward_counts(form: str, tiny: VideoMAE) -> None:
    found = see(tiny, "tome", r=20, form=form, threshold=2.0)  # every match is weaker than the threshold
    counted = [count.mlp[0] for count in found.output.counts]
    assert [found.fate.left(n) for n in range(len(found.fate.stages))] == counted
    gone = (found.fate.final == DROPPED).any()
    assert gone == (form in ("drop", "hybrid"))  # in a hybrid, what is replaced
