from __future__ import annotations

import resource
from pathlib import Path

import pytest
from helpers import PLAIN, slowness, unwatched, vpbench, vpbench_process, weightless
from typer.testing import CliRunner

from vpbench import cli, plan
from vpbench.rows.store import Store

QUICK = ("--weights", "random", "--limit", "4", "--profile", "ci", "--threads", "1")


def processor_time() -> float:
    """Seconds that the processes started so far have computed, which is what a user alone on a machine waits for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def seconds(*arguments: str, limit: float) -> float:
    """Least processor time of up to ten, until one is within the limit: a test beside it takes turns on the cores."""
    fastest = float("inf")
    for _ in range(10):
        began = processor_time()
        vpbench_process(*arguments)
        fastest = min(fastest, processor_time() - began)
        if fastest < limit:
            break
    return fastest


@pytest.mark.parametrize(
    ("arguments", "limit"),
    [
        (("--help",), 0.5),
        (("sweep", "--help"), 0.7),  # typer 0.29 loads pydantic for it, 0.12 s, and rich draws 60 options
        (("run", "--method", "rtl"), 0.5),
        (("run", "--nonsense",), 0.5),
        (("run", "--method", "rlt", "--keep", "1.5"), 0.5),
        (("ls", "methods"), 1.0),
        (("ls", "backbones"), 1.0),
        (("ls", "datasets"), 1.0),
        (("ls", "presets"), 1.0),
    ],
    ids=lambda a: " ".join(a) if isinstance(a, tuple) else "",
)  # fmt: skip
def test_answers_at_once(arguments: tuple[str, ...], limit: float) -> None:
    limit *= slowness()
    assert seconds(*arguments, limit=limit) < limit


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("run", "--method", "rtl"), 2, "did you mean 'rlt'"),
        (("run", "--method", "rlt", "--dataset", "k500"), 2, "unknown dataset 'k500'"),
        (("run", "--method", "rlt", "--backbone", "videomae"), 2, "did you mean"),
        (("run", "--method", "rlt", "--keep", "0"), 2, "outside (0, 1]"),
        (("run", "--method", "rlt", "--keep", "half"), 2, "keep"),
        (("run", "--method", "rlt", "--split", "tset"), 2, "did you mean 'test'"),
        (("run", "--method", "rlt,sta", "--keep", "0.5"), 2, "sweep"),
        (("run", "--method", "rlt", "--batch", "0"), 2, "batch: Input should be greater than or equal to 1"),
        (("run", "--method", "rlt", "--mode", "fast"), 2, "mode: Input should be 'eager'"),
        (("run", "--method", "rlt", "--device", "gpu"), 2, "there is no such kind; give cpu, cuda or cuda:N"),
        (("run", "--method", "rlt", "--root", "."), 2, "for videos of your own, add --dataset folder"),
        (("run",), 2, "--method"),
        (("run", "--method", "rlt", "--config", "no.toml"), 2, "no.toml"),
        (("run", "--method", "rlt", "--preset", "rlt/publishd"), 2, "did you mean 'rlt/published'"),
        (("run", "--method", "rlt", "--weights", "no.safetensors"), 2, "no.safetensors"),
        (("run", "--method", "rlt", "--backbone", "videomae_b"), 2, "--weights"),
        (("run", "--method", "rlt", "--root", "nowhere"), 2, "manifest.csv"),
        (("table", "nowhere"), 2, "nowhere"),
        (("plot", "nowhere"), 2, "nowhere"),
    ],
    ids=lambda a: " ".join(a) if isinstance(a, tuple) else "",
)
def test_one_line_and_the_right_exit_code(arguments: tuple[str, ...], code: int, says: str, tmp_path: Path) -> None:
    done = vpbench(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_a_process_ends_as_its_command_does() -> None:
    done = vpbench_process("run", "--method", "rtl")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "did you mean 'rlt'" in done.stderr


def test_results_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = vpbench("run", "--method", "rlt", *QUICK, "--out", tmp_path / "file" / "results")
    assert done.returncode == 2
    assert "--out" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_folder_with_the_name_of_a_file_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plan.PROFILES, "ci", plan.Profile(2, 0.0, 0.0, 0.0))
    weightless(monkeypatch)
    unwatched(monkeypatch)
    for again in range(2):
        done = vpbench("run", "--method", "dense", *QUICK, "--limit", "1", "--out", tmp_path / "results.json")
        assert done.returncode == 0, done.stderr
        assert ("results are several tables, so this becomes a folder" in done.stderr) is (again == 0)


def test_nothing_measured_is_exit_code_3(tmp_path: Path) -> None:
    for command in ("table", "plot"):
        done = vpbench(command, tmp_path)
        assert done.returncode == 3, done.stderr
        assert "run" in done.stderr


def test_config_keys_are_option_names_and_options_win(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text('method = ["rlt"]\nkeep = [0.4]\nweights = "random"\nlimit = 4\n')
    arguments = ("sweep", "--config", config, "--dry-run", "--out", tmp_path / "out")
    plain = vpbench(*arguments)
    assert [line.split("  ")[-1] for line in plain.stdout.splitlines()[:3]] == [
        "dense",
        "random keep=0.4",
        "rlt keep=0.4",
    ]
    assert "3 cells, 0 done, 3 to do" in plain.stdout
    assert "sta keep=0.5" in vpbench(*arguments, "--method", "sta", "--keep", "0.5").stdout
    config.write_text('metod = ["rlt"]\n')
    wrong = vpbench(*arguments)
    assert wrong.returncode == 2
    assert "unknown key 'metod'; did you mean 'method'" in wrong.stderr


def test_ls_shows_what_there_is() -> None:
    assert "rlt " in vpbench("ls", "methods").stdout
    assert "synthmotion" in vpbench("ls", "datasets").stdout
    assert "videomae_b" in vpbench("ls", "backbones").stdout
    assert "rlt/published" in vpbench("ls", "presets", cwd=Path(__file__).parent.parent).stdout


def test_env_names_machine_and_versions() -> None:
    shown = vpbench("env")
    assert shown.returncode == 0
    for word in ("torch", "cores", "governor", "git_commit"):
        assert word in shown.stdout


@pytest.mark.usefixtures("small")
def test_every_method_goes_from_clips_to_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plan.PROFILES, "ci", plan.Profile(2, 0.0, 0.0, 0.0))  # what the times are is not looked at
    # a process for the memory of each of forty cells would take a minute; test_runner.py has some
    weightless(monkeypatch)
    unwatched(monkeypatch)
    every = ",".join(PLAIN)
    arguments = ["sweep", "--method", every, "--keep", "0.5", "--limit", "2", "--profile", "ci", "--threads", "1"]
    done = CliRunner().invoke(cli.app, [*arguments, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    rows = Store(tmp_path, writable=False).read("results")
    assert set(rows["method"]) == set(PLAIN)
    assert set(rows["status"]) == {"ok"}
    assert rows["wall_ms_p50"].notna().all()
    assert "† oracle: reads the labels" in done.stdout
