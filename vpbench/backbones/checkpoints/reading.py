"""Weights files in any published layout: recognised, loaded strictly, and never executed."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from vpbench import registry
from vpbench.api.backbone import network
from vpbench.backbones.checkpoints import files, kinetics710, names, places
from vpbench.backbones.checkpoints.recognised import Recognised
from vpbench.errors import UsageError, VpbenchError
from vpbench.registry import Sizes
from vpbench.storage import whole

#: transformers' models whose files are looked at; others are named
_MODEL_TYPES = ("videomae", "vivit")


def recognise(tensors: Mapping[str, Tensor], where: str) -> Recognised:
    """Tell by the tensors' names which family they are of, and map them to our names.

    Raises UsageError, in one line that starts with `where`, for tensors of no family and as the family's own
    `recognise` does.
    """
    return _family(tensors, where).recognise(tensors, where)


def _family(tensors: Mapping[str, Tensor], where: str) -> Any:
    """Return the module of layouts that knows these names; raises UsageError where none does."""
    layouts, broken = _layouts()
    for each in layouts:
        if each.matches(tensors):
            return each
    if broken:
        raise VpbenchError(f"{where}: no family knows these tensors; {'; '.join(broken)}")
    if part := names.part_of_a_model(tensors):
        raise UsageError(f"{where}: {part}; give the folder of all its shards, or their index")
    named = {e.layouts: e.family for e in registry.backbones().values() if e.layouts}
    *families, last = (named[each.__name__] for each in sorted(layouts, key=lambda m: list(named).index(m.__name__)))
    raise names.foreign(where, f"a checkpoint of {', '.join(families)} or {last}", tensors)


def read(path: Path, key: str | None = None, backbone: str | None = None) -> tuple[files.Contents, Recognised]:
    """Read a checkpoint and recognise it, with sizes that are written down beside its tensors; raises UsageError.

    backbone: what it is for, where that is asked of one family whose files are told by their `config.json`.
    """
    contents, where = files.read(path, key), f"weights {path}"
    if (wrapping := _wrapping(backbone)) is not None:
        wrapped: Recognised = wrapping.from_config(contents, where)
        return contents, wrapped
    kind = contents.config.get("model_type")
    if kind not in (None, *_MODEL_TYPES) and any("embeddings." in name for name in contents.tensors):
        raise UsageError(
            f"{where}: transformers' {str(kind)[:40]!r}; of its models VideoMAE is read; --backbone hf runs "
            "other video classifiers by its own code"
        )
    tensors, around = names.unwrapped(contents.tensors, where)
    family = _family(tensors, where)
    found: Recognised = family.recognise(tensors, where)
    stated = getattr(family, "stated", None)
    if stated is not None:
        found = replace(found, stated=stated(found, contents, where))
    return replace(contents, tensors=tensors, around=around), found


def _wrapping(backbone: str | None) -> Any:
    """Return the module of layouts of a backbone that a library reads by its own configuration, None for others."""
    target = None if backbone is None else registry.backbone(backbone).layouts
    module = None if target is None else registry.imported(target)
    return module if hasattr(module, "from_config") else None


def _layouts() -> tuple[list[Any], list[str]]:
    """Return the modules of layouts in the order to be asked in, and what is wrong with those that do not import."""
    found, broken = [], []
    for target in dict.fromkeys(entry.layouts for entry in registry.backbones().values() if entry.layouts):
        try:
            found.append(registry.imported(target))
        except VpbenchError as error:
            broken.append(str(error))
    found = [module for module in found if hasattr(module, "matches")]
    # names that fit many files, as a plain ViT's do, are told apart last
    return sorted(found, key=lambda module: getattr(module, "late", False)), broken


@dataclass(frozen=True)
class Asked:
    """What is asked for besides weights: their key in a file, frames and side of clips, and the dataset of these."""

    key: str | None = None
    frames: int | None = None
    size: int | None = None
    dataset: str | None = None


#: for who asks for nothing besides
NOTHING = Asked()


def recognised_as(backbone: str, path: Path, asked: Asked = NOTHING) -> tuple[Sizes, Recognised, str]:
    """Return what a checkpoint says about the backbone it was named for: its sizes, the tensors, and a line of news.

    Raises UsageError where it is another backbone's.
    """
    contents, found = read(path, asked.key, backbone)
    where = f"weights {path}"
    if not found.fits(registry.backbone(backbone).sizes):
        fitting = found.backbones()
        known = " or ".join(fitting)
        none = f"no backbone here has these sizes{found.unsaid}"
        hint = f"this is {known}: use --backbone {known}" if fitting else none
        raise UsageError(f"{where}: {found.sizes} is not {backbone}; {hint}")
    found, news = kinetics710.narrowed(found, asked.dataset, where)
    return _config(backbone, found, contents, where, asked), found, news


def _config(backbone: str, found: Recognised, contents: files.Contents, where: str, asked: Asked = NOTHING) -> Sizes:
    """Return a backbone's sizes with what the file decides.

    The norms' eps are in no tensor, so those that `convert` wrote down count; raises UsageError if they are not there.
    """
    try:
        config = found.config(registry.backbone(backbone).sizes, asked.frames, asked.size)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error
    if contents.metadata.get("format") != "vpbench" or "sizes" not in contents.metadata:
        return config
    try:
        sizes = json.loads(contents.metadata["sizes"])
        eps: dict[str, Any] = {key: float(sizes[key]) for key in ("eps", "pool_eps") if hasattr(config, key)}
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        eps = {}
    if not eps or not all(0 < value < 1 for value in eps.values()):
        raise UsageError(f"{where}: its metadata 'sizes' hold no eps of norms; convert the checkpoint anew")
    return replace(config, **eps)


def check_sizes(backbone: str, config: Sizes, found: Recognised, where: str) -> None:
    """Raise UsageError as `check_fit` does, before a model takes memory: its sizes come from an untrusted file."""
    with torch.device("meta"):
        check_fit(network(backbone, config), found.tensors, where)


def load_strictly(model: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Load tensors; raises UsageError as `check_fit` does."""
    check_fit(model, tensors, where)
    model.load_state_dict(dict(tensors))


def check_fit(model: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise UsageError that counts and names missing, unknown and odd-shaped tensors, if there are any."""
    own = model.state_dict()
    wrong = {
        "missing": own.keys() - tensors.keys(),
        "unknown": tensors.keys() - own.keys(),
        "of another shape": {k for k in own.keys() & tensors.keys() if own[k].shape != tensors[k].shape},
    }
    said = [f"{len(those)} {what} ({_first(those)})" for what, those in wrong.items() if those]
    if said:
        raise UsageError(f"{where} do not fit: tensors {', '.join(said)}")


def _first(those: set[str]) -> str:
    return ", ".join(sorted(those)[:3]) + (", ..." if len(those) > 3 else "")


def inspect(path: Path, key: str | None = None) -> dict[str, str]:
    """Say what a checkpoint is and what it fits, line by line; raises UsageError if it holds no classifier."""
    contents, found = read(path, key)
    fitting, named, where = found.backbones(), contents.classes, f"weights {path}"
    precision = sorted({str(t.dtype).removeprefix("torch.") for t in contents.tensors.values()})
    sizes = [_config(name, found, contents, where) for name in fitting[:1]]
    for name, config in zip(fitting, sizes, strict=False):
        check_sizes(name, config, found, where)
    said = {
        "container": contents.container + (f", tensors under {contents.wrapper!r}" if contents.wrapper else ""),
        "other keys": ", ".join(contents.keys) + (f" (taken: {contents.wrapper}, {contents.why})" * bool(contents.why)),
        "layout": found.layout,
        "wrapped by": contents.around,
        "fits": ", ".join(fitting) or f"no backbone here ({found.sizes}){found.unsaid}",
        "clips": "".join(f"{each.frames} frames of {each.width}x{each.height}" for each in sizes),
        "classes": f"{found.classes}" + (f": {_first_of(named)}" if named else ""),
        "parameters": f"{sum(t.numel() for t in found.parameters.values()) / 1e6:.2f} M in {', '.join(precision)}",
        **found.details(),
        "selection": selection(contents.settings),
        "left aside": ", ".join(names.grouped((*contents.others, *found.extras))) or "nothing",
        "sha256": places.digest(path),
        "licence": contents.licence or found.licence,
    }
    # free text of the file, which might hold anything a terminal acts upon
    free = {_printable(f"metadata {key}"): _printable(value) for key, value in contents.metadata.items()}
    return {key: value for key, value in said.items() if value} | free


def _first_of(named: Sequence[str]) -> str:
    return ", ".join(named[:5]) + ", ..." * (len(named) > 5)


def _printable(text: str) -> str:
    return text if text.isprintable() else repr(text)


def convert(path: Path, out: Path, overwrite: bool, key: str | None = None) -> None:
    """Write a checkpoint, scorers included, as safetensors under our names, float32, whole or not at all.

    Raises UsageError for files that no backbone could load, and for an `out` that exists (without `overwrite`) or has
    another suffix; VpbenchError if it cannot be written.
    """
    if out.suffix != ".safetensors":
        raise UsageError(f"{out}: give a name that ends in .safetensors")
    if out.exists() and not overwrite:
        raise UsageError(f"{out} exists; --force overwrites it")
    if not out.parent.is_dir():
        raise UsageError(f"{out}: there is no folder {out.parent}; make it first")
    contents, found = read(path, key)
    fitting, where = found.backbones(), f"weights {path}"
    if not fitting:
        raise UsageError(f"{where}: no backbone here has the sizes of {found.sizes}{found.unsaid}")
    config = _config(fitting[0], found, contents, where)
    check_sizes(fitting[0], config, found, where)
    metadata = {
        "format": "vpbench",
        "source": path.name,
        "source_sha256": places.digest(path),
        "layout": found.layout,
        "sizes": json.dumps(asdict(config)),
    }
    if chosen := selection(contents.settings):
        metadata["selection"] = chosen
    if contents.classes:  # else sorted names would take their places
        metadata["classes"] = json.dumps(contents.classes)
    # a tensor of the file may be a view of another one, which safetensors will not write
    apart = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in found.parameters.items()}
    try:
        with whole(out) as temporary:
            save_file(apart, temporary, metadata)
    except (OSError, SafetensorError) as error:
        raise VpbenchError(f"{out} cannot be written: {str(error).splitlines()[0]}") from error


# Selections of tokens that the settings of a training run name; their text is untrusted, so it is searched, not run.
# What a run's settings are at most; longer texts are cut, not refused, since nothing depends on them.
_LONGEST = 200_000
_NUMBER = r"[0-9]{1,6}(?:\.[0-9]{0,12})?"
_LIST = rf"[\[(][ \t\n]{{0,20}}(?:{_NUMBER}[ \t\n]{{0,20}},?[ \t\n]{{0,20}}){{1,32}}[\])]"
_ITEMS = rf"(?:\n[ \t]{{0,20}}-[ \t]{{1,4}}{_NUMBER}(?![^\n\r])){{1,32}}"
# YAML (`name: [0, 4]`, also with an item a line) and Python (`name=(0.5,)`, `name=0.5`, `'name': 0.5`)
_SETTING = re.compile(
    rf"(?<![A-Za-z0-9_])([A-Za-z][A-Za-z0-9_]{{2,39}})['\"]?[ \t]{{0,4}}[:=][ \t]{{0,4}}({_LIST}|{_ITEMS}|{_NUMBER})"
)


def selection(text: str) -> str:
    """Return the settings whose names say where and how many slices or tokens are kept, in one line; "" for none.

    These are names with "time" or "space" in them and "loc" or "ratio", in any case, whose values are numbers.
    """
    found = {
        name: ", ".join(re.findall(_NUMBER, value))
        for name, value in _SETTING.findall(text[:_LONGEST])
        if re.search("time|temporal|space|spatial", name, re.IGNORECASE) and re.search("loc|ratio", name, re.IGNORECASE)
    }
    return "; ".join(f"{name} {value}" for name, value in found.items())
