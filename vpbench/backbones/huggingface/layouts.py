"""Folders of `transformers`: sizes by their `config.json`, tensors by the library's own loading, which knows old names."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from vpbench.backbones.checkpoints import names, recognised
from vpbench.backbones.checkpoints.files import Contents
from vpbench.backbones.huggingface import FRAMES, SIDE, HuggingFaceConfig, library, settings
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
        plain = [replace(each, mean=(), std=(), classes=1, stride=1, any_size=False) for each in (config, self.own)]
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


def _sizes(contents: Contents, kind: str, where: str) -> HuggingFaceConfig:
    said = {name: value for name, value in contents.config.items() if name not in _ASIDE and name[:1] != "_"}
    classes = [tensor.shape[0] for name, tensor in contents.tensors.items() if name.endswith("classifier.weight")]
    if len(classes) != 1:
        raise UsageError(f"{where}: it has no classifier ('classifier.weight'); fine-tune it first")
    full = _library_config(kind, said, where).to_dict()
    side = full[SIDE[kind]]
    height, width = side if isinstance(side, list | tuple) else (side, side)
    rest = {name: full[name] for name in said if name in full and name not in (FRAMES[kind], SIDE[kind])}
    found = HuggingFaceConfig(kind, full[FRAMES[kind]], height, width, classes[0], settings=settings(**rest))
    return replace(found, **colours(contents.processor, where))


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
