"""Execution modes: how one forward is run. Each is another row; none falls back to another without a word."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import MethodType
from typing import Any

import torch
from torch import Tensor

from vpbench.api import Classifier, ClipBatch, Output, Pruner
from vpbench.api.method import draw_uncompiled
from vpbench.errors import UsageError

#: `eager`: operator by operator; `compile`: torch.compile of the whole forward, for fixed shapes; `compile_dynamic`: of
#: its parts that see tokens as rows, for any number of them, attention and method as in eager; `cudagraph`: kernels
#: recorded once and replayed, for methods whose host code decides nothing by the clip
MODES = ("eager", "compile", "compile_dynamic", "cudagraph")
#: shapes and methods that one process may compile the same code for; beyond it torch would go on uncompiled
COMPILED_FORMS = 64
#: clips (or batches) on which each recorded forward must equal the eager one, before it is trusted
CHECKED = 3
#: what replayed logits may differ by, relative to the largest: the same kernels on the same numbers
_ROUNDING = 1e-6
Forward = Callable[[ClipBatch, Pruner], Output]
#: runs its argument while recording it, and returns what runs it again on whatever lies at the same addresses
Record = Callable[[Callable[[], Output]], tuple[Output, Callable[[], None]]]


def forward_of(backbone: Classifier, mode: str, device: str) -> Forward:
    """Return how `backbone` is run in `mode`; raises UsageError where the device cannot."""
    if mode == "eager":
        return backbone
    if mode == "cudagraph":
        if not device.startswith("cuda"):
            raise UsageError("mode cudagraph records CUDA kernels; give --device cuda, or another --mode")
        return Recorded(backbone, _record_cuda)
    if device == "cpu":
        _need_compiler(mode)
    from torch._dynamo import config  # takes a second to import

    # a form too many is an error of its cell; the default would be eager code under the name of compiled code
    config.recompile_limit, config.fail_on_recompile_limit_hit = COMPILED_FORMS, True
    if mode == "compile_dynamic":
        _compile_parts(backbone)
        return backbone
    draw_uncompiled()
    return torch.compile(backbone, dynamic=False)


def _need_compiler(mode: str) -> None:
    """Raise UsageError without a C++ compiler, which torch would miss in the first forward of each cell."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise UsageError(f"mode {mode} needs a C++ compiler: install g++, or name one in CXX") from error


def _compile_parts(backbone: Classifier) -> None:
    """Compile what modules name in `compiled_alone`: functions of tokens `[S, C]` that know no clips.

    A whole forward would be compiled anew wherever it is decided by the tokens of a clip, and methods ask for these all
    the time; so what knows of clips stays as it is. One form serves all blocks of one shape.
    """
    compiled: dict[tuple[type, str], Callable[..., Any]] = {}
    for module in backbone.modules():
        for name in getattr(module, "compiled_alone", ()):
            kind = type(module)
            form = compiled.setdefault((kind, name), torch.compile(getattr(kind, name), dynamic=True))
            setattr(module, name, MethodType(form, module))
    if not compiled:
        raise UsageError(
            "no part of this backbone can be compiled alone (on a grid, shapes do not vary): use --mode compile"
        )


def compilations() -> int:
    """Return how many graphs torch has compiled in this process."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


@dataclass
class _Recording:
    """One recorded forward: where it reads pixels from, what it leaves, and how often it was found to be right."""

    pixels: Tensor
    output: Output
    replay: Callable[[], None]
    checked: int = 0


@dataclass
class Recorded:
    """Replays recorded forwards, one for each pruner and shape of a batch.

    A recording repeats kernels, not the decisions that the host made between them. A method whose decisions follow the
    clip there cannot be recorded (reading a value from the device fails) or is found out, because its first replays on
    other clips differ from eager ones: either way it raises UsageError, and its cell has no row in this mode.
    """

    backbone: Classifier
    record: Record
    _known: dict[tuple[int, torch.Size], _Recording] = field(default_factory=dict)

    def __call__(self, batch: ClipBatch, pruner: Pruner) -> Output:
        """Classify a batch; copying its pixels to where the recording reads them is part of it."""
        key = (id(pruner), batch.pixels.shape)
        if key not in self._known:
            self._known[key] = self._recorded(batch, pruner)
        found = self._known[key]
        found.pixels.copy_(batch.pixels)
        found.replay()
        output = replace(found.output, logits=found.output.logits.clone())
        if found.checked < CHECKED:
            self._check(output, self.backbone(batch, pruner))
            found.checked += 1
        return output

    def _recorded(self, batch: ClipBatch, pruner: Pruner) -> _Recording:
        fixed = replace(batch, pixels=batch.pixels.clone())
        try:
            output, replay = self.record(lambda: self.backbone(fixed, pruner))
        except RuntimeError as error:
            raise UsageError(
                "its forward cannot be recorded as a CUDA graph, because shapes or choices follow the clip: "
                f"{str(error).splitlines()[0]}"
            ) from error
        return _Recording(fixed.pixels, output, replay)

    def _check(self, replayed: Output, eager: Output) -> None:
        scale = float(eager.logits.abs().max())
        same = replayed.counts == eager.counts and torch.allclose(
            replayed.logits, eager.logits, rtol=0, atol=_ROUNDING * scale
        )
        if not same:
            raise UsageError(
                "a CUDA graph of its forward repeats the choices of the clip it was recorded on; it cannot run in mode "
                "cudagraph"
            )


def _record_cuda(run: Callable[[], Output]) -> tuple[Output, Callable[[], None]]:
    """Record on the current device, after the warm-up on a stream of its own that torch's documentation asks for."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = run()
    return output, graph.replay
