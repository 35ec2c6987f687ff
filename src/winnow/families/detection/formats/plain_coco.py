"""COCO files as COCO itself writes them, decoded straight into columns: of millions of objects no dict is made.

Whatever is written otherwise, as text where a number belongs, is left to ``coco_table``, which looks at each entry; both read the
same out of a file that both can read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np

from winnow.reading import NOT_READ, UnreadableError, collector_paused, require_not_deep

MAX_SIDE_PX = 2**24
"""Whole numbers beyond it are not exact in float32."""


class _Image(msgspec.Struct, gc=False):
    id: int
    file_name: str
    width: int
    height: int


class _Annotation(msgspec.Struct, gc=False):
    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float | None = None
    iscrowd: bool | int | None = None


class _File(msgspec.Struct, gc=False):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[Any]
    # Of other kinds of file: whoever looks at each entry says what they are.
    via: msgspec.Raw | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="_via_img_metadata")
    labelme: msgspec.Raw | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="imagePath")


@dataclass(frozen=True, eq=False)
class PlainCoco:
    """The images of a file, their ids and names unique and their sizes (N, 2) positive; its annotations in int64 and float64,
    ``areas`` NaN and ``has_flag`` false where there is none; its categories as they stand; and whether the annotations' ids are
    unique too."""

    image_ids: np.ndarray
    file_names: list[str]
    sizes: np.ndarray
    owners: np.ndarray
    category_ids: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    has_flag: np.ndarray
    categories: list[Any]
    has_unique_ids: bool


def plain_coco(content: bytes) -> PlainCoco | None:
    """Return the columns of a COCO file, None where it holds anything that must be looked at entry by entry."""
    try:
        require_not_deep(content)
        if not content.isascii():
            content.decode()  # what is skipped is text in UTF-8 too
        with collector_paused():
            file = msgspec.json.decode(content, type=_File)
            plain = _columns(file)
    except (msgspec.DecodeError, UnreadableError, *NOT_READ):
        return None
    is_other = file.via is not msgspec.UNSET or file.labelme is not msgspec.UNSET
    return plain if not is_other and _is_plain(plain, content) else None


def _columns(file: _File) -> PlainCoco:
    """Raises OverflowError for a number that is none of int64."""
    images, annotations = file.images, file.annotations
    numbers = chain.from_iterable(map(attrgetter("bbox"), annotations))
    areas = (np.nan if area is None else area for area in map(attrgetter("area"), annotations))
    flags = (-1 if flag is None else bool(flag) for flag in map(attrgetter("iscrowd"), annotations))
    flag = np.fromiter(flags, np.int8, len(annotations))
    return PlainCoco(
        _whole(images, "id"), [image.file_name for image in images],
        np.stack([_whole(images, "width"), _whole(images, "height")], axis=1),
        _whole(annotations, "image_id"), _whole(annotations, "category_id"),
        np.fromiter(numbers, np.float64, 4 * len(annotations)).reshape(-1, 4),
        np.fromiter(areas, np.float64, len(annotations)),
        flag > 0, flag >= 0, file.categories, _are_unique(_whole(annotations, "id")),
    )  # fmt: skip


def _whole(entries: Sequence[Any], name: str) -> np.ndarray:
    values: Iterable[int] = map(attrgetter(name), entries)
    return np.fromiter(values, np.int64, len(entries))


def _are_unique(numbers: np.ndarray) -> bool:
    ordered = np.sort(numbers)  # numpy's own unique hashes them, which takes ten times as long
    return bool((ordered[1:] != ordered[:-1]).all())


def _is_plain(plain: PlainCoco, content: bytes) -> bool:
    names = plain.file_names
    if not plain.has_unique_ids or not _are_unique(plain.image_ids) or len(set(names)) != len(names) or not all(names):
        return False
    if not ((plain.sizes > 0) & (plain.sizes < MAX_SIDE_PX)).all():
        return False
    # A box of zeros is taken from the mask, where there is one.
    return (plain.boxes != 0).any(axis=1).all() or b'"segmentation"' not in content
