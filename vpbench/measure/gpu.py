"""An NVIDIA GPU seen through its driver: clocks, heat, what holds it back, and who else works on it."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

#: bits of NVML's reasons why clocks are lower than they could be; idle, chosen clocks and a display are no faults
_FAULTS = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal",
    0x40: "hardware thermal",
    0x80: "power brake",
}


@dataclass(frozen=True)
class State:
    """A GPU at one moment: clock of its processors in MHz, degrees Celsius, watts, and what holds its clocks back."""

    sm_mhz: float
    temp_c: float
    watts: float
    throttled: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """What a measurement on a GPU depends on besides its model. None = the driver does not say.

    `max_sm_mhz`: the highest clock; `others`: processes of others that compute on it; `mig`: whether it is partitioned;
    `ecc`: whether its memory is checked; `free_gb`, `total_gb`: 1e9 bytes of its memory.
    """

    state: State
    max_sm_mhz: float
    others: int
    mig: bool | None
    ecc: bool | None
    free_gb: float
    total_gb: float


class Unavailable(Exception):
    """The driver cannot be asked; the message says why, and what to do about it where there is something to do."""


class Gpu:
    """The GPU that torch calls `device` ('cuda', 'cuda:1'); raises `Unavailable` where the driver cannot be asked."""

    #: what its joules are, for `energy_source`
    source = "NVML total energy"

    def __init__(self, device: str) -> None:
        try:
            import pynvml
        except ImportError as error:
            raise Unavailable("asking NVIDIA's driver needs nvidia-ml-py: pip install 'vpbench[gpu]'") from error
        import torch

        self._nvml: Any = pynvml
        # by PCI address: the numbers of torch follow CUDA_VISIBLE_DEVICES, those of NVML do not
        known: Any = torch.cuda.get_device_properties(device)
        address = f"{known.pci_domain_id:08x}:{known.pci_bus_id:02x}:{known.pci_device_id:02x}.0"
        try:
            pynvml.nvmlInit()
            self._handle = pynvml.nvmlDeviceGetHandleByPciBusId(address.encode())
        except pynvml.NVMLError as error:
            raise Unavailable(f"NVIDIA's driver cannot be asked: {error}") from error

    def state(self) -> State:
        """Read clock, heat, power and reasons now: some tens of microseconds on the host, no work for the GPU."""
        nvml, handle = self._nvml, self._handle
        reasons = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
        return State(
            float(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
            float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
            nvml.nvmlDeviceGetPowerUsage(handle) / 1e3,
            tuple(name for bit, name in _FAULTS.items() if reasons & bit),
        )

    def joules(self) -> float:
        """Return joules since the driver was loaded; raises `Unavailable` on parts without that counter."""
        try:
            return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1e3
        except self._nvml.NVMLError as error:
            raise Unavailable(f"NVIDIA's energy counter cannot be read: {error}") from error

    def facts(self) -> Facts:
        """Describe the GPU."""
        nvml, handle = self._nvml, self._handle
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        working = {process.pid for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle)}
        return Facts(
            self.state(),
            float(nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM)),
            len(working - {os.getpid()}),
            self._switch(lambda: nvml.nvmlDeviceGetMigMode(handle)[0]),
            self._switch(lambda: nvml.nvmlDeviceGetEccMode(handle)[0]),
            memory.free / 1e9,
            memory.total / 1e9,
        )

    def _switch(self, read: Callable[[], int]) -> bool | None:
        try:
            return bool(read())
        except self._nvml.NVMLError:
            return None  # parts without such a switch answer "not supported"


@lru_cache
def gpu_of(device: str) -> tuple[Gpu | None, str]:
    """Return the GPU of a torch device, or None with the reason why it cannot be asked ('' on a CPU)."""
    if not device.startswith("cuda"):
        return None, ""
    try:
        return Gpu(device), ""
    except Unavailable as error:
        return None, str(error)
