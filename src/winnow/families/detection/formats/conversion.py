"""Turns labels that lie beside pictures, one file each, into COCO files in a cache, once for each state of the folders."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from winnow.data.image import ImageTooLargeError, image_sizes
from winnow.errors import DataError
from winnow.families.detection.formats.bdd100k import describe_counts, write_atomically

logger = logging.getLogger(__name__)

# Part of the cache's key: raise it when the same labels give another file than before.
CONVERTER_VERSION = 1
PICTURE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"))
SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test",)}
"""Split → the folders that tools write it into."""
_NUM_SHOWN = 5
_LONGEST = 400


@dataclass(frozen=True)
class LabelledObject:
    """An object of a class; ``box`` is xyxy in px from 0, positions; an ``ignored`` one is neither trained on nor counted."""

    name: str
    box: tuple[float, float, float, float]
    ignored: bool = False


@dataclass(frozen=True)
class LabelledPicture:
    """What a label file says of a picture of ``size`` (width, height) px; ``notes`` name what was mended, for the counts."""

    size: tuple[int, int]
    objects: tuple[LabelledObject, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """One split: pairs of a picture and its label file, None for a picture without objects; file names are relative to
    ``folder``. ``counts`` says what was left out."""

    folder: Path
    pairs: tuple[tuple[Path, Path | None], ...]
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class LabelledSet:
    """The splits of a data set, how a picture's labels are read (None: it can't be used), and the classes by category id; those
    of the train split, in alphabetical order and from 1, where ``classes`` is None. ``definitions`` are files that matter too."""

    splits: Mapping[str, Source]
    read: Callable[[Path, Path | None], LabelledPicture | None]
    classes: Mapping[int, str] | None = None
    definitions: tuple[Path, ...] = ()


def convert_once(found: LabelledSet, cache: Path, what: str) -> dict[str, tuple[Path, Path]]:
    """Return ``{split: (COCO file, folder of the images)}``, converted into ``cache`` where that state isn't there yet."""
    digest = _fingerprint(found)
    paths = {split: cache / f"instances_{split}_{digest}.json" for split in found.splits}
    if all(path.is_file() for path in paths.values()):
        logger.info("%s: %s is up to date", what, ", ".join(map(str, paths.values())))
    else:
        for split, (coco, counts) in to_coco(found).items():
            write_atomically(paths[split], coco)
            logger.info("%s %s: converted into %s: %s", what, split, paths[split], describe_counts(counts))
    return {split: (paths[split], source.folder) for split, source in found.splits.items()}


def write_converted(found: LabelledSet, target: Path) -> dict[str, Counter[str]]:
    """Write the splits under ``target`` as ``annotations/instances_….json``, their folders as links in ``images/``; counts by
    split. Raises DataError if ``target`` has other images."""
    counts = {}
    for split, (coco, counted) in to_coco(found).items():
        link_images(found.splits[split].folder, target / "images" / split)
        write_atomically(target / f"annotations/instances_{split}.json", coco)
        counts[split] = counted
    return counts


def link_images(folder: Path, link: Path) -> None:
    """Make ``link`` a symbolic link to ``folder``. Raises DataError if something else is there."""
    try:
        if not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(folder.resolve(), target_is_directory=True)
        elif not link.samefile(folder):
            raise DataError(f"{link} exists and is not {folder}; choose another folder to convert into")
    except OSError as error:
        raise DataError(f"cannot link {link} to {folder}: {error.strerror}") from error


def to_coco(found: LabelledSet) -> dict[str, tuple[dict[str, Any], Counter[str]]]:
    """Return each split as COCO, and counts of what was used, mended and left out; a split with classes that train lacks lists
    them behind train's. Raises DataError for a split without a picture, and for a set without a class."""
    read = {split: _read(split, source, found.read) for split, source in found.splits.items()}
    names = found.classes
    if names is None:
        own = read["train" if "train" in read else next(iter(read))][0]
        names = dict(enumerate(sorted({entry.name for _, picture in own for entry in picture.objects}), start=1))
    if not names:
        raise DataError(
            f"no object in any label file of {next(iter(found.splits.values())).folder}: nothing to train on"
        )
    return {
        split: (_coco(pictures, found.splits[split].folder, _with_foreign(names, pictures), counts), +counts)
        for split, (pictures, counts) in read.items()
    }


def sizes_of(path: Path) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Return (width, height) of a picture as stored and as its EXIF orientation shows it; None if it can't be read. Raises
    ImageTooLargeError."""
    try:
        return image_sizes(path)
    except ImageTooLargeError:
        raise
    except DataError:
        return None


def files_below(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    """Return the files below ``folder`` that end in one of ``suffixes`` (lower case), in order; hidden ones are left out, links
    to folders are followed, each folder once."""
    files: list[Path] = []
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(place))
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith((".", "__MACOSX")) and os.path.realpath(os.path.join(place, name)) not in seen
        )
        files += [
            Path(place, name)
            for name in sorted(names)
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes
        ]
    return files


def split_folders(root: Path) -> dict[str, Path]:
    """Return the folders of ``root`` that are named as splits are, by split."""
    return {
        split: next(root / name for name in names if (root / name).is_dir())
        for split, names in SPLITS.items()
        if any((root / name).is_dir() for name in names)
    }


def first_of(items: Sequence[object]) -> str:
    """Return the first few in words, and how many more there are."""
    more = f" and {len(items) - _NUM_SHOWN} more" if len(items) > _NUM_SHOWN else ""
    shown = [words if len(words := str(item)) <= _LONGEST else f"{words[:_LONGEST]} …" for item in items[:_NUM_SHOWN]]
    return ", ".join(shown) + more


_Pictures = list[tuple[Path, LabelledPicture]]


def _read(
    split: str, source: Source, read: Callable[[Path, Path | None], LabelledPicture | None]
) -> tuple[_Pictures, Counter[str]]:
    counts: Counter[str] = Counter({"images": 0, "boxes": 0, "of them ignored": 0})
    counts.update(source.counts)
    pictures: _Pictures = []
    for path, label in source.pairs:
        picture = read(path, label)
        if picture is None:
            logger.warning("%s: image %s can't be read; left out", split, path)
            counts["images unreadable"] += 1
            continue
        pictures.append((path, picture))
        counts.update(picture.notes)
    if not pictures:
        used = first_of([path for path, _ in source.pairs]) or "none is there"
        raise DataError(f"the {split} split in {source.folder} has no image that can be used: {used}")
    counts["images"] = len(pictures)
    counts["boxes"] = sum(len(picture.objects) for _, picture in pictures)
    counts["of them ignored"] = sum(entry.ignored for _, picture in pictures for entry in picture.objects)
    return pictures, counts


def _with_foreign(names: Mapping[int, str], pictures: _Pictures) -> dict[int, str]:
    """Return ``names`` by category id, and behind them, in alphabetical order, those of ``pictures`` that are not among them."""
    foreign = {entry.name for _, picture in pictures for entry in picture.objects} - set(names.values())
    return {**names, **dict(enumerate(sorted(foreign), start=max(names) + 1))}


def _coco(
    pictures: _Pictures,
    folder: Path,
    names: Mapping[int, str],
    counts: Counter[str],
) -> dict[str, Any]:
    numbers = {name: number for number, name in names.items()}
    categories = [{"id": number, "name": name} for number, name in names.items()]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (path, picture) in enumerate(pictures, start=1):
        name = Path(os.path.relpath(path, folder)).as_posix()
        images.append({"id": image_id, "file_name": name, "width": picture.size[0], "height": picture.size[1]})
        for entry in picture.objects:
            left, top, right, bottom = entry.box
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image_id, "category_id": numbers[entry.name],
                 "bbox": [left, top, right - left, bottom - top],
                 "area": max(right - left, 0.0) * max(bottom - top, 0.0), "iscrowd": int(entry.ignored)}
            )  # fmt: skip
    info = {"converter_version": CONVERTER_VERSION}
    return {"info": info, "images": images, "annotations": annotations, "categories": categories}


def _fingerprint(found: LabelledSet) -> str:
    """Return a digest that changes with the label files, the names and sizes of the pictures, and the classes."""
    sha = hashlib.sha256(f"{CONVERTER_VERSION} {found.classes}\n".encode(errors="surrogatepass"))
    for path in found.definitions:
        sha.update(f"{path} {path.stat().st_mtime_ns}\n".encode(errors="surrogatepass"))
    for split, source in found.splits.items():
        sha.update(f"{split} {source.folder.resolve()}\n".encode(errors="surrogatepass"))
        for line in _states(source):
            sha.update(f"{line}\n".encode("utf-8", "surrogateescape"))
    return sha.hexdigest()[:16]


def _states(source: Source) -> Iterator[str]:
    for picture, label in source.pairs:
        try:
            yield f"{picture} {picture.stat().st_size} {picture.stat().st_mtime_ns}"
            if label is not None:
                yield f"{label} {label.stat().st_size} {label.stat().st_mtime_ns}"
        except OSError as error:
            raise DataError(f"{error.filename} can't be read: {error.strerror}") from error
