"""Where ImageNet VID keeps its lists, boxes and images: the official folders, and the packed form of detectors."""

import re
from abc import ABC, abstractmethod
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field, TypeAdapter, ValidationError

from vpbench.data.boxes import Boxes, Frame
from vpbench.datasets.imagenet_vid.annotation import CLASSES, MAX_NUMBER, read_frame
from vpbench.errors import UsageError

#: far above the list of 176126 frames (6 MB), and above the packed annotations of any split
MAX_LIST_BYTES, MAX_JSON_BYTES = 100_000_000, 1_000_000_000
_LINE = re.compile(r"([A-Za-z0-9_-]+)/([0-9]{1,9})(?:\s+[0-9]+)?")
_PACKED_NAME = re.compile(r"(?:[A-Za-z0-9-]+_)*([A-Za-z0-9-]+)_([0-9]{1,9})\.(?:JPEG|jpeg|JPG|jpg)")

Number = Annotated[float, Field(ge=-MAX_NUMBER, le=MAX_NUMBER, allow_inf_nan=False)]


class Layout(ABC):
    """A folder of one of the layouts; nothing is read before it is asked for.

    `index`: the file that lists the frames; a folder that has it is of this layout. Its place is `INDEX`.
    """

    INDEX: ClassVar[str]

    def __init__(self, root: Path) -> None:
        self.root, self.index = root, root / self.INDEX

    @abstractmethod
    def videos(self) -> list[str]:
        """List the ids of the videos; raises UsageError for a list that is wrong."""

    @abstractmethod
    def frames(self, video_id: str) -> list[Frame]:
        """Read the annotated frames of a video that is listed; raises UsageError for annotations that are wrong."""

    @abstractmethod
    def image(self, frame: Frame) -> Path:
        """Return the file of a frame, whether it exists or not."""

    def _index_bytes(self, limit: int) -> bytes:
        try:
            if self.index.stat().st_size > limit:
                raise UsageError(f"{self.index}: larger than any such list; unpack the archive again")
            return self.index.read_bytes()
        except OSError as error:
            raise UsageError(f"{self.index}: {error.strerror}; make it readable") from error


class Official(Layout):
    """`Data/VID/val/<snippet>/<number>.JPEG`, `Annotations/VID/val/<snippet>/<number>.xml`, `ImageSets/VID/val.txt`."""

    #: lines like `ILSVRC2015_val_00000000/000000 1`
    INDEX = "ImageSets/VID/val.txt"

    def videos(self) -> list[str]:
        """List the ids: what follows the last _ in a snippet's name."""
        return list(self._snippets)

    def frames(self, video_id: str) -> list[Frame]:
        """Read one XML file per frame."""
        snippet, numbers = self._snippets[video_id]
        folder = self.root / "Annotations" / "VID" / "val" / snippet
        return [read_frame(folder / f"{number:06d}.xml", video_id, number) for number in numbers]

    def image(self, frame: Frame) -> Path:
        """Return the JPEG file."""
        return self.root / "Data" / "VID" / "val" / self._snippets[frame.video_id][0] / f"{frame.number:06d}.JPEG"

    @cached_property
    def _snippets(self) -> dict[str, tuple[str, list[int]]]:
        """Folder and numbers of each video."""
        found: dict[str, tuple[str, list[int]]] = {}
        lines = self._index_bytes(MAX_LIST_BYTES).decode("utf-8", errors="replace").splitlines()
        for place, line in enumerate(lines, start=1):
            match = _LINE.fullmatch(line.strip())
            if match is None:
                raise UsageError(
                    f"{self.index} line {place}: {line[:60]!r} is no frame; lines look like "
                    "ILSVRC2015_val_00000000/000000 1"
                )
            snippet, number = match[1], int(match[2])
            folder, numbers = found.setdefault(snippet.rpartition("_")[2], (snippet, []))
            if folder != snippet:
                raise UsageError(f"{self.index} line {place}: {snippet} and {folder} would both be one video")
            numbers.append(number)
        return found


@dataclass(frozen=True, slots=True)
class PackedImage:
    """An image of the packed form; its size is not read, not every file has it."""

    id: int
    file_name: str


@dataclass(frozen=True, slots=True)
class PackedBox:
    """A box of the packed form: `bbox` is x, y, width, height; categories count from 1 in the order of the names."""

    image_id: int
    bbox: Annotated[list[Number], Field(min_length=4, max_length=4)]
    category_id: Annotated[int, Field(ge=1, le=len(CLASSES))]


@dataclass(frozen=True, slots=True)
class PackedFile:
    """What is read of `vid_val.json`."""

    images: list[PackedImage]
    annotations: list[PackedBox]


class Packed(Layout):
    """`annotations/vid_val.json` in COCO's form, images in `vid_val/<anything>_<video>_<number>.JPEG`.

    It names no tracks, so that precision by motion speed cannot be told.
    """

    INDEX = "annotations/vid_val.json"

    def videos(self) -> list[str]:
        """List the ids: the second to last part of the images' names."""
        return list(self._images)

    def frames(self, video_id: str) -> list[Frame]:
        """Return the frames with their boxes."""
        boxes = self._boxes
        return [Frame(video_id, number, Boxes.of(boxes.get(image.id, []))) for number, image in self._images[video_id]]

    def image(self, frame: Frame) -> Path:
        """Return the JPEG file."""
        return self.root / "vid_val" / self._names[frame.video_id, frame.number]

    @cached_property
    def _content(self) -> PackedFile:
        try:
            content = TypeAdapter(PackedFile).validate_json(self._index_bytes(MAX_JSON_BYTES))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise UsageError(f"{self.index}: {where or 'file'}: {first['msg']}; unpack the archive again") from error
        ids = {image.id for image in content.images}
        if len(ids) < len(content.images):
            raise UsageError(f"{self.index}: two images have the same id; unpack the archive again")
        if stray := {box.image_id for box in content.annotations} - ids:
            raise UsageError(f"{self.index}: a box belongs to image {min(stray)}, which is not listed")
        return content

    @cached_property
    def _images(self) -> dict[str, list[tuple[int, PackedImage]]]:
        """Number and entry of each video's images."""
        found: dict[str, list[tuple[int, PackedImage]]] = defaultdict(list)
        for image in self._content.images:
            match = _PACKED_NAME.fullmatch(image.file_name)
            if match is None:
                raise UsageError(f"{self.index}: file_name {image.file_name[:60]!r} is not <video>_<number>.JPEG")
            found[match[1]].append((int(match[2]), image))
        return dict(found)

    @cached_property
    def _names(self) -> dict[tuple[str, int], str]:
        """File of each frame."""
        found = self._images.items()
        return {(video, number): image.file_name for video, images in found for number, image in images}

    @cached_property
    def _boxes(self) -> dict[int, list[tuple[list[float], int, int]]]:
        """Box, label and track of what each image shows."""
        found: dict[int, list[tuple[list[float], int, int]]] = defaultdict(list)
        for box in self._content.annotations:
            x, y, width, height = box.bbox
            found[box.image_id].append(([x, y, x + width, y + height], box.category_id - 1, -1))
        return found
