"""Reads one Pascal-VOC annotation file, an XML per image: its size and its objects."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

from winnow.errors import DataError
from winnow.reading import as_float, read_xml

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_CORNER_AND_SIZE = ("x", "y", "w", "h")


@dataclass(frozen=True)
class VocObject:
    """``box`` is xyxy in px, as written: positions, not numbers of pixels, unless ``is_corners`` and the set counts from 1;
    ``occlusion`` is 0 where nothing is said."""

    name: str
    box: tuple[float, float, float, float]
    is_difficult: bool
    occlusion: int
    is_corners: bool


@dataclass(frozen=True)
class VocFile:
    """Size in px of an image, 0 × 0 where none is said and none is needed, and what is on it."""

    width: int
    height: int
    objects: tuple[VocObject, ...]


def read_voc(path: Path, needs_size: bool = True) -> VocFile:
    """Read the XML file of one image; a ``bndbox`` holds xmin, ymin, xmax, ymax, or x, y, w, h as KAIST's.

    Raises DataError naming the file, the object and the tag whose value can't be used; for a size only if it is needed.
    """
    root = read_xml(path, "VOC annotations", DataError)
    if root.tag != "annotation":
        raise DataError(f"{path}: the root is <{root.tag[:60]}>, that of VOC annotations is <annotation>")
    width, height = _size(root, path) if needs_size else _size_or_none(root, path)
    objects = tuple(_object(entry, path, number) for number, entry in enumerate(root.iterfind("object"), start=1))
    return VocFile(width, height, objects)


def _size(root: ElementTree.Element, path: Path) -> tuple[int, int]:
    size = root.find("size")
    if size is None:
        raise DataError(f"{path}: there is no <size>")
    width, height = (_number(size, tag, f"{path}: size") for tag in ("width", "height"))
    if not (width >= 1 and height >= 1 and width.is_integer() and height.is_integer()):
        raise DataError(f"{path}: size: {width:g} × {height:g} is no size in pixels")
    return int(width), int(height)


def _size_or_none(root: ElementTree.Element, path: Path) -> tuple[int, int]:
    try:
        return _size(root, path)
    except DataError:
        return 0, 0


def _object(entry: ElementTree.Element, path: Path, number: int) -> VocObject:
    name = (entry.findtext("name") or "").strip()
    place = f"{path}: object {number} ({name[:60] or 'without a name'})"
    box = entry.find("bndbox")
    if box is None or not name:
        raise DataError(f"{place}: there is no <{'bndbox' if name else 'name'}>")
    tags = _CORNERS if box.find("xmin") is not None else _CORNER_AND_SIZE
    left, top, third, fourth = (_number(box, tag, f"{place}: bndbox") for tag in tags)
    corners = (left, top, third, fourth) if tags is _CORNERS else (left, top, left + third, top + fourth)
    is_difficult, occlusion = _flag(entry, "difficult", place) > 0, _flag(entry, "occlusion", place)
    return VocObject(name, corners, is_difficult, occlusion, tags is _CORNERS)


def _number(parent: ElementTree.Element, tag: str, place: str) -> float:
    text = parent.findtext(tag)
    if text is None:
        raise DataError(f"{place}: there is no <{tag}>")
    value = as_float(text)
    if not math.isfinite(value):
        raise DataError(f"{place}: <{tag}> is {text.strip()!r:.60}, no number")
    return value


def _flag(entry: ElementTree.Element, tag: str, place: str) -> int:
    if entry.find(tag) is None:
        return 0
    value = _number(entry, tag, place)
    if value not in (0, 1, 2):
        raise DataError(f"{place}: <{tag}> is {value:g}; known are 0, 1 and 2")
    return int(value)
