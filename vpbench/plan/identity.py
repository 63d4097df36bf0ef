"""What decides whether two measurements are the same one.

Two ids. A `prediction_id` hashes all that can change a prediction, and nothing else: what has been predicted is not
predicted again for another batch size, profile or number of threads, nor because the data lie elsewhere. A `config_id`
adds how it is run, and on what: rows of another computer are never taken for this one's.
"""

import ast
import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from vpbench.plan.cell import Cell, Setting, Value

#: raised by hand whenever code that all methods share changes a number; tests of golden numbers ask for it
NUMBERS = 3

#: fields of a setting that can change a prediction; what is seen, weights and code come as digests
_PREDICTS = ("backbone", "frames", "size", "positions", "dtype", "mode", "protocol", "decoder", "seed")
#: fields that change neither a prediction nor a time: where clips come from, and how soon they are there
_NEITHER = (
    "dataset", "split", "root", "list", "classes", "weights", "weights_key", "limit", "cache", "cache_gb",
    "device", *_PREDICTS,
)  # fmt: skip


@dataclass(frozen=True)
class Digests:
    """Hashes of everything outside the options that can change a number."""

    weights: str
    manifest: str
    code: Mapping[str, str]
    #: of the clips that parameters are derived from
    calibration: str = ""
    #: what it runs on, in words
    machine: str = ""


@dataclass(frozen=True)
class CellMaker:
    """Makes the cells of one request, each with its ids."""

    shared: Setting
    digests: Digests

    def __call__(
        self,
        method: str,
        params: tuple[tuple[str, Value], ...] = (),
        keep: float | None = None,
        copied: Cell | None = None,
    ) -> Cell:
        """Return the cell of a method with these parameters; `copied`: the cell whose token counts it copies."""
        copies = None if copied is None else copied.prediction_id
        prediction_id = self._predicts(method, params, keep, copies)
        # what only changes how soon clips are there changes no number, but for those of whole passes
        left_out = {*_NEITHER, *(() if self.shared.e2e else ("workers",))}
        left_out |= set() if self.shared.train_step else {"train_step"}  # rows were there before it was
        how = {name: value for name, value in asdict(self.shared).items() if name not in left_out}
        config_id = _hashed([prediction_id, how, self.digests.machine, _kind(self.shared.device)])
        match = None if copied is None else copied.config_id
        return Cell(config_id, prediction_id, self.shared, method, params, keep, match, copies)

    def _predicts(
        self, method: str, params: tuple[tuple[str, Value], ...], keep: float | None, copies: str | None
    ) -> str:
        shared, digests = asdict(self.shared), self.digests
        from vpbench.api.method import load_method

        derived = keep is not None and load_method(method).adaptive
        return _hashed(
            [
                NUMBERS,
                {name: shared[name] for name in _PREDICTS},
                _kind(self.shared.device),
                [method, sorted(params), keep, copies],
                [digests.weights, digests.manifest, digests.code[method], digests.calibration if derived else ""],
            ]
        )


def _kind(device: str) -> str:
    """Return the kind of a device: which one of several equal ones it is changes nothing."""
    return device.partition(":")[0]


def _hashed(parts: list[object]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def code_digest(name: str) -> str:
    """SHA-256 of a method's code, and of that of the methods that it derives from: what is computed, not how it reads.

    Comments, docstrings, imports and `set_by_keep` are left out.
    """
    from vpbench.api.method import Method, load_method

    kinds = [c for c in load_method(name).__mro__ if issubclass(c, Method) and c is not Method]
    sources = (Path(inspect.getfile(kind)) for kind in kinds)
    files = (sorted(source.parent.rglob("*.py")) if source.name == "__init__.py" else [source] for source in sources)
    return hashlib.sha256("".join(_tree(file) for each in files for file in each).encode()).hexdigest()


def _tree(file: Path) -> str:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [each for each in body if not _says_nothing(each)]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _says_nothing(node: ast.stmt) -> bool:
    text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    told = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "set_by_keep"
    return text or told or isinstance(node, ast.Import | ast.ImportFrom)
