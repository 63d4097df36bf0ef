"""Write scenes as H.264 files and read training clips back through the same codec."""

import csv
import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from vpbench.datasets.synthmotion.scene import CLASSES, FRAMES, SIZE, STRIDE, render

#: seeds of each split start here; no split is longer than the distance to the next
FIRST_SEED = {"train": 0, "val": 1_000_000, "test": 2_000_000, "calibration": 3_000_000}
CRF = 23
#: training sees several qualities, so that a model does not learn one quantiser
TRAIN_CRF = (18, 20, 23, 26, 30)
COLUMNS = ("file", "clip_id", "label", "label_name", "seed", "frames", "sha256")


def cache_folder() -> Path:
    """Return where generated clips are kept: `VPBENCH_CACHE`, or `~/.cache/vpbench`."""
    return Path(os.environ.get("VPBENCH_CACHE") or Path.home() / ".cache" / "vpbench") / "synthmotion"


def encode(frames: NDArray[np.uint8], crf: int = CRF) -> bytes:
    """Encode `frames` `[T, H, W, 3]` as an H.264 MP4 of 16 frames per second.

    The same library version gives the same bytes. Other versions and settings need not, which is why the evaluated
    clips are committed as files.
    """
    target = io.BytesIO()
    # bitexact: no time of day in the header
    with av.open(target, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=16)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.gop_size, stream.thread_count = "yuv420p", 16, 1
        # with its macroblock tree x264 reads beyond frames this small: other bytes every time
        stream.options = {"crf": str(crf), "preset": "medium", "threads": "1", "x264-params": "mbtree=0"}
        for picture in frames:
            # converted here, not by the encoder: its own conversion gives other bytes every time
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return target.getvalue()


def decode(content: bytes) -> NDArray[np.uint8]:
    """Decode all frames `[T, H, W, 3]` of an encoded clip."""
    with av.open(io.BytesIO(content), "r") as container:
        return np.stack([np.asarray(f.to_ndarray(format="rgb24"), np.uint8) for f in container.decode(video=0)])


def build_split(folder: Path, split: str, count: int) -> Path:
    """Write `count` clips of a split as files with a `manifest.csv`; clips that are there already are kept.

    Labels go round in turn. The manifest is written last, so a folder with one is complete. Returns its path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        seed, label = FIRST_SEED[split] + number, number % len(CLASSES)
        clip_id = f"{split}{number:04d}_{CLASSES[label]}"
        path = folder / f"{clip_id}.mp4"
        if not path.exists():
            _write(path, encode(render(seed, label).frames))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        rows.append((path.name, clip_id, label, CLASSES[label], seed, FRAMES, digest))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([COLUMNS, *rows])
    _write(folder / "manifest.csv", text.getvalue().encode())
    return folder / "manifest.csv"


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


def training_arrays(split: str, count: int, workers: int) -> Iterator[int]:
    """Generate decoded training clips in the cache folder as three arrays; yields the number done.

    `<split>-<count>-frames.npy` uint8 `[n, 16, 64, 64, 3]`, `-targets.npy` float16 `[n, 8, 8, 8, 7]` and `-labels.npy`
    int64 `[n]`. Every clip goes through the encoder and back. Files that are complete already are left alone.
    """
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    names = array_files(split, count)
    if all(path.exists() for path in names):
        yield count
        return
    shapes = ((count, FRAMES // STRIDE, SIZE, SIZE, 3), (count, 8, 8, 8, 7), (count,))
    kinds = (np.uint8, np.float16, np.int64)
    temporary = [path.with_name(f".{path.name}.tmp.npy") for path in names]
    arrays = [np.lib.format.open_memmap(t, "w+", k, s) for t, k, s in zip(temporary, kinds, shapes, strict=True)]
    with ProcessPoolExecutor(workers) as pool:
        jobs = [(split, number) for number in range(count)]
        for number, made in enumerate(pool.map(_training_clip, jobs, chunksize=32)):
            for array, value in zip(arrays, made, strict=True):
                array[number] = value
            if number % 100 == 99:
                yield number + 1
    for array, source, path in zip(arrays, temporary, names, strict=True):
        array.flush()
        source.replace(path)
    yield count


def array_files(split: str, count: int) -> Sequence[Path]:
    """Paths of the frames, targets and labels of a generated split."""
    return [cache_folder() / f"{split}-{count}-{part}.npy" for part in ("frames", "targets", "labels")]


def _training_clip(job: tuple[str, int]) -> tuple[NDArray[np.uint8], NDArray[np.float16], int]:
    split, number = job
    label = number % len(CLASSES)
    scene = render(FIRST_SEED[split] + number, label)
    crf = TRAIN_CRF[number // len(CLASSES) % len(TRAIN_CRF)] if split == "train" else CRF
    return decode(encode(scene.frames, crf))[::STRIDE], scene.targets, label
