"""Turns frames and their labels into records: what lacks an image or an annotation, and what of the boxes can be used."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np

from winnow.errors import DataError
from winnow.families.detection.formats.records import CocoSplit
from winnow.families.pairs.batch import MODALITIES
from winnow.families.pairs.frames import Frame, FrameLabels, PairSource, first, labels_of, size_of
from winnow.families.pairs.records import CATEGORY_IDS, CLASS_NAMES, PairRecord
from winnow.settings import Settings

logger = logging.getLogger(__name__)

# Part of the fingerprint: raise it when the same files give other records than before.
_READER_VERSION = 1
CLIPPED, DROPPED = "boxes clipped to the image", "boxes outside of it or without area"


class Completeness(Settings):
    """What is done with pairs that are not whole: keys of ``conf/data/pairs_of_cameras.yaml``."""

    missing_partner: Literal["error", "absent"]
    unlabelled: Literal["skip", "empty", "error"]


def make_split(
    source: PairSource, part: str, frames: Sequence[Frame], modalities: Collection[str], rules: Completeness
) -> CocoSplit:
    """Return the records of ``frames``. Raises DataError naming those that ``rules`` don't allow, and where none is left."""
    labelled, unlabelled = _with_labels(source, frames, rules)
    used = [(frame, labels) for frame, labels in labelled if _has_any(frame, modalities)]
    lacking = [
        f"{frame.name} ({frame.lacks})"
        for frame, _ in labelled
        if frame.lacks in modalities or not _has_any(frame, modalities)
    ]
    if lacking and rules.missing_partner == "error":
        raise DataError(
            f"{len(lacking)} of {len(labelled)} {part} pairs of {source.key}_root={source.root} lack an image: "
            f"{first(lacking)}; data.missing_partner=absent takes them as they are, with data.modalities in mind"
        )
    if lacking:
        logger.warning("%-5s %d pairs lack an image: %s", part, len(lacking), first(lacking))
    if len(unlabelled):
        what = "left out" if rules.unlabelled == "skip" else "taken as without objects"
        logger.info(
            "%-5s %d pairs without annotation %s (data.unlabelled=%s)", part, len(unlabelled), what, rules.unlabelled
        )
    if not used:
        raise DataError(
            f"no {part} pair of {source.key}_root={source.root} is left of {len(frames)}: looked in "
            f"{first(sorted({frame.sequence for frame in frames})) or 'no sequence'} for images of {' and '.join(modalities)} "
            f"with annotations in {source.words}; {len(unlabelled)} have none, {len(lacking)} lack an image"
        )
    repairs: Counter[str] = Counter()
    records = tuple(make_record(frame, labels, repairs) for frame, labels in used)
    return CocoSplit(records, CLASS_NAMES, CATEGORY_IDS, _fingerprint(records), repairs)


def make_record(frame: Frame, labels: FrameLabels, repairs: Counter[str]) -> PairRecord:
    """Return the record of a frame, its boxes clipped to the image, those without area left out; ``repairs`` counts both."""
    corners = np.tile([labels.width, labels.height], 2)
    boxes = labels.boxes.clip(0, corners).astype(np.float32)
    kept = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    repairs[DROPPED] += int((~kept).sum())
    repairs[CLIPPED] += int((boxes[kept] != labels.boxes[kept].astype(np.float32)).any(axis=1).sum())
    boxes = boxes[kept]
    return PairRecord(
        image_id=frame.name,
        path=frame.visible,
        width=labels.width,
        height=labels.height,
        boxes=boxes,
        labels=np.zeros(len(boxes), dtype=np.int64),
        areas=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
        crowd=labels.ignored[kept],
        infrared=frame.infrared,
        exists=frame.exists,
        sequence=frame.sequence,
    )


def _with_labels(
    source: PairSource, frames: Sequence[Frame], rules: Completeness
) -> tuple[list[tuple[Frame, FrameLabels]], list[Frame]]:
    found = [(frame, source.labels(frame)) for frame in frames]
    unlabelled = [frame for frame, labels in found if labels is None]
    if unlabelled and rules.unlabelled == "error":
        raise DataError(
            f"{len(unlabelled)} of {len(frames)} pairs of {source.key}_root={source.root} have no annotation in {source.words}: "
            f"{first([frame.name for frame in unlabelled])} (data.unlabelled=error; skip leaves them out)"
        )
    if rules.unlabelled == "empty":
        found = [(frame, labels_of(size_of(frame), [], []) if labels is None else labels) for frame, labels in found]
    return [(frame, labels) for frame, labels in found if labels is not None], unlabelled


def _has_any(frame: Frame, modalities: Collection[str]) -> bool:
    return any(exists and modality in modalities for exists, modality in zip(frame.exists, MODALITIES, strict=True))


def _fingerprint(records: Sequence[PairRecord]) -> str:
    sha = hashlib.sha256()
    for record in records:
        sha.update(
            f"{record.image_id} {record.width} {record.height} {record.exists} {len(record.boxes)}".encode(
                errors="surrogatepass"
            )
        )
        sha.update(record.boxes.tobytes() + record.crowd.tobytes())
    return f"pairs{_READER_VERSION}-{sha.hexdigest()}"
