"""Finds the splits of a Pascal VOC data set, an XML per picture, in whatever layout, and reads a picture with its XML."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from winnow.errors import DataError
from winnow.families.detection.formats.conversion import (
    PICTURE_SUFFIXES,
    LabelledObject,
    LabelledPicture,
    LabelledSet,
    Source,
    files_below,
    first_of,
    sizes_of,
    split_folders,
)  # fmt: skip
from winnow.families.detection.formats.voc import VocFile, read_voc
from winnow.reading import read_text

_XML = frozenset((".xml",))
_LISTS = "ImageSets/Main"


def voc_of_root(root: Path) -> LabelledSet:
    """Find the splits under ``root``: by the lists in ``ImageSets/Main``, there or up to two folders below, by folders
    ``train``, ``val`` or ``valid`` and ``test``, or all of it as train. Raises DataError where there is no XML, and for a train
    split that is missing.
    """
    if not root.is_dir():
        raise DataError(f"{root} is no folder")
    lists = next((path for pattern in ("", "*/", "*/*/") for path in sorted(root.glob(pattern + _LISTS))), None)
    if lists is not None and (lists / "train.txt").is_file():
        return LabelledSet(_by_lists(lists), read_picture)
    folders = {split: folder for split, folder in split_folders(root).items() if files_below(folder, _XML)}
    if folders and "train" not in folders:
        raise DataError(
            f"{root} has VOC annotations in {first_of(list(folders.values()))}, and none in {root / 'train'}"
        )
    folders = folders or {"train": root}
    return LabelledSet({split: _source(folder, folder) for split, folder in folders.items()}, read_picture)


def voc_of_parts(parts: Mapping[str, tuple[Path, Path]]) -> LabelledSet:
    """Find the splits whose (folder of images, folder of XML) are named, with what lies below them."""
    return LabelledSet({split: _source(*paths) for split, paths in parts.items()}, read_picture)


def read_picture(path: Path, label: Path | None) -> LabelledPicture | None:
    """Read a picture's XML: corners count pixels from 1, a ``difficult`` object is ignored, and the picture's own size holds
    where the XML says another one."""
    assert label is not None
    file = read_voc(label, needs_size=False)
    notes = []
    size = (file.width, file.height)
    own = sizes_of(path)
    if own is None and 0 in size:
        return None
    if own is not None and size not in own:
        size = own[0]
        notes.append("sizes taken from the image, for the XML has another or none")
    objects = tuple(
        LabelledObject(entry.name, _from_zero(entry.box) if entry.is_corners else entry.box, entry.is_difficult)
        for entry in file.objects
    )
    if _has_zero(file):
        notes.append("images with a corner at 0, where VOC counts from 1")
    return LabelledPicture(size, objects, tuple(notes))


def _from_zero(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """Return positions from numbers of pixels, of which the first is 1 and the last one is inside."""
    left, top = (0.0 if 0 <= corner < 1 else corner - 1 for corner in box[:2])
    return left, top, box[2], box[3]


def _has_zero(file: VocFile) -> bool:
    return any(entry.is_corners and any(0 <= corner < 1 for corner in entry.box[:2]) for entry in file.objects)


def _by_lists(lists: Path) -> dict[str, Source]:
    base = lists.parent.parent
    labels = base / "Annotations" if (base / "Annotations").is_dir() else base
    images = base / "JPEGImages" if (base / "JPEGImages").is_dir() else base
    found = {}
    for split in ("train", "val", "test"):
        file = lists / f"{split}.txt"
        # The test list of the challenge names pictures whose annotations were never given out.
        if file.is_file() and (split != "test" or _names(file) <= {path.stem for path in files_below(labels, _XML)}):
            found[split] = _source(images, labels, file)
    return found


def _names(file: Path) -> set[str]:
    """Return the stems that a list names; a second column, as in the lists by class, says whether an object is there."""
    lines = read_text(file, "list of images", DataError).splitlines()
    names = [re.sub(r"\s+-?[01]$", "", line.strip()) for line in lines if line.strip()]
    return {
        name[: -len(suffix)] if (suffix := Path(name).suffix.lower()) in PICTURE_SUFFIXES else name for name in names
    }


def _source(images: Path, labels: Path, listed: Path | None = None) -> Source:
    for folder in (images, labels):
        if not folder.is_dir():
            raise DataError(f"{folder} is no folder")
    files = files_below(labels, _XML)
    if not files:
        raise DataError(f"there is no XML in {labels}; VOC has one for each image")
    if listed is not None:
        names = _names(listed)
        if not names:
            raise DataError(f"{listed} names no image")
        absent = sorted(names - {path.stem for path in files})
        if absent:
            raise DataError(f"{listed} names {len(absent)} images without an XML in {labels}: {first_of(absent)}")
        files = [path for path in files if path.stem in names]
    pictures = defaultdict(list)
    for path in files_below(images, PICTURE_SUFFIXES):
        pictures[path.stem].append(path)
    pairs = [(_picture(label, pictures.get(label.stem, []), images, labels), label) for label in files]
    lost = [label for path, label in pairs if path is None]
    if lost:
        raise DataError(
            f"{len(lost)} of {len(files)} XML files have no image of their name in {images}: {first_of(lost)}"
        )
    counts: Counter[str] = Counter()
    if listed is None:
        counts["images without XML, left out"] = sum(map(len, pictures.values())) - len(files)
    return Source(images, tuple((path, label) for path, label in pairs if path is not None), counts)


def _picture(label: Path, candidates: Sequence[Path], images: Path, labels: Path) -> Path | None:
    """Return the picture of an XML's name: the one beside it, or in the same sub-folder, where there are several."""
    if len(candidates) <= 1:
        return candidates[0] if candidates else None
    below = label.parent.relative_to(labels)
    near = [path for path in candidates if path.parent in (label.parent, images / below)]
    if len(near) != 1:
        raise DataError(
            f"{label} may belong to {first_of(candidates)}; name the folders: data.train.images and .annotations"
        )
    return near[0]
