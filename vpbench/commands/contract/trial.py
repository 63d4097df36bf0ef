"""A method on a network that classifies clips: what its promises are checked on."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from vpbench.api import DENSE, SITES, Classifier, Clip, ClipBatch, Method, Output, Pruner, Ran, Tokens
from vpbench.api.method import load_method
from vpbench.commands.contract.clips import clips
from vpbench.commands.contract.networks import seeded, tiny
from vpbench.commands.contract.promise import Unchecked
from vpbench.errors import UsageError
from vpbench.measure.watch.sites import Stand, standing_in
from vpbench.registry import Entry
from vpbench.tasks.recognition.session import to_batch

#: clips of a batch
CLIPS = 6


@dataclass(frozen=True)
class Trial:
    """A method on a tiny network, and clips."""

    method: str
    entry: Entry

    @cached_property
    def network(self) -> Classifier:
        """The network, with random weights large enough to make tokens matter."""
        found = tiny(self.entry)
        assert isinstance(found, Classifier)
        return found

    def outline(self) -> Classifier:
        """Build the network on the meta device: sizes without numbers."""
        with torch.device("meta"):
            found = seeded(self.entry, 0.0)
        assert isinstance(found, Classifier)
        return found

    @cached_property
    def clips(self) -> Sequence[Clip]:
        """Clips of the network's sizes."""
        return clips(self.network.config, CLIPS)

    @property
    def kind(self) -> type[Method]:
        """The method's class."""
        return load_method(self.method)

    @cached_property
    def prunes(self) -> bool:
        """Whether a keep ratio says anything: of dense it does not."""
        return bool(self.kind.set_by_keep) or any(map(self.kind().attach(self.network).acts_at, every_site()))

    def ready(self, keep: float) -> Method:
        """Set the parameters by a keep ratio; UsageError where the method refuses it."""
        return self.kind().at_keep(keep if self.prunes else 1.0, self.network, self.clips)

    def refused(self) -> str | None:
        """Return why the method does not run here at keep 0.5, None if it does."""
        if self.network.flow not in self.kind.flows:
            return f"it does not prune the flow {self.network.flow}"
        try:
            method = self.ready(0.5)
        except UsageError as error:
            return str(error)
        return method.supports(self.network) or self.network.refuses(method.attach(self.network))

    def half(self) -> Method:
        """Set the parameters for keep 0.5; Unchecked where the method cannot go there."""
        try:
            return self.ready(0.5)
        except UsageError as error:
            raise Unchecked(str(error)) from error

    def run(self, pruner: Pruner, given: Sequence[Clip] | None = None) -> Output:
        """Run the network on clips (None: all) in inference mode."""
        return run(self.network, to_batch(self.clips if given is None else given, "cpu"), pruner)

    def logits(self, method: Method, given: Sequence[Clip] | None = None) -> Tensor:
        """Run a method anew."""
        return self.run(method.attach(self.network), given).logits

    def dense(self, given: Sequence[Clip] | None = None) -> Output:
        """Run without any method."""
        return self.run(DENSE, given)


def run(network: Classifier, batch: ClipBatch, pruner: Pruner) -> Output:
    """Run a network in inference mode."""
    with torch.inference_mode():
        found: Output = network(batch, pruner)
    return found


def every_site() -> frozenset[str]:
    """Return the names of all sites of all flows."""
    return frozenset[str]().union(*SITES.values())


@dataclass
class Seen:
    """Tokens on their way: by block, those that came out of its attention and those that went on to its MLP and out.

    `ran`: what came of blocks, if the method runs them itself: steps of clips, each with a class token.
    """

    attention: dict[int, list[Tokens]]
    mlp: dict[int, list[Tokens]]
    out: dict[int, list[Tokens]]
    ran: dict[int, list[Ran]]

    def left(self) -> int:
        """Tokens after the last site of all, class tokens (whose place is -1) left out."""
        if self.ran:
            return sum(each.x.shape[0] * (each.x.shape[1] - 1) for each in self.ran[max(self.ran)])
        return sum(int((tokens.index >= 0).sum()) for tokens in self.out[max(self.out)])


@contextmanager
def seeing(pruner: Pruner) -> Iterator[Seen]:
    """Write down the tokens that a plain stream shows a pruner, and those that it gives back."""
    seen = Seen({}, {}, {}, {})

    def site(
        before: dict[int, list[Tokens]] | None, after: dict[int, list[Tokens]],
        own: Callable[..., Tokens], layer: int, tokens: Tokens, *more: object,
    ) -> Tokens:  # fmt: skip
        if before is not None:
            before.setdefault(layer, []).append(tokens)
        given = own(layer, tokens, *more)
        after.setdefault(layer, []).append(given)
        return given

    def run_block(own: Callable[..., Ran], layer: int, *more: object) -> Ran:
        seen.ran.setdefault(layer, []).append(own(layer, *more))
        return seen.ran[layer][-1]

    stands: dict[str, Stand] = {
        "after_attention": partial(site, seen.attention, seen.mlp),
        "after_block": partial(site, None, seen.out),
    }
    if pruner.acts_at("run_block"):
        stands["run_block"] = run_block
    with standing_in(pruner, stands):
        yield seen
