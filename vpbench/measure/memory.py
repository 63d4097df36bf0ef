"""Peak memory of one forward pass (docs/measurement.md, section 4); 1 MB = 10^6 bytes."""

import ctypes
import gc
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from vpbench.processes import call

Forward = Callable[[], object]


@dataclass(frozen=True)
class PeakMemory:
    """Host memory of one configuration, from the resident set of a process of its own."""

    #: growth by building, which includes code first used then
    weights_mb: float
    #: highest level during the forward over the level before it
    peak_mb: float
    #: that highest level itself, interpreter and libraries included
    peak_rss_mb: float


@dataclass(frozen=True)
class CudaPeak:
    """Device memory of one forward: tensors before it, highest sum of tensors, highest hold of the allocator."""

    weights_mb: float
    peak_alloc_mb: float
    peak_reserved_mb: float
    #: what the driver says is taken after it, context and libraries included, and whatever else is there
    device_mb: float


def measure_peak(build: Callable[..., Forward], *args: object, name: str, deadline_s: float = 600.0) -> PeakMemory:
    """Build one configuration in a fresh process, run its forward, and return its peak memory.

    build, args: picklable (`build` defined at the top of a module); `build(*args)` returns the forward without
    arguments; see `processes.call`. Allocators keep freed pages, hence one configuration per process. Raises
    VpbenchError with `name` if the process fails, dies, or takes longer than `deadline_s` seconds.
    """
    return call(_measure, build, args, name=f"memory of {name}", deadline_s=deadline_s)


def cuda_peak(forward: Forward, device: str = "cuda") -> CudaPeak:
    """Run `forward` and return the peak of the CUDA allocator's counters.

    Call it after warm-up; cached blocks are released first, so `peak_reserved_mb` belongs to this forward.
    """
    import torch

    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    forward()
    torch.cuda.synchronize(device)
    highest = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
    free, total = torch.cuda.mem_get_info(device)
    return CudaPeak(before / 1e6, highest[0] / 1e6, highest[1] / 1e6, (total - free) / 1e6)


def max_batch(fits: Callable[[int], bool], most: int = 4096) -> int | None:
    """Return the largest batch for which `fits` says yes, by doubling, then bisection; None where one clip does not.

    `fits` is taken to be monotone. Beyond `most` nobody asks.
    """
    if not fits(1):
        return None
    good, bad = 1, 2
    while bad <= most and fits(bad):
        good, bad = bad, 2 * bad
    bad = min(bad, most + 1)
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


def fits_cuda(forward: Callable[[], object], device: str) -> bool:
    """Say whether a forward ends without running out of device memory; what it held is given back."""
    import torch

    try:
        forward()
        torch.cuda.synchronize(device)
    except torch.OutOfMemoryError:
        return False
    finally:
        torch.cuda.empty_cache()
    return True


def _measure(build: Callable[..., Forward], args: tuple[object, ...]) -> PeakMemory:
    import torch  # loaded here, so that `weights_mb` does not hold the library where nothing was preloaded

    gc.freeze()  # what was imported is no garbage, and to look through it three times takes half a second
    _return_large_blocks_at_once()
    empty = _settled_rss()
    forward = build(*args)  # outside: a method may need gradients of what it is given
    built = _settled_rss()
    with torch.inference_mode():
        if sys.platform == "linux":  # elsewhere the peak cannot be reset: one forward only
            # the first call maps library code, starts threads and fills kernel caches: not the forward's own memory
            forward()
        before = _settled_rss()
        if sys.platform == "linux":
            Path("/proc/self/clear_refs").write_text("5")  # the peak falls to the present level
        forward()
    highest = max(_peak_rss(), before)
    return PeakMemory((built - empty) / 1e6, (highest - before) / 1e6, highest / 1e6)


def _return_large_blocks_at_once() -> None:
    """Have glibc give each large block its own pages for good, as it does at first.

    By default it begins to keep large blocks on the heap once some were freed, and the same forward then peaks 10 MB
    higher or lower from run to run, by where the gaps happen to lie.
    """
    if sys.platform == "linux" and (set_option := getattr(ctypes.CDLL(None), "mallopt", None)):
        m_mmap_threshold = -3
        set_option(m_mmap_threshold, 128 * 1024)


def _settled_rss() -> int:
    """Return the resident bytes once what is free has gone back to the system."""
    gc.collect()
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)  # glibc only; without it, pages freed by one call hide the need of the next
    return int(psutil.Process().memory_info().rss)


def _peak_rss() -> int:
    """Return the highest resident bytes since the last reset (Linux) or since the process began."""
    if sys.platform == "linux":
        # not ru_maxrss: that of a forked process starts at the peak of its parent
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.split("VmHWM:")[1].split()[0])
    import resource

    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else 1024 * highest
