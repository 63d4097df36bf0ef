"""The annotation of one frame of ImageNet VID: a small XML file, read without trusting it."""

from pathlib import Path
from xml.etree import ElementTree

from vpbench.data.boxes import Boxes, Frame
from vpbench.errors import UsageError

#: WordNet id -> name, in the order of the names, which is that of the labels
CLASSES = {
    "n02691156": "airplane", "n02419796": "antelope", "n02131653": "bear", "n02834778": "bicycle", "n01503061": "bird",
    "n02924116": "bus", "n02958343": "car", "n02402425": "cattle", "n02084071": "dog", "n02121808": "domestic cat",
    "n02503517": "elephant", "n02118333": "fox", "n02510455": "giant panda", "n02342885": "hamster",
    "n02374451": "horse", "n02129165": "lion", "n01674464": "lizard", "n02484322": "monkey", "n03790512": "motorcycle",
    "n02324045": "rabbit", "n02509815": "red panda", "n02411705": "sheep", "n01726692": "snake",
    "n02355227": "squirrel", "n02129604": "tiger", "n04468005": "train", "n01662784": "turtle",
    "n04530566": "watercraft", "n02062744": "whale", "n02391049": "zebra",
}  # fmt: skip
_LABELS = {wnid: label for label, wnid in enumerate(CLASSES)}
_SIDES = ("xmin", "ymin", "xmax", "ymax")
#: the largest real file has some 10 kB; pixels and numbers of tracks stay far below the other
MAX_BYTES, MAX_NUMBER = 1_000_000, 1_000_000


def read_frame(path: Path, video_id: str, number: int) -> Frame:
    """Read one file; no flag in it (occluded, generated) makes an object count less.

    Raises UsageError that names the file where it is missing, too large, no XML, declares entities or holds an object
    that is not as it should be.
    """
    try:
        root = _parse(path)
        objects = [_object(element) for element in root.iter("object")]
        width, height = (_size(root, side) for side in ("width", "height"))
    except FileNotFoundError as error:
        raise UsageError(f"{path}: is missing, but its frame is listed; unpack the archive again") from error
    except (OSError, UnicodeDecodeError, ElementTree.ParseError, ValueError) as error:
        raise UsageError(f"{path}: not an annotation of ImageNet VID ({error}); unpack the archive again") from error
    return Frame(video_id, number, Boxes.of(objects), height, width)


def _parse(path: Path) -> ElementTree.Element:
    """Parse a file as text in which no document type, and so no entity, is declared."""
    if path.stat().st_size > MAX_BYTES:
        raise ValueError("too large")
    text = path.read_text(encoding="utf-8")  # what is searched here is what is parsed, whatever the header says
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ValueError("declares a document type")
    return ElementTree.fromstring(text)


def _object(element: ElementTree.Element) -> tuple[list[float], int, int]:
    name = element.findtext("name", "")
    if name not in _LABELS:
        raise ValueError(f"object of unknown class {name[:20]!r}")
    box = [_number(element.findtext(f"bndbox/{side}"), side) for side in _SIDES]
    return box, _LABELS[name], int(_number(element.findtext("trackid"), "trackid"))


def _size(root: ElementTree.Element, side: str) -> int | None:
    text = root.findtext(f"size/{side}")
    return None if text is None else int(_number(text, side))


def _number(text: str | None, what: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = float("nan")
    if not abs(value) <= MAX_NUMBER:  # also refuses NaN
        raise ValueError(f"{what} is {(text or '')[:20]!r}")
    return value
