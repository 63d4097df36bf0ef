"""Cells and what they share: the words of a plan."""

import dataclasses
from dataclasses import dataclass

Value = bool | int | float | str


@dataclass(frozen=True)
class Profile:
    """Effort of the timing: at least `rounds` and `seconds` of interleaved rounds in each of `processes` processes.

    `warm_up_s`, `warm_up_max_s`: seconds of warm-up per configuration, at least and at most; `block_s`: seconds of it
    that a block of configurations may take together, since a killed run warms its block up anew; `single`: rounds where
    a round is one clip, if more than `rounds`.
    """

    rounds: int
    seconds: float
    warm_up_s: float
    warm_up_max_s: float
    block_s: float = 45.0
    processes: int = 1
    single: int = 0


#: explained in docs/measurement.md, section 2
PROFILES = {
    "survey": Profile(12, 0.0, 0.1, 0.5, block_s=6.0),
    # seconds for what is small, where many rounds are quick; 20 rounds for windows of a detector, where each takes long
    "demo": Profile(20, 12.0, 0.3, 5.0, block_s=12.0),
    "ci": Profile(40, 0.0, 0.3, 1.0, block_s=4.0),
    "standard": Profile(30, 20.0, 3.0, 30.0, single=200),
    "publication": Profile(30, 200.0, 3.0, 30.0, processes=3, single=200),
}


@dataclass(frozen=True)
class Setting:
    """All that cells of one group share: they see the same clips, weights, dtype and device, in one process."""

    dataset: str
    split: str
    root: str | None
    backbone: str
    weights: str
    frames: int | None
    size: int | None
    positions: str
    dtype: str
    device: str
    mode: str
    batch: int
    threads: int
    protocol: str
    decoder: str
    workers: int
    cache: str | None
    cache_gb: float
    e2e: bool
    stages: bool
    energy: bool
    max_batch: bool
    limit: int | None
    profile: str
    processes: int
    seed: int
    #: files that list the user's own videos and name their classes; plans of older versions have none
    list: str | None = None
    classes: str | None = None
    weights_key: str | None = None
    #: whether training steps are timed as well
    train_step: bool = False

    @property
    def effort(self) -> Profile:
        """The profile, with the rounds that clips one by one or batches of them take."""
        profile = PROFILES[self.profile]
        return profile if self.batch > 1 else dataclasses.replace(profile, rounds=max(profile.rounds, profile.single))


@dataclass(frozen=True)
class Cell:
    """One method at one setting.

    `params` are the parameters that were set; `keep` is the nominal keep ratio that the others are derived from, or
    None. `match` names the cell whose realised token count a random control copies, clip by clip, and `copies` what
    that cell predicts. `prediction_id` says what is computed, `config_id` also how, how often and on what it is timed.
    """

    config_id: str
    prediction_id: str
    setting: Setting
    method: str
    params: tuple[tuple[str, Value], ...] = ()
    keep: float | None = None
    match: str | None = None
    copies: str | None = None

    @property
    def label(self) -> str:
        """What people read: `rlt keep=0.4`, `sta r=32`."""
        given = [f"{k}={v}" for k, v in self.params] + ([f"keep={self.keep:g}"] if self.keep is not None else [])
        return " ".join([self.method, *given, *(["matched"] if self.match else [])])
