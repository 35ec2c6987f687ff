"""Reads pairs whole, both images decoded, and lists what is wrong with them by file."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from winnow.data.check import DataReport, Finding, Progress, SplitProgress, SplitReport
from winnow.data.image import image_sizes, levels_of, read_image
from winnow.data.picture_facts import facts_of_file
from winnow.data.pixel_rule import PLAIN, PixelRule
from winnow.errors import DataError
from winnow.families.detection.check import picture_notes
from winnow.families.detection.check_classes import absent_classes
from winnow.families.pairs.batch import MODALITIES
from winnow.families.pairs.exchanged import edges_of, exchanged, is_coloured
from winnow.families.pairs.frames import Frame, FrameLabels, PairSource, labels_of
from winnow.families.pairs.records import CLASS_NAMES, PairRecord
from winnow.families.pairs.selection import make_record
from winnow.families.pairs.settings import CameraSettings, PairSettings, SyntheticNode
from winnow.families.pairs.sources import Selected, select_kaist, select_llvip
from winnow.families.pairs.synthetic.store import SPLITS, make_pairs, read_pairs

# Decoding and hashing release the interpreter lock, so threads suffice.
_MAX_THREADS = 8
# Pairs that are read before the first of them is looked at.
_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class PairReport(SplitReport):
    """What a split's check found; besides, each image's hash → the first file that has it, and class → objects to learn."""

    files: Mapping[str, str] = field(repr=False)
    objects: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Seen:
    """One image file, read: what is wrong with it, or its size, hash, colour and edges, and what is worth knowing of it."""

    problem: str | None
    digest: str = ""
    size: tuple[int, int] = (0, 0)
    is_coloured: bool = False
    edges: np.ndarray | None = None
    notes: tuple[Finding, ...] = ()


def check_llvip(settings: CameraSettings, progress: SplitProgress) -> DataReport:
    """Check the splits of ``data=llvip``."""
    return _check_selected(select_llvip(settings), progress, _rule_of(settings))


def check_kaist(settings: CameraSettings, progress: SplitProgress) -> DataReport:
    """Check the splits of ``data=kaist``."""
    return _check_selected(select_kaist(settings), progress, _rule_of(settings))


def check_synthetic(settings: SyntheticNode, progress: SplitProgress) -> DataReport:
    """Check the splits of ``data=pairs_synthetic``, drawn first where they are not there."""
    folder = make_pairs(Path(settings.root), settings)
    reports = {}
    for part in SPLITS:
        records = {str(record.image_id): record for record in read_pairs(folder, part).records}
        frames = [_frame_of(record) for record in records.values() if isinstance(record, PairRecord)]

        def labels(frame: Frame, records: Mapping[str, Any] = records) -> FrameLabels:
            record = records[frame.name]
            return labels_of((record.width, record.height), record.boxes.tolist(), record.crowd.tolist())

        source = PairSource("data", folder, tuple(frames), labels, str(folder / f"figures_{part}.json"))
        reports[part] = check_frames(source, frames, partial(progress, part), settings.pixel_rule)
    return _report_of(reports)


def check_frames(
    source: PairSource, frames: Sequence[Frame], progress: Progress, rule: PixelRule = PLAIN
) -> PairReport:
    """Check ``frames``, their pixels taken by ``rule``; ``progress`` is called with (pairs done, pairs in all)."""
    found: list[Finding] = []
    files: dict[str, str] = {}
    num_boxes = num_learnt = 0
    edges: list[tuple[Frame, np.ndarray, np.ndarray]] = []
    for done, (frame, seen) in enumerate(_read_all(frames, rule), start=1):
        labels, of_labels, learnt = _check_labels(source, frame)
        num_boxes += 0 if labels is None else len(labels.boxes)
        num_learnt += learnt
        found += [*of_labels, *_check_images(frame, seen, labels), *_same_files(frame, seen, files)]
        if edges and edges[-1][0].sequence != frame.sequence:
            found += _exchanged_frames(edges)
            edges.clear()
        visible, infrared = (image.edges if image is not None else None for image in seen)
        if visible is not None and infrared is not None:
            edges.append((frame, visible, infrared))
        progress(done, len(frames))
    found += _exchanged_frames(edges)
    (name,) = CLASS_NAMES
    return PairReport(source.words, len(frames), num_boxes, tuple(found), files, {name: num_learnt})


def _check_selected(selected: Selected, progress: SplitProgress, rule: PixelRule) -> DataReport:
    reports = {
        part: check_frames(selected.source, frames, partial(progress, part), rule)
        for part, frames in (("train", selected.train), ("val", selected.val))
    }
    return _report_of(reports)


def _rule_of(settings: CameraSettings) -> PixelRule:
    return settings.pixel_rule if isinstance(settings, PairSettings) else PLAIN


def _report_of(reports: Mapping[str, PairReport]) -> DataReport:
    """Return what was found of train and val, of each, between them, and of their classes."""
    objects = {part: report.objects for part, report in reports.items()}
    absent = absent_classes(objects)
    splits = {part: replace(report, findings=(*report.findings, *absent[part])) for part, report in reports.items()}
    return DataReport(splits, _in_both(*reports.values()), objects)


def _frame_of(record: PairRecord) -> Frame:
    return Frame(str(record.image_id), record.sequence, *record.paths, record.exists, False)


def _check_labels(source: PairSource, frame: Frame) -> tuple[FrameLabels | None, list[Finding], int]:
    """Return the labels of a frame, what is wrong with them, and how many objects of it are learnt."""
    try:
        labels = source.labels(frame)
    except DataError as error:
        return None, [Finding("malformed annotation", frame.name, None, str(error))], 0
    if labels is None:
        return None, [Finding("pair without annotation", frame.name, None, "", is_problem=False)], 0
    repairs: Counter[str] = Counter()
    record = make_record(frame, labels, repairs)
    found = [Finding(what, frame.name, None, f"{count} of {len(labels.boxes)}") for what, count in (+repairs).items()]
    if not len(labels.boxes):
        found.append(Finding("pair without objects", frame.name, None, "", is_problem=False))
    return labels, found, int((~record.crowd).sum())


def _check_images(frame: Frame, seen: Sequence[_Seen | None], labels: FrameLabels | None) -> list[Finding]:
    if frame.lacks:
        return [Finding("missing partner", frame.name, None, f"there is no {frame.lacks} image")]
    found = []
    for path, image in zip((frame.visible, frame.infrared), seen, strict=True):
        if image is not None and image.problem is not None:
            found.append(Finding("unreadable image", str(path), None, image.problem))
    notes = [note for image in seen if image is not None for note in image.notes]
    visible, infrared = seen
    if found or visible is None or infrared is None:
        return found + notes
    sizes = [f"{width}×{height}" for width, height in (visible.size, infrared.size)]
    if visible.size != infrared.size:
        found.append(Finding("different sizes", frame.name, None, f"visible {sizes[0]}, infrared {sizes[1]}"))
    elif labels is not None and visible.size != (labels.width, labels.height):
        found.append(
            Finding("size mismatch", frame.name, None, f"{sizes[0]}, annotated as {labels.width}×{labels.height}")
        )
    if infrared.is_coloured and not visible.is_coloured:
        found.append(
            Finding("modalities exchanged", frame.name, None, "the infrared image is coloured, the visible grey")
        )
    return found + notes


def _same_files(frame: Frame, seen: Sequence[_Seen | None], files: dict[str, str]) -> list[Finding]:
    """Return findings of images whose bytes another file in ``files`` (hash → name) has; add those that are new."""
    found = []
    for modality, image in zip(MODALITIES, seen, strict=True):
        if image is None or not image.digest:
            continue
        name = f"{frame.name} ({modality})"
        other = files.setdefault(image.digest, name)
        if other != name:
            found.append(Finding("same file twice", name, None, f"same content as {other}"))
    return found


def _exchanged_frames(of_sequence: Sequence[tuple[Frame, np.ndarray, np.ndarray]]) -> list[Finding]:
    frames = [frame for frame, _, _ in of_sequence]
    pairs = exchanged([visible for _, visible, _ in of_sequence], [infrared for _, _, infrared in of_sequence])
    return [
        Finding(
            "frames exchanged", frames[one].name, None, f"its infrared image fits {frames[other].name}, and the reverse"
        )
        for one, other in pairs
    ]


def _in_both(train: PairReport, val: PairReport) -> tuple[Finding, ...]:
    return tuple(
        Finding("same image in train and val", name, None, f"same content as {train.files[digest]} in train")
        for digest, name in val.files.items()
        if digest in train.files
    )


def _read_all(frames: Sequence[Frame], rule: PixelRule) -> Iterator[tuple[Frame, tuple[_Seen | None, _Seen | None]]]:
    def look(frame: Frame) -> tuple[_Seen | None, _Seen | None]:
        visible, infrared = frame.exists
        return _look(frame.visible, rule) if visible else None, _look(frame.infrared, rule) if infrared else None

    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        for start in range(0, len(frames), _AT_ONCE):
            some = frames[start : start + _AT_ONCE]
            yield from zip(some, pool.map(look, some), strict=True)


def _look(path: Path, rule: PixelRule) -> _Seen:
    try:
        size = image_sizes(path, rule.max_pixels)[1 if rule.exif == "always" else 0]
        image = Image.fromarray(read_image(path, *size, rule).permute(1, 2, 0).numpy())
        facts = facts_of_file(str(path))
        left = levels_of(path, rule) if facts.bits > 8 else None
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except (DataError, OSError) as error:
        return _Seen(str(error))
    notes = tuple(picture_notes(str(path), size, facts, rule, left))
    return _Seen(None, digest, size, is_coloured(image), edges_of(image), notes)
