"""Named settings: the `[presets.NAME]` tables of the TOML files in a `configs` folder."""

from functools import cache
from pathlib import Path
from typing import Any

import vpbench
from vpbench.errors import UsageError, near_matches
from vpbench.plan import request

#: those that come with the package, by a link that a wheel has as a folder; at the root where it was not made
_LINK = vpbench.PACKAGE / "plan" / "configs"
OWN = _LINK if _LINK.is_dir() else vpbench.CHECKOUT / "configs"


def find(name: str) -> dict[str, Any]:
    """Return the options of a preset; raises UsageError with near matches."""
    known = _all()
    if name not in known:
        raise UsageError(f"unknown preset {name!r}{near_matches(name, known)}")
    return {key: value for key, value in known[name].items() if key != "about"}


def summaries() -> dict[str, str]:
    """Map preset names, `file/name`, to their `about` line."""
    return {name: str(options.get("about", "")) for name, options in _all().items()}


def _all() -> dict[str, dict[str, Any]]:
    """Read the presets that come with the package, and those of `configs/` in the working directory, which win."""
    found = {}
    for path in (path for folder in (OWN, Path("configs")) for path in sorted(folder.glob("*.toml"))):
        for name, options in _presets(path, path.stat().st_mtime_ns).items():
            found[f"{path.stem}/{name}"] = options
    return found


@cache
def _presets(path: Path, changed: int) -> dict[str, dict[str, Any]]:
    """Read the presets of a file as it is now; every name that is asked for reads all files."""
    return request.read_config(path).get("presets", {})
