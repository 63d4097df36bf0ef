"""Names are files: methods in `methods/`, datasets in `datasets/`, backbones by family in `vpbench/backbones/`.

Third parties add theirs through entry points of the groups `vpbench.methods`, `vpbench.datasets` (NAME = "module") and
`vpbench.backbones` (NAME = "module:ENTRY"). Whatever is broken is named where it is asked for, and stops no other.

A backbone of sizes that no entry has is named by them, `videomae:dim=384,depth=12,heads=6,frames=8`: what is left out
is as its family has it.
"""

import ast
import importlib.util
import inspect
import pkgutil
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self, runtime_checkable

from vpbench.errors import UsageError, VpbenchError, near_matches

Kind = Literal["methods", "datasets", "backbones"]
#: how the tokens of a backbone flow; see `api.SITES`
Flow = Literal["stream", "steps", "grid", "frames"]


class Sizes(Protocol):
    """What is read of the sizes of any backbone: the clips that it takes, and its classes. A frozen dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def frames(self) -> int:
        """Frames that run at a time."""

    @property
    def height(self) -> int:
        """Rows of a frame, in pixels."""

    @property
    def width(self) -> int:
        """Columns of a frame, in pixels."""

    @property
    def stride(self) -> int:
        """The step between frames that the weights were trained for."""

    @property
    def classes(self) -> int:
        """Number of classes."""


@runtime_checkable
class FrameSizes(Sizes, Protocol):
    """Sizes of a detector that takes frames of other sides with the same weights."""

    def sized(self, side: int) -> Self:
        """Return the sizes for frames of another side; raises UsageError where it is not possible."""


#: what to do where two packages claim a name: neither is taken, since rows would not say which
_REMEDY = "uninstall the package of the second, or have it take another name"


@dataclass(frozen=True)
class Entry:
    """What a backbone says of itself; modules that it names are imported when asked for, so that listing is instant."""

    summary: str
    sizes: Sizes
    flow: Flow
    #: "module:name" of what takes sizes and returns the network (an `api.Backbone`) with initial weights
    build: str
    task: Literal["recognition", "detection"] = "recognition"
    #: protocol of views that it was published with; detectors see whole videos
    protocol: str | None = None
    #: the weights that it comes with
    weights: Path | None = None
    #: module with `matches`, `recognise` and maybe `stated`, which reads published checkpoints; see
    #: `backbones.checkpoints.reading`
    layouts: str | None = None
    #: what it cannot run without, by the extra of the package that installs it; None: nothing
    needs: str | None = None
    #: sizes of the family whose forward takes milliseconds: what `vpbench contract` checks it at, instead of its own
    tiny: Sizes | None = None

    @property
    def family(self) -> str:
        """Name of the family, as its sizes are called: `MViT` of an MViTConfig."""
        return type(self.sizes).__name__.removesuffix("Config")


def names(kind: Kind) -> list[str]:
    """List what can be named, sorted, backbones by family; imports none of it but the entries of backbones."""
    return list(entries()) if kind == "backbones" else sorted(_modules(kind))


def check(kind: Kind, name: str) -> None:
    """Raise UsageError with near matches if nothing has this name; imports no more than `names`."""
    known = names(kind)
    if kind == "backbones" and ":" in name:
        _sized(name)
    elif name not in known:
        raise UsageError(f"unknown {kind.removesuffix('s')} {name!r}{near_matches(name, known)}")


def summaries(kind: Kind) -> dict[str, str]:
    """Map names to one line each: what it is, or why it cannot be used."""
    found = {}
    for name in names(kind):
        try:
            found[name] = summary(kind, name)
        except VpbenchError as error:
            found[name] = f"cannot be used: {error}"
    return found


def summary(kind: Kind, name: str) -> str:
    """Return what a backbone's entry says, or the first docstring line of a file, which is not imported."""
    if kind == "backbones":
        return backbone(name).summary
    file = source(kind, name)
    try:
        doc = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    except (OSError, ValueError, SyntaxError) as error:
        raise VpbenchError(f"{kind}/{name} ({file}) cannot be read: {_said(error)}") from error
    return doc.partition("\n")[0]


def source(kind: Kind, name: str) -> Path:
    """Return the file that defines a method or dataset."""
    module = _module(kind, name)
    try:
        spec = importlib.util.find_spec(module)
    except (Exception, SystemExit) as error:
        raise VpbenchError(f"{kind}/{name}: its module {module} cannot be found: {_said(error)}") from error
    if spec is None or spec.origin is None:
        raise VpbenchError(f"{kind}/{name}: its module {module} cannot be found; reinstall the package")
    return Path(spec.origin)


def load(kind: Kind, name: str, bases: tuple[type, ...]) -> Any:
    """Import the one class of a method's or dataset's module that derives from `bases`; raises VpbenchError."""
    target = _module(kind, name)
    try:
        module = importlib.import_module(target)
    except (Exception, SystemExit) as error:
        raise VpbenchError(f"{kind}/{name} does not import: {_said(error)}") from error
    own = [
        c
        for c in vars(module).values()
        if inspect.isclass(c) and issubclass(c, bases) and c.__module__ == module.__name__
    ]
    if len(own) != 1:
        wanted = " or ".join(base.__name__ for base in bases)
        raise VpbenchError(f"{kind}/{name} must define exactly one {wanted}, it defines {len(own)}")
    return own[0]


def imported(target: str) -> Any:
    """Import `module` or `module:name`; raises VpbenchError that names it."""
    module, _, name = target.partition(":")
    try:
        found = importlib.import_module(module)
        return getattr(found, name) if name else found
    except (Exception, SystemExit) as error:
        raise VpbenchError(f"{target} cannot be imported: {_said(error)}") from error


def backbone(name: str) -> Entry:
    """Return the entry of a backbone; raises UsageError with near matches, VpbenchError for a broken plug-in."""
    if ":" in name:
        return _sized(name)
    check("backbones", name)
    found = entries()[name]
    if isinstance(found, str):
        raise VpbenchError(f"backbones/{name}: {found}")
    return found


def home(name: str) -> str:
    """Return the module that the entry of a backbone is in, a family's for one that is named by its sizes."""
    if ":" in name:
        name = next(each for each, entry in backbones().items() if entry.family == _sized(name).family)
    return next(place for each, place, _ in _claims() if each == name).partition(":")[0]


def sized_name(sizes: Sizes) -> str:
    """Return the name of a backbone of these sizes, without those that come with its weights or are its family's."""
    family = type(sizes).__name__.removesuffix("Config").lower()
    said = [f"{each.name}={getattr(sizes, each.name)!r}" for each in _named(sizes) if _differs(sizes, each)]
    return f"{family}:{','.join(said)}"


def _named(sizes: Sizes) -> list[Field[Any]]:
    """Return the fields that a name may give: plain numbers, but for those that come with weights."""
    return [each for each in fields(sizes) if each.type in (int, float) and each.name not in ("classes", "eps")]


def _differs(sizes: Sizes, field: Field[Any]) -> bool:
    return field.default is MISSING or getattr(sizes, field.name) != field.default


def _sized(name: str) -> Entry:
    """Return the entry of a backbone that is named by its sizes; raises UsageError for what is no size."""
    family, _, said = name.partition(":")
    like = next((each for each in _sizable() if each.family.lower() == family), None)
    if like is None:
        families = {each.family.lower() for each in _sizable()}
        raise UsageError(f"backbone {name!r}: no family {family!r} takes sizes{near_matches(family, families)}")
    known, given = {each.name: each for each in _named(like.sizes)}, {}
    for part in said.split(","):
        key, _, value = part.partition("=")
        if key not in known:
            raise UsageError(f"backbone {name!r}: no size {key!r}{near_matches(key, known)}")
        try:
            given[key] = float(value) if known[key].type is float else int(value)
        except ValueError as error:
            raise UsageError(f"backbone {name!r}: {key} is {value!r}, not a number") from error
        if not 0 < given[key] < 1e6:
            raise UsageError(f"backbone {name!r}: {key} is {value}")
    missing = [key for key, each in known.items() if each.default is MISSING and key not in given]
    if missing:
        raise UsageError(f"backbone {name!r}: give {', '.join(missing)} as well")
    return replace(like, summary=f"{like.family} of these sizes", sizes=type(like.sizes)(**given))


def _sizable() -> list[Entry]:
    """Return the entries without weights whose families are told apart by numbers alone."""
    plain = [each for each in backbones().values() if each.weights is None]
    return [each for each in plain if all(f in _named(each.sizes) for f in fields(each.sizes) if f.default is MISSING)]


def backbones() -> dict[str, Entry]:
    """Map the names of all backbones that can be used to their entries, this package's first."""
    return {name: entry for name, entry in entries().items() if isinstance(entry, Entry)}


@cache
def entries() -> dict[str, Entry | str]:
    """Map the name of every backbone to its entry, or to why it cannot be used."""
    found: dict[str, Entry | str] = {}
    places: dict[str, str] = {}
    for name, place, entry in _claims():
        if name in found:
            found[name] = f"two backbones have this name: {places[name]} and {place}; {_REMEDY}"
        elif isinstance(entry, Entry | str):
            found[name] = entry
        else:
            found[name] = f"{place} must be a vpbench.registry.Entry, it is of type {type(entry).__name__}"
        places[name] = place
    return found


def _claims() -> Iterator[tuple[str, str, object]]:
    """Yield name, place and entry (or what is wrong with it) of the families' backbones and of those installed."""
    for family in (name for name in _files("backbones") if _defines_entries(f"vpbench.backbones.{name}")):
        place = f"vpbench.backbones.{family}:ENTRIES"
        try:
            yield from ((name, place, entry) for name, entry in imported(place).items())
        except VpbenchError as error:
            yield family, place, str(error)
    for point in entry_points(group="vpbench.backbones"):
        try:
            yield point.name, point.value, imported(point.value)
        except VpbenchError as error:
            yield point.name, point.value, str(error)


def _defines_entries(module: str) -> bool:
    """Whether a module of this package assigns ENTRIES; read, not imported, since others load torch."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:  # a folder without code
        return False
    body = ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body
    assigned: list[ast.expr] = [node.target for node in body if isinstance(node, ast.AnnAssign)]
    assigned += [target for node in body if isinstance(node, ast.Assign) for target in node.targets]
    return any(isinstance(target, ast.Name) and target.id == "ENTRIES" for target in assigned)


@cache
def entry_points(group: str) -> metadata.EntryPoints:
    """Return what installed packages offer: asked for with every name, and the same as long as a process lives."""
    return metadata.entry_points(group=group)


def _files(kind: Kind) -> list[str]:
    return [m.name for m in pkgutil.iter_modules(importlib.import_module(f"vpbench.{kind}").__path__)]


def _modules(kind: Kind) -> dict[str, list[str]]:
    """Map each name to the modules that claim it: the built-in file, then what installed packages offer."""
    found = {name: [f"vpbench.{kind}.{name}"] for name in _files(kind)}
    for point in entry_points(group=f"vpbench.{kind}"):
        found.setdefault(point.name, []).append(point.value)
    return found


def _module(kind: Kind, name: str) -> str:
    check(kind, name)
    module, *others = _modules(kind)[name]
    if others:
        raise VpbenchError(f"two {kind} are called {name!r}: {module} and {others[0]}; {_REMEDY}")
    return module


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]
