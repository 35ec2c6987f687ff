"""Text lines of scanned pages from ALTO XML or COCO JSON: an image, a polygon and a baseline each; nothing here reads pixels."""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from winnow.errors import DataError
from winnow.reading import read_json, read_xml

OnRefusal = Callable[[Path, str | None, DataError], None]
"""Called with the file, the line's own id (None: the whole file) and what is wrong with it."""

_LARGEST = 1 << 20
"""Px of a page's side; no picture that is read is as large."""
_FARTHEST = 10
"""Sides of the page that a point may lie off: farther away it is no place on it, and a line as long takes all memory."""
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp")


@dataclass(frozen=True, eq=False)
class PageLine:
    """One line of text on the page ``image``, which is ``page_size`` (width, height) px: ``polygon`` (K, 2) float64 around its
    ink and ``baseline`` (L, 2) under it from left to right, (x, y) in px of the page. ``line_id`` is the file's own."""

    image: Path
    line_id: str
    page_size: tuple[int, int]
    polygon: NDArray[np.float64]
    baseline: NDArray[np.float64]


def read_pages(annotations: Path, images: Path, on_refusal: OnRefusal | None = None) -> list[PageLine]:
    """Read all lines of ``annotations``, a COCO file (.json), an ALTO file (.xml) or a folder of those, with their page
    images in ``images``. Raises DataError naming file and line if one has no image, polygon or baseline, or is
    malformed; with ``on_refusal`` that is called instead, and the rest is read.
    """
    refuse = on_refusal or _raise
    if annotations.is_dir():
        files = sorted(annotations.glob("*.xml"))
        if not files:
            raise DataError(f"{annotations} holds no ALTO files (*.xml)")
        return [line for file in files for line in _read_file(_read_alto, file, images, refuse)]
    if not annotations.exists():
        raise DataError(f"{annotations} is missing; allowed: a COCO file, an ALTO file or a folder of ALTO files")
    if annotations.suffix.lower() == ".json":
        return _read_file(_read_coco, annotations, images, refuse)
    if annotations.suffix.lower() == ".xml":
        return _read_file(_read_alto, annotations, images, refuse)
    raise DataError(f"{annotations} is neither COCO (.json) nor ALTO (.xml)")


def _raise(file: Path, line_id: str | None, error: DataError) -> None:
    raise error


def _read_file(
    read: Callable[[Path, Path, OnRefusal], Iterator[PageLine]], file: Path, images: Path, refuse: OnRefusal
) -> list[PageLine]:
    lines: list[PageLine] = []
    try:
        lines.extend(read(file, images, refuse))
    except DataError as error:
        refuse(file, None, error)
    return lines


def _read_alto(file: Path, images: Path, refuse: OnRefusal) -> Iterator[PageLine]:
    root = read_xml(file, "ALTO", DataError)
    if _tag(root) != "alto":
        raise DataError(f"{file} is not ALTO: its root is <{_tag(root)}>")
    unit = next((element.text or "" for element in root.iter() if _tag(element) == "MeasurementUnit"), "pixel")
    if unit.strip() != "pixel":
        raise DataError(f"{file}: MeasurementUnit is {unit.strip()!r}; only pixel is allowed")
    pages = [element for element in root.iter() if _tag(element) == "Page"]
    if len(pages) != 1:
        raise DataError(f"{file} holds {len(pages)} pages; exactly one is allowed")
    image = _alto_image(file, root, images)
    size = _size(file, pages[0])
    for number, element in enumerate(element for element in pages[0].iter() if _tag(element) == "TextLine"):
        line_id = element.get("ID") or f"no. {number + 1}"
        try:
            line = _alto_line(element, image, line_id, size, f"{file}, line {line_id}")
        except DataError as error:
            refuse(file, line_id, error)
        else:
            yield line


def _alto_line(element: ElementTree.Element, image: Path, line_id: str, size: tuple[int, int], place: str) -> PageLine:
    outline = _outline(element)
    polygon = _rectangle(element, place) if outline is None else _points(outline.get("POINTS", ""), place, "polygon")
    return _line(image, line_id, size, polygon, _alto_baseline(element, polygon, place), place)


def _outline(line: ElementTree.Element) -> ElementTree.Element | None:
    """Return the line's own polygon: its words and letters may have some, too."""
    shapes = [line, *(child for child in line if _tag(child) == "Shape")]
    return next((child for shape in shapes for child in shape if _tag(child) == "Polygon"), None)


def _alto_image(file: Path, root: ElementTree.Element, images: Path) -> Path:
    """Return the image with the file's own name, or the one that it names."""
    named = next((element.text or "" for element in root.iter() if _tag(element) == "fileName"), "").strip()
    candidates = [images / f"{file.stem}{suffix}" for suffix in _IMAGE_SUFFIXES]
    candidates += [images / Path(named).name] if named else []
    for candidate in candidates:
        if os.path.isfile(candidate):  # a name of 5,000 letters is no file either
            return candidate
    raise DataError(
        f"{file}: its page is not in {images}, neither as {file.stem}.jpg (or .png, .tif, …) nor as {named!r}"
    )


def _size(file: Path, page: ElementTree.Element) -> tuple[int, int]:
    try:
        return round(float(page.attrib["WIDTH"])), round(float(page.attrib["HEIGHT"]))
    except (KeyError, ValueError, OverflowError) as error:
        raise DataError(f"{file}: Page must have WIDTH and HEIGHT in px: {error}") from None


def _rectangle(element: ElementTree.Element, place: str) -> NDArray[np.float64]:
    try:
        left, top, width, height = (float(element.attrib[name]) for name in ("HPOS", "VPOS", "WIDTH", "HEIGHT"))
    except (KeyError, ValueError):
        raise DataError(f"{place} has neither a Polygon nor HPOS, VPOS, WIDTH and HEIGHT") from None
    right, bottom = left + width, top + height
    return _pairs([left, top, right, top, right, bottom, left, bottom], place, "polygon")


def _alto_baseline(element: ElementTree.Element, polygon: NDArray[np.float64], place: str) -> NDArray[np.float64]:
    """Read the baseline: ALTO 4 has points; ALTO 2 and 3 have one number, the y of a level line."""
    words = element.get("BASELINE", "").strip()
    if re.fullmatch(r"[-+]?\d+(\.\d+)?", words):
        left, right = polygon[:, 0].min(), polygon[:, 0].max()
        return np.array([[left, float(words)], [right, float(words)]])
    return _points(words, place, "baseline")


def _points(words: str, place: str, what: str) -> NDArray[np.float64]:
    """Parse ``x y x y …`` or ``x,y x,y …``."""
    try:
        numbers = [float(word) for word in words.replace(",", " ").split()]
    except ValueError:
        raise DataError(f"{place}: the {what} {words[:60]!r} holds something else than numbers") from None
    return _pairs(numbers, place, what)


def _read_coco(file: Path, images: Path, refuse: OnRefusal) -> Iterator[PageLine]:
    content = read_json(file, "COCO with images and annotations", DataError)
    try:
        pages = {image["id"]: dict(image) for image in content["images"]}
        annotations = list(content["annotations"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} can't be read as COCO with images and annotations: {error!r}") from error
    for number, annotation in enumerate(annotations):
        line_id = str(annotation.get("id")) if isinstance(annotation, dict) else f"no. {number + 1}"
        try:
            line = _coco_line(annotation, line_id, pages, file, images)
        except DataError as error:
            refuse(file, line_id, error)
        else:
            yield line


def _coco_line(annotation: Any, line_id: str, pages: dict[Any, Any], file: Path, images: Path) -> PageLine:
    if not isinstance(annotation, dict):
        raise DataError(f"{file}, annotation {line_id}: must be an object, got {str(annotation)[:60]}")
    place = f"{file}, annotation id {line_id}"
    image_id = annotation.get("image_id")
    page = pages.get(image_id) if isinstance(image_id, Hashable) else None
    if page is None:
        raise DataError(f"{place}: image_id={image_id!r} is not among the images")
    path = images / str(page.get("file_name"))
    if not os.path.isfile(path):
        raise DataError(f"{place}: its page {path} is missing")
    segmentation = annotation.get("segmentation")
    if not isinstance(segmentation, list) or len(segmentation) != 1:
        raise DataError(f"{place}: segmentation must be a list of one polygon")
    polygon = _pairs(segmentation[0], place, "polygon")
    baseline = _pairs(annotation.get("baseline"), place, "baseline")
    try:
        size = int(page["width"]), int(page["height"])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise DataError(f"{file}, image id {page['id']}: width and height must be numbers of px") from None
    return _line(path, line_id, size, polygon, baseline, place)


def _pairs(numbers: Any, place: str, what: str) -> NDArray[np.float64]:
    """Return (n, 2) from a flat list or from a list of pairs."""
    try:
        flat = np.asarray(numbers, dtype=np.float64).ravel()
    except (OverflowError, TypeError, ValueError):
        flat = np.zeros(0)
    fewest = {"polygon": 3, "baseline": 2}[what]
    if len(flat) < 2 * fewest or len(flat) % 2 or not np.isfinite(flat).all():
        raise DataError(f"{place}: the {what} must be at least {fewest} points x y, got {str(numbers)[:60]}")
    return flat.reshape(-1, 2)


def _line(
    image: Path,
    line_id: str,
    size: tuple[int, int],
    polygon: NDArray[np.float64],
    baseline: NDArray[np.float64],
    place: str,
) -> PageLine:
    if max(size) > _LARGEST:
        raise DataError(f"{place}: its page is {size[0]!s:.20}×{size[1]!s:.20} px large; allowed: up to {_LARGEST}")
    far = max(*size, 1) * _FARTHEST
    for what, points in (("polygon", polygon), ("baseline", baseline)):
        if np.abs(points).max() > far:
            raise DataError(
                f"{place}: the {what} has a point {np.abs(points).max():g} px off, on a page of {size[0]}×{size[1]} px"
            )
    baseline = baseline[np.argsort(baseline[:, 0], kind="stable")]
    if np.hypot(*(baseline[-1] - baseline[0])) < 1:
        raise DataError(f"{place}: the baseline is shorter than a pixel")
    return PageLine(image, line_id, size, polygon, baseline)


def _tag(element: ElementTree.Element) -> str:
    return str(element.tag).rpartition("}")[2]


def pages_of(lines: Sequence[PageLine]) -> dict[Path, list[PageLine]]:
    """Return the lines of each page, in order."""
    pages: dict[Path, list[PageLine]] = {}
    for line in lines:
        pages.setdefault(line.image, []).append(line)
    return pages
