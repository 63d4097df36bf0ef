"""Does the baseline hold where sums are rounded otherwise? `vpbench check --no-time` with the kernels of older CPUs.

Libraries choose kernels by the CPU they find; the environment can make them choose those of another. Prints, for each
choice, the cells that differ, and the largest deviation of logits of all clips (the gate allows 1e-4).

    python benchmarks/check_kernels.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

#: torch's own kernels, those of oneDNN and of MKL
CHOICES: dict[str, Mapping[str, str]] = {
    "as on this CPU": {},
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "no vectors": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"},
    "two threads' order of sums": {"VPBENCH_TRIAL_THREADS": "2"},
}


def main() -> None:
    if sys.argv[1:] == ["trial"]:
        trial()
        return
    for name, environment in CHOICES.items():
        print(f"{name}: {' '.join(f'{k}={v}' for k, v in environment.items())}", flush=True)
        subprocess.run([sys.executable, __file__, "trial"], env=os.environ | environment, check=True)


def trial() -> None:
    """Run the gate in this process and print what differs."""
    import torch

    from vpbench.commands.check import baseline, gate
    from vpbench.commands.check.facts import deviation

    if threads := os.environ.get("VPBENCH_TRIAL_THREADS"):
        real = torch.set_num_threads
        torch.set_num_threads = lambda _: real(int(threads))  # type: ignore[assignment]
    stored = baseline.read(baseline.COMMITTED)
    verdicts = gate.check(stored, gate.Request(timing=False))
    worst = {v.key: 0.0 for v in verdicts}
    for verdict in verdicts:
        if verdict.measured is not None:
            expected, found = stored.cells[verdict.key].clips, verdict.measured.clips
            worst[verdict.key] = max(deviation(found[name].values, each.values) for name, each in expected.items())
        for difference in verdict.differences:
            print(f"  {verdict.key}: {difference.text}")
    key = max(worst, key=worst.__getitem__)
    failed = sum(verdict.state == "FAIL" for verdict in verdicts)
    print(f"  {len(verdicts)} cells, {failed} differ; logits deviate by {worst[key]:.1e} at most ({key})", flush=True)


if __name__ == "__main__":
    main()
