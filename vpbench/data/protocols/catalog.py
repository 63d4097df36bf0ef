"""The protocols by name, and which one is meant where none is asked for. Imports no torch."""

from dataclasses import replace

from vpbench.data.protocols.protocol import Protocol
from vpbench.data.protocols.shape import Preparation
from vpbench.data.protocols.spatial import Antialiased, Bicubic, Bilinear, Rounded, Stated, StatedBicubic, WideCentre
from vpbench.data.protocols.temporal import Even, First, RandomWindows, Seconds, Segments, Spread, Strided, Windows
from vpbench.errors import UsageError, near_matches

#: the name for one view of whatever protocol would be the default
SINGLE = "single"
SINGLE_SUMMARY = "one central view by the rules of the data set's own protocol or else the backbone's; for a quick look"
#: the name for what the settings of a checkpoint's own processor say
CHECKPOINT = "checkpoint"
CHECKPOINT_SUMMARY = "one view as the processor's settings beside the weights of a wrapped backbone say (hf_...)"
CATALOG = {
    each.name: each
    for each in (
        Protocol("first", "one view from the first frame on, for videos as long as a clip", First(), Bilinear(1)),
        Protocol("videomae_5x3", "VideoMAE on Kinetics-400: every 4th frame, 5 x 3 views", Strided(5), Bilinear(3)),
        Protocol(
            "spread_2x3",
            "VideoMAE on Something-Something V2: over the whole video, 2 x 3 views",
            Spread(2),
            Bilinear(3),
        ),
        Protocol(
            "rlt_4x3",
            "RLT on Kinetics-400: random windows in 4 parts (by seed and video), 4 x 3 views, bicubic",
            RandomWindows(4),
            Bicubic(3),
        ),
        Protocol("mvit_5x1", "MViT on Kinetics-400: 16 frames of 2.1 s, 5 x 1 views", Seconds(5), WideCentre()),
        Protocol("mvit_10x1", "STTS's MViT on Kinetics-400: as mvit_5x1 with 10 x 1 views", Seconds(10), WideCentre()),
        Protocol(
            "videoswin_4x3", "VideoSwin on Kinetics-400: every 2nd frame of 64, 4 x 3 views", Segments(4), Rounded(3)
        ),
        Protocol(
            "vivit_4x3",
            "RGTP's ViViT: 32 frames at the backbone's stride, 4 x 3 views, logits averaged",
            Windows(4),
            Antialiased(3),
            "logits",
        ),
    )
}


def names() -> list[str]:
    """List what can be named, sorted."""
    return sorted([*CATALOG, SINGLE, CHECKPOINT])


def summaries() -> dict[str, str]:
    """Return one line about each protocol, by name, sorted."""
    lines = {name: protocol.summary for name, protocol in CATALOG.items()} | {
        SINGLE: SINGLE_SUMMARY,
        CHECKPOINT: CHECKPOINT_SUMMARY,
    }
    return {name: lines[name] for name in names()}


def find(name: str, seed: int, full: str | None = None, stated: Preparation | None = None) -> Protocol:
    """Return a protocol; raises UsageError with near matches if there is none of this name.

    `seed`: of protocols that draw at random. `full`: the protocol that `single` is one view of, as `default` names it.
    `stated`: what is stated beside the weights, for `checkpoint`.
    """
    if name == CHECKPOINT:
        if stated is None:
            raise UsageError(
                f"protocol {CHECKPOINT!r} is for wrapped backbones (hf_...) with a folder of weights that has "
                "processor's settings (preprocessor_config.json); name another protocol"
            )
        return prepared(stated)
    if name == SINGLE:
        if full is None or full == SINGLE:
            raise UsageError(f"protocol {SINGLE!r} is one view of another: name that one (the default of the run)")
        return replace(find(full, seed, None, stated).single(), name=SINGLE, summary=SINGLE_SUMMARY)
    if name not in CATALOG:
        raise UsageError(f"unknown protocol {name!r}{near_matches(name, names())}")
    found = CATALOG[name]
    if isinstance(found.temporal, RandomWindows):
        return replace(found, temporal=replace(found.temporal, seed=seed))
    return found


def prepared(stated: Preparation) -> Protocol:
    """Return the protocol of what is stated beside weights."""
    kind = StatedBicubic if stated.kernel == "bicubic" else Stated
    spatial = kind(resized_to=stated.resized, cropped=stated.cropped)
    return Protocol(CHECKPOINT, CHECKPOINT_SUMMARY, Even() if stated.spread else Windows(1), spatial)


def default(dataset_protocol: str | None, backbone_protocol: str | None, stated: Preparation | None = None) -> str:
    """Return the name of a data set's own protocol, or else of the one that the backbone was published with.

    stated: what is stated beside the weights, which counts first.

    Raises UsageError where neither has one: detectors run over whole videos.
    """
    found = CHECKPOINT if stated is not None else dataset_protocol or backbone_protocol
    if found is None:
        raise UsageError("detectors run over whole videos: there is no protocol of views")
    return found
