"""Folders of `transformers`: sizes by their `config.json`, tensors by its own loading, which knows old names."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from vpbench.api import Preparation
from vpbench.backbones.checkpoints import names, recognised
from vpbench.backbones.checkpoints.files import Contents
from vpbench.backbones.huggingface import CLASSES, FRAMES, SIDE, HuggingFaceConfig, library, settings
from vpbench.backbones.videomae.stated import colours
from vpbench.errors import UsageError
from vpbench.registry import Sizes

#: of the library's configuration: what is no size of a network
_ASIDE = ("id2label", "label2id", "num_labels", "architectures", "model_type", "transformers_version", "dtype")
#: of pre-training, not of the classifier
_EXTRAS = ("vjepa2.predictor.",)


@dataclass(frozen=True)
class Recognised(recognised.Recognised):
    """A folder's tensors under the names of the network here, and the sizes that its `config.json` states."""

    head = "network.classifier.weight"
    unsaid = "; --backbone hf runs a folder of any size"

    @property
    def own(self) -> HuggingFaceConfig:
        """The sizes in the folder."""
        found: HuggingFaceConfig = self.stated["sizes"]
        return found

    @property
    def sizes(self) -> str:
        """The type of the model and its clips, in words."""
        own = self.own
        return f"transformers' {own.model_type} of {own.frames}x{own.height}x{own.width}"

    def fits(self, config: Sizes) -> bool:
        """Whether a backbone is of this type, and of these sizes unless it takes all."""
        if not isinstance(config, HuggingFaceConfig) or config.model_type != self.own.model_type:
            return False
        plain = [replace(each, classes=1) for each in (config, self.own)]
        return config.any_size or _normal(plain[0]) == _normal(plain[1])

    def config(self, base: Sizes, frames: int | None = None, size: int | None = None) -> Sizes:
        """Return the folder's own sizes, with the classes of its classifier."""
        return replace(self.own, classes=self.classes)


def from_config(contents: Contents, where: str) -> Recognised:
    """Read a folder's tensors as the library does; raises UsageError for what is no such classifier, or not whole."""
    kind = contents.config.get("model_type")
    if kind not in FRAMES:
        said = "no config.json lies beside it" if kind is None else f"its config.json says {str(kind)[:40]!r}"
        raise UsageError(f"{where}: {said}; transformers' video classifiers here are {', '.join(FRAMES)}")
    names.check_precision(contents.tensors, where)
    sizes = _sizes(contents, str(kind), where)
    tensors = _loaded(contents, sizes, where)
    kept = {f"network.{name}": tensor for name, tensor in tensors.items() if not name.startswith(_EXTRAS)}
    extras = tuple(name for name in tensors if name.startswith(_EXTRAS))
    return Recognised(f"Hugging Face {kind}", names.single(kept, where), {}, extras, stated={"sizes": sizes})


def preparation(said: Mapping[str, Any], where: str) -> Preparation:
    """Return what a processor's settings say of frames; raises UsageError for what no protocol here does."""
    where = f"{where}: its processor's settings"
    if said.get("fps") or said.get("do_pad"):
        raise UsageError(f"{where} sample by frames per second, or pad; name a --protocol")
    resized = _side(said.get("size"), where) if said.get("do_resize", True) else None
    cropped = (
        _side(said.get("crop_size"), where) if said.get("do_center_crop", True) and said.get("crop_size") else None
    )
    kernel = {2: "bilinear", 3: "bicubic"}.get(said.get("resample", 2))
    if kernel is None:
        raise UsageError(
            f"{where} resample by {str(said.get('resample'))[:20]!r}; 2 (bilinear) and 3 (bicubic) are read"
        )
    spread = bool(said.get("do_sample_frames")) and said.get("num_frames") is not None
    return Preparation(resized, None if cropped is None else (cropped * 2)[:2], kernel, spread)  # type: ignore[arg-type]


def _side(said: Any, where: str) -> tuple[int, ...]:
    """Return a short side, or height and width."""
    names_ = ("shortest_edge",) if isinstance(said, Mapping) and "shortest_edge" in said else ("height", "width")
    found: tuple[Any, ...] = tuple(said.get(name) for name in names_) if isinstance(said, Mapping) else (said,)
    if not all(isinstance(side, int) and 0 < side < 10_000 for side in found):
        raise UsageError(f"{where} hold a size that is not understood: {str(said)[:60]}")
    return found


def _sizes(contents: Contents, kind: str, where: str) -> HuggingFaceConfig:
    said = {name: value for name, value in contents.config.items() if name not in _ASIDE and name[:1] != "_"}
    classes = [tensor.shape[0] for name, tensor in contents.tensors.items() if name.endswith("classifier.weight")]
    if len(classes) != 1:
        raise UsageError(f"{where}: it has no classifier ('classifier.weight'); fine-tune it first")
    full = _library_config(kind, said, where).to_dict()
    side = full[SIDE[kind]]
    height, width = side if isinstance(side, list | tuple) else (side, side)
    rest = {name: full[name] for name in said if name in full and name not in (FRAMES[kind], SIDE[kind])}
    found = CLASSES.get(kind, HuggingFaceConfig)(
        kind, full[FRAMES[kind]], height, width, classes[0], settings=settings(**rest)
    )
    return replace(found, **_colours(contents.processor, kind, where))


def _colours(said: Mapping[str, Any], kind: str, where: str) -> dict[str, Any]:
    """Return mean and deviation of colours; ViViT's processor takes 1 off what it rescales, unless it says no."""
    found = colours(said, where)
    if not found or kind != "vivit" or said.get("do_rescale") is False or not said.get("offset", True):
        return found
    one = 1 / (255 * said.get("rescale_factor", 1 / 127.5))
    return found | {"mean": tuple(each + one for each in found["mean"])}


def _library_config(kind: str, said: dict[str, Any], where: str) -> Any:
    try:
        return library.transformers().AutoConfig.for_model(kind, **said)
    except Exception as error:  # whatever the library says of a file that nobody vouches for
        raise UsageError(f"{where}: its config.json: {str(error).strip().splitlines()[0][:120]}") from error


def _normal(config: HuggingFaceConfig) -> Any:
    """Return sizes with the library's defaults filled in."""
    found = _library_config(config.model_type, config.keywords(), "").to_dict()
    return {name: value for name, value in found.items() if name not in _ASIDE and name[:1] != "_"}


def _loaded(contents: Contents, sizes: HuggingFaceConfig, where: str) -> dict[str, torch.Tensor]:
    """Let the library put tensors under its names of today; raises UsageError where any is missing, or is left over."""
    kind = library.kind(sizes.model_type)
    with torch.device("meta"):
        wanted = sum(each.numel() for each in kind(kind.config_class(**sizes.keywords())).parameters())
    there = sum(each.numel() for each in contents.tensors.values())
    if wanted > 1.5 * there + 1_000_000:  # before anything takes memory for what is not there
        raise UsageError(f"{where}: its config.json is of a network of {wanted} numbers, {there} are there")
    with _quiet():
        try:
            model, found = kind.from_pretrained(
                None,
                config=kind.config_class(**sizes.keywords()),
                state_dict=dict(contents.tensors),
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are named below, as those that are missing
            )
        except (RuntimeError, ValueError, TypeError) as error:
            raise UsageError(f"{where} do not fit: {str(error).strip().splitlines()[0][:160]}") from error
    wrong = {what: sorted(map(str, found[f"{what}_keys"])) for what in ("missing", "unexpected", "mismatched")}
    wrong["missing"] = [name for name in wrong["missing"] if not name.startswith(_EXTRAS)]
    said = [f"{len(those)} {what} ({', '.join(those[:3])})" for what, those in wrong.items() if those]
    if said:
        raise UsageError(f"{where} do not fit: tensors {', '.join(said)}")
    return dict(model.state_dict())


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's progress and reports away; what is wrong is said here, in one line."""
    noise = library.transformers().utils.logging
    before, bars = noise.get_verbosity(), noise.is_progress_bar_enabled()
    noise.set_verbosity(logging.CRITICAL)
    noise.disable_progress_bar()
    try:
        yield
    finally:
        noise.set_verbosity(before)
        if bars:
            noise.enable_progress_bar()
