"""Checkpoints as people's own training code leaves them: each is read to the last number, or refused in one line."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import own_weights
import pytest
import torch
from conftest import TINY, moving_clip
from helpers import add_backbone, vpbench
from own_weights import CONFIG, OTHER, READ, REFUSED, prefixed, state
from safetensors.torch import load_file, save_file
from torch import Tensor

from vpbench import registry
from vpbench.api import Classifier
from vpbench.backbones import loading
from vpbench.backbones.checkpoints import files, reading
from vpbench.backbones.checkpoints.reading import Asked
from vpbench.backbones.videomae import VideoMAEConfig, layouts
from vpbench.backbones.videomae.network import VideoMAE
from vpbench.errors import UsageError
from vpbench.tasks.recognition.session import to_batch


@pytest.fixture(autouse=True)
def tiny_in_the_catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    add_backbone(monkeypatch, "videomae_tiny", TINY)


def logits(model: Classifier) -> Tensor:
    with torch.inference_mode():
        found: Tensor = model(to_batch([moving_clip(0)], "cpu")).logits
    return found


def reference(tensors: Mapping[str, Tensor]) -> Tensor:
    model = VideoMAE(CONFIG).eval()
    model.load_state_dict(dict(tensors))
    return logits(model)


@pytest.fixture(scope="module")
def trained() -> Tensor:
    """What the network of `state` answers."""
    return reference(state())


# what must not happen while a file is read: what runs commands, imports on a name's behalf, or changes files
FORBIDDEN = ("os.", "subprocess.", "shutil.", "socket.", "pickle.find_class", "exec", "compile", "ctypes.")
_watched: list[list[str]] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watched:
        return
    writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    if (event.startswith(FORBIDDEN) and event not in ("os.listdir", "os.scandir")) or writes:
        _watched[-1].append(f"{event} {arguments[:2]}")


sys.addaudithook(_audit)


@contextmanager
def inert() -> Iterator[None]:
    """Fail where anything is run, changed or looked up by name meanwhile."""
    _watched.append([])
    try:
        yield
    finally:
        seen = _watched.pop()
    assert seen == []


@pytest.mark.parametrize("layout", READ)
def test_what_people_have_is_read(layout: str, trained: Tensor, tmp_path: Path) -> None:
    make, wrapper = READ[layout]
    path = make(tmp_path, state(), {})
    with inert():
        contents = files.read(path)
    assert contents.wrapper == wrapper
    model = loading.build("videomae_tiny", str(path), 0)
    close = 1e-5 if layout.startswith(("LayerScale", "transformers")) else 0
    torch.testing.assert_close(logits(model), trained, atol=close, rtol=0)
    said = reading.inspect(path)
    assert said["fits"] == "videomae_tiny"
    assert said["classes"].startswith("7")


def test_there_are_enough_of_them() -> None:
    assert len(READ) >= 25
    assert len(REFUSED) >= 25


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused_is_named(kind: str, tmp_path: Path) -> None:
    make, says = REFUSED[kind]
    path = make(tmp_path, state())
    for use in (lambda: loading.build("videomae_tiny", str(path), 0), lambda: reading.inspect(path)):
        with pytest.raises(UsageError, match=says) as error:
            use()
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 600


class Harm:
    """A pickle that does something when it is opened."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call[0], self.call[1:]


def harms(folder: Path) -> dict[str, Harm]:
    target = folder / "harmed"
    return {
        "a command": Harm(os.system, f"touch {target}"),
        "a method of a path": Harm(Path.touch, target),
        "a process": Harm(subprocess.call, ["touch", str(target)]),
        "an expression": Harm(eval, f"open({str(target)!r}, 'w')"),
        "saving": Harm(np.save, str(target), 1),
    }


def outcome(path: Path) -> files.Contents | str:
    """What a file holds, or the one line that refuses it."""
    try:
        return files.read(path)
    except UsageError as error:
        said = str(error)
    assert "\n" not in said
    return said


@pytest.mark.parametrize("layout", READ)
def test_nothing_in_them_is_run(layout: str, tmp_path: Path) -> None:
    """Each layout with something that does harm beside its weights; where it names no command, it is read."""
    make, _ = READ[layout]
    every = harms(tmp_path)
    for kind in every if layout == "torch.compile" else ("a command", "a method of a path"):
        folder = tmp_path / kind
        folder.mkdir()
        path = make(folder, state(), {"extra": every[kind]})
        with inert():
            found = outcome(path)
        if isinstance(found, str):
            assert "refused, it holds code" in found
            assert kind != "a method of a path"
        else:
            assert len(found.tensors) >= len(state())
        assert not list(tmp_path.rglob("harmed*"))


def test_names_that_stand_for_weights_run_nothing(tmp_path: Path) -> None:
    """Harm in place of a tensor, of its storage, and of what the file is made of."""
    harm = harms(tmp_path)["a method of a path"]
    for name, tree in {
        "tensor": {"model": state() | {"head.bias": harm}},
        "all": harm,
        "mapping": {"model": harm},
    }.items():
        torch.save(tree, tmp_path / f"{name}.pth")
        with inert(), pytest.raises(UsageError):
            reading.inspect(tmp_path / f"{name}.pth")
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_are_read_or_refused(seed: int, tmp_path: Path) -> None:
    """Bytes of files changed at random: contents or one line, and nothing else that happens."""
    rng = np.random.default_rng(seed)
    sources = [
        own_weights.READ[name][0](tmp_path, {k: v for k, v in state().items() if "blocks.2" not in k}, {})
        for name in ("Lightning with hyper-parameters", "torch before 1.6", "a pickle of arrays")
    ]
    refused = 0
    for source in sources:
        whole = source.read_bytes()
        # most of a file are numbers, a change of which no reader can see: the pickle is at the beginning, or in front
        head = next((n for n in (whole.find(b"data.pkl"), 0) if n >= 0), 0)
        for _ in range(40):
            changed = bytearray(whole)
            for place in rng.integers(head, min(head + 9000, len(whole)), rng.integers(1, 6)):
                changed[place] = rng.integers(256)
            if rng.random() < 0.2:
                changed = changed[: rng.integers(1, len(changed))]
            file = tmp_path / f"changed{source.suffix}"
            file.write_bytes(changed)
            with inert():
                refused += isinstance(outcome(file), str)
    assert refused > 20


def test_pickles_of_all_opcodes_at_random(tmp_path: Path) -> None:
    """Programs of a pickle machine made up of names, calls and states: none reaches anything but this package."""
    rng = np.random.default_rng(0)
    names = [b"cos\nsystem\n", b"cbuiltins\ngetattr\n", b"cpathlib\nPath.touch\n",
             b"ctorch._utils\n_rebuild_tensor_v2\n", b"cnumpy\ndtype\n",
             b"cnumpy.core.multiarray\n_reconstruct\n", b"ccollections\nOrderedDict\n",
             b"cfunctools\npartial\n", b"c__builtin__\nbytes\n"]  # fmt: skip
    pieces = [*names, b"(", b")", b"]", b"}", b"N", b"K\x02", b"U\x01a", b"R", b"b", b"s", b"u", b"a", b"e", b"t",
              b"\x85", b"\x86", b"\x87", b"q\x00", b"h\x00", b"0", b"2", b"\x81", b"\x92", b"\x8f", b"\x90", b"Q", b"o",
              b"ios\nsystem\n", b"\x82\x01", b"r\xff\xff\xff\x7f", b"\x96\xff\xff\xff\xff\xff\xff\xff\x7f"]  # fmt: skip
    file = tmp_path / "random.pkl"
    for _ in range(1500):
        program = b"".join(pieces[n] for n in rng.integers(0, len(pieces), rng.integers(3, 25)))
        file.write_bytes(b"\x80\x04" + program + b".")
        with inert():
            assert isinstance(outcome(file), str)


def test_a_pickle_claims_no_memory(tmp_path: Path) -> None:
    file = tmp_path / "large.pkl"
    for program in (
        b"}r\xff\xff\xff\xff.",
        b"\x96\xff\xff\xff\xff\xff\xff\x00\x00.",
        b"B\xff\xff\xff\x7fabc.",
        b"(" * 10**6,
    ):
        file.write_bytes(b"\x80\x04" + program)
        with pytest.raises(UsageError):
            files.read(file)


BOTH = {
    "VideoMAE with model_ema": ("model_ema", "not the average, as VideoMAE's own evaluation does"),
    "timm with state_dict_ema": ("state_dict", "the average, as timm does"),
    "mmengine with averaging": ("ema_state_dict", "where mmengine puts the average when it saves"),
    "Lightning with averaging": ("current_model_state", "where Lightning puts the average when it saves"),
}


@pytest.mark.parametrize("layout", BOTH)
def test_plain_weights_and_their_average(layout: str, tmp_path: Path) -> None:
    other, why = BOTH[layout]
    make, taken = READ[layout]
    path = make(tmp_path, state(), {})
    key, line = loading.weights_key("videomae_tiny", str(path))
    assert key == taken
    assert line == f"weights {path}: taking {taken!r}, {why}; --weights-key takes others ({other})"
    assert reading.inspect(path)["other keys"] == f"{other} (taken: {taken}, {why})"
    assert loading.weights_key("videomae_tiny", str(path), other) == (other, "")
    assert torch.equal(logits(loading.build("videomae_tiny", str(path), 0, Asked(other))), reference(OTHER))
    plain = loading.weights_digest("videomae_tiny", str(path))
    assert loading.weights_digest("videomae_tiny", str(path), taken) == plain
    assert loading.weights_digest("videomae_tiny", str(path), other) != plain
    with pytest.raises(UsageError, match="no tensors under 'modle'; --weights-key takes '"):
        loading.build("videomae_tiny", str(path), 0, Asked("modle"))


def test_a_key_of_ones_own(tmp_path: Path) -> None:
    torch.save({"net": state(), "best": {"student": OTHER}, "acc": 0.5}, tmp_path / "net.pth")
    with pytest.raises(UsageError, match=r"tensors are under 'net' or 'best\.student'; give --weights-key net"):
        reading.inspect(tmp_path / "net.pth")
    for key, tensors in (("net", state()), ("best.student", OTHER)):
        assert torch.equal(
            logits(loading.build("videomae_tiny", str(tmp_path / "net.pth"), 0, Asked(key))), reference(tensors)
        )
    plain, net, best = (
        loading.weights_digest("videomae_tiny", str(tmp_path / "net.pth"), key) for key in (None, "net", "best.student")
    )
    assert len({plain, net, best}) == 3
    assert loading.weights_key("videomae_tiny", str(tmp_path / "net.pth"), "net") == ("net", "")
    with pytest.raises(UsageError, match="random weights are in no file; leave --weights-key out"):
        loading.weights_key("videomae_tiny", "random", "net")
    save_file(state(), tmp_path / "one.safetensors")
    with pytest.raises(UsageError, match="safetensors hold one set of weights; leave --weights-key out"):
        reading.inspect(tmp_path / "one.safetensors", "net")


def test_what_inspect_says(tmp_path: Path) -> None:
    said = reading.inspect(own_weights.trainer(tmp_path, state(), {}))
    assert said["classes"] == "7: class 0, class 1, class 2, class 3, class 4, ..."
    assert loading.backbone_of(str(tmp_path)) == "videomae_tiny"
    assert (said["clips"], said["licence"]) == ("16 frames of 32x32", "apache-2.0 (stated in README.md)")
    torch.save({"model": prefixed("module._orig_mod.", state()), "epoch": 3}, tmp_path / "ddp.pth")
    said = reading.inspect(tmp_path / "ddp.pth")
    assert (said["wrapped by"], said["layout"]) == ("torch.compile (_orig_mod)", "VideoMAE, prefix module.")
    assert said["left aside"] == "epoch"
    (tmp_path / "shards").mkdir()
    path = own_weights.shards("bin")(tmp_path / "shards", state(), {})
    shown = vpbench("checkpoint", "inspect", path)
    assert "3 shards, torch zip" in shown.stdout


ODD: list[Any] = [None, -1, 0, 1e300, float("inf"), float("nan"), "x", [], [1, 2, 3], {}, True, 10**30, [None] * 3]


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "processor_config.json"])
def test_odd_values_beside_weights(file: str, tmp_path: Path) -> None:
    """Whatever stands in a text beside the weights: a network, or one line."""
    path = own_weights.trainer(tmp_path, state(), {})
    usual = json.loads((path / "config.json").read_text())
    colours = {"do_normalize": True, "image_mean": 0.5, "image_std": 0.5, "do_rescale": True, "rescale_factor": 0.1}
    contents = files.read(path)
    found = reading.recognise(contents.tensors, "file")
    outcomes = set()
    for key in {"config.json": usual, "preprocessor_config.json": colours}.get(file, {"video_processor": 1}):
        for value in ODD:
            settings = {key: value} if file == "processor_config.json" else (usual | colours) | {key: value}
            (path / file).write_text(json.dumps(settings))
            read = files.read(path, numbers=False)
            try:
                layouts.stated(found, read, "here")  # type: ignore[arg-type]
                assert all(isinstance(name, str) for name in read.classes)
                outcomes.add("read")
            except UsageError as error:
                outcomes.add(str(error).partition(":")[0])
    assert outcomes <= {"read", "here"}
    assert "read" in outcomes


def test_class_names(tmp_path: Path) -> None:
    own = tuple(f"class {n}" for n in range(7))
    path = own_weights.trainer(tmp_path, state(), {})
    assert names(path) == own
    reading.convert(path, tmp_path / "ours.safetensors", overwrite=False)
    assert names(tmp_path / "ours.safetensors") == own
    torch.save(own_weights.mmengine(state()), tmp_path / "mm.pth")
    assert names(tmp_path / "mm.pth") == own
    for labels in ({str(n): f"LABEL_{n}" for n in range(7)}, {"a": "b"}, {"0": 3}, ["x", 3], {}):
        own_weights.described(tmp_path, id2label=labels)
        assert names(path) == ()
    own_weights.described(tmp_path, id2label={"0": "a\nb"})
    assert names(path) == ("'a\\nb'",)


def names(path: Path) -> tuple[str, ...]:
    return files.read(path, numbers=False).classes


def test_a_folder_is_known_by_all_that_decides_its_network(tmp_path: Path) -> None:
    path = own_weights.trainer(tmp_path, state(), {})
    before = loading.weights_digest("videomae_tiny", str(path))
    (path / "README.md").write_text("# Other words\n")
    assert loading.weights_digest("videomae_tiny", str(path)) == before
    own_weights.described(path, layer_norm_eps=1e-5)
    assert loading.weights_digest("videomae_tiny", str(path)) != before


# -- sizes


def test_a_table_of_other_frames(tmp_path: Path) -> None:
    """As mmaction2 saves it: the table of a network of 32 frames, where the backbone has 16."""
    longer = VideoMAE(replace(CONFIG, frames=32, stored_positions=True))
    own = state() | {"pos_embed": longer.pos_embed.detach()[None]}
    torch.save({"state_dict": own}, tmp_path / "f32.pth")
    for frames in (None, 32):
        model = loading.build("videomae_tiny", str(tmp_path / "f32.pth"), 0, Asked(frames=frames))
        assert (model.config.frames, model.config.height) == (32, 32)
    assert reading.inspect(tmp_path / "f32.pth")["clips"] == "32 frames of 32x32"


@pytest.mark.parametrize(
    ("length", "frames", "size", "found"),
    [
        (128, None, None, (16, 32)), (256, None, None, (32, 32)), (128, 32, None, (16, 32)), (72, None, None, (16, 24)),
        (512, 64, None, (64, 32)), (512, None, 64, (16, 64)), (512, 16, 64, (16, 64)), (130, None, None, (16, 32)),
        (512, None, None, "64 frames of 32x32, or for 16 of 64x64; give --frames 64, or --size 64"),
    ],
)  # fmt: skip
def test_what_a_tables_length_says(length: int, frames: int | None, size: int | None, found: Any) -> None:
    base = VideoMAEConfig(24, 3, 2, height=32, width=32, patch=8)
    if isinstance(found, str):
        with pytest.raises(UsageError, match=found):
            layouts.of_table(base, length, frames, size)
        return
    sizes = layouts.of_table(base, length, frames, size)
    assert (sizes.frames, sizes.height) == found


def test_sizes_in_a_name() -> None:
    entry = registry.backbone("videomae:dim=48,depth=3,heads=4,frames=8,height=32,width=32,patch=8,mlp_ratio=2.5")
    assert entry.sizes == VideoMAEConfig(48, 3, 4, 8, 32, 32, patch=8, mlp_ratio=2.5)
    assert registry.sized_name(entry.sizes).startswith("videomae:dim=48,depth=3,heads=4,frames=8,")
    assert (
        registry.backbone(registry.sized_name(registry.backbone("videomae_g").sizes)).sizes
        == registry.backbone("videomae_g").sizes
    )
    for name, says in {
        "videomae:dim=48,depth=3": "give heads as well",
        "videomae:dim=48,depht=3": "no size 'depht'; did you mean 'depth'",
        "videomae:dim=x,depth=3,heads=1": "dim is 'x', not a number",
        "videomae:dim=-1,depth=3,heads=1": "dim is -1",
        "vidomae:dim=1": "no family 'vidomae' takes sizes; did you mean 'videomae'",
        "videomae:": "no size ''",
    }.items():
        with pytest.raises(UsageError, match=says):
            registry.check("backbones", name)


def test_vit_g() -> None:
    """Names and shapes without the memory: every tensor is one number, seen many times."""
    sizes = registry.backbone("videomae_g").sizes
    assert isinstance(sizes, VideoMAEConfig)
    with torch.device("meta"):
        model = VideoMAE(replace(sizes, classes=710))
    state_dict = {f"module.{k}": torch.zeros(()).expand(v.shape) for k, v in model.state_dict().items()}
    layout, tensors, _ = layouts.renamed(state_dict, "file")
    found = layouts.Recognised(layout, tensors, {}, ())
    assert found.backbones() == ["videomae_g"]
    assert tensors["blocks.0.mlp.fc1.weight"].shape == (6144, 1408)
    reading.check_fit(model, found.tensors, "file")
    assert round(sum(t.numel() for t in found.tensors.values()) / 1e6) == 1013


def test_kinetics_710_on_kinetics_400(tmp_path: Path) -> None:
    """The order of mmaction2's classes is known, that of others' is not."""
    own = state() | {"head.weight": torch.rand(710, 24), "head.bias": torch.rand(710)}
    torch.save(own_weights.mmengine(own), tmp_path / "mm.pth")
    whole, narrow = (
        loading.build("videomae_tiny", str(tmp_path / "mm.pth"), 0, Asked(dataset=d)) for d in ("ssv2", "k400")
    )
    assert (whole.config.classes, narrow.config.classes, whole.news) == (710, 400, "")
    assert torch.equal(logits(narrow), logits(whole)[:, :400])
    assert narrow.news.endswith(
        "of its 710 classes the first 400 are those of k400, by tools/data/kinetics710/label_map_k710.txt in "
        "open-mmlab/mmaction2, commit e10347b"
    )
    torch.save({"module": own}, tmp_path / "v2.pth")
    assert loading.build("videomae_tiny", str(tmp_path / "v2.pth"), 0).config.classes == 710
    with pytest.raises(
        UsageError, match=r"710 classes \(Kinetics-710\), and k400 has 400; .* misc/label_710to400\.json"
    ):
        loading.build("videomae_tiny", str(tmp_path / "v2.pth"), 0, Asked(dataset="k400"))


def test_heads_that_do_not_divide() -> None:
    with pytest.raises(UsageError, match="a width of 24 cannot be cut into 5 heads"):
        loading.build("videomae:dim=24,depth=1,heads=5", "random", 0)


def test_no_heads_no_backbone(tmp_path: Path) -> None:
    """Sizes that no backbone has need what no tensor shows."""
    odd = VideoMAE(replace(CONFIG, dim=36))
    save_file({k: v.clone() for k, v in odd.state_dict().items()}, tmp_path / "odd.safetensors")
    with pytest.raises(
        UsageError, match=r"give the folder with its config\.json, or the sizes: --backbone videomae:dim="
    ):
        loading.backbone_of(str(tmp_path / "odd.safetensors"))
    model = loading.build(
        "videomae:dim=36,depth=3,heads=3,height=32,width=32,patch=8", str(tmp_path / "odd.safetensors"), 0
    )
    assert model.heads == 3


def test_no_biases_are_biases_of_zero(tmp_path: Path) -> None:
    own = state()
    torch.save({k: v for k, v in own.items() if "q_bias" not in k and "v_bias" not in k}, tmp_path / "file.pth")
    zero = {k: torch.zeros_like(v) if k.endswith(("q_bias", "v_bias")) else v for k, v in own.items()}
    assert torch.equal(logits(loading.build("videomae_tiny", str(tmp_path / "file.pth"), 0)), reference(zero))


def test_one_command_takes_a_folder(tmp_path: Path, unweighed: None, hasty: None) -> None:
    """No backbone is named: the weights decide; the row says what they are."""
    torch.manual_seed(0)
    small = VideoMAEConfig(24, 2, 3, 8, 32, 32, patch=8, classes=18)
    folder = tmp_path / "weights"
    folder.mkdir()
    tensors = {k: v.clone() for k, v in VideoMAE(small).state_dict().items()}
    torch.save(own_weights.transformers_names(tensors), folder / "pytorch_model.bin")
    own_weights.described(folder, num_frames=8, num_hidden_layers=2, num_attention_heads=3, id2label=None)
    torch.save({"model": tensors, "model_ema": tensors}, tmp_path / "both.pth")
    common = ("--method", "rlt", "--limit", "2", "--profile", "ci", "--threads", "1", "--out", tmp_path / "out")
    done = vpbench("run", "--weights", folder, *common)
    assert done.returncode == 0, done.stderr
    name = "videomae:dim=24,depth=2,heads=3,frames=8,height=32,width=32,patch=8"
    assert name in done.stdout
    again = vpbench(
        "run", "--weights", tmp_path / "both.pth", "--backbone", name, "--weights-key", "model_ema", *common
    )
    assert again.returncode == 0, again.stderr
    assert "with file weights (model_ema) on synthmotion/test" in again.stdout
    both = vpbench("run", "--weights", tmp_path / "both.pth", "--backbone", name, *common, "--dry-run")
    assert "taking 'model', not the average, as VideoMAE's own evaluation does" in both.stderr
    counted = vpbench("flops", "--weights", folder, "--method", "rlt", "--tokens", "32")
    assert counted.stdout.startswith(name)


def test_converted_and_back(tmp_path: Path) -> None:
    """What `config.json` states is in the converted file: it needs no folder."""
    path = own_weights.trainer(tmp_path, state(), {})
    own_weights.described(path, layer_norm_eps=1e-3)
    (path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25] * 3}))
    out = tmp_path / "ours.safetensors"
    reading.convert(path, out, overwrite=False)
    assert set(load_file(out)) == set(state())
    one, other = (loading.build("videomae_tiny", str(each), 0) for each in (path, out))
    assert one.config == other.config
    assert (one.config.mean, one.config.fc_eps) == ((0.5, 0.5, 0.5), 1e-5)  # type: ignore[attr-defined]
    assert torch.equal(logits(one), logits(other))
    assert loading.backbone_of(str(out)) == "videomae_tiny"


def test_pickles_of_today_and_before_are_alike(tmp_path: Path) -> None:
    """Views, shared storages, numbers of all kinds and empty tensors come out as torch has them."""
    base = torch.arange(24.0).reshape(4, 6)
    tree = {
        "a": base, "view": base[1:3, ::2], "turned": base.T, "half": base.half(), "brain": base.bfloat16(),
        "double": base.double(), "long": base.long(), "bool": base > 3, "empty": torch.zeros(0, 3),
        "number": torch.tensor(3.5), "parameter": torch.nn.Parameter(base + 1),
    }  # fmt: skip
    for new in (True, False):
        tree |= {"u16": torch.ones(3, dtype=torch.uint16)} if new else {}  # torch itself reads no old ones
        tree = {name: tensor for name, tensor in tree.items() if new or name != "u16"}
        torch.save({"model": tree}, tmp_path / "file.pth", _use_new_zipfile_serialization=new)
        found = files.read(tmp_path / "file.pth").tensors
        wanted = torch.load(tmp_path / "file.pth", weights_only=True)["model"]
        assert found.keys() == wanted.keys()
        for name, tensor in wanted.items():
            assert (found[name].dtype, found[name].stride()) == (tensor.dtype, tensor.stride()), name
            assert torch.equal(found[name], tensor.detach()), name


def test_a_pickle_of_python_alone(tmp_path: Path) -> None:
    (tmp_path / "file.pkl").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(UsageError, match="no tensors at the top or under model"):
        files.read(tmp_path / "file.pkl")
