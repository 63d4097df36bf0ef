"""`vpbench verify`: cases it has not seen, what it must not let pass, and folders that are no cases."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import moving_clip
from helpers import ROOT, vpbench
from safetensors.torch import load_file, save_file
from torch import Tensor

from vpbench.backbones.videomae.network import MEAN, STD, VideoMAE
from vpbench.commands.verify.case import Case, load
from vpbench.commands.verify.cases import FORMATS, verify
from vpbench.commands.verify.compare import compare
from vpbench.commands.verify.videomae import Architecture

CASES = ROOT / "tests" / "parity"
ONE_OF_EACH = ("rlt/rlt_length_embed", "rlt/tome_r6", "sta/dense_r0", "sta/odd_grid_r11", "tome/const_r16")
STA_TOLERANCE = {
    f"{name}_atol": 1e-4 for name in ("logits", "pooled", "final_tokens", "importance", "first_sim", "node_max")
} | {f"{name}_rtol": 1e-4 for name in ("score", "redundancy", "gradnorm")}


def architecture(**sizes: Any) -> dict[str, Any]:
    return {
        "kind": "videomae_vit",
        "img_size": [24, 40],
        "patch_size": 8,
        "tubelet_size": 2,
        "num_frames": 24,
        "embed_dim": 20,
        "depth": 5,
        "num_heads": 2,
        "mlp_ratio": 3.0,
        "num_classes": 6,
        "norm_eps": 1e-6,
    } | sizes


def rlt_settings(arch: dict[str, Any], **method: Any) -> dict[str, Any]:
    config = {"drop_policy": "none", "drop_param": None, "tome_r": None, "encode_length": False} | method
    tolerance = {"atol": 1e-4, "rtol": 1e-4, "exact": ["kept_index"]}
    given = {"views_per_video": 2, "normalize_mean": MEAN, "normalize_std": STD}
    return {"method": "rlt", "arch": arch, "method_config": config, "input": given, "tolerance": tolerance}


def float_settings(method: str, arch: dict[str, Any], **config: Any) -> dict[str, Any]:
    return {"method": method, "architecture": arch, "method_config": config, "tolerance": STA_TOLERANCE}


WITH_LENGTHS = architecture(use_length_embed=True)
UNSEEN = {
    "rlt-lengths": rlt_settings(WITH_LENGTHS, drop_policy="rlt", drop_param=0.2, encode_length=True),
    "rlt-one-view-wide": rlt_settings(architecture(tubelet_size=1, num_frames=6), drop_policy="rlt", drop_param=0.1),
    "rlt-dense": rlt_settings(architecture(img_size=32, depth=1)),
    "rlt-random": rlt_settings(architecture(tubelet_size=3), drop_policy="random", drop_param=0.3),
    "rlt-tome": rlt_settings(architecture(), tome_r=[31, 0, 200, 3, 5]),
    "rlt-tome-none": rlt_settings(architecture(depth=2), tome_r=0),
    "sta-deep": float_settings("sta", architecture(depth=7, img_size=[40, 56]), r=9),
    "sta-four-slots": float_settings("sta", architecture(num_frames=8), r=3),
    "sta-dense": float_settings("sta", architecture(), r=0),
    "tome-list": float_settings(
        "tome",
        architecture(num_frames=6, img_size=[24, 24]),
        r=[7, 40],
        r_mode="list",
        r_per_block=[7, 40, 0, 0, 0],
        prop_attn=True,
        pooling="mean",
    ),
    "tome-capped": float_settings(
        "tome",
        architecture(),
        r=[60, -1],
        r_mode="decreasing",
        r_per_block=[120, 90, 60, 30, 0],
        prop_attn=False,
        pooling="size_weighted_mean",
    ),
}


def write_case(folder: Path, settings: dict[str, Any]) -> Path:
    """Write a case whose expected tensors are those of our own code, from a random model and moving clips."""
    folder.mkdir(parents=True)
    config = Architecture.model_validate(settings.get("arch") or settings["architecture"]).config()
    torch.manual_seed(len(settings["method_config"]))
    model = VideoMAE(config)
    save_file({k: v + 0.1 * torch.randn_like(v) for k, v in model.state_dict().items()}, folder / "weights.safetensors")
    clips = torch.stack([torch.from_numpy(moving_clip(number, config).pixels) for number in range(4)])
    if settings["method"] == "rlt":
        inputs = {"frames": clips.view(2, 2 * config.frames, *clips.shape[2:])}
        inputs["random_values"] = torch.rand(4, model.grid.tokens)
    else:
        normalised = (clips / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
        inputs = {"video": normalised.permute(0, 4, 1, 2, 3).contiguous()}
    save_file(inputs, folder / "inputs.safetensors")
    (folder / "case.json").write_text(json.dumps(settings))
    extra = {"extra.gradnorm": torch.zeros(1)} if settings["method"] == "sta" else {}
    ours = FORMATS[settings["method"]].run(Case(folder, settings, inputs, extra))
    ours.pop("r_per_block", None)
    save_file({name: tensor.clone().contiguous() for name, tensor in ours.items()}, folder / "expected.safetensors")
    return folder


def run(*folders: Path) -> tuple[int, list[str], list[str]]:
    """Verify in this process: exit code, lines said, lines complained."""
    said: list[str] = []
    complained: list[str] = []
    code = verify(folders, lambda text: said.extend(text.splitlines()), complained.append)
    return code, said, complained


def change(folder: Path, file: str, edit: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(folder / file)
    edit(tensors)
    save_file(tensors, folder / file)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CASES / "rlt" / "random_half", tmp_path / "case"))


@pytest.mark.parametrize("name", UNSEEN)
def test_unseen_case(name: str, tmp_path: Path) -> None:
    folder = write_case(tmp_path / name, UNSEEN[name])
    code, said, complained = run(tmp_path)
    assert (code, complained) == (0, []), (said, complained)
    expected = load(folder).expected
    if "source" in expected:
        last = f"block{UNSEEN[name]['arch']['depth'] - 1}_size"
        assert torch.equal(expected["source"].sum(dim=2).float(), expected[last][..., 0])
    if "final_group" in expected:
        groups = zip(expected["final_group"], expected["final_size"], strict=True)
        assert all(torch.equal(group.bincount(minlength=len(sizes)), sizes.long()) for group, sizes in groups)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_every_tensor_is_really_compared(name: str) -> None:
    case = load(CASES / name)
    form = FORMATS[case.settings["method"]]
    ours = form.run(case)
    for tensor_name, tensor in case.expected.items():
        changed = tensor.clone().flatten()
        at = int(tensor.flatten().isfinite().nonzero()[0]) if tensor.is_floating_point() else 0
        changed[at] += 0.01 + changed[at].abs() / 50 if tensor.is_floating_point() else 1
        other = replace(case, expected=case.expected | {tensor_name: changed.view(tensor.shape)})
        missed = [r.name for r in compare(other.expected, form.checks(other, ours)) if not r.ok]
        assert tensor_name in {m.removesuffix(", order") for m in missed}, tensor_name


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_nan_and_other_shapes_are_misses(name: str) -> None:
    case = load(CASES / name)
    form = FORMATS[case.settings["method"]]
    ours = form.run(case)
    for tensor_name, tensor in case.expected.items():
        spoilt = [tensor.flatten()[:-1], tensor[None]]
        spoilt += [torch.full_like(tensor, torch.nan)] if tensor.is_floating_point() else []
        for wrong in spoilt:
            other = replace(case, expected=case.expected | {tensor_name: wrong})
            assert tensor_name in {r.name for r in compare(other.expected, form.checks(other, ours)) if not r.ok}


def swap(tensors: dict[str, Tensor], first: int, second: int, *names: str) -> None:
    for name in names:
        rows = tensors[name]
        rows[:, [first, second]] = rows[:, [second, first]]


def test_order_counts_where_it_steers_and_nowhere_else(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(CASES / "sta" / "r16", tmp_path / "case"))
    names = ("stage1.kept", "stage1.kept_local")

    def reorder(group: int) -> Callable[[dict[str, Tensor]], object]:
        def edit(tensors: dict[str, Tensor]) -> None:
            # swap two kept tokens of a group, and renumber what stage 2 says by position in it
            kept, local = tensors[names[0]].view(2, 8, 48), tensors[names[1]]
            for rows in (kept, local):
                rows[:, group, [3, 4]] = rows[:, group, [4, 3]]
            at = torch.tensor([3, 4]) + 48 * (group % 2)
            for what in ("importance", "redundancy", "score"):
                values = tensors[f"stage2.{what}"]
                values[:, group // 2, at] = values[:, group // 2, at.flip(0)]
            later = tensors["stage2.kept_local"][:, group // 2]
            first, second = later == at[0], later == at[1]
            later[first], later[second] = at[1], at[0]

        return edit

    change(folder, "expected.safetensors", reorder(2))
    assert run(folder)[0] == 0
    change(folder, "expected.safetensors", reorder(7))
    code, said, _ = run(folder)
    assert code == 1
    assert "stage1.kept, order" in said[-1]
    assert "stage1.kept," not in said[-1].replace("stage1.kept, order", "")


def test_swapped_kept_index_is_named(copied: Path) -> None:
    def edit(tensors: dict[str, Tensor]) -> None:
        tensors["kept_index"][[0, 1]] = tensors["kept_index"][[1, 0]]

    change(copied, "expected.safetensors", edit)
    done = vpbench("verify", copied)
    assert done.returncode == 1
    assert "MISS  kept_index" in done.stdout
    assert done.stdout.splitlines()[-1].endswith("1 missed: case/kept_index")


def test_changed_and_unknown_tensors_are_named(copied: Path) -> None:
    change(copied, "expected.safetensors", lambda t: (t["logits"].add_(0.01), t.update(mystery=torch.ones(2))))
    code, said, _ = run(copied)
    assert code == 1
    assert [line.split()[1] for line in said[1:] if line.startswith("  MISS")] == ["logits", "mystery"]
    assert "case/logits, case/mystery" in said[-1]


def test_agreement_is_exit_code_0_and_emptiness_3(tmp_path: Path) -> None:
    done = vpbench("verify", CASES / "sta" / "dense_r0", CASES / "tome")
    assert done.returncode == 0, done.stderr
    assert "3 cases compared, 3 ok" in done.stdout
    assert "extra.gradnorm" in done.stdout
    empty = vpbench("verify", tmp_path)
    assert empty.returncode == 3
    assert "nothing to compare" in empty.stderr
    assert len(empty.stderr.splitlines()) == 1


def test_expecting_nothing_is_exit_code_3(copied: Path) -> None:
    save_file({}, copied / "expected.safetensors")
    assert run(copied)[0] == 3


def edit_settings(*path: str, value: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        settings = json.loads((folder / "case.json").read_text())
        inner = settings
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        (folder / "case.json").write_text(json.dumps(settings))

    return edit


def truncate(file: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        (folder / file).write_bytes((folder / file).read_bytes()[:-100])

    return edit


def spoil(file: str, name: str) -> Callable[[Path], None]:
    return lambda folder: change(folder, file, lambda tensors: tensors[name].view(-1)[:1].fill_(torch.nan))


MALFORMED: dict[str, tuple[Callable[[Path], object], str]] = {
    "json": (lambda folder: (folder / "case.json").write_text('{"method": '), "not a readable JSON"),
    "list": (lambda folder: (folder / "case.json").write_text("[]"), "holds no object"),
    "no weights": (lambda folder: (folder / "weights.safetensors").unlink(), "weights.safetensors: is missing"),
    "no inputs": (lambda folder: (folder / "inputs.safetensors").unlink(), "inputs.safetensors: is missing"),
    "no expected": (lambda folder: (folder / "expected.safetensors").unlink(), "expected.safetensors: is missing"),
    "cut weights": (truncate("weights.safetensors"), "not a readable safetensors"),
    "cut expected": (truncate("expected.safetensors"), "not a readable safetensors"),
    "method": (edit_settings("method", value="rtl"), "did you mean 'rlt'"),
    "family": (edit_settings("arch", "family", value="swin"), "arch.family"),
    "policy": (edit_settings("method_config", "drop_policy", value="RLT"), "method_config.drop_policy"),
    "depth": (edit_settings("arch", "depth", value=3), "blocks.2"),
    "heads": (edit_settings("arch", "num_heads", value=5), "num_heads 5"),
    "size": (edit_settings("arch", "img_size", value=33), "cannot be cut"),
    "frames": (edit_settings("arch", "num_frames", value=8), "input 'frames'"),
    "tolerance": (edit_settings("tolerance", "atol", value=float("nan")), "tolerance.atol"),
    "no tolerance": (edit_settings("tolerance", value=None), "tolerance"),
    "nan weights": (spoil("weights.safetensors", "head.weight"), "NaN"),
    "nan draws": (spoil("inputs.safetensors", "random_values"), "NaN"),
    "no draws": (lambda f: change(f, "inputs.safetensors", lambda t: t.pop("random_values")), "random_values"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_folder_is_one_line_and_the_others_still_run(name: str, copied: Path) -> None:
    spoiled, says = MALFORMED[name]
    spoiled(copied)
    code, said, complained = run(copied, CASES / "sta" / "dense_r0")
    assert code == 2
    assert len(complained) == 1
    assert says in complained[0]
    assert str(copied) in complained[0]
    assert "1 cases compared, 1 ok" in said[-1]


def test_missing_folder_is_a_usage_error(tmp_path: Path) -> None:
    done = vpbench("verify", tmp_path / "nowhere")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "nowhere is no folder" in done.stderr


def test_a_miss_outweighs_a_malformed_folder(copied: Path, tmp_path: Path) -> None:
    change(copied, "expected.safetensors", lambda t: t["logits"].add_(1))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "case.json").write_text("{}")
    code, said, complained = run(tmp_path)
    assert code == 1
    assert len(complained) == 1
    assert "1 could not be compared" in said[-1]
