"""Finds BDD100K on disk, in its own layout or converted, and turns its label files of any generation into COCO files."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from winnow.data.image import ImageTooLargeError, image_size
from winnow.errors import DataError
from winnow.reading import as_float, read_json
from winnow.run_folder import write_whole

logger = logging.getLogger(__name__)

# Part of the cache's key: raise it when the same labels give another file than before.
CONVERTER_VERSION = 1
SPLITS = ("train", "val")
# In the official order; ids count from 1.
CLASS_NAMES = (
    "pedestrian", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle", "traffic light", "traffic sign",
)  # fmt: skip
_OTHER_NAMES = {
    "person": "pedestrian",
    "other person": "pedestrian",
    "bike": "bicycle",
    "motor": "motorcycle",
    "other vehicle": "car",
    "caravan": "car",
    "van": "car",
    "trailer": "truck",
}
_CATEGORY_IDS = {name: number for number, name in enumerate(CLASS_NAMES, start=1)}
_CATEGORY_IDS |= {old: _CATEGORY_IDS[new] for old, new in _OTHER_NAMES.items()}
# Newest first: where several generations label a frame, the newest is believed.
_LABEL_FILES = ("labels/det_20/det_{split}.json", "labels/bdd100k_labels_images_{split}.json")
_LABEL_FOLDER = "labels/100k/{split}"
_IMAGE_FOLDER = "images/100k/{split}"


@dataclass(frozen=True)
class Source:
    """One split in BDD100K's own layout: its images and its label files, the newest generation first."""

    images: Path
    labels: tuple[Path, ...]


def find_bdd100k(root: Path, cache: Path) -> dict[str, tuple[Path, Path]]:
    """Find ``{"train": (annotation file, image folder), "val": …}`` for a data set under ``root``.

    Takes the converted form (``images/{train,val}`` and ``annotations/instances_{train,val}.json``) as it is, and
    converts BDD100K's own layout into ``cache``, once for each state of its label files and image folders. Raises
    DataError if neither is complete.
    """
    converted = {split: (root / f"annotations/instances_{split}.json", root / f"images/{split}") for split in SPLITS}
    if all(annotations.is_file() and images.is_dir() for annotations, images in converted.values()):
        return converted
    sources = find_sources(root)
    absent = [split for split in SPLITS if split not in sources]
    if absent:
        raise DataError(
            f"{root} has no BDD100K {' and no '.join(absent)} split; wanted is either images/{absent[0]} with "
            f"annotations/instances_{absent[0]}.json, or {_IMAGE_FOLDER.format(split=absent[0])} with one of "
            + ", ".join(pattern.format(split=absent[0]) for pattern in (*_LABEL_FILES, _LABEL_FOLDER + "/*.json"))
        )
    return {split: (_convert_once(split, source, cache), source.images) for split, source in sources.items()}


def find_sources(root: Path) -> dict[str, Source]:
    """Find the splits in BDD100K's own layout under ``root``, or under its folder ``bdd100k``, that have images and labels."""
    found = {}
    for base in (root / "bdd100k", root):
        for split in SPLITS:
            images = base / _IMAGE_FOLDER.format(split=split)
            files = [base / pattern.format(split=split) for pattern in _LABEL_FILES]
            labels = [path for path in files if path.is_file()]
            labels += sorted((base / _LABEL_FOLDER.format(split=split)).glob("*.json"))
            if images.is_dir() and labels:
                found[split] = Source(images, tuple(labels))
    return found


def convert_bdd100k(source: Path, target: Path) -> dict[str, Counter[str]]:
    """Write the converted form of ``source`` under ``target``, its image folders as symbolic links; counts by split.

    Raises DataError if ``source`` has no split to convert, or ``target`` already has other images.
    """
    sources = find_sources(source)
    if not sources:
        raise DataError(f"{source} holds no BDD100K split with images and labels")
    counts = {}
    for split, found in sources.items():
        link = target / "images" / split
        if not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(found.images.resolve(), target_is_directory=True)
        elif not link.samefile(found.images):
            raise DataError(f"{link} exists and is not {found.images}; choose another folder to convert into")
        coco, counts[split] = to_coco(found)
        write_atomically(target / f"annotations/instances_{split}.json", coco)
    return counts


def to_coco(source: Source) -> tuple[dict[str, Any], Counter[str]]:
    """Return one split as COCO with boxes x1, y1, x2 − x1, y2 − y1 in pixels, and counts of what was used and left out.

    The corners are fractional, so they are read as positions, not as inclusive pixel numbers to which the official
    converter adds 1. Labels without ``box2d`` (lanes, drivable areas) are left out, and so are frames whose image is
    absent or unreadable, images without a frame, and unknown categories. Raises DataError for a malformed label, or
    when no frame is left.
    """
    frames = _read_frames(source)
    on_disk = _file_names(source.images)
    counts: Counter[str] = Counter()
    counts["images without labels"] = len(on_disk - frames.keys())
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for name in sorted(frames):
        size = _image_size(source.images / name) if name in on_disk else None
        if size is None:
            counts["labelled images unreadable" if name in on_disk else "labelled images not on disk"] += 1
            continue
        image = {"id": len(images) + 1, "file_name": name, "width": size[0], "height": size[1]}
        images.append(image | {"attributes": frames[name].get("attributes") or {}})
        for entry in _annotations(frames[name], name, counts):
            annotations.append({"id": len(annotations) + 1, "image_id": image["id"], **entry})
    if not images:
        raise DataError(
            f"none of the {len(frames)} frames labelled in {source.labels[0]} has a readable image in {source.images}"
        )
    counts["images"], counts["boxes"] = len(images), len(annotations)
    categories = [{"id": _CATEGORY_IDS[name], "name": name} for name in CLASS_NAMES]
    info = {"description": "BDD100K", "converter_version": CONVERTER_VERSION}
    return {"info": info, "images": images, "annotations": annotations, "categories": categories}, +counts


def write_atomically(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` as JSON at ``path``: readers see the old file or the whole new one, also after a crash."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(content, separators=(",", ":")))
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from error


def _convert_once(split: str, source: Source, cache: Path) -> Path:
    path = cache / f"instances_{split}_{_fingerprint(source)}.json"
    if path.is_file():
        logger.info("bdd100k %s: %s is up to date", split, path)
        return path
    coco, counts = to_coco(source)
    write_atomically(path, coco)
    logger.info("bdd100k %s: converted into %s: %s", split, path, describe_counts(counts))
    return path


def describe_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items())


def _fingerprint(source: Source) -> str:
    """Return a digest that changes with the label files and with which images are there, as a download goes on."""
    sha = hashlib.sha256(f"{CONVERTER_VERSION} {source.images.resolve()}".encode())
    for path in source.labels:
        stat = path.stat()
        sha.update(f"{path.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    with os.scandir(source.images) as entries:
        for name, size in sorted((entry.name, entry.stat().st_size) for entry in entries):
            sha.update(f"{name} {size}\n".encode())
    return sha.hexdigest()[:16]


def _read_frames(source: Source) -> dict[str, dict[str, Any]]:
    """Read frames by file name; of several label files the first that has a frame wins: they come newest first."""
    frames: dict[str, dict[str, Any]] = {}
    for path in source.labels:
        in_file: dict[str, dict[str, Any]] = {}
        for frame in _frames_of(path):
            if in_file.setdefault(frame["name"], frame) != frame:
                raise DataError(f"{path} labels frame {frame['name']} twice, and differently")
        for name, frame in in_file.items():
            frames.setdefault(name, frame)
    return frames


def _frames_of(path: Path) -> Iterator[dict[str, Any]]:
    content = read_json(path, "BDD100K labels", DataError)
    # One file per image: the name stands outside, has no suffix, and the labels are called objects.
    outer = content if isinstance(content, dict) else {}
    entries = outer.get("frames") if isinstance(content, dict) else content
    if not isinstance(entries, list):
        raise DataError(f"label file {path} is neither a list of frames nor an object with a list 'frames'")
    for entry in entries:
        frame = {**outer, **entry} if isinstance(entry, dict) else {}
        name = frame.get("name")
        labels = frame.get("labels") or frame.get("objects") or []
        if not isinstance(name, str) or not isinstance(labels, list):
            raise DataError(f"label file {path} has a frame without name or with malformed labels: {entry!r:.100}")
        name = name if name.lower().endswith((".jpg", ".jpeg", ".png")) else f"{name}.jpg"
        yield {"name": name, "attributes": frame.get("attributes"), "labels": labels, "file": path}


def _annotations(frame: Mapping[str, Any], name: str, counts: Counter[str]) -> Iterator[dict[str, Any]]:
    for label in frame["labels"]:
        if not isinstance(label, dict):
            raise DataError(f"{frame['file']}: frame {name} has a malformed label: {label!r:.100}")
        box = label.get("box2d")
        if box is None:
            counts["labels without box"] += 1
            continue
        category_id = _CATEGORY_IDS.get(str(label.get("category")))
        if category_id is None:
            counts[f"boxes of unknown category {label.get('category')!r}"] += 1
            continue
        try:
            left, top, right, bottom = corners = [as_float(box[key]) for key in ("x1", "y1", "x2", "y2")]
        except (LookupError, TypeError):
            corners = [math.nan]
        if not all(map(math.isfinite, corners)):
            raise DataError(
                f"{frame['file']}: label {label.get('id')!r:.60} of frame {name} has a malformed box2d: {box!r:.100}"
            )
        given = label.get("attributes")
        attributes = given if isinstance(given, dict) else {}
        yield {
            "category_id": category_id,
            "bbox": [left, top, right - left, bottom - top],
            "area": max(right - left, 0.0) * max(bottom - top, 0.0),
            "iscrowd": int(_is_crowd(attributes.get("crowd"), frame, name)),
            "source_id": label.get("id"),
        }


def _is_crowd(flag: Any, frame: Mapping[str, Any], name: str) -> bool:
    """Return whether an attribute says so, which may be text; anything that is neither a number nor true or false is refused."""
    if isinstance(flag, str):
        number = {"true": 1.0, "false": 0.0, "": 0.0}.get(flag.strip().lower(), as_float(flag))
        if not math.isfinite(number):
            raise DataError(f"{frame['file']}: a label of frame {name} has the attribute crowd {flag!r:.40}, no number")
        return bool(number)
    return bool(flag)


def _image_size(path: Path) -> tuple[int, int] | None:
    """Return (width, height) from the file's header; None if it has none. Raises ImageTooLargeError."""
    try:
        return image_size(path)
    except ImageTooLargeError:
        raise
    except DataError:
        return None


def _file_names(folder: Path) -> set[str]:
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if entry.name.lower().endswith((".jpg", ".jpeg", ".png"))}
