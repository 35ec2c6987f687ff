"""The images of a split and what is true of them: as columns for all at once, as one record for whoever reads an image."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, overload

import numpy as np


@dataclass(frozen=True, eq=False, slots=True)
class ImageRecord:
    """One image and its objects, in pixels of the image as annotated.

    ``boxes`` (N, 4) float32 xyxy, clipped to the image by their corners, none without area; ``labels`` (N,) int64 in
    0…n−1; ``areas`` (N,) float32 px², the annotation's own where it has one; ``crowd`` (N,) bool.
    """

    image_id: int | str
    path: Path
    width: int
    height: int
    boxes: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray


@dataclass(frozen=True, eq=False)
class Columns:
    """``num`` images as arrays, so that a million of them are few objects, which processes share.

    Of images: ``ids`` (num,) int64, or their JSON as ``Texts`` where there are others; ``names`` (file names), ``sizes`` (num, 2)
    int64 (width, height) px, and ``starts`` (num + 1,) int64: image i has objects ``starts[i]`` to ``starts[i + 1]``. Of objects,
    as in ``ImageRecord``: ``boxes``, ``labels``, ``areas``, ``crowd``.
    """

    ids: np.ndarray | Texts
    names: Texts
    sizes: np.ndarray
    starts: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray

    @property
    def num(self) -> int:
        return len(self.sizes)

    @property
    def owners(self) -> np.ndarray:
        """Return for each object the image that it is in."""
        return np.repeat(np.arange(self.num), np.diff(self.starts))

    def image_id(self, index: int) -> int | str:
        if isinstance(self.ids, Texts):
            image_id: int | str = json.loads(self.ids[index])
            return image_id
        return int(self.ids[index])

    def image_ids(self) -> list[int | str]:
        return [json.loads(text) for text in self.ids] if isinstance(self.ids, Texts) else self.ids.tolist()

    def take(self, rows: np.ndarray) -> Columns:
        """Return the images at ``rows``, in that order."""
        counts = np.diff(self.starts)[rows]
        starts = np.concatenate([[0], np.cumsum(counts)])
        places = np.arange(starts[-1]) + np.repeat(self.starts[:-1][rows] - starts[:-1], counts)
        ids = self.ids.take(rows) if isinstance(self.ids, Texts) else self.ids[rows]
        return Columns(
            ids, self.names.take(rows), self.sizes[rows], starts,
            self.boxes[places], self.labels[places], self.areas[places], self.crowd[places],
        )  # fmt: skip

    def take_objects(self, rows: np.ndarray, labels: np.ndarray, crowd: np.ndarray) -> Columns:
        """Return the same images with the objects at ``rows`` alone, which ascend and may repeat, with new ``labels`` and
        ``crowd``."""
        counts = np.bincount(self.owners[rows], minlength=self.num)
        return replace(
            self, starts=np.concatenate([[0], np.cumsum(counts)]), boxes=self.boxes[rows], areas=self.areas[rows],
            labels=labels, crowd=crowd,
        )  # fmt: skip


class Texts(Sequence[str]):
    """Many texts as the bytes of all and where each begins, ``starts`` (N + 1,) int64."""

    def __init__(self, data: np.ndarray, starts: np.ndarray) -> None:
        self.data, self.starts = data, starts

    @classmethod
    def of(cls, texts: Sequence[str]) -> Texts:
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        return cls(np.frombuffer(b"".join(encoded), np.uint8), np.concatenate([[0], np.cumsum(lengths)]))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> str:  # type: ignore[override]
        return self._bytes(int(self.starts[index]), int(self.starts[index + 1])).decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        whole, starts = self.data.tobytes(), self.starts.tolist()
        for start, end in itertools.pairwise(starts):
            yield whole[start:end].decode("utf-8", "surrogatepass")

    def take(self, rows: np.ndarray) -> Texts:
        return Texts.of([self[row] for row in rows.tolist()])

    def _bytes(self, start: int, end: int) -> bytes:
        return self.data[start:end].tobytes()


class FlatRecords(Sequence[ImageRecord]):
    """The records of ``columns``, made when they are asked for; file names are relative to ``folder``."""

    def __init__(self, columns: Columns, folder: str) -> None:
        self.columns, self.folder = columns, folder

    def __len__(self) -> int:
        return self.columns.num

    @overload
    def __getitem__(self, index: int) -> ImageRecord: ...

    @overload
    def __getitem__(self, index: slice) -> FlatRecords: ...

    def __getitem__(self, index: int | slice) -> ImageRecord | FlatRecords:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        index = range(len(self))[index]
        columns = self.columns
        width, height = columns.sizes[index].tolist()
        objects = slice(int(columns.starts[index]), int(columns.starts[index + 1]))
        # Copies: mapped arrays can't be written to, which torch does not take.
        return ImageRecord(
            columns.image_id(index), Path(os.path.join(self.folder, columns.names[index])), width, height,
            *(np.array(values[objects]) for values in (columns.boxes, columns.labels, columns.areas, columns.crowd)),
        )  # fmt: skip

    def paths(self) -> list[str]:
        """Return the images' paths."""
        return [os.path.join(self.folder, name) for name in self.columns.names]

    def take(self, rows: np.ndarray) -> FlatRecords:
        """Return the records at ``rows``, in that order."""
        return FlatRecords(self.columns.take(rows), self.folder)


@dataclass(frozen=True, eq=False)
class CocoSplit:
    """All images of one annotation file, in the file's order; label i is ``class_names[i]`` and ``category_ids[i]``.

    ``fingerprint`` changes when the records may; ``repairs`` counts what was mended or dropped, by kind; ``doubts`` says what
    the log is to warn of whenever the file is read.
    """

    records: Sequence[ImageRecord]
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    fingerprint: str
    repairs: Mapping[str, int]
    doubts: tuple[str, ...] = ()


def take_records(records: Sequence[ImageRecord], rows: Sequence[int]) -> Sequence[ImageRecord]:
    """Return the records at ``rows``; the same object where that is all of them."""
    if len(rows) == len(records) and list(rows) == list(range(len(records))):
        return records
    return (
        records.take(np.array(rows, dtype=np.int64))
        if isinstance(records, FlatRecords)
        else [records[row] for row in rows]
    )


def columns_of(records: Sequence[ImageRecord]) -> Columns:
    """Return any records as columns; those of ``FlatRecords`` are its own."""
    if isinstance(records, FlatRecords):
        return records.columns
    return Columns(
        ids_of([record.image_id for record in records]),
        Texts.of([str(record.path) for record in records]),
        np.array([(record.width, record.height) for record in records], dtype=np.int64).reshape(-1, 2),
        np.concatenate([[0], np.cumsum([len(record.labels) for record in records], dtype=np.int64)]).astype(np.int64),
        *(_joined(records, name, empty) for name, empty in _OBJECTS.items()),
    )


def ids_of(image_ids: Sequence[int | str]) -> np.ndarray | Texts:
    """Return image ids as a column."""
    if all(type(image_id) is int and abs(image_id) < 2**63 for image_id in image_ids):
        return np.array(image_ids, dtype=np.int64)
    return Texts.of([json.dumps(image_id) for image_id in image_ids])


_OBJECTS: dict[str, Any] = {
    "boxes": np.zeros((0, 4), np.float32), "labels": np.zeros(0, np.int64), "areas": np.zeros(0, np.float32),
    "crowd": np.zeros(0, bool),
}  # fmt: skip


def _joined(records: Sequence[ImageRecord], name: str, empty: np.ndarray) -> np.ndarray:
    return np.concatenate([empty, *(getattr(record, name) for record in records)])


def arrays_of(columns: Columns) -> dict[str, np.ndarray]:
    """Return the arrays that ``columns`` consist of, by name; ``Texts`` are two of them."""
    arrays: dict[str, np.ndarray] = {}
    for field in fields(columns):
        value = getattr(columns, field.name)
        if isinstance(value, Texts):
            arrays |= {f"{field.name}.data": value.data, f"{field.name}.starts": value.starts}
        else:
            arrays[field.name] = value
    return arrays


def columns_from(arrays: Mapping[str, np.ndarray]) -> Columns:
    """Return the columns that ``arrays_of`` took apart."""
    values: dict[str, Any] = {
        field.name: Texts(arrays[f"{field.name}.data"], arrays[f"{field.name}.starts"])
        if f"{field.name}.data" in arrays
        else arrays[field.name]
        for field in fields(Columns)
    }
    return Columns(**values)
