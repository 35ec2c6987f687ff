"""What the rules for pixels do to the pictures of a split: for the log, for the fingerprint, and since a run of before."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from winnow.data.grey_levels import LevelsLeft
from winnow.data.image import QUARTER_TURNS, SAME_SIZE_TURNS, levels_of, turns
from winnow.data.picture_facts import PictureFacts
from winnow.data.pixel_rule import Exif, PixelRule
from winnow.errors import DataError
from winnow.families.detection.formats.coco import read_as_before, read_coco
from winnow.families.detection.formats.records import CocoSplit, ImageRecord
from winnow.families.detection.rules.label_rules import MENDS, Mend

logger = logging.getLogger(__name__)

_NUM_LOOKED_AT = 5


def turn_of(picture: PictureFacts, width: int, height: int, exif: Exif) -> int:
    """Return the EXIF orientation that a picture is turned by, annotated as ``width`` × ``height``; 1 for none."""
    is_turned = turns(picture.orientation, (picture.width, picture.height), (width, height), exif)
    return picture.orientation if is_turned else 1


def pixel_words(split: CocoSplit, rule: PixelRule) -> str:
    """Return what ``rule`` does to the pixels of ``split``, for its fingerprint; empty where that is nothing."""
    if not len(split.pictures):  # nobody has looked at them
        is_plain = rule.exif in ("auto", "by_size") and rule.depth == "upper8"
        return "" if is_plain else f" exif={rule.exif} depth={rule.depth}"
    words = [f"{record.image_id!r} turned {turn}" for record, turn in _turns(split, rule.exif) if turn != 1]
    if rule.depth != "upper8" and any(picture.bits > 8 for _, picture in _pictures(split)):
        words.append(f"depth={rule.depth}")
    if rule.mends_ends:
        words += [f"{record.image_id!r} without end" for record, picture in _pictures(split) if not picture.has_end]
    return "\n".join(["", *words]) if words else ""


def log_pictures(part: str, split: CocoSplit, rule: PixelRule) -> None:
    """Say how many pictures of a split are of a kind for which there is a key, and what 16 bits lose."""
    quarter, same_size, square = (_of_kind(split, kind) for kind in ("quarter", "same_size", "square"))
    if quarter:
        logger.info(
            "%-5s %d images have an EXIF orientation of 5 to 8: the annotated size says whether they are turned (data.exif=%s)",
            part, len(quarter), rule.exif,
        )  # fmt: skip
    if same_size:
        done = "turned as viewers show them" if rule.exif in ("auto", "always") else "not turned"
        logger.info(
            "%-5s %d images have an EXIF orientation of 2 to 4, which keeps the size: %s (data.exif=%s; never takes them as they "
            "are stored)", part, len(same_size), done, rule.exif,
        )  # fmt: skip
    if square and rule.exif in ("auto", "by_size"):
        logger.info(
            "%-5s %d square images have an EXIF orientation of 5 to 8: not turned (data.exif=%s; always turns them)",
            part, len(square), rule.exif,
        )  # fmt: skip
    broken = [record for record, picture in _pictures(split) if not picture.has_end]
    if broken:
        logger.warning(
            "%-5s %d JPEGs lack their end, as %s: %s", part, len(broken), broken[0].path.name,
            "read where nearly all of it is there (data.mend)" if rule.mends_ends else "not read (data.mend has no jpeg_ends)",
        )  # fmt: skip
    _log_depth(part, [record for record, picture in _pictures(split) if picture.bits > 8], rule)


def levels_words(left: LevelsLeft, rule: PixelRule) -> str:
    """Return what a rule leaves of a picture's 16 bits, with the way to keep more where that is little."""
    words = f"values from {left.lowest} to {left.highest}: of {left.before} grey levels {left.after} are left"
    words += f" (data.depth={_shown(rule)})"
    return f"{words}; data.depth=[{left.lowest},{left.highest}] or percentile keeps more" if left.are_few else words


def changes_of_reading(split: CocoSplit, rule: PixelRule) -> list[str]:
    """Return what is read otherwise of a split's files than before there were rules, and how to read it as then, as lines."""
    if split.reading is None or split.annotations is None:
        return []
    old = read_as_before(split)
    if old is None:
        return [f"{split.annotations} was refused before"]
    lines = [] if split.fingerprint.startswith(old.fingerprint) else list(_changed_records(split))
    turned = sum(
        turn != old_turn
        for (_, turn), (_, old_turn) in zip(_turns(split, rule.exif), _turns(split, "by_size"), strict=True)
    )
    if turned:
        lines.append(
            f"{turned} images are turned otherwise by their EXIF orientation: data.exif=by_size takes them as before"
        )
    if rule.depth != "upper8" and any(picture.bits > 8 for _, picture in _pictures(split)):
        lines.append(f"data.depth={_shown(rule)} takes 16 bits otherwise: data.depth=upper8 takes them as before")
    broken = sum(not picture.has_end for _, picture in _pictures(split))
    if broken and rule.mends_ends:
        lines.append(
            f"{broken} JPEGs that lack their end are read: {_without(split, 'jpeg_ends')} leaves them out as before"
        )
    return lines


def _changed_records(split: CocoSplit) -> Iterator[str]:
    reading = split.reading
    assert reading is not None
    assert reading.images is not None
    assert split.annotations is not None
    for mend in MENDS:
        if mend not in reading.labels.mend:
            continue
        labels = reading.labels.model_copy(update={"mend": [other for other in reading.labels.mend if other != mend]})
        try:
            other = read_coco(split.annotations, reading.images, replace(reading, labels=labels))
        except DataError:
            other = None
        if other is None or not split.fingerprint.startswith(other.fingerprint):
            yield f"{split.annotations}: {mend} that are not as they should be are read: {_without(split, mend)} reads as before"
    if reading.labels.drop_duplicates:
        yield f"{split.annotations}: data.drop_duplicates=false keeps boxes that are there twice, as before"
    if reading.labels.box_format or reading.labels.box_unit:
        yield f"{split.annotations}: data.box_format=null and data.box_unit=null read boxes as before"


def _without(split: CocoSplit, mend: Mend) -> str:
    assert split.reading is not None
    return f"data.mend=[{','.join(other for other in split.reading.labels.mend if other != mend)}]"


def _pictures(split: CocoSplit) -> Iterator[tuple[ImageRecord, PictureFacts]]:
    """Give the images of which there is something to say, with the facts; none where nobody has looked at them."""
    plain = PictureFacts(0, 0)
    for row in np.flatnonzero((split.pictures[:, 2:] != plain[2:]).any(axis=1)).tolist():
        width, height, orientation, bits, has_end = split.pictures[row].tolist()
        yield split.records[row], PictureFacts(width, height, orientation, bits, bool(has_end))


def _turns(split: CocoSplit, exif: Exif) -> list[tuple[ImageRecord, int]]:
    return [(record, turn_of(picture, record.width, record.height, exif)) for record, picture in _pictures(split)]


def _of_kind(split: CocoSplit, kind: str) -> list[ImageRecord]:
    found = []
    for record, picture in _pictures(split):
        is_square = picture.width == picture.height
        name = ""
        if picture.orientation in SAME_SIZE_TURNS:
            name = "same_size"
        elif picture.orientation in QUARTER_TURNS:
            name = "square" if is_square else "quarter"
        if name == kind:
            found.append(record)
    return found


def _log_depth(part: str, deep: Sequence[ImageRecord], rule: PixelRule) -> None:
    """Say what is left of the first few of the ``deep`` pictures, the poorest of them."""
    found = []
    for record in deep[:_NUM_LOOKED_AT]:
        try:
            left = levels_of(record.path, rule)
        except DataError:
            continue
        if left is not None:
            found.append((left, record))
    if not found:
        if deep:
            logger.info("%-5s %d images have 16 bits in each colour: the upper 8 are read", part, len(deep))
        return
    left, record = min(found, key=lambda item: item[0].after)
    level = logging.WARNING if left.are_few else logging.INFO
    logger.log(
        level, "%-5s %d images have 16 bits; %s has %s", part, len(deep), record.path.name, levels_words(left, rule)
    )


def _shown(rule: PixelRule) -> str:
    return rule.depth if isinstance(rule.depth, str) else f"[{rule.depth[0]},{rule.depth[1]}]"
