"""Energy from counters that are known, wrap around, or are not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from vpbench.measure import energy


def package(root: Path, number: int, microjoules: int, limit: int = 1000_000) -> Path:
    folder = root / f"intel-rapl:{number}"
    folder.mkdir(parents=True)
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    (folder / "max_energy_range_uj").write_text(f"{limit}\n")
    return folder


def test_packages_are_added_and_wrap_around(tmp_path: Path) -> None:
    first, second = package(tmp_path, 0, 900_000), package(tmp_path, 1, 100_000)
    package(tmp_path / "intel-rapl:0", 0, 5).rename(tmp_path / "intel-rapl:0:0")  # a part of a package, not one more
    counter, reason = energy.rapl(tmp_path)
    assert counter is not None
    assert not reason
    assert counter.joules() == 0
    (first / "energy_uj").write_text("950000")
    (second / "energy_uj").write_text("300000")
    assert counter.joules() == pytest.approx(0.25)
    (first / "energy_uj").write_text("50000")  # over the top: 0.05 to the limit, 0.05 after it
    assert counter.joules() == pytest.approx(0.35)
    assert counter.source == "RAPL, 2 packages"


def test_no_counter_is_a_reason_not_a_guess(tmp_path: Path) -> None:
    counter, reason = energy.rapl(tmp_path)
    assert counter is None
    assert "no RAPL counter" in reason


class Steady:
    """A machine of 50 W, 20 W of them idle, and a clock that work and sleep move on."""

    source = "test"

    def __init__(self) -> None:
        self.now = self.used = 0.0

    def joules(self) -> float:
        return self.used

    def clock(self) -> float:
        return self.now

    def work(self) -> int:
        self.now, self.used = self.now + 0.5, self.used + 25.0
        return 4

    def sleep(self, seconds: float) -> None:
        self.now, self.used = self.now + seconds, self.used + 20.0 * seconds


def test_joules_per_clip_with_and_without_idle() -> None:
    machine = Steady()
    idle = energy.idle_watts(machine, clock=machine.clock, sleep=machine.sleep)
    assert idle == pytest.approx(20)
    found = energy.measure(machine, machine.work, idle, clock=machine.clock)
    assert found.per_clip == pytest.approx(50 * 0.5 / 4)
    assert found.per_clip_net == pytest.approx(30 * 0.5 / 4)
    assert machine.now >= 20, "ten seconds idle and ten at work"
