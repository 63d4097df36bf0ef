"""ImageNet VID validation: 30 classes of objects in 555 videos, boxes in every frame; to be downloaded by the user."""

from pathlib import Path

from vpbench.data import known_split
from vpbench.data.boxes import DetectionDataset, Frame, Pixels, Segment, segments_of
from vpbench.data.lists.roots import given_root, variable
from vpbench.data.video.folder import picture
from vpbench.datasets.imagenet_vid.annotation import CLASSES
from vpbench.datasets.imagenet_vid.layouts import Layout, Official, Packed
from vpbench.errors import UsageError

NAME = "imagenet_vid"
WANTED = (
    "--root must name a folder with Data/VID/val, Annotations/VID/val and ImageSets/VID/val.txt (the archive "
    "ILSVRC2015_VID of image-net.org), or with annotations/vid_val.json and its images in vid_val"
)


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
        return picture(self._opened("val").image(frame), ("JPEG",))

    def _opened(self, split: str) -> Layout:
        known_split(NAME, split, self.splits)
        if self._layout is None:
            if self.root is None:
                raise UsageError(f"imagenet_vid does not come with vpbench; {WANTED}; or set {variable(NAME)} to it")
            layouts = (Official(self.root), Official(self.root / "ILSVRC2015"), Packed(self.root))
            found = [layout for layout in layouts if layout.index.is_file()]
            if not found:
                raise UsageError(f"{self.root}: no ImageNet VID here; {WANTED}")
            self._layout = found[0]
        return self._layout
