"""The three forms that annotations of KAIST come in: COCO-like JSON, VOC-like XML, and txt."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from winnow.errors import DataError
from winnow.families.detection.formats.voc import read_voc
from winnow.families.pairs.frames import Frame, FrameLabels, labels_of, size_of
from winnow.families.pairs.records import CLASS_NAMES
from winnow.reading import as_float, read_json, read_text

HEAVY_OCCLUSION = 2
_TXT_FIELDS = 12
_Box = tuple[float, float, float, float]


class JsonLabels:
    """A COCO-like file: ``im_name`` instead of a file name, ``occlusion`` and ``ignore``, no area; an id may be 0."""

    form = "JSON"

    def __init__(self, path: Path, content: Mapping[str, Any]) -> None:
        self.path = path
        self._of_name = _of_name(path, content)

    @classmethod
    def at(cls, path: Path) -> JsonLabels | None:
        """Read the file at ``path``; None if it is JSON of something else. Raises DataError naming the entry that is no good."""
        content = read_json(path, "KAIST annotations", DataError)
        images = content.get("images") if isinstance(content, Mapping) else None
        is_kaist = isinstance(images, list) and any(
            isinstance(image, Mapping) and "im_name" in image for image in images
        )
        return cls(path, content) if is_kaist else None

    @property
    def names(self) -> set[str]:
        return set(self._of_name)

    def labels(self, frame: Frame) -> FrameLabels | None:
        return self._of_name.get(frame.name)


class XmlLabels:
    """A folder ``setXX/VYYY/IZZZZZ.xml``, VOC but for boxes of x, y, w, h."""

    form = "XML"

    def __init__(self, path: Path) -> None:
        self.path = path

    def labels(self, frame: Frame) -> FrameLabels | None:
        path = self.path / f"{frame.name}.xml"
        if not path.is_file():
            return None
        file = read_voc(path)
        ignored = [is_ignored(entry.name, entry.occlusion, entry.is_difficult) for entry in file.objects]
        return labels_of((file.width, file.height), [entry.box for entry in file.objects], ignored)


class TxtLabels:
    """A folder ``setXX/VYYY/IZZZZZ.txt``, or flat ``setXX_VYYY_IZZZZZ.txt``: lines of Piotr Dollár's toolbox, version 3."""

    form = "txt"

    def __init__(self, path: Path, is_flat: bool) -> None:
        self.path = path
        self._is_flat = is_flat
        self._sizes: dict[str, tuple[int, int]] = {}

    def labels(self, frame: Frame) -> FrameLabels | None:
        path = self.path / f"{frame.name.replace('/', '_') if self._is_flat else frame.name}.txt"
        if not path.is_file():
            return None
        # The files say no size; all frames of a recording have one, and one that has another is refused when it is read.
        if frame.sequence not in self._sizes:
            self._sizes[frame.sequence] = size_of(frame)
        return labels_of(self._sizes[frame.sequence], *read_txt(path))


def is_ignored(name: str, occlusion: float, is_marked: bool) -> bool:
    """Return whether an object is neither learnt nor sought: no single person, hidden for the most part, or marked so."""
    return name not in CLASS_NAMES or occlusion >= HEAVY_OCCLUSION or is_marked


def read_txt(path: Path) -> tuple[list[_Box], list[bool]]:
    """Return boxes (xyxy) and which of them are ignored. Raises DataError naming the file and the line that can't be used."""
    lines = read_text(path, "KAIST annotations", DataError).splitlines()
    if not lines or not lines[0].startswith("% bbGt version=3"):
        raise DataError(f"{path}: line 1 is {(lines or [''])[0]!r:.60}, not '% bbGt version=3'")
    boxes: list[_Box] = []
    ignored: list[bool] = []
    for number, line in enumerate(lines[1:], start=2):
        words = line.split()
        if not words:
            continue
        values = [as_float(word) for word in words[1:]]
        if len(words) != _TXT_FIELDS or not all(map(math.isfinite, values)):
            raise DataError(
                f"{path}: line {number} is {line!r:.80}, not a label and {_TXT_FIELDS - 1} numbers: x y w h occ …"
            )
        boxes.append(_corners(values[:4]))
        ignored.append(is_ignored(words[0], values[4], values[9] != 0))
    return boxes, ignored


def _of_name(path: Path, content: Mapping[str, Any]) -> dict[str, FrameLabels]:
    label_of = {entry["id"]: str(entry.get("name")) for entry in _entries(path, content, "categories", "id")}
    sizes: dict[str, tuple[int, int]] = {}
    name_of: dict[Any, str] = {}
    for entry in _entries(path, content, "images", "id"):
        name, size = entry.get("im_name"), (as_float(entry.get("width")), as_float(entry.get("height")))
        if not isinstance(name, str) or name in sizes:
            fault = "listed twice" if isinstance(name, str) else "no name"
            raise DataError(f"{path}: image {entry['id']!r:.40}: im_name is {name!r:.60}, {fault}")
        if not all(side >= 1 and side.is_integer() for side in size):
            raise DataError(f"{path}: image {name:.60}: width and height are {size[0]:g} and {size[1]:g}")
        sizes[name], name_of[entry["id"]] = (int(size[0]), int(size[1])), name
    boxes: dict[str, list[_Box]] = {name: [] for name in sizes}
    ignored: dict[str, list[bool]] = {name: [] for name in sizes}
    for entry in _entries(path, content, "annotations", "image_id"):
        place = f"{path}: annotation {entry.get('id')!r:.40}"
        category, box = entry.get("category_id"), entry.get("bbox")
        if entry["image_id"] not in name_of or not isinstance(category, int) or category not in label_of:
            raise DataError(f"{place}: no image {entry['image_id']!r:.40}, or no category {category!r:.40}")
        values = [as_float(value) for value in box] if isinstance(box, list) else []
        occlusion, ignore = (as_float(entry.get(key, 0)) for key in ("occlusion", "ignore"))
        if len(values) != 4 or not all(map(math.isfinite, (*values, occlusion, ignore))):
            raise DataError(f"{place}: bbox {box!r:.60}, occlusion {occlusion:g} and ignore {ignore:g} must be numbers")
        name = name_of[entry["image_id"]]
        boxes[name].append(_corners(values))
        ignored[name].append(is_ignored(label_of[category], occlusion, ignore != 0))
    return {name: labels_of(size, boxes[name], ignored[name]) for name, size in sizes.items()}


def _entries(path: Path, content: Mapping[str, Any], key: str, id_key: str) -> list[Mapping[str, Any]]:
    """Return a list of the file, each entry of it with a number for an id."""
    entries = content.get(key)
    if not isinstance(entries, list):
        raise DataError(f"{path}: {key} is a {type(entries).__name__}, not a list")
    for number, entry in enumerate(entries):
        if (
            not isinstance(entry, Mapping)
            or isinstance(entry.get(id_key), bool)
            or not isinstance(entry.get(id_key), int)
        ):
            raise DataError(f"{path}: entry {number} of {key} has no whole number as {id_key}: {entry!r:.80}")
    return entries


def _corners(values: list[float]) -> _Box:
    x, y, width, height = values
    return x, y, x + width, y + height
