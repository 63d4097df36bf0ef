"""Every command of the README and of docs/ runs as it is written, in the order in which it is, from a fresh folder.

A few options more (`CHEAPER`), rounds of no length and a small network make them cheap. Small trees in official layouts
and a file in a published one stand in for what a reader brings along; runs that would take hours on them, or a GPU, are
resolved by `--dry-run`, and trainings up to their first step.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import epic_tree
import k400_tree
import own_weights
import pytest
import ssv2_tree
import torch
import vid_tree
from helpers import HASTE, ROOT, construct, few_frames, unwatched, vpbench, weightless
from object_store import served
from safetensors.torch import save_file
from tiny_videos import write_video

from vpbench import methods, plan, registry
from vpbench.api.backbone import network
from vpbench.backbones import loading
from vpbench.backbones.videomae import VideoMAEConfig
from vpbench.commands.check import speed, units
from vpbench.datasets.synthmotion import HERE
from vpbench.datasets.synthmotion_boxes import SynthMotionBoxes
from vpbench.tasks.detection import walk

PAGES = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
#: options that are added to a command; of one that is given twice, the last counts
CHEAPER = {
    "run": ("--limit", "2", "--threads", "1"),
    "sweep": ("--limit", "2", "--threads", "1"),
    "plan": ("--limit", "2", "--threads", "1"),
    "show": ("--slots", "2", "--threads", "1"),
    "check": ("--method", "tdiff", "--backbone", "videomae_embedded"),
    "train": ("--help",),  # takes hours: options alone are looked at; trainings have tests of their own
}
#: what says that two videos are too few, and that is all: test_analyses.py and test_analyses_command.py are about them
ANALYSES = {"hard", "overlap", "strata", "frames", "views"}
#: what a run of hours, or one that needs a GPU, is known by
LONG = re.compile(r"(?<!\.finetuned)\.(pth|safetensors)$|^cuda$")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)


def commands(page: str) -> list[list[str]]:
    lines = [line for block in blocks(page, "(?:sh|console)") for line in block.splitlines()]
    return [words for words in (shlex.split(line.removeprefix("$ "), comments=True) for line in lines) if words]


def _weights(backbone: str) -> Callable[[Path], None]:
    """Return what writes random weights as their authors' code saves them."""

    def write(path: Path) -> None:
        torch.save({"module": construct(registry.backbone(backbone).sizes).state_dict()}, path)

    return write


def _placeholder(path: Path) -> None:
    """Write a file that is hashed and never loaded."""
    save_file({"head.weight": torch.zeros(1)}, path)


def _detector(path: Path) -> None:
    """Write a detector's tensors, in half precision: a plan looks at their names and sizes."""
    with torch.device("meta"):
        tensors = network("vitdet_b_672").state_dict()
    torch.save({name: torch.zeros(each.shape, dtype=torch.half) for name, each in tensors.items()}, path)


def _own_weights(path: Path) -> None:
    """Write random weights of two classes."""
    sizes = dataclasses.replace(registry.backbone("videomae_s").sizes, classes=2)
    torch.save({"module": construct(sizes).state_dict()}, path)


def _own_videos(root: Path) -> None:
    """Write two videos in each of two class folders, numbered anew in each."""
    for label, name in enumerate(("jump", "run")):
        for number in range(2):
            write_video(root / name / f"{number}.mp4", seed=2 * label + number)


def _folder(names: tuple[str, ...] = ()) -> Callable[[Path], None]:
    """Return what writes a small model as transformers saves it, of these classes or of Kinetics' 400 without names."""

    def write(path: Path) -> None:
        sizes = VideoMAEConfig(24, 2, 3, 8, 32, 32, patch=8, classes=len(names) or 400)
        path.mkdir()
        torch.save(own_weights.transformers_names(construct(sizes).state_dict()), path / "pytorch_model.bin")
        labels = dict(enumerate(names)) or None
        own_weights.described(path, num_frames=8, num_hidden_layers=2, num_attention_heads=3, id2label=labels)

    return write


def _finetuned(path: Path) -> None:
    """Write weights as a fine-tuning leaves them."""
    path.parent.mkdir(parents=True)
    model = construct(registry.backbone("videomae_embedded").sizes)
    said = {
        "format": "vpbench",
        "sizes": json.dumps(dataclasses.asdict(model.config)),
        loading.FINETUNED_WITH: "rlt (threshold 0.1)",
    }
    save_file(model.state_dict(), path, said)


def _archive(path: Path) -> None:
    tree = vid_tree.build(path.parent / "packed")
    with tarfile.open(path, "w:gz") as archive:
        archive.add(tree, "ILSVRC2015")


#: what is the reader's, by the names that it has on the pages
BROUGHT: dict[str, Callable[[Path], object]] = {
    "k400": k400_tree.build,
    "ssv2": ssv2_tree.build,
    "epic100": epic_tree.build,
    "imagenet_vid": vid_tree.build,
    "ILSVRC2015_VID.tar.gz": _archive,
    "my_videos": _own_videos,
    "my_list.csv": lambda path: path.write_text("jump/0.mp4,jump\njump/1.mp4,jump\nrun/0.mp4,run\nrun/1.mp4,run\n"),
    "my_classes.txt": lambda path: path.write_text("jump\nrun\n"),
    "my_checkpoint.pth": _own_weights,
    "video.mp4": lambda path: shutil.copy(HERE / "clips" / "test0003_move_nw.mp4", path),
    "my_model": _folder(),
    "my_own_model": _folder(("jump", "run")),
    "vit_s.pth": _weights("videomae_s"),
    "mvit_b.pth": _placeholder,
    "vivit_b.pth": _placeholder,
    "vitdet_b.pth": _detector,
    "out/train/rlt/videomae_embedded.finetuned.safetensors": _finetuned,
}


#: what the committed baseline was written of; other commands run on a small one
WHOLE = registry.backbone("videomae_embedded")


@pytest.fixture(scope="module", autouse=True)
def quick(small: None) -> Iterator[None]:
    """Let nothing be timed for long, and nothing be large."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("ci", "standard"):
            patch.setitem(plan.PROFILES, name, HASTE)
        for name in ("ROUNDS", "AGAIN", "BASELINE_ROUNDS"):
            patch.setattr(speed, name, 3)
        patch.setattr(speed, "ALLOWED", 9.0)  # of three rounds on a busy machine
        weightless(patch)
        unwatched(patch)
        few_frames(patch, 9)
        videos = SynthMotionBoxes.videos
        patch.setattr(SynthMotionBoxes, "videos", lambda self, split: videos(self, split)[:4])
        patch.setattr(walk, "WINDOWS", 2)
        build = loading.build
        patch.setattr(loading, "build", lambda backbone, weights, *more: build(backbone, _unloaded(weights), *more))
        yield


def _unloaded(weights: str) -> str:
    return "random" if BROUGHT.get(Path(weights).name) is _placeholder else weights


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder `out/demo` with a sweep as in the demo, which test_demo.py is about."""
    folder = tmp_path_factory.mktemp("demo")
    sweep = ("sweep", "--method", "random,rlt,tdiff", "--keep", "0.2,0.4", "--profile", "ci", "--out", "out/demo")
    done = vpbench(*sweep, *CHEAPER["sweep"], cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "out" / "demo"


class Reader:
    """Somebody who types what a page says, in a checkout of their own."""

    def __init__(self, folder: Path, demo: Path) -> None:
        self.folder, self.demo = folder, demo
        for name in ("Makefile", "configs", "pyproject.toml", "results", "tests"):
            (folder / name).symlink_to(ROOT / name)

    def bring(self, words: set[str]) -> None:
        """Put what is the reader's where the page has it."""
        for name in BROUGHT.keys() & words:
            BROUGHT[name](self.folder / name)
        if "out/demo" in words:
            shutil.copytree(self.demo, self.folder / "out" / "demo")

    def types(self, words: list[str]) -> None:
        """Run one command as the shell would; asserts that it did what it should."""
        getattr(self, words[0])(words[1:])

    def make(self, targets: list[str]) -> None:
        """Look at what make would run: it sets up an environment, which takes minutes, and then runs a command."""
        shown = subprocess.run(["make", "-n", *targets], cwd=self.folder, capture_output=True, text=True, check=True)
        lines = [line.removeprefix(".venv/bin/") for line in shown.stdout.splitlines()]
        assert "pip install" in shown.stdout
        for line in lines:
            if line.startswith("vpbench "):
                self.types(shlex.split(line))

    def pip(self, words: list[str]) -> None:
        """Look whether the extras that are asked for are there."""
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert words[:2] == ["install", "-e"]
        assert set(re.findall(r"\w+", words[2])) <= set(extras)

    def pytest(self, words: list[str]) -> None:
        """Look whether the files are there: they are run beside this one, and by test_readme.py with a new method."""
        assert all((ROOT / word).exists() for word in words if word.endswith(".py"))

    def torchrun(self, words: list[str]) -> None:
        """Type what each of the processes runs."""
        assert words[:4] == ["--nproc-per-node", "2", "-m", "vpbench"]
        self.vpbench(words[4:])

    def python(self, words: list[str]) -> None:
        subprocess.run([sys.executable, *words], cwd=self.folder, check=True, timeout=60)

    def vpbench(self, words: list[str]) -> None:
        name = words[0]
        if words == ["demo"]:  # as the fixture has done
            shutil.copytree(self.demo, self.folder / "out" / "demo", dirs_exist_ok=True)
            return
        more = CHEAPER.get(name, ())
        if "--full" in words or (name in ("run", "sweep") and any(LONG.search(word) for word in words)):
            more = (*more, "--dry-run")
        with pytest.MonkeyPatch.context() as patch:
            if name == "check":
                patch.setitem(registry.entries(), "videomae_embedded", WHOLE)
            if "--baseline" in words:  # of one's own, with as few clips as one likes
                patch.setitem(units.SIZES, "recognition", units.SIZES["recognition"]._replace(pool=3, wanted=2))
            done = vpbench(*words, *more, cwd=self.folder)
        said = f"{shlex.join(words)}\n{done.stdout}{done.stderr}"
        if ANALYSES & set(words):  # of two videos
            assert (done.returncode, "nothing to " in done.stderr) == (3, True), said
        elif "cuda" in words and not torch.cuda.is_available():
            assert (done.returncode, "CUDA" in done.stderr) == (2, True), said
        else:
            assert done.returncode == 0, said


@pytest.fixture
def reader(tmp_path: Path, demo: Path) -> Iterator[Reader]:
    """Return somebody who has saved the method of docs/methods.md."""
    [code] = blocks("docs/methods.md", "python")
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "bottom.py").write_text(code)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path / "methods")])
        yield Reader(tmp_path, demo)
    sys.modules.pop("vpbench.methods.bottom", None)


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_every_command_of_a_page(page: str, reader: Reader) -> None:
    typed = commands(page)
    named = {word for words in typed for word in words}
    reader.bring(named)
    with served() if any(word.startswith("s3://") for word in named) else nullcontext():
        for words in typed:
            reader.types(words)
