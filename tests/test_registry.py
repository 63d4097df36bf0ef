"""Names of this package and of plug-ins; a broken one is named where it is asked for and stops no other."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from helpers import like
from typer.testing import CliRunner

from vpbench import registry
from vpbench.api.backbone import classifier, network
from vpbench.api.method import load_method
from vpbench.backbones.checkpoints import reading
from vpbench.backbones.videomae import VIDEOMAE_EMBEDDED
from vpbench.cli import app
from vpbench.errors import UsageError, VpbenchError
from vpbench.registry import Entry

PLUG_INS = """
from vpbench.backbones.videomae import VIDEOMAE_EMBEDDED
from vpbench.registry import Entry

SMALL = Entry("a small one", VIDEOMAE_EMBEDDED, "stream", "vpbench.backbones.videomae.network:VideoMAE")
NUMBER = 3
LOST = Entry("builds nothing", VIDEOMAE_EMBEDDED, "stream", "plug_ins:missing", layouts="plug_ins_nowhere")
"""


@pytest.fixture(autouse=True)
def plug_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package that offers good and broken backbones, methods and datasets."""
    (tmp_path / "plug_ins.py").write_text(PLUG_INS)
    (tmp_path / "broken_method.py").write_text("this is no python\n")
    (tmp_path / "leaving.py").write_text("raise SystemExit(3)\n")
    points = (
        EntryPoint("small", "plug_ins:SMALL", "vpbench.backbones"),
        EntryPoint("number", "plug_ins:NUMBER", "vpbench.backbones"),
        EntryPoint("gone", "plug_ins:GONE", "vpbench.backbones"),
        EntryPoint("lost", "plug_ins:LOST", "vpbench.backbones"),
        EntryPoint("mvit_b_16x4", "plug_ins:SMALL", "vpbench.backbones"),
        EntryPoint("broken", "broken_method", "vpbench.methods"),
        EntryPoint("nowhere", "no.such.module", "vpbench.methods"),
        EntryPoint("sta", "plug_ins", "vpbench.methods"),
        EntryPoint("nowhere", "no_such_module", "vpbench.datasets"),
        EntryPoint("leaves", "leaving", "vpbench.methods"),
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "entry_points", lambda group: [each for each in points if each.group == group])
    registry.entries.cache_clear()
    yield
    registry.entries.cache_clear()
    sys.modules.pop("plug_ins", None)


def test_a_backbone_of_another_package_is_like_our_own() -> None:
    assert registry.backbone("small").summary == "a small one"
    assert list(registry.backbones())[-2:] == ["small", "lost"]
    with torch.device("meta"):
        assert type(classifier("small")).__name__ == "VideoMAE"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("number", r"plug_ins:NUMBER must be a vpbench.registry.Entry, it is of type int"),
        ("gone", r"plug_ins:GONE cannot be imported: AttributeError"),
        ("mvit_b_16x4", r"two backbones have this name: vpbench.backbones.mvit:ENTRIES and plug_ins:SMALL; uninstall"),
    ],
)
def test_a_broken_backbone_is_named(name: str, says: str) -> None:
    with pytest.raises(VpbenchError, match=rf"backbones/{name}: {says}") as error:
        registry.backbone(name)
    assert "\n" not in str(error.value)
    assert name not in registry.backbones()
    assert registry.backbone("mvit_embedded").family == "MViT"


def test_a_network_that_cannot_be_built_is_named() -> None:
    with pytest.raises(VpbenchError, match="plug_ins:missing cannot be imported"):
        network("lost")
    with pytest.raises(UsageError, match="vitdet_embedded finds objects"):
        classifier("vitdet_embedded")
    with pytest.raises(UsageError, match="unknown backbone 'smal'; did you mean 'small'"):
        registry.backbone("smal")


def test_broken_methods_and_datasets_are_named() -> None:
    for name, says in (("broken", "cannot be read: SyntaxError"), ("nowhere", "cannot be found: ModuleNotFoundError")):
        with pytest.raises(VpbenchError, match=f"methods/{name}.*{says}"):
            registry.summary("methods", name)
        with pytest.raises(VpbenchError, match=f"methods/{name} does not import"):
            load_method(name)
    with pytest.raises(VpbenchError, match="methods/leaves does not import: SystemExit: 3"):
        load_method("leaves")
    with pytest.raises(VpbenchError, match=r"two methods are called 'sta': vpbench\.methods\.sta and plug_ins"):
        load_method("sta")
    assert load_method("rlt").__name__ == "Rlt"


def test_ls_lists_what_works_and_what_does_not() -> None:
    for what, works, broken in (
        ("methods", "rlt ", "nowhere"),
        ("datasets", "k400", "nowhere"),
        ("backbones", "videomae_b ", "gone"),
    ):
        listed = CliRunner().invoke(app, ["ls", what])
        assert listed.exit_code == 0
        assert works in listed.stdout
        assert f"\n{broken} " in listed.stdout
        assert "cannot be used" in listed.stdout


def test_layouts_that_do_not_import_stop_no_file_that_others_know() -> None:
    names = {name: torch.zeros(()) for name in classifier("small").state_dict()}
    with pytest.raises(UsageError, match=r"^here"):  # VideoMAE's own complaint
        reading.recognise(names, "here")
    with pytest.raises(VpbenchError, match="here: no family knows these tensors; plug_ins_nowhere cannot be imported"):
        reading.recognise({"layer1.weight": torch.zeros(2)}, "here")


def test_entries_of_a_family_share_their_network() -> None:
    assert isinstance(like(VIDEOMAE_EMBEDDED), Entry)
    for family in {entry.family for entry in registry.backbones().values()} - {"VideoMAE"}:
        own = [entry for entry in registry.backbones().values() if entry.family == family]
        assert len({(entry.build, entry.layouts, entry.flow, entry.task) for entry in own}) == 1
        assert {entry.protocol is None for entry in own} == {own[0].task == "detection"}
        assert replace(own[0], summary="").family == family
