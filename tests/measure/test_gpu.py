# ruff: noqa: N802 (the names are those of NVML)
"""What the driver says of a GPU, told by a driver that says what the tests want."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from vpbench.measure import energy, gpu


class NVMLError(Exception):
    pass


class Driver(SimpleNamespace):
    """A module like pynvml with one GPU at a known PCI address."""

    NVMLError = NVMLError
    NVML_CLOCK_SM, NVML_TEMPERATURE_GPU = 1, 0

    def __init__(self) -> None:
        super().__init__(reasons=0, mhz=1980, pids=[], counts_energy=True, asked=[])

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetHandleByPciBusId(self, address: bytes) -> str:
        self.asked.append(address.decode())
        return "handle"

    def nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> int:
        return int(self.mhz)

    def nvmlDeviceGetMaxClockInfo(self, handle: str, kind: int) -> int:
        return 1980

    def nvmlDeviceGetTemperature(self, handle: str, kind: int) -> int:
        return 41

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:
        return 123_000

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: str) -> int:
        return int(self.reasons)

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> SimpleNamespace:
        return SimpleNamespace(free=139e9, total=141e9)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[SimpleNamespace]:
        return [SimpleNamespace(pid=pid) for pid in self.pids]

    def nvmlDeviceGetMigMode(self, handle: str) -> tuple[int, int]:
        return 0, 0

    def nvmlDeviceGetEccMode(self, handle: str) -> tuple[int, int]:
        raise NVMLError("Not Supported")

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        if not self.counts_energy:
            raise NVMLError("Not Supported")
        return 5_000_000


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    found = Driver()
    monkeypatch.setitem(sys.modules, "pynvml", found)
    address = SimpleNamespace(pci_domain_id=0, pci_bus_id=0x9B, pci_device_id=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: address)
    gpu.gpu_of.cache_clear()
    yield found
    gpu.gpu_of.cache_clear()


def test_a_gpu_is_found_by_its_address_not_its_number(driver: Driver) -> None:
    found, reason = gpu.gpu_of("cuda:1")
    assert found is not None
    assert not reason
    assert driver.asked == ["00000000:9b:00.0"]


@pytest.mark.parametrize(
    ("reasons", "said"),
    [
        (0x0, ()),
        (0x1, ()),  # idle
        (0x2, ()),  # clocks as they were set
        (0x4 | 0x1, ("power cap",)),
        (0x20 | 0x40, ("software thermal", "hardware thermal")),
    ],
)
def test_state_names_what_holds_the_clocks_back(driver: Driver, reasons: int, said: tuple[str, ...]) -> None:
    driver.reasons = reasons
    assert gpu.Gpu("cuda").state() == gpu.State(1980.0, 41.0, 123.0, said)


def test_own_process_is_no_other(driver: Driver) -> None:
    driver.pids = [os.getpid(), 1, 2]
    facts = gpu.Gpu("cuda").facts()
    assert facts.others == 2
    assert (facts.mig, facts.ecc) == (False, None)
    assert (facts.free_gb, facts.total_gb) == (139.0, 141.0)


def test_energy_counter_or_the_reason(driver: Driver) -> None:
    counter, _ = energy.counter_of("cuda")
    assert counter is not None
    assert counter.joules() == 5000.0
    driver.counts_energy = False
    counter, reason = energy.counter_of("cuda")
    assert counter is None
    assert "Not Supported" in reason


def test_without_the_library_the_reason_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    gpu.gpu_of.cache_clear()
    found, reason = gpu.gpu_of("cuda")
    gpu.gpu_of.cache_clear()
    assert found is None
    assert "vpbench[gpu]" in reason
    assert gpu.gpu_of("cpu") == (None, "")
