"""What the numbers were measured on, and what would spoil them (docs/measurement.md, section 3)."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil
import torch

import vpbench
from vpbench.errors import unusable
from vpbench.measure.gpu import Facts, gpu_of

ISA_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
LIBRARIES = ("av", "decord", "fvcore", "numpy", "pandas", "pyarrow", "safetensors")
_CPUINFO = Path("/proc/cpuinfo")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


@dataclass(frozen=True)
class Machine:
    """Hardware, software and state at one moment; holds nothing personal (no host, user or path). None = unknown.

    `cores`: logical cores this process may use; `isa`: those of `ISA_FLAGS` the CPU has; `isa_level`: the level
    torch's own kernels use; `cpu_mhz`: its clock now, as far as the system says, and `cpu_max_mhz` its highest; `load`:
    mean number of runnable processes over the last minute; `flags`: what decides whether results repeat bit by bit and
    how exact products are; `gpu`: None on a CPU, or where the driver cannot be asked, and then `gpu_unknown` says why;
    `git_dirty`: code differs from `git_commit`, both None outside a checkout of vpbench.
    """

    device: str
    device_name: str
    cpu_name: str
    cores: int
    isa: tuple[str, ...]
    isa_level: str
    cpu_mhz: float | None
    cpu_max_mhz: float | None
    governor: str | None
    load: float
    threads: int
    interop_threads: int
    python_version: str
    torch_version: str
    cuda_version: str | None
    driver: str | None
    gpu: Facts | None
    gpu_unknown: str
    debug_build: bool
    flags: Mapping[str, str]
    libraries: Mapping[str, str]
    git_commit: str | None
    git_dirty: bool | None


def snapshot(device: str = "cpu") -> Machine:
    """Describe this machine now; `device` is a torch device name and must exist."""
    on_cuda = device.startswith("cuda")
    cpu, flags = _cpu()
    commit, dirty = git_state(vpbench.CHECKOUT)
    gpu, gpu_unknown = gpu_of(device)
    clock = psutil.cpu_freq() if hasattr(psutil, "cpu_freq") else None
    return Machine(
        device=device,
        device_name=torch.cuda.get_device_name(device) if on_cuda else cpu,
        cpu_name=cpu,
        # a container or taskset may grant fewer cores than the machine has
        cores=len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1,
        isa=tuple(flag for flag in ISA_FLAGS if flag in flags),
        isa_level=torch.backends.cpu.get_cpu_capability(),
        cpu_mhz=clock.current if clock else None,
        cpu_max_mhz=clock.max or None if clock else None,
        governor=_GOVERNOR.read_text().strip() if _GOVERNOR.is_file() else None,
        load=psutil.getloadavg()[0],
        threads=torch.get_num_threads(),
        interop_threads=torch.get_num_interop_threads(),
        python_version=platform.python_version(),
        torch_version=torch.__version__,
        cuda_version=torch.version.cuda,
        driver=_driver() if on_cuda else None,
        gpu=None if gpu is None else gpu.facts(),
        gpu_unknown=gpu_unknown,
        debug_build=bool(torch.version.debug) or hasattr(sys, "gettotalrefcount"),
        flags=_flags(),
        libraries=_libraries(),
        git_commit=commit,
        git_dirty=dirty,
    )


def model(device: str = "cpu") -> str:
    """Name the kind of system, and the model of the processor or of the device: what times of two rows must share.

    Raises UsageError for a CUDA device that is not there.
    """
    try:
        own = torch.cuda.get_device_name(device) if device.startswith("cuda") else _cpu()[0]
    except (RuntimeError, AssertionError) as error:
        raise unusable(device, error) from error
    return f"{platform.system()} {platform.machine()} {own}"


def warnings(machine: Machine) -> list[str]:
    """Name, one line each, what would spoil a timing on `machine`; empty if nothing is known to."""
    found = []
    if machine.load > 0.2 * machine.cores:
        found.append(f"busy: load {machine.load:.2f} on {machine.cores} cores; above 0.2 per core rows are noisy")
    if machine.governor == "powersave":
        found.append("CPU governor is powersave: clocks follow the load; choose performance")
    if machine.debug_build:
        found.append("debug build of Python or torch: times mean nothing")
    if machine.threads > machine.cores:
        found.append(f"{machine.threads} threads share {machine.cores} cores; use --threads {machine.cores} or fewer")
    return found + _gpu_warnings(machine)


def _gpu_warnings(machine: Machine) -> list[str]:
    gpu, found = machine.gpu, []
    if gpu is None:
        return [f"clocks and heat of the GPU are unknown: {machine.gpu_unknown}"] if machine.gpu_unknown else []
    if gpu.others:
        found.append(f"{gpu.others} other processes compute on this GPU; end them, or choose another with --device")
    if gpu.state.throttled:
        found.append(f"the GPU is held back now ({', '.join(gpu.state.throttled)}); rounds in which it is are dropped")
    if gpu.mig:
        found.append("the GPU is partitioned (MIG): its figures are those of the part, not of the whole")
    return found


def _flags() -> dict[str, str]:
    found = {
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "float32 matmul precision": torch.get_float32_matmul_precision(),
        "TF32 in matmul": torch.backends.cuda.matmul.allow_tf32,
        "TF32 in cuDNN": torch.backends.cudnn.allow_tf32,
        "cuDNN benchmark": torch.backends.cudnn.benchmark,
        "cuDNN deterministic": torch.backends.cudnn.deterministic,
        "CUBLAS_WORKSPACE_CONFIG": os.environ.get("CUBLAS_WORKSPACE_CONFIG", "not set"),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "not set"),
    }
    return {name: str(value) for name, value in found.items()}


def busy_cores(seconds: float = 1.0) -> float:
    """Watch the machine for `seconds` while this process waits; returns how many cores others keep busy on average.

    A load average cannot tell others from what this process did in the minute before.
    """
    return psutil.cpu_percent(interval=seconds) / 100 * (psutil.cpu_count() or 1)


def git_state(root: Path) -> tuple[str | None, bool | None]:
    """Return the commit of the checkout at `root`, and whether code that can change a number differs from it.

    (None, None) if `root` is not itself the top of a checkout with a commit, or git is missing. An installed copy
    may lie inside somebody else's repository, hence the look for `.git` in `root` and nowhere above.
    """
    commit = _output("git", "-C", str(root), "rev-parse", "--verify", "HEAD") if (root / ".git").exists() else None
    if commit is None:
        return None, None
    code = ("vpbench", "methods", "datasets")
    changed = _output("git", "-C", str(root), "status", "--porcelain", "--", *code)
    return commit, None if changed is None else bool(changed)


def _output(*command: str) -> str | None:
    """Return what a command prints, or None where it is missing or fails."""
    # a hook or a wrapper may point git elsewhere
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, env=environment, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu() -> tuple[str, frozenset[str]]:
    """Return the CPU's model name and its feature flags (the flags on Linux only)."""
    if not _CPUINFO.is_file():
        name = _output("sysctl", "-n", "machdep.cpu.brand_string") if sys.platform == "darwin" else None
        return name or platform.processor() or platform.machine(), frozenset()
    pairs = (line.split(":", 1) for line in _CPUINFO.read_text().splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in pairs}
    name = fields.get("model name") or platform.machine()
    if "model" in fields and not any(letter.isdigit() for letter in name):
        # virtual machines give the brand alone ("AMD EPYC"), which generations of unlike speed share
        name += f" (family {fields.get('cpu family')}, model {fields['model']})"
    return name, frozenset(fields.get("flags", "").split())


def _driver() -> str | None:
    printed = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return printed.splitlines()[0] if printed else None


def _libraries() -> dict[str, str]:
    installed = {}
    for name in LIBRARIES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # decord has no wheel on some platforms; an absent key says so
    return installed
