"""ImageNet VID validation: 30 classes of objects in 555 videos, boxes in every frame; to be downloaded by the user."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from vpbench.data.boxes import DetectionDataset, Frame, Pixels, Segment, segments_of
from vpbench.data.lists.roots import given_root, variable
from vpbench.data.video.reader import DecodeError
from vpbench.datasets.imagenet_vid.annotation import CLASSES
from vpbench.datasets.imagenet_vid.layouts import Layout, Official, Packed
from vpbench.errors import UsageError, near_matches

NAME = "imagenet_vid"
WANTED = (
    "--root must name a folder with Data/VID/val, Annotations/VID/val and ImageSets/VID/val.txt (the archive "
    "ILSVRC2015_VID of image-net.org), or with annotations/vid_val.json and its images in vid_val"
)
#: far above any frame of the set (1920x1080, 1 MB); a file beyond it is not one of them
MAX_BYTES, MAX_PIXELS = 64_000_000, 50_000_000


class ImageNetVid(DetectionDataset):
    """The validation videos in the official layout, or packed into one JSON file and one folder of images.

    A video has the same id in both: the last part of its name, such as 00000000 for ILSVRC2015_val_00000000.
    """

    classes = tuple(CLASSES.values())
    splits = ("val",)

    def __init__(self, root: Path | None = None) -> None:
        super().__init__(given_root(NAME, root))
        self._layout: Layout | None = None

    def videos(self, split: str) -> list[str]:
        """List the videos by id; raises UsageError where files are missing or lists are wrong."""
        return sorted(self._opened(split).videos())

    def segments(self, split: str, video_id: str) -> list[Segment]:
        """Read the boxes of one video as annotated, in the pixels of its files."""
        layout = self._opened(split)
        known = layout.videos()
        if video_id not in known:
            raise UsageError(f"imagenet_vid {split} has no video {video_id!r} ({len(known)} others)")
        return segments_of(layout.frames(video_id))

    def pixels(self, frame: Frame) -> Pixels:
        """Decode the JPEG file of a frame."""
        path = self._opened("val").image(frame)
        try:
            if path.stat().st_size > MAX_BYTES:
                raise DecodeError(f"{path}: larger than any frame of ImageNet VID")
            # from memory: Pillow leaves the file open where decoding fails
            with Image.open(io.BytesIO(path.read_bytes()), formats=("JPEG",)) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DecodeError(f"{path}: {image.width}x{image.height} pixels, more than any frame has")
                return np.array(image.convert("RGB"))
        except FileNotFoundError as error:
            raise DecodeError(f"{path}: is missing") from error
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DecodeError(f"{path}: not a readable JPEG file ({error})") from error

    def _opened(self, split: str) -> Layout:
        if split not in self.splits:
            raise UsageError(f"imagenet_vid has no split {split!r}{near_matches(split, self.splits)}")
        if self._layout is None:
            if self.root is None:
                raise UsageError(f"imagenet_vid does not come with vpbench; {WANTED}; or set {variable(NAME)} to it")
            layouts = (Official(self.root), Official(self.root / "ILSVRC2015"), Packed(self.root))
            found = [layout for layout in layouts if layout.index.is_file()]
            if not found:
                raise UsageError(f"{self.root}: no ImageNet VID here; {WANTED}")
            self._layout = found[0]
        return self._layout
