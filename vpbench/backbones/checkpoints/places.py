"""Where weights lie: a file, a folder as `save_pretrained` writes it, an index of shards, or a name on a hub."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any

from vpbench.errors import UsageError

#: what files of weights are called
SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".pyth", ".pkl", ".tar")
INDEX = ".index.json"
#: what `save_pretrained` and `accelerate` call whole models, and their indices, the first that is there
WHOLE = ("model.safetensors", "pytorch_model.bin")
CONFIG, CARD = "config.json", "README.md"
#: where the colours that a model was trained on are written down
PROCESSORS = ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json")
#: the file that a folder of DeepSpeed's names its newest checkpoint in, and the weights there
_LATEST, _RANK = "latest", "mp_rank_00_model_states.pt"
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.(safetensors|bin)$")
#: of the other files in a folder of weights: state of a training run, or another framework's weights
_BESIDE = re.compile(r"(optimizer|scheduler|scaler|random_states|rng_state|training_args|tf_model|flax_model)")
_ADAPTER = "adapter_config.json"
_OTHERS = {
    ".metadata": "holds a distributed checkpoint; join it with torch.distributed.checkpoint.format_utils first",
    "tf_model.h5": "holds TensorFlow's weights alone; save them from PyTorch",
    "flax_model.msgpack": "holds Flax's weights alone; save them from PyTorch",
}
# texts beside weights are small; what is larger is something else
_LONGEST = 20_000_000


@dataclass(frozen=True)
class Place:
    """The files of one checkpoint.

    `files`: those with tensors; `shards`: of an index, the file of each tensor; `config`, `processor`, `card`: what
    lies beside them, None where nothing does.
    """

    said: str
    files: tuple[Path, ...]
    shards: Mapping[str, str] = field(default_factory=dict)
    index: Path | None = None
    config: Path | None = None
    processor: Path | None = None
    card: Path | None = None


def find(path: Path) -> Place:
    """Find the files of a checkpoint; raises UsageError in one line where there is none, or not all of it."""
    where = f"weights {path}"
    if path.is_dir():
        return _folder(path, where)
    if path.name.endswith(INDEX):
        return _indexed(path, where)
    if shard := _SHARD.search(path.name):
        whole = path.with_name(f"{path.name[: shard.start()]}.{shard[3]}{INDEX}")
        raise UsageError(
            f"{where}: one of {int(shard[2])} shards; give the folder or {whole.name}"
            + ("" if whole.is_file() else ", which is missing beside it")
        )
    if path.name == _RANK:
        return _rank(path, where)
    if path.name in WHOLE:
        return _described(Place(where, (path,)), path.parent)
    return Place(where, (path,))


def _folder(path: Path, where: str) -> Place:
    for name in WHOLE:
        if (path / name).is_file():
            return _described(Place(where, (path / name,)), path)
        if (path / (name + INDEX)).is_file():
            return _indexed(path / (name + INDEX), where)
    latest = path / _LATEST
    newest = _text(latest).strip() if latest.is_file() else ""
    for folder in (path / newest if Path(newest).name == newest != ".." else path, path):
        if (folder / _RANK).is_file():
            return _rank(folder / _RANK, where)
    if (path / _ADAPTER).exists():
        raise UsageError(f"{where}: the folder holds an adapter (PEFT); merge it into its model and save that")
    found = sorted(each for each in path.iterdir() if each.suffix in SUFFIXES and each.is_file())
    weights = [each for each in found if not _BESIDE.match(each.name) and not _SHARD.search(each.name)]
    if len(weights) == 1:
        return _described(Place(where, (weights[0],)), path)
    if weights:
        names = ", ".join(each.name for each in weights[:3]) + ", ..." * (len(weights) > 3)
        raise UsageError(f"{where}: a folder with {len(weights)} files of weights; name one of them ({names})")
    other = next((said for name, said in _OTHERS.items() if (path / name).exists()), None)
    shards = f"has shards without their index ({WHOLE[0]}{INDEX})" if any(map(_shard, found)) else ""
    raise UsageError(f"{where}: the folder {other or shards or f'has no weights ({WHOLE[0]} or {WHOLE[1]})'}")


def _rank(path: Path, where: str) -> Place:
    if path.with_name(_RANK.replace("00", "01")).exists():
        raise UsageError(
            f"{where}: one part of a model that DeepSpeed split over devices; join them with the code that did"
        )
    return Place(where, (path,))


def _shard(path: Path) -> bool:
    return _SHARD.search(path.name) is not None


def _indexed(index: Path, where: str) -> Place:
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
        raise UsageError(f"weights {index}: names no shards under 'weight_map'")
    odd = next(
        (name for name in shards.values() if Path(name).name != name or "\\" in name or name in ("", "..")), None
    )
    if odd is not None:
        raise UsageError(f"weights {index}: the shard {odd[:80]!r} does not lie beside it")
    files = tuple(index.with_name(name) for name in sorted(set(shards.values())))
    missing = [each.name for each in files if not each.is_file()]
    if missing:
        raise UsageError(f"weights {index}: {len(missing)} of {len(files)} shards are missing ({missing[0]})")
    return _described(Place(where, files, shards, index), index.parent)


def _described(place: Place, folder: Path) -> Place:
    beside = [folder / name if (folder / name).is_file() else None for name in (CONFIG, CARD)]
    processor = next((folder / name for name in PROCESSORS if (folder / name).is_file()), None)
    return Place(place.said, place.files, place.shards, place.index, beside[0], processor, beside[1])


def digest(path: Path) -> str:
    """SHA-256 of a checkpoint: of the file, or of all files that say what the network is; raises UsageError."""
    place = find(path)
    beside = [each for each in (place.index, place.config, place.processor) if each is not None]
    if len(place.files) == 1 and not beside:
        return _sha256(place.files[0])
    known = {each.name: _sha256(each) for each in (*place.files, *beside)}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def _sha256(file: Path) -> str:
    with opened(file) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def opened(file: Path) -> Iterator[BufferedReader]:
    """Open a file of weights; raises UsageError if it cannot be read."""
    try:
        if file.exists() and not file.is_file() and not file.is_dir():  # a pipe or a device might never end
            raise UsageError(f"weights {file}: not a regular file")
        with file.open("rb") as stream:
            yield stream
    except OSError as error:
        raise UsageError(f"weights {file}: {error.strerror or error}") from error


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object that nobody vouches for; raises UsageError."""
    try:
        found = json.loads(_text(file))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file}: not valid JSON ({str(error).splitlines()[0][:80]})") from error
    if not isinstance(found, dict):
        raise UsageError(f"{file}: holds no JSON object")
    return found


def _text(file: Path) -> str:
    with opened(file) as stream:
        return stream.read(_LONGEST).decode("utf-8", errors="replace")


def licence(place: Place) -> str:
    """Return the licence that a model card states in its front matter; "" where it states none."""
    if place.card is None:
        return ""
    head = re.match(r"---\r?\n(.*?)\r?\n---", _text(place.card), re.DOTALL)
    found = re.search(r"^license(?:_name)?:[ \t]*['\"]?([\w.+-]{1,60})", head[1] if head else "", re.MULTILINE)
    return f"{found[1]} (stated in {CARD})" if found else ""
