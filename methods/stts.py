"""Spatial-Temporal Token Selection (ECCV 2022): trained scorers keep the best slices and the best window of each.

Not the 2026 method of the same name.
"""

import abc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpbench.api import Backbone, Clip, ClipBatch, Flow, GridBackbone, Method, Pruner, UsageError, plain, precise

#: samples of the perturbed top-k in training
SAMPLES = 500


@dataclass(frozen=True)
class Stts(Method):
    """Keep the best slices before some blocks (`time`), and in each slice the best window (`space`).

    Both are lists `block:amount`, several joined by "/". An amount with a point is a ratio, truncated to whole slices
    or, as in the published settings, to a planned number of tokens whose root is the window's side; without a point it
    is a count (slices, or the side). The scorers are those that the backbone's checkpoint holds; without any they are
    untrained, and marked so. `stts_random` and `stts_uniform` select as much without them.
    """

    time: str = "0:0.5"
    space: str = ""

    reference = "Wang et al., Spatial-Temporal Token Selection, ECCV 2022, arXiv 2111.11591; code MIT"
    set_by_keep = ("time", "space")
    flows: ClassVar[frozenset[Flow]] = frozenset({"grid"})
    training_free: ClassVar[bool] = False
    untrainable = "its selections have gradients under noise alone; `vpbench train stts` trains them, and the backbone"
    controls: ClassVar[tuple[str, ...]] = ("stts_random", "stts_uniform")

    def supports(self, backbone: Backbone) -> str | None:
        """Refuse plain backbones, unreadable lists, and amounts that leave nothing."""
        if not isinstance(backbone, GridBackbone):
            return "stts selects slices and windows of a token grid; this backbone has a plain stream of tokens"
        try:
            time, space = parse(self.time), parse(self.space)
        except ValueError:
            return f"time and space are lists like 0:0.5/3:4 (block:amount), not {self.time!r} and {self.space!r}"
        if any(not 0 <= block < backbone.sites or amount <= 0 for block, amount in (*time.items(), *space.items())):
            return f"blocks are 0 to {backbone.sites - 1} and amounts positive; got {self.time!r} and {self.space!r}"
        if 0 in slices(backbone.planned_slots, time).values() or 0 in sides(backbone, space).values():
            return f"{self.time!r} and {self.space!r} leave no slice or no window"
        return None

    def attach(self, backbone: Backbone) -> Pruner:
        """Return the pruner with the scorers that came with the weights, or always the same untrained ones."""
        with plain(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return SttsPruner(self, on_grid(backbone))

    def at_keep(self, keep: float, backbone: Backbone, calibration: Sequence[Clip]) -> Self:
        """Keep the share `keep` of the slices before block 0, and all of each."""
        planned = on_grid(backbone).planned_slots
        count = round(planned * keep)
        if count == 0:
            raise UsageError(f"keep {keep:g} leaves none of {planned} slices")
        return replace(self, time=f"0:{count}", space="")


def on_grid(backbone: Backbone) -> GridBackbone:
    """Return the backbone if its tokens form a grid; raises UsageError if not."""
    if not isinstance(backbone, GridBackbone):
        raise UsageError("stts needs a backbone whose tokens form a grid (vpbench ls backbones)")
    return backbone


def parse(text: str) -> dict[int, float | int]:
    """Read `block:amount/block:amount`; amounts with a point are ratios. Raises ValueError."""
    pairs = (part.split(":") for part in text.split("/") if text)
    return {int(block): float(amount) if "." in amount else int(amount) for block, amount in pairs}


def slices(planned: int, time: Mapping[int, float | int]) -> dict[int, int]:
    """Return the slices kept before each block: ratios of what the selection before left, truncated."""
    kept = {}
    for block, amount in sorted(time.items()):
        planned = kept[block] = int(planned * amount) if isinstance(amount, float) else amount
    return kept


def sides(backbone: GridBackbone, space: Mapping[int, float | int]) -> dict[int, int]:
    """Return the side of the window before each block: the root of the planned tokens, truncated."""
    planned = backbone.planned_windows({block: r for block, r in space.items() if isinstance(r, float)})
    counts = {block: side for block, side in space.items() if isinstance(side, int)}
    return {block: int(tokens**0.5) for block, tokens in planned.items()} | counts


class Scorer(nn.Module):
    """Rates tokens by channels of which half are their own and half are means over all tokens (arXiv 2111.11591)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half, quarter = width // 2, width // 4
        first = nn.Sequential(nn.LayerNorm(width, eps=1e-5), nn.Linear(width, width), nn.GELU())
        rest = (nn.Linear(width, half), nn.GELU(), nn.Linear(half, quarter), nn.GELU(), nn.Linear(quarter, 1))
        self.score_network = nn.ModuleDict({"in_conv": first, "out_conv": nn.Sequential(*rest)})
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, u: Tensor) -> Tensor:
        """Map `[b, n, e]` to raw scores `[b, n]`."""
        h = self.score_network["in_conv"](u)
        half = h.shape[-1] // 2
        shared = h[..., half:].mean(dim=1, keepdim=True).expand(-1, h.shape[1], -1)
        scores: Tensor = self.score_network["out_conv"](torch.cat([h[..., :half], shared], dim=-1))
        return scores[..., 0]


def scorer_macs(tokens: int, width: int) -> int:
    """Multiply-accumulates of a scorer of `width` channels on `tokens` tokens."""
    half, quarter = width // 2, width // 4
    return tokens * (width * width + width * half + half * quarter + quarter)


def normalise(scores: Tensor) -> Tensor:
    """Scale each row of `[b, d]` to [0, 1); a row of one element becomes 0."""
    low, high = scores.amin(dim=1, keepdim=True), scores.amax(dim=1, keepdim=True)
    return (scores - low) / (high - low + 1e-5)


class Selector(Pruner, abc.ABC):
    """Keeps slices and windows of one backbone's tokens; which ones, subclasses say."""

    timed_as: ClassVar[Mapping[str, str]] = {**Pruner.timed_as, "take_slices": "gather", "take_windows": "gather"}

    def __init__(self, method: Stts, backbone: GridBackbone) -> None:
        self.time = slices(backbone.planned_slots, parse(method.time))
        self.space = sides(backbone, parse(method.space))

    @abc.abstractmethod
    def pick_slices(self, name: str, x: Tensor, keep: int) -> Tensor:
        """Return the numbers of the slices of `x` `[B, T, H, W, C]` to keep, `[B, keep]` in ascending order."""

    @abc.abstractmethod
    def pick_anchors(self, name: str, x: Tensor, window: "Window") -> Tensor:
        """Return which of the `window.count` anchors is kept of each slice of `x` `[B, T, H, W, C]`, `[B * T]`."""

    def stage(self, block: int, x: Tensor) -> Tensor:
        """Select slices first, then windows, of `x` `[B, T, H, W, C]`."""
        if block in self.time:
            x = self.in_time(f"time.{sorted(self.time).index(block)}", x, self.time[block])
        if block in self.space:
            x = self.in_space(f"space.{sorted(self.space).index(block)}", x, self.space[block])
        return x

    def in_time(self, name: str, x: Tensor, keep: int) -> Tensor:
        """Keep `keep` slices of `x` `[B, T, H, W, C]`, in their order."""
        if keep > x.shape[1]:
            raise UsageError(f"stts cannot keep {keep} of {x.shape[1]} slices")
        index = self.pick_slices(name, x, keep)
        self.note(f"{name}.indices", index)
        return x if keep == x.shape[1] else self.take_slices(x, index)

    def in_space(self, name: str, x: Tensor, side: int) -> Tensor:
        """Keep one window of `side` x `side` tokens in each slice of `x` `[B, T, H, W, C]`."""
        window = Window.of(x, side)
        anchor = self.pick_anchors(name, x, window)
        self.note(f"{name}.indices", anchor[:, None])
        return x if side == x.shape[2] else self.take_windows(x, window, anchor)

    def take_slices(self, x: Tensor, index: Tensor) -> Tensor:
        """Return the slices `index` `[B, K]` of `x` `[B, T, H, W, C]`."""
        return x.gather(1, index[:, :, None, None, None].expand(-1, -1, *x.shape[2:]))

    def take_windows(self, x: Tensor, window: "Window", anchor: Tensor) -> Tensor:
        """Return one window of each slice of `x` `[B, T, H, W, C]`, by `anchor` `[B * T]`."""
        return window.cut(x, anchor)


@dataclass(frozen=True)
class Window:
    """Windows of `side` x `side` at `across` x `across` anchors, `stride` apart; as published, some miss the border."""

    side: int
    stride: int
    across: int

    @classmethod
    def of(cls, x: Tensor, side: int) -> Self:
        """Return the windows of the slices of `x` `[B, T, H, W, C]`; raises UsageError where there are none."""
        height, width = x.shape[2:4]
        if height != width:
            raise UsageError(f"stts cuts windows out of square maps, not {height}x{width}")
        if side > height:
            raise UsageError(f"stts cannot cut a window of {side} out of a map of {height}")
        stride = max((height - side) // 2, 1)
        return cls(side, stride, (height - side) // stride + 1)

    @property
    def count(self) -> int:
        """Number of anchors."""
        return self.across**2

    def cut(self, x: Tensor, anchor: Tensor) -> Tensor:
        """Cut one window out of each slice of `x` `[B, T, H, W, C]`, by `anchor` `[B * T]`."""
        batch, total, height, width, channels = x.shape
        flat, reach = x.reshape(-1, height, width, channels), torch.arange(self.side, device=x.device)
        across, stride = self.across, self.stride
        rows, cols = (corner[:, None] * stride + reach for corner in (anchor // across, anchor % across))
        # one gather per axis instead of unfolding every anchor's window
        kept = flat.gather(1, rows[:, :, None, None].expand(-1, -1, width, channels))
        kept = kept.gather(2, cols[:, None, :, None].expand(-1, self.side, -1, channels))
        return kept.view(batch, total, self.side, self.side, channels)


class SttsPruner(Selector):
    """STTS on one backbone. In training (`sigma` is set) selections are averages over perturbed scores."""

    def __init__(self, method: Stts, backbone: GridBackbone) -> None:
        super().__init__(method, backbone)
        #: multiply-accumulates of the scorers on one clip in the last forward, and elements of their norms
        self.work, self.normalised = 0, 0
        #: standard deviation of the noise on the scores; None selects hard, as in evaluation
        self.sigma: float | None = None
        #: standard normal samples to use instead of fresh ones, by selection ("time.0", "space.0")
        self.noise: dict[str, Tensor] = {}
        like = next(backbone.parameters())
        widths = {f"time.{j}": 2 * backbone.width_before(block) for j, block in enumerate(sorted(self.time))}
        widths |= {f"space.{j}": backbone.width_before(block) for j, block in enumerate(sorted(self.space))}
        self.scorers = nn.ModuleDict({name.replace(".", "_"): Scorer(width) for name, width in widths.items()})
        if widths and not self._load(backbone.addons):
            self.caveat = "untrained scorer"
        # scores are compared with each other, so scorers stay in float32 where the network is in half precision
        self.scorers.to(device=like.device, dtype=precise(like).dtype).eval().requires_grad_(False)

    def published_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the scorers' tensors under their published names, `time_score_predictor.0.score_network...`."""
        for name, scorer in self.scorers.items():
            axis, number = name.split("_")
            for key, tensor in scorer.named_parameters():
                yield f"{axis}_score_predictor.{number}.{key}", tensor

    def _load(self, addons: Mapping[str, Tensor]) -> bool:
        """Fill the scorers from what a checkpoint holds besides its backbone; False if none of them is there.

        Raises UsageError if they are of another size, or only some are there.
        """
        own = dict(self.published_parameters())
        if not own.keys() & addons.keys():
            return False
        wrong = [key for key, tensor in own.items() if key not in addons or addons[key].shape != tensor.shape]
        if wrong:
            raise UsageError(
                f"the checkpoint's scorers do not fit these selections: {wrong[0]!r} is missing or odd-shaped"
            )
        with torch.no_grad():
            for key, tensor in own.items():
                tensor.copy_(addons[key])
        return True

    def resample(self, batch: ClipBatch) -> ClipBatch:
        """Start counting the scorers' work; the pixels stay."""
        self.work, self.normalised = 0, 0
        return batch

    def macs(self, attention: tuple[int, ...]) -> int:
        """The scorers' work on one clip in the last forward; it depends on the setting alone."""
        return self.work

    def published_macs(self, attention: tuple[int, ...]) -> int:
        """Do as `macs`, with the scorers' norms at 5 per element as the rest of that convention has them."""
        return self.work + 5 * self.normalised

    def pick_slices(self, name: str, x: Tensor, keep: int) -> Tensor:
        """Return the `keep` best slices."""
        return best(self._slice_scores(name, x), keep).sort(dim=1).values

    def pick_anchors(self, name: str, x: Tensor, window: Window) -> Tensor:
        """Return the best anchor of each slice."""
        return best(self._anchor_scores(name, x, window), 1)[:, 0]

    def in_time(self, name: str, x: Tensor, keep: int) -> Tensor:
        """Keep the best slices; in training, averages that lean towards them."""
        if self.sigma is None:
            return super().in_time(name, x, keep)
        return self._soft(name, self._slice_scores(name, x), keep, x)

    def in_space(self, name: str, x: Tensor, side: int) -> Tensor:
        """Keep the best windows; in training, averages that lean towards them."""
        if self.sigma is None:
            return super().in_space(name, x, side)
        batch, total, _, _, channels = x.shape
        window = Window.of(x, side)
        flat = x.flatten(0, 1).permute(0, 3, 1, 2)
        every = F.unfold(flat, side, stride=window.stride).transpose(1, 2)
        soft = self._soft(name, self._anchor_scores(name, x, window), 1, every)[:, 0]
        return soft.view(batch, total, channels, side, side).permute(0, 1, 3, 4, 2)

    def _slice_scores(self, name: str, x: Tensor) -> Tensor:
        flat = precise(x.flatten(2, 3))
        u = torch.cat([flat.mean(dim=2), flat.amax(dim=2)], dim=-1)
        raw = self.scorers[name.replace(".", "_")](u)
        self._charge(u.shape[1], u.shape[2])
        self.note(f"{name}.raw_scores", raw)
        scores = normalise(raw)
        self.note(f"{name}.scores", scores)
        return scores

    def _anchor_scores(self, name: str, x: Tensor, window: Window) -> Tensor:
        """Return the scores `[B * T, P]` of all anchors: means over the tokens of their windows."""
        tokens = self.scorers[name.replace(".", "_")](precise(x.flatten(0, 1).flatten(1, 2)))
        self._charge(x.shape[1] * tokens.shape[1], x.shape[-1])
        maps = tokens.view(-1, 1, *x.shape[2:4])
        raw = F.avg_pool2d(maps, window.side, window.stride).flatten(1)
        scores = normalise(raw)
        for key, value in (("token_scores", tokens), ("anchor_scores", raw), ("scores", scores)):
            self.note(f"{name}.{key}", value)
        return scores

    def _charge(self, tokens: int, width: int) -> None:
        self.work += scorer_macs(tokens, width)
        self.normalised += tokens * width

    def _soft(self, name: str, scores: Tensor, keep: int, x: Tensor) -> Tensor:
        """Return `[b, keep, ...]`: averages of `x` `[b, d, ...]` under the perturbed top-k of `scores` `[b, d]`."""
        given = self.noise.get(name)
        noise = (
            torch.randn(scores.shape[0], SAMPLES, scores.shape[1], device=scores.device, dtype=scores.dtype)
            if given is None
            else given
        )
        indicators = perturbed_topk(scores, noise, keep, float(self.sigma or 0.0))
        self.note(f"{name}.indicators", indicators)
        return (indicators @ precise(x.flatten(2))).to(x.dtype).view(x.shape[0], keep, *x.shape[2:])


def best(scores: Tensor, count: int) -> Tensor:
    """Return the numbers of the `count` highest of `scores` `[b, d]`, highest first; the first of equal ones wins."""
    return scores.argsort(dim=1, descending=True, stable=True)[:, :count]


def perturbed_topk(scores: Tensor, noise: Tensor, keep: int, sigma: float) -> Tensor:
    """Return `[b, keep, d]`: row j says how often each index was the j-th kept one, in ascending order.

    scores: `[b, d]`; noise: standard normal `[b, n, d]`. The gradient is the diagonal of the usual perturbed estimator
    (Berthet et al., NeurIPS 2020): `1/(n sigma) sum_j G[j, d] sum_n P[n, j, d] Z[n, d]`, as STTS was published.
    """
    indicators: Tensor = _PerturbedTopK.apply(scores, noise, keep, sigma)  # type: ignore[no-untyped-call]
    return indicators


class _PerturbedTopK(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, noise: Tensor, keep: int, sigma: float) -> Tensor:
        kept = (scores[:, None] + sigma * noise).topk(keep, dim=-1).indices.sort(dim=-1).values
        picked = F.one_hot(kept, scores.shape[1]).to(scores.dtype)
        ctx.save_for_backward(torch.einsum("bnjd,bnd->bjd", picked, noise) / noise.shape[1])
        ctx.sigma = sigma
        return picked.mean(dim=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (pull,) = ctx.saved_tensors
        scores = (gradient * pull).sum(dim=1) / ctx.sigma if ctx.sigma > 1e-20 else torch.zeros_like(pull[:, 0])
        return scores, None, None, None
