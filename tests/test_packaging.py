"""Wheel, editable install and bare checkout find the same methods and clips, and leave the library `datasets` alone."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from helpers import HASTY

from vpbench.plan import presets
from vpbench.rows import published

ROOT = Path(__file__).resolve().parent.parent
FILES = [path for path in (ROOT / "methods").glob("[a-z]*") if path.suffix == ".py" or (path / "__init__.py").exists()]
METHODS = ",".join(sorted(path.stem for path in FILES))
FIGURES = ("*.csv", "reasons.toml")
LISTS = (
    "from vpbench.plan import presets; from vpbench.rows import published;"
    "print(presets.summaries(), published.figures(), published.reasons(), sep='\\n')"
)
PROBE = (
    "import vpbench.registry as r, vpbench, pathlib;"
    "from vpbench.datasets.synthmotion import SynthMotion;"
    "print(','.join(r.names('methods')), len(SynthMotion().videos('test')), pathlib.Path(vpbench.__file__).parent)"
)


def run(*command: str | Path, cwd: Path) -> str:
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True, check=False, env=alone)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build from a clean export of the working tree, so that leftovers of other builds cannot help."""
    out = tmp_path_factory.mktemp("wheel")
    source = out / "source"
    files = run("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT).splitlines()
    for name in files:
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_symlink():
            target.symlink_to((ROOT / name).readlink())
        elif (ROOT / name).is_file():
            target.write_bytes((ROOT / name).read_bytes())
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source, cwd=out)
    return next(out.glob("*.whl"))


def test_wheel_holds_plug_ins_clips_and_weights(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "vpbench/methods/rlt.py" in names
    assert sum(n.startswith("vpbench/datasets/synthmotion/clips/") and n.endswith(".mp4") for n in names) == 504
    assert "vpbench/backbones/weights/videomae_embedded.safetensors" in names
    for folder, source, kinds in (
        ("plan/configs", "configs", ("*.toml",)),
        ("rows/figures", "results/published", FIGURES),
    ):
        wanted = {f"vpbench/{folder}/{path.name}" for kind in kinds for path in (ROOT / source).glob(kind)}
        assert len(wanted) > 6
        assert wanted - set(names) == set()
    assert not [n for n in names if n.startswith(("methods/", "datasets/", "tests/"))]


def test_wheel_runs_in_a_clean_environment(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=False)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path / "env")}))
    zipfile.ZipFile(wheel).extractall(site)
    # the libraries are borrowed from the running environment, vpbench itself is not: it is found in the wheel first
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = tmp_path / "env" / "bin" / "python"
    found = run(python, "-c", PROBE, cwd=tmp_path)
    assert found.startswith(f"{METHODS} 504 ")
    assert str(tmp_path / "env") in found
    command: list[str | Path] = [
        python,
        "-c",
        HASTY,
        "run",
        "--method",
        "rlt",
        "--limit",
        "2",
        "--profile",
        "ci",
        "--threads",
        "1",
        "--out",
        tmp_path / "out",
    ]
    assert "rlt" in run(*command, cwd=tmp_path)
    assert "\nrlt " in run(python, "-m", "vpbench", "ls", "methods", cwd=tmp_path)
    here = tuple(map(str, (presets.summaries(), published.figures(), published.reasons())))
    assert min(map(len, here)) > 100
    assert tuple(run(python, "-c", LISTS, cwd=tmp_path).splitlines()) == here
    assert "180." in run(python, "-m", "vpbench", "flops", "--preset", "rlt/vit_b", cwd=tmp_path)


def test_bare_checkout_runs_uninstalled() -> None:
    found = run(sys.executable, "-c", PROBE, cwd=ROOT)
    assert str(ROOT) in found


def test_links_that_became_text_files_still_run(tmp_path: Path) -> None:
    """What a checkout looks like on Windows without the symlink privilege."""
    (tmp_path / "vpbench").mkdir()
    for path in (ROOT / "vpbench").iterdir():
        target = tmp_path / "vpbench" / path.name
        if path.is_symlink():
            target.write_text(str(path.readlink()))
        else:
            target.symlink_to(path)
    # __init__.py must be a real file: it looks beside itself
    (tmp_path / "vpbench" / "__init__.py").unlink()
    (tmp_path / "vpbench" / "__init__.py").write_bytes((ROOT / "vpbench" / "__init__.py").read_bytes())
    for folder in ("methods", "datasets"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    found = run(sys.executable, "-c", PROBE, cwd=tmp_path)
    assert found.startswith(f"{METHODS} 504 ")
    assert str(tmp_path) in found


def test_a_library_called_datasets_is_not_shadowed(tmp_path: Path) -> None:
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").write_text("NAME = 'the library'\n")
    code = f"import sys; sys.path.append({str(tmp_path)!r}); import datasets; print(datasets.NAME)"
    assert run(sys.executable, "-c", code, cwd=ROOT) == "the library"
