"""All that a method, a backbone or a dataset imports: the words of vpbench as types."""

from vpbench.api.attention import received_macs
from vpbench.api.backbone import Backbone, Classifier, FrameBackbone, GridBackbone, SingleStream
from vpbench.api.blocks import BlockParts, Ran
from vpbench.api.contexts import in_its_own_precision, kept, plain, precise
from vpbench.api.difference import temporal_difference
from vpbench.api.matching import Match, bipartite, matching_macs, ranked, unit
from vpbench.api.method import Method, clip_generator, stage_blocks
from vpbench.api.pruner import DENSE, SITES, ClipBatch, Detections, Output, Pruner, TokenCounts, Trace
from vpbench.api.tokens import (
    Grid,
    Selection,
    Tokens,
    borders_of,
    constant,
    moved,
    on_device,
    places_of,
    starts_of,
    summed,
)
from vpbench.data import Clip, Dataset, Numbers, Seconds, Video, manifest_digest
from vpbench.data.protocols.shape import Preparation
from vpbench.errors import UsageError
from vpbench.registry import Flow

__all__ = [
    "DENSE", "SITES", "Backbone", "BlockParts", "Classifier", "Clip", "ClipBatch", "Dataset", "Detections", "Flow",
    "FrameBackbone", "Grid", "GridBackbone", "Match", "Method", "Numbers", "Output", "Preparation", "Pruner", "Ran",
    "Seconds", "Selection", "SingleStream", "TokenCounts", "Tokens", "Trace", "UsageError", "Video", "bipartite",
    "borders_of", "clip_generator", "constant", "in_its_own_precision", "kept", "manifest_digest", "matching_macs",
    "moved", "on_device", "places_of", "plain", "precise", "ranked", "received_macs", "stage_blocks", "starts_of",
    "summed", "temporal_difference", "unit",
]  # fmt: skip
