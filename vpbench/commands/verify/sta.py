"""Cases of STA (arXiv 2308.04549) on VideoMAE."""

from pydantic import BaseModel
from torch import Tensor

from vpbench.api import ClipBatch
from vpbench.backbones.videomae.gradients import gradient_norms
from vpbench.backbones.videomae.network import VideoMAE
from vpbench.commands.verify.case import Case
from vpbench.commands.verify.compare import EXACT, SETS, Check, Rule, compare_one
from vpbench.commands.verify.videomae import Architecture, attach, build, record, video_batch
from vpbench.methods.sta import Sta

# groups whose order decides what the next stage does: they become its first visited group
STEERS = {1: slice(-2, None), 2: slice(0, 2)}
# after this one nothing depends on order
LAST = 3


class MethodConfig(BaseModel):
    """What was run."""

    r: int


class Settings(BaseModel):
    """What of `case.json` is read."""

    architecture: Architecture
    method_config: MethodConfig


def run(case: Case) -> dict[str, Tensor]:
    """Compute every tensor that such a case may hold; raises UsageError if the method refuses the settings."""
    settings = case.parse(Settings)
    model = build(case, settings.architecture)
    batch = video_batch(case, model.config)
    pruner = attach(case, Sta(settings.method_config.r), model)
    found = record(model, batch, pruner)
    last = found.blocks[-1]
    tensors = (pruner.record or {}) | {
        "logits": found.output.logits,
        "pooled": found.features,
        "final_tokens": last.x.view(len(last.lengths), last.lengths[0], -1),
        "tokens_per_block": found.tokens_per_block,
    }
    if any(name.startswith("extra.") for name in case.expected):
        tensors |= extras(model, batch)
    return tensors


def extras(model: VideoMAE, batch: ClipBatch) -> dict[str, Tensor]:
    """Return the class the dense model predicts, and how its logit depends on each token, `[B, N]`."""
    norms, predicted = gradient_norms(model, batch)
    return {"extra.gradnorm": norms, "extra.pred_class": predicted}


def checks(case: Case, ours: dict[str, Tensor]) -> dict[str, Check]:
    """Give each tensor its rule; what is numbered by position is aligned by token first, where order is free.

    Order inside a group is the order of scores. Near-equal scores may swap without consequence, except in the groups
    that steer the next stage; but they renumber the positions of that stage, so what does not agree by position is
    compared token by token.
    """
    found = {
        name: Check(ours[name], Rule(atol=case.tolerance(f"{name}_atol")))
        for name in ("logits", "pooled", "final_tokens")
    }
    found["tokens_per_block"] = Check(ours["tokens_per_block"])
    if "extra.gradnorm" in ours:
        found["extra.gradnorm"] = Check(ours["extra.gradnorm"], Rule(rtol=case.tolerance("gradnorm_rtol")))
        found["extra.pred_class"] = Check(ours["extra.pred_class"])
    for stage in (stage for stage in range(1, LAST + 1) if f"stage{stage}.kept" in ours):
        found |= Stage(case, ours, stage).checks()
    if (kept := _pair(case, ours, f"stage{LAST}.kept")) and (final := _pair(case, ours, "final_tokens")):
        aligned = [x.gather(1, ids.argsort(dim=1)[..., None].expand_as(x)) for x, ids in zip(final, kept, strict=True)]
        found["final_tokens"] = Check(aligned[0], found["final_tokens"].rule, aligned[1])
    return found


class Stage:
    """The checks of one stage; pairs are ours and theirs."""

    def __init__(self, case: Case, ours: dict[str, Tensor], stage: int) -> None:
        self.case, self.ours, self.stage = case, ours, stage
        self.shape = ours[f"stage{stage}.importance"].shape
        previous = _pair(case, ours, f"stage{stage - 1}.kept")
        # which token stands at each position of each group when the stage starts; None: all stand in raster order
        self.tokens = None if previous is None else [ids.reshape(self.shape) for ids in previous]

    def checks(self) -> dict[str, Check]:
        """Return the checks of what the expected file holds of this stage."""
        name = f"stage{self.stage}."
        first = Rule(atol=self.case.tolerance("first_sim_atol"))
        found = {f"{name}first_sim": Check(self.ours[f"{name}first_sim"], first)}
        for what in ("importance", "redundancy", "score"):
            found |= self._by_position(f"{name}{what}")
        for what in ("kept", "kept_local"):
            found |= self._kept(f"{name}{what}")
        return found

    def _by_position(self, name: str) -> dict[str, Check]:
        pair = _pair(self.case, self.ours, name)
        plain = Check(self.ours[name], self._rule(name, aligned=False))
        if pair is None or self.tokens is None or compare_one(name, plain, pair[1]).ok:
            return {name: plain}
        return {name: Check(self._aligned(pair[0], 0), self._rule(name, aligned=True), self._aligned(pair[1], 1))}

    def _rule(self, name: str, aligned: bool) -> Rule:
        what = name.partition(".")[2]
        if what == "importance":
            return Rule(atol=self.case.tolerance("importance_atol"))
        rtol = self.case.tolerance(f"{what}_rtol")
        if what == "redundancy":
            return Rule(rtol=rtol, nan=True)
        # redundancy * (1 - importance) cancels near importance 1: there rounding is small against redundancy only
        scale = self.ours[f"stage{self.stage}.redundancy"]
        return Rule(rtol=rtol, nan=True, scale=self._aligned(scale, 0) if aligned else scale, of="redundancy")

    def _aligned(self, x: Tensor, side: int) -> Tensor:
        """Put `[B, G, M]` in the order of token ids; side: 0 for ours, 1 for theirs."""
        return x if self.tokens is None else x.gather(2, self.tokens[side].argsort(dim=2))

    def _kept(self, name: str) -> dict[str, Check]:
        pair = _pair(self.case, self.ours, name)
        if pair is None:
            return {name: Check(self.ours[name])}
        ours, theirs = (ids.reshape(*self.shape[:2], -1) for ids in pair)
        plain = compare_one(name, Check(ours, SETS), theirs).ok
        if (
            name.endswith("_local")
            and self.tokens is not None
            and not plain
            and ((theirs >= 0) & (theirs < self.shape[2])).all()
        ):
            ours, theirs = (ids.gather(2, at) for at, ids in zip((ours, theirs), self.tokens, strict=True))
        found = {name: Check(ours, SETS, theirs)}
        if steers := STEERS.get(self.stage):
            found[f"{name}, order"] = Check(ours[:, steers], EXACT, theirs[:, steers])
        return found


def _pair(case: Case, ours: dict[str, Tensor], name: str) -> tuple[Tensor, Tensor] | None:
    """Return a tensor of ours and the expected one, or None unless both are there and alike in shape."""
    if name not in ours or name not in case.expected or ours[name].shape != case.expected[name].shape:
        return None
    return ours[name], case.expected[name]
