"""Finds the splits of a YOLO data set, by its ``data.yaml`` or a list of its classes, and reads a picture's text file."""

from __future__ import annotations

import logging
import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from winnow.errors import DataError
from winnow.families.detection.formats.conversion import (
    PICTURE_SUFFIXES,
    SPLITS,
    LabelledObject,
    LabelledPicture,
    LabelledSet,
    Source,
    files_below,
    first_of,
    sizes_of,
    split_folders,
)  # fmt: skip
from winnow.reading import as_float, read_text, read_yaml

logger = logging.getLogger(__name__)

CLASS_LISTS = ("classes.txt", "obj.names", "_darknet.labels", "predefined_classes.txt")
# Tools write edges a little beyond the picture, which are clipped; pixels are far beyond it.
_FARTHEST = 0.5


def yolo_of_root(root: Path) -> LabelledSet:
    """Find the splits that ``root`` describes: a ``data.yaml``, a folder that holds one, or a folder with a list of its classes.

    Raises DataError naming what was looked for.
    """
    if os.path.isfile(root):
        return _by_yaml(root)
    if not os.path.isdir(root):
        raise DataError(f"{root} is no folder and no data.yaml")
    yaml = yaml_in(root)
    if yaml is not None:
        return _by_yaml(yaml)
    listed = class_list_in(root)
    if listed is None:
        raise DataError(
            f"{root} has neither a data.yaml with names nor a list of its classes ({', '.join(CLASS_LISTS)})"
        )
    lines = read_text(listed, "list of classes", DataError).splitlines()
    classes = _distinct(dict(enumerate(line.strip() for line in lines if line.strip())))
    folders = split_folders(root) or split_folders(root / "images") or {"train": root}
    splits = {split: _source(root, files_below(place, PICTURE_SUFFIXES), place) for split, place in folders.items()}
    return _labelled_set(splits, classes, listed, has_points=False)


def yaml_in(folder: Path) -> Path | None:
    """Return the YAML file of ``folder`` that describes a YOLO data set: ``data.yaml``, or one that has names and train."""
    own = next((folder / name for name in ("data.yaml", "data.yml") if (folder / name).is_file()), None)
    return own or next((path for path in sorted(folder.glob("*.y*ml")) if _has_names(path)), None)


def class_list_in(folder: Path) -> Path | None:
    """Return the list of classes in ``folder`` or its ``labels``, a name a line."""
    paths = [place / name for place in (folder, folder / "labels") for name in CLASS_LISTS]
    return next((path for path in paths if path.is_file()), None)


def read_labels(
    path: Path | None, picture: Path, classes: Mapping[int, str], has_points: bool, definition: Path
) -> LabelledPicture | None:
    """Read the text file of a picture, a line per object: class, centre and size as fractions of the picture, or the corners of
    a polygon, which become its box. ``has_points``: key points follow the box. Without a file there is no object. ``definition``
    is the file that names the classes.

    Raises DataError naming file and line. None if the picture can't be read.
    """
    sizes = sizes_of(picture)
    if sizes is None:
        return None
    size = sizes[1]
    if path is None:
        return LabelledPicture(size, ())
    lines = read_text(path, "YOLO labels", DataError).splitlines()
    objects = [
        _object(line.split(), f"{path}: line {number}", classes, size, has_points, definition)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    polygons = sum(is_polygon for _, is_polygon in objects)
    return LabelledPicture(size, tuple(entry for entry, _ in objects), ("boxes made of polygons",) * polygons)


def _object(
    words: Sequence[str],
    place: str,
    classes: Mapping[int, str],
    size: tuple[int, int],
    has_points: bool,
    definition: Path,
) -> tuple[LabelledObject, bool]:
    number, *values = map(as_float, words)
    if number not in classes:
        raise DataError(
            f"{place}: class {words[0]!r:.40} is not one of the {len(classes)} classes of {definition}, numbered from 0"
        )
    wrong = [word for word, value in zip(words[1:], values, strict=True) if not math.isfinite(value)]
    if wrong:
        raise DataError(f"{place}: {wrong[0]!r:.40} is no number")
    is_polygon = not has_points and len(values) >= 6 and len(values) % 2 == 0
    if is_polygon:
        xs, ys = values[::2], values[1::2]
        corners = (min(xs), min(ys), max(xs), max(ys))
    elif len(values) == 4 or (has_points and len(values) > 4):
        x, y, width, height = values[:4]
        corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    else:
        raise DataError(
            f"{place}: {len(values)} numbers after the class; 4 are a box (centre and size), 6 and more, in pairs, a polygon"
        )
    if not all(-_FARTHEST <= value <= 1 + _FARTHEST for value in corners):
        raise DataError(
            f"{place}: the box reaches from {corners[0]:g}, {corners[1]:g} to {corners[2]:g}, {corners[3]:g}; YOLO's "
            "numbers are fractions of the picture, from 0 to 1"
        )
    left, top, right, bottom = corners
    width_px, height_px = size
    return LabelledObject(
        classes[int(number)], (left * width_px, top * height_px, right * width_px, bottom * height_px)
    ), is_polygon


def _by_yaml(path: Path) -> LabelledSet:
    content = read_yaml(path, "YOLO's data.yaml", DataError)
    if not isinstance(content, dict):
        raise DataError(f"{path} is no mapping with names, train and val")
    classes = _names(content.get("names"), path)
    splits = {}
    for split, others in SPLITS.items():
        value = next((content[key] for key in (split, *others) if content.get(key)), None)
        if value is None and split == "train":
            raise DataError(f"{path}: there is no train")
        if value is None or (split == "test" and _resolved(path, content, value) is None):
            continue
        splits[split] = _source(path.parent, _pictures(path, content, split, value), f"{path}: {split}")
    return _labelled_set(splits, classes, path, has_points="kpt_shape" in content)


def _labelled_set(
    splits: Mapping[str, Source], classes: Mapping[int, str], definition: Path, has_points: bool
) -> LabelledSet:
    read = partial(_read_pair, classes=classes, has_points=has_points, definition=definition)
    return LabelledSet(splits, read, classes, (definition,))


def _read_pair(
    picture: Path, label: Path | None, *, classes: Mapping[int, str], has_points: bool, definition: Path
) -> LabelledPicture | None:
    return read_labels(label, picture, classes, has_points, definition)


def _names(names: Any, path: Path) -> dict[int, str]:
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        raise DataError(f"{path}: names is {names!r:.60}; wanted is a list of classes, or a mapping of numbers to them")
    classes = {}
    for key, name in names.items():
        number = as_float(key)
        if not (number >= 0 and number.is_integer()) or isinstance(name, dict | list) or name is None:
            raise DataError(f"{path}: names: {key!r:.40}: {name!r:.40} is no number with the name of a class")
        classes[int(number)] = str(name)
    return _distinct(classes)


def _has_names(path: Path) -> bool:
    try:
        content = read_yaml(path, "YOLO's data.yaml", DataError)
    except DataError:
        return False
    return isinstance(content, dict) and {"names", "train"} <= content.keys()


def _distinct(classes: Mapping[int, str]) -> dict[int, str]:
    """Return the classes with a number behind a name that an earlier one has, as COCO's reader does."""
    found: dict[int, str] = {}
    for number, name in classes.items():
        found[number] = f"{name}#{number}" if name in found.values() else name
    return found


def _pictures(yaml: Path, content: Mapping[str, Any], split: str, value: Any) -> list[Path]:
    pictures: list[Path] = []
    for one in value if isinstance(value, list) else [value]:
        place = _resolved(yaml, content, one)
        if place is None:
            tried = (
                first_of(_candidates(yaml, content, one)) if isinstance(one, str) else "a folder or a list of images"
            )
            raise DataError(f"{yaml}: {split}: {one!r:.200} is not there; looked for {tried}")
        pictures += _listed(place) if place.is_file() else files_below(place, PICTURE_SUFFIXES)
    if not pictures:
        raise DataError(f"{yaml}: {split}: {value!r:.200} holds no images")
    return pictures


def _listed(path: Path) -> list[Path]:
    lines = [line.strip() for line in read_text(path, "list of images", DataError).splitlines()]
    pictures = [path.parent / line for line in lines if line]
    absent = [picture for picture in pictures if not os.path.isfile(picture)]  # nor is a name of 5,000 letters
    if absent:
        raise DataError(f"{path} lists {len(absent)} images that are not there: {first_of(absent)}")
    return pictures


def _resolved(yaml: Path, content: Mapping[str, Any], value: Any) -> Path | None:
    """Return the path that ``value`` means; tools that pack a set write ``../train/images``, or a ``path`` of another machine."""
    if isinstance(value, list):
        return next((place for one in value if (place := _resolved(yaml, content, one)) is not None), None)
    if not isinstance(value, str):
        return None
    candidates = _candidates(yaml, content, value)
    found = next((path for path in candidates if os.path.exists(path)), None)
    if found is not None and found != candidates[0]:
        logger.info("%s: %s is not there, %s is taken", yaml, candidates[0], found)
    return found


def _candidates(yaml: Path, content: Mapping[str, Any], value: str) -> list[Path]:
    bases = [yaml.parent]
    if isinstance(content.get("path"), str) and content["path"]:
        bases.insert(0, yaml.parent / content["path"])
    name = value.replace("\\", "/")
    tail = re.sub(r"^(\.\./)+", "", name)
    return list(dict.fromkeys([*(base / name for base in bases), *(base / tail for base in bases)]))


def _source(folder: Path, pictures: Sequence[Path], place: object) -> Source:
    pairs = tuple((picture, _label_of(picture)) for picture in pictures)
    without = sum(label is None for _, label in pairs)
    if pairs and without == len(pairs):
        raise DataError(
            f"{place}: none of the {len(pairs)} images has a label file, as {pairs[0][0].with_suffix('.txt')} or, for "
            "images/…, labels/….txt"
        )
    return Source(folder, pairs, Counter({"images without label file, taken as without objects": without}))


def _label_of(picture: Path) -> Path | None:
    """Return the text file of a picture: under ``labels`` in place of the last folder ``images``, or beside it."""
    candidates = [picture.with_suffix(".txt")]
    parts = picture.parts
    if "images" in parts[:-1]:
        last = len(parts) - 2 - parts[:-1][::-1].index("images")
        candidates.insert(0, Path(*parts[:last], "labels", *parts[last + 1 :]).with_suffix(".txt"))
    return next((path for path in candidates if path.is_file()), None)
