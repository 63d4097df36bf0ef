"""What wrapping transformers costs: time of a dense forward over the library's own, and of VideoMAE-B over ours.

python benchmarks/wrapped.py time hf_videomae_b [--rounds 5]   # wrapped dense over the library's own forward
python benchmarks/wrapped.py ours [--rounds 5]                 # hf_videomae_b over videomae_b, rlt at keep 0.5
python benchmarks/wrapped.py equal hf_vjepa2_l                 # largest difference of dense logits, random weights
One clip, interleaved, one thread; medians and their ratio.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from vpbench.api import Classifier, ClipBatch, Selection
from vpbench.api.pruner import DENSE, Pruner
from vpbench.backbones import loading


def pixels_of(model: Classifier) -> ClipBatch:
    config = model.config
    shape = (1, config.frames, config.height, config.width, 3)
    raw = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return ClipBatch(model.normalise(raw), ("a",), (0,))


def library_of(model: Classifier) -> Callable[[ClipBatch], torch.Tensor]:
    """Return the library's own forward with the same weights, as it comes: sdpa where it knows that."""
    network = model.network
    assert isinstance(network, torch.nn.Module)
    own = type(network)(type(network.config)(**model.config.keywords())).eval()  # type: ignore[attr-defined]
    own.load_state_dict(network.state_dict(), strict=False)

    def forward(batch: ClipBatch) -> torch.Tensor:
        found: torch.Tensor = own(batch.pixels.permute(0, 1, 4, 2, 3)).logits
        return found

    return forward


class Half(Pruner):
    """Keeps every second tubelet: what rlt at keep 0.5 costs the network, whatever clip comes."""

    def video(self, batch: ClipBatch) -> Selection:
        return Selection.of_each(torch.arange(0, 1568, 2).expand(len(batch.ids), -1))


def compare(first: Callable[[], object], second: Callable[[], object], rounds: int) -> None:
    took: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for which in (0, 1) if number % 2 else (1, 0):
            began = time.perf_counter()
            (first, second)[which]()
            if number:
                took[which].append(time.perf_counter() - began)
    middle = [statistics.median(each) for each in took]
    ratios = sorted(a / b for a, b in zip(*took, strict=True))
    spread = f"rounds {ratios[0]:.3f} to {ratios[-1]:.3f}"
    print(f"{middle[0]:.3f} s over {middle[1]:.3f} s: {middle[0] / middle[1]:.3f} ({spread})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("time", "ours", "equal"))
    parser.add_argument("backbone", nargs="?", default="hf_videomae_b")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    model = loading.build(asked.backbone, "random", 0)
    batch = pixels_of(model)
    with torch.inference_mode():
        if asked.what == "ours":
            own = loading.build("videomae_b", "random", 0)
            compare(lambda: model(batch, Half()), lambda: own(batch, Half()), asked.rounds)
            return
        library = library_of(model)
        if asked.what == "equal":
            print(f"{float((model(batch).logits - library(batch)).abs().max()):.2e}")
            return
        print(f"{asked.backbone}, dense, wrapped over the library's own:", end=" ")
        compare(lambda: model(batch, DENSE), lambda: library(batch), asked.rounds)


if __name__ == "__main__":
    main()
