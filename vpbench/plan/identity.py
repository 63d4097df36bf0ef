"""What decides whether two measurements are the same one."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from vpbench.plan.cell import Cell, Setting, Value


@dataclass(frozen=True)
class Digests:
    """Hashes of everything outside the options that can change a number."""

    weights: str
    manifest: str
    code: Mapping[str, str]


@dataclass(frozen=True)
class CellMaker:
    """Makes the cells of one request, each with its id."""

    shared: Setting
    digests: Digests

    def __call__(
        self,
        method: str,
        params: tuple[tuple[str, Value], ...] = (),
        keep: float | None = None,
        match: str | None = None,
    ) -> Cell:
        """Return the cell of a method with these parameters."""
        # what only changes how soon clips are there changes no number, but for those of whole passes
        no_number = {"cache", "cache_gb"} | (set() if self.shared.e2e else {"workers"})
        identity = {
            "setting": {k: v for k, v in asdict(self.shared).items() if k not in no_number},
            "method": [method, sorted(params), keep, match],
            "digests": [self.digests.weights, self.digests.manifest, self.digests.code[method]],
        }
        text = json.dumps(identity, sort_keys=True)
        return Cell(hashlib.sha256(text.encode()).hexdigest()[:12], self.shared, method, params, keep, match)


def code_digest(name: str) -> str:
    """SHA-256 of a method's file or folder, and of those of the methods that it derives from."""
    from vpbench.api.method import Method, load_method

    kinds = [c for c in load_method(name).__mro__ if issubclass(c, Method) and c is not Method]
    sources = (Path(inspect.getfile(kind)) for kind in kinds)
    files = (sorted(source.parent.rglob("*.py")) if source.name == "__init__.py" else [source] for source in sources)
    return hashlib.sha256(b"".join(file.read_bytes() for each in files for file in each)).hexdigest()
