"""Where the user keeps a dataset: what was given as `--root`, or an environment variable named after the dataset."""

import os
from pathlib import Path

from vpbench.errors import UsageError, near_matches


def variable(name: str) -> str:
    """Return the environment variable that names a dataset's folder."""
    return f"VPBENCH_{name.upper()}"


def given_root(name: str, root: Path | None) -> Path | None:
    """Return the folder asked for, else the one of the environment, else None."""
    if root is not None:
        return root
    value = os.environ.get(variable(name), "")
    return Path(value) if value else None


def needed_root(name: str, root: Path | None, wanted: str) -> Path:
    """Return the folder of a dataset; raises UsageError that says what it should hold where there is none."""
    found = given_root(name, root)
    if found is None:
        raise UsageError(f"{name} does not come with vpbench; give --root or set {variable(name)}: {wanted}")
    if not found.is_dir():
        raise UsageError(
            f"{found}: no such folder, but --root or {variable(name)} names it{_alike(found)}; it is to be {wanted}"
        )
    return found


def _alike(missing: Path) -> str:
    """Return `; did you mean ...?` for folders beside one that is not there."""
    try:
        beside = [entry.name for entry in missing.absolute().parent.iterdir() if entry.is_dir()]
    except OSError:
        return ""
    return near_matches(missing.name, beside).partition(" (known")[0]
