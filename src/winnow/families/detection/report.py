"""Detection's sections of a run's page: from stored detections, with pictures where the images can be read."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from winnow.data.image import read_image
from winnow.data.pixel_rule import PLAIN, PixelRule
from winnow.errors import DataError
from winnow.families.detection.diagnosis import ERRORS, RECALLS, Diagnosis, JudgedImage
from winnow.families.detection.formats.records import ImageRecord
from winnow.families.detection.metrics.image_result import ImageResult, from_arrays
from winnow.families.pictures import Colour, font_of
from winnow.sections import Bars, Block, Gallery, Lines, Matrix, Picture, Section, Series, Table, Text

logger = logging.getLogger(__name__)

NUM_WORST, NUM_DOUBTED, NUM_LABELS = 8, 4, 4
MOST_CLASSES = 20
"""Classes in a chart or a matrix; those with the most true boxes are shown, and the page says so."""
SIDE = 480
"""Pixels of the longer side of a picture."""
HIT: Colour = (74, 222, 128)
CONFUSED: Colour = (250, 204, 21)
FALSE: Colour = (248, 82, 82)
MISSED: Colour = (96, 165, 250)

Pixels = Callable[[ImageResult], np.ndarray | None]
"""Gives an image's pixels (H, W, 3) uint8, None where it can't be read."""


def detection_sections(
    arrays: Mapping[str, Any], records: Sequence[ImageRecord], num_pictures: int = NUM_WORST, rule: PixelRule = PLAIN
) -> list[Section]:
    """Return the sections of what ``CocoAp.arrays`` gave; ``records`` are the validation images, none where they can't be had,
    whose pixels are taken by ``rule``.
    Raises ValueError where the arrays don't belong together."""
    images = from_arrays(arrays)
    names = [str(name) for name in arrays["classes"]]
    if not any((~image.true_crowd).any() for image in images):
        return [
            Section("Detections", [Text("No validation image has an annotation: there is nothing to compare with.")])
        ]
    diagnosis = Diagnosis(images, names)
    return [
        Section("Classes", _classes(diagnosis)),
        Section("Precision and recall", _curves(diagnosis)),
        Section("Confusions", _confusions(diagnosis)),
        Section("Kinds of errors", _errors(diagnosis)),
        Section("Images", _pictures(diagnosis, _reader(records, rule), num_pictures)),
        Section("Suspected label errors", _label_doubts(diagnosis, _reader(records, rule))),
    ]


def _classes(diagnosis: Diagnosis) -> list[Block]:
    counts = _true_counts(diagnosis)
    rows = []
    for label in sorted(diagnosis.labels, key=lambda one: -counts[one]):
        best = diagnosis.best(label)
        rows.append((
            diagnosis.class_names[label], counts[label], diagnosis.ap(label), diagnosis.ap(label, iou=0),
            diagnosis.ap(label, iou=5), best.threshold, best.f1, best.precision, best.recall,
        ))  # fmt: skip
    columns = ("class", "true boxes", "AP", "AP50", "AP75", "best threshold", "F1 there", "precision", "recall")
    absent = [name for label, name in enumerate(diagnosis.class_names) if label not in diagnosis.labels]
    shown = rows[:MOST_CLASSES]
    blocks: list[Block] = [Bars("Average precision by class", [row[0] for row in shown], [row[2] for row in shown])]
    blocks.append(Table(columns, rows))
    if absent:
        blocks.append(Text(f"No validation image shows: {', '.join(absent)}."))
    strata = [(name, number, ap, recall) for name, number, ap, recall in diagnosis.strata()]
    blocks.append(
        Table(("size", "true boxes", "AP", "recall"), strata, "By size (small: below 32² pixels, large: above 96²)")
    )
    return blocks


def _curves(diagnosis: Diagnosis) -> list[Block]:
    counts = _true_counts(diagnosis)
    labels = sorted(diagnosis.labels, key=lambda one: -counts[one])[:8]
    recalls = RECALLS.tolist()
    series = [Series(diagnosis.class_names[label], recalls, diagnosis.curve(label).tolist()) for label in labels]
    note = (
        f" The {len(labels)} most frequent classes of {len(diagnosis.labels)}."
        if len(labels) < len(diagnosis.labels)
        else ""
    )
    return [
        Text(
            f"One threshold for all classes: {diagnosis.threshold:.3f}, the mean of the best ones by true boxes.{note}"
        ),
        Lines("Precision by recall at IoU 0.5", "recall", "precision", series, y_range=(0.0, 1.0)),
    ]


def _confusions(diagnosis: Diagnosis) -> list[Block]:
    counts, matrix = _true_counts(diagnosis), diagnosis.confusion()
    chosen = sorted(sorted(range(len(diagnosis.class_names)), key=lambda one: -counts[one])[:MOST_CLASSES])
    places = [*chosen, len(diagnosis.class_names)]
    names = [*(diagnosis.class_names[label] for label in chosen), "background"]
    left_out = len(diagnosis.class_names) - len(chosen)
    note = f" {left_out} classes with fewer true boxes are left out." if left_out else ""
    return [
        Text(f"Detections of a score of at least {diagnosis.threshold:.3f}, matched at IoU 0.5 whatever their class.{note}"),
        Matrix(
            "True and found classes", names, names, [[matrix[row][column] for column in places] for row in places], "true",
            "found",
        ),
    ]  # fmt: skip


def _errors(diagnosis: Diagnosis) -> list[Block]:
    errors = diagnosis.errors()
    names = [ERRORS[name] for name in errors]
    return [
        Bars(
            "What each kind of error costs", names, [cost for _, cost in errors.values()],
            "Average precision at IoU 0.5 that mending all errors of the kind would give, as TIDE measures it "
            "(arXiv:2008.08115). They don't add up.",
        ),
        Table(("error", "how many", "costs AP50"), [(ERRORS[name], *values) for name, values in errors.items()]),
    ]  # fmt: skip


def _pictures(diagnosis: Diagnosis, pixels: Pixels, num_worst: int) -> list[Block]:
    judged = diagnosis.judged()
    wrong = [one for one in judged if one.f1 < 1]
    worst = sorted(wrong, key=lambda one: (one.f1, -len(one.missed) - len(one.false) - len(one.confused)))[:num_worst]
    doubted = sorted((one for one in judged if one not in worst), key=lambda one: -one.doubt)[:NUM_DOUBTED]
    legend = "Green: found, yellow: found with another class, red: nothing is there, blue and dashed: missed."
    blocks: list[Block] = []
    for title, chosen in (("the worst images", worst), ("the images of most doubt", doubted)):
        drawn = [(one, pixels(diagnosis.images[one.row])) for one in chosen]
        shown = [_picture(diagnosis, one, found) for one, found in drawn if found is not None]
        if shown:
            blocks.append(Gallery(shown, f"Here: {title}, at a score of at least {diagnosis.threshold:.3f}. {legend}"))
    return blocks or [Text("The images can't be read here, so none is shown." if wrong else "No image has an error.")]


def _picture(diagnosis: Diagnosis, one: JudgedImage, pixels: np.ndarray) -> Picture:
    image = diagnosis.images[one.row]
    boxes = [(image.true_boxes[i], MISSED, diagnosis.class_names[image.true_labels[i]], True) for i in one.missed]
    for rows, colour in ((one.false, FALSE), (one.confused, CONFUSED), (one.hits, HIT)):
        boxes += [
            (image.boxes[i], colour, f"{diagnosis.class_names[image.labels[i]]} {image.scores[i]:.2f}", False)
            for i in rows
        ]
    words = [
        f"{len(rows)} {name}"
        for rows, name in (
            (one.hits, "found"),
            (one.confused, "confused"),
            (one.false, "false"),
            (one.missed, "missed"),
        )
        if rows
    ]
    return Picture(f"{image.image_id}: {', '.join(words) or 'nothing there'}", _drawn(pixels, image.size, boxes))


def _label_doubts(diagnosis: Diagnosis, pixels: Pixels) -> list[Block]:
    doubts = diagnosis.label_doubts()
    if not doubts:
        return [Text("None: no sure detection contradicts an annotation.")]
    rows = []
    for doubt in doubts[:20]:
        image = diagnosis.images[doubt["image_id"] - 1]
        annotated = "nothing" if doubt.get("gt_category_id") is None else diagnosis.class_names[doubt["gt_category_id"]]
        rows.append((str(image.image_id), annotated, diagnosis.class_names[doubt["dt_category_id"]], doubt["dt_score"]))
    blocks: list[Block] = [
        Text(f"{len(doubts)} sure detections contradict an annotation; the surest are worth a look."),
        Table(("image", "annotated", "found", "score"), rows),
    ]
    first = list(dict.fromkeys(doubt["image_id"] - 1 for doubt in doubts))[:NUM_LABELS]
    judged = {one.row: one for one in diagnosis.judged() if one.row in first}
    drawn = [(judged[row], pixels(diagnosis.images[row])) for row in first]
    shown = [_picture(diagnosis, one, found) for one, found in drawn if found is not None]
    return [*blocks, Gallery(shown)] if shown else blocks


def _drawn(pixels: np.ndarray, size: tuple[int, int], boxes: Sequence[tuple[np.ndarray, Colour, str, bool]]) -> bytes:
    """Return a JPEG of ``pixels`` with ``boxes`` (xywh in pixels of ``size`` (height, width), colour, words, is dashed)."""
    scale = SIDE / max(size)
    picture = Image.fromarray(pixels).resize((max(1, round(size[1] * scale)), max(1, round(size[0] * scale))))
    draw, font = ImageDraw.Draw(picture), font_of(17)
    is_dense = len(boxes) > 12
    for xywh, colour, words, is_dashed in boxes:
        x, y, width, height = (float(value) * scale for value in xywh)
        if is_dashed:
            _dashed(draw, (x, y, x + width, y + height), colour)
        else:
            draw.rectangle((x, y, x + max(width, 1), y + max(height, 1)), outline=colour, width=2)
        if not is_dense:
            place = (max(0.0, min(x, picture.width - draw.textlength(words, font) - 4)), max(0.0, y - 21))
            draw.rectangle(draw.textbbox(place, words, font=font), fill=(0, 0, 0))
            draw.text(place, words, fill=colour, font=font)
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=82)
    return content.getvalue()


def _dashed(draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float], colour: Colour, dash: int = 7) -> None:
    left, top, right, bottom = box
    for start in np.arange(left, right, 2 * dash):
        for y in (top, bottom):
            draw.line((start, y, min(start + dash, right), y), fill=colour, width=2)
    for start in np.arange(top, bottom, 2 * dash):
        for x in (left, right):
            draw.line((x, start, x, min(start + dash, bottom)), fill=colour, width=2)


def _reader(records: Sequence[ImageRecord], rule: PixelRule) -> Pixels:
    by_id = {str(record.image_id): record for record in records}

    def pixels(image: ImageResult) -> np.ndarray | None:
        record = by_id.get(str(image.image_id))
        if record is None:
            return None
        try:
            return read_image(record.path, record.width, record.height, rule).permute(1, 2, 0).numpy()
        except DataError as error:
            logger.warning("no picture of image %s: %s", image.image_id, error)
            return None

    return pixels


def _true_counts(diagnosis: Diagnosis) -> list[int]:
    labels = np.concatenate(
        [np.zeros(0, np.int64), *(image.true_labels[~image.true_crowd] for image in diagnosis.images)]
    )
    return [int(count) for count in np.bincount(labels, minlength=len(diagnosis.class_names))]
