"""Sweeps that several workers share, what has to hold of them, and few and small shards with short waits for that."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers import vpbench

from vpbench.plan import manifest
from vpbench.rows.store import Store
from vpbench.run import lease
from vpbench.run.executors import shards

#: the module; in its package the name is a function's
predicting = importlib.import_module("vpbench.tasks.recognition.predict")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four shards of any number of items, and short waits."""
    monkeypatch.setattr(manifest, "SHARDS", 4)
    monkeypatch.setattr(manifest, "LEAST", 1)
    monkeypatch.setattr(shards, "POLL_S", 0.02)
    monkeypatch.setattr(lease, "BEAT_S", 0.02)


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Predict clips alone: how many go together follows the time that they take, and so do the last bits of sums."""
    monkeypatch.setattr(predicting, "TOGETHER", 1)


@pytest.fixture
def one_shard_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop each worker after its first shard, as Ctrl-C does."""
    whole = shards._Worker._shard

    def shard(worker: Any, *given: Any) -> None:
        if getattr(worker, "did", False):
            raise KeyboardInterrupt
        whole(worker, *given)
        worker.did = True

    monkeypatch.setattr(shards._Worker, "_shard", shard)


#: adaptive methods, with a threshold from calibration clips, and controls that copy token counts clip by clip
CALIBRATED = ("--method", "random,rlt,sta", "--keep", "0.4")
MATCHED = ("--method", "rlt,sta", "--set", "sta.r=8")
HOW = ("--weights", "random", "--limit", "8", "--threads", "1", "--profile", "ci")


def said(*arguments: str | Path, code: int = 0) -> str:
    done = vpbench(*arguments)
    assert done.returncode == code, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def each_once_predicted(folder: Path, count: int) -> None:
    """Check that each video lies there once for each cell, in all parts together."""
    store = Store(folder)
    rows = pd.concat([store.read("videos", parts={name}) for name in store.parts("videos")])
    assert len(rows) == count
    assert not rows.duplicated(["prediction_id", "video_id"]).any()


@pytest.fixture(scope="module")
def one(hasty: None, small: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process predicts."""
    folder = tmp_path_factory.mktemp("one")
    said("sweep", *MATCHED, *HOW, "--only", "predict", "--out", folder)
    return folder
