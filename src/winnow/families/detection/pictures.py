"""A picture of what a detector found: a grid of images with true and predicted boxes."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from winnow.families.detection.batch import DetectionBatch, Detections, Target
from winnow.families.pictures import BACKGROUND, TEXT, Colour, font_of

Box = tuple[float, float, float, float]

CELL = 480
"""Pixels of the longer side of each image in the grid; small images are enlarged to it, large ones reduced."""
COLUMNS = 4
GAP = 8
LINE_HEIGHT = 26
FONT_SIZE = 14
OUTLINE: Colour = (0, 0, 0)
TRUE_COLOUR: Colour = (74, 222, 128)
FOUND_COLOUR: Colour = (251, 146, 60)
DASH = 7
LEAST_DRAWN = 10
"""Of an image's detections at most so many are drawn, or twice as many as there are true boxes."""
MOST_LABELLED = 30
"""With more boxes, true and found, labels would hide the image and are left out."""
NOT_SOUGHT = Detections(boxes=torch.empty(0, 4), scores=torch.empty(0), labels=torch.empty(0, dtype=torch.int64))


def draw_grid(
    images: Sequence[np.ndarray],
    detections: Sequence[Detections] | None,
    targets: Sequence[Target],
    class_names: Sequence[str],
    path: Path,
    min_score: float = 0.3,
) -> None:
    """Write a PNG to ``path``: ``images`` (H, W, 3) uint8 without padding, at any resolution, in rows of four.

    True boxes are dashed and green with their class at the bottom, crowds left out; predicted ones of at least ``min_score``
    solid and orange with class and score at the top, of each image the surest ``max(LEAST_DRAWN, 2 × true)``; None for
    ``detections`` shows the truth alone. Raises ValueError if the sequences differ in length or are empty.
    """
    all_found = [NOT_SOUGHT] * len(images) if detections is None else detections
    if not images or not len(images) == len(all_found) == len(targets):
        raise ValueError(
            f"as many images as detections and targets, at least one: {len(images)}, {len(all_found)}, {len(targets)}"
        )
    font = font_of(FONT_SIZE)
    cells = [
        _draw_cell(image, found, target, class_names, min_score, font)
        for image, found, target in zip(images, all_found, targets, strict=True)
    ]
    columns = min(COLUMNS, len(cells))
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    heights = [max(cell.height for cell in row) for row in rows]
    size = (columns * (CELL + GAP) + GAP, LINE_HEIGHT + sum(height + GAP for height in heights) + GAP)
    sheet = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP), "dashed: true", fill=TRUE_COLOUR, font=font)
    if detections is not None:
        draw.text((GAP + 130, GAP), f"solid: found, score ≥ {min_score:g}", fill=FOUND_COLOUR, font=font)
    top = LINE_HEIGHT + GAP
    for row, height in zip(rows, heights, strict=True):
        for column, cell in enumerate(row):
            sheet.paste(cell, (GAP + column * (CELL + GAP), top))
        top += height + GAP
    sheet.save(path, compress_type=zlib.Z_RLE)  # a fifth of the time of what is usual, for a file 4 % larger


def draw_training_batches(batches: Sequence[DetectionBatch], class_names: Sequence[str], path: Path, most: int) -> None:
    """Write the first ``most`` images of ``batches`` as the model sees them, augmented and resized, with their boxes to
    ``path``; padding is cut off. Raises ValueError if they hold no image."""
    images: list[np.ndarray] = []
    targets: list[Target] = []
    for batch in batches:
        pixels = batch.images.permute(0, 2, 3, 1).cpu().numpy()
        for row, target in enumerate(batch.targets):
            height, width = target.size
            images.append(pixels[row, :height, :width])
            boxes = target.boxes.cpu()
            seen = replace(target, original_size=target.size, original_boxes=boxes, original_labels=target.labels.cpu())
            targets.append(replace(seen, original_crowd=torch.zeros(len(boxes), dtype=torch.bool)))
    draw_grid(images[:most], None, targets[:most], class_names, path)


def draw_found(
    pixels: np.ndarray, boxes: torch.Tensor, scores: torch.Tensor, names: Sequence[str], min_score: float
) -> Image.Image:
    """Draw ``boxes`` (N, 4) xyxy in px of ``pixels`` (H, W, 3) uint8 with class and score, those of at least ``min_score``, the
    surest over the others. A picture smaller than ``CELL`` is enlarged to that; letters and lines grow with a larger one."""
    height, width = pixels.shape[:2]
    enlarged = max(1.0, CELL / max(height, width))
    picture = Image.fromarray(pixels).resize(
        (round(width * enlarged), round(height * enlarged)), Image.Resampling.BICUBIC
    )
    thickness = max(1, round(max(picture.size) / 1000))
    draw, font, taken = ImageDraw.Draw(picture), font_of(FONT_SIZE * thickness), list[Box]()
    shown = ((scores >= min_score) & boxes.isfinite().all(dim=1)).nonzero().flatten().tolist()
    corners = _corners(boxes[shown].numpy(), (height, width), picture)
    for box in reversed(corners):
        outside = (box[0] - thickness, box[1] - thickness, box[2] + thickness, box[3] + thickness)
        draw.rectangle(outside, outline=OUTLINE, width=4 * thickness)
        draw.rectangle(box, outline=FOUND_COLOUR, width=2 * thickness)
    for row, box in zip(shown, corners, strict=True):
        _label(draw, font, f"{names[row]} {float(scores[row]):.2f}", box, picture, taken, at_top=True)
    return picture


def _draw_cell(
    image: np.ndarray,
    found: Detections,
    target: Target,
    class_names: Sequence[str],
    min_score: float,
    font: ImageFont.FreeTypeFont,
) -> Image.Image:
    """Draw the image at its final size, above a line that tells its id and counts."""
    scale = CELL / max(image.shape[:2])
    width, height = (max(1, round(side * scale)) for side in (image.shape[1], image.shape[0]))
    picture = Image.fromarray(np.ascontiguousarray(image)).resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    real = ~target.original_crowd
    sure = ((found.scores >= min_score) & found.boxes.isfinite().all(dim=1)).nonzero().flatten()
    sure = sure[found.scores[sure].argsort(descending=True, stable=True)]
    shown = sure[: max(LEAST_DRAWN, 2 * int(real.sum()))]
    true_boxes = _corners(target.original_boxes[real].numpy(), target.original_size, picture)
    found_boxes = _corners(found.boxes[shown].numpy(), target.original_size, picture)
    # All lines before all labels, so that none crosses a name; the surest detection over the others; the truth last, as a
    # detection right on it still shows between the dashes.
    for box in reversed(found_boxes):
        draw.rectangle((box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1), outline=OUTLINE, width=4)
        draw.rectangle(box, outline=FOUND_COLOUR, width=2)
    for box in true_boxes:
        _dashed_rectangle(draw, box)
    taken: list[Box] = []
    is_dense = len(true_boxes) + len(found_boxes) > MOST_LABELLED
    for box, label, score in (
        () if is_dense else zip(found_boxes, found.labels[shown].tolist(), found.scores[shown].tolist(), strict=True)
    ):
        _label(draw, font, f"{class_names[label]} {score:.2f}", box, picture, taken, at_top=True)
    for box, label in () if is_dense else zip(true_boxes, target.original_labels[real].tolist(), strict=True):
        _label(draw, font, class_names[label], box, picture, taken, at_top=False)
    cell = Image.new("RGB", (width, height + LINE_HEIGHT), BACKGROUND)
    cell.paste(picture, (0, 0))
    caption = f"image {target.image_id}: {len(true_boxes)} true"
    if found is not NOT_SOUGHT:
        caption += f", {len(sure)} found" + (f", the surest {len(shown)} drawn" if len(shown) < len(sure) else "")
    ImageDraw.Draw(cell).text((2, height + 4), _shortened(caption, width - 4, font), fill=TEXT, font=font)
    return cell


def _corners(boxes: np.ndarray, original_size: tuple[int, int], picture: Image.Image) -> list[Box]:
    """Return xyxy in whole pixels of the picture, all of it inside, with x1 ≤ x2 and y1 ≤ y2 as Pillow wants them."""
    factors = np.array([picture.width / original_size[1], picture.height / original_size[0]] * 2)
    limits = [picture.width - 1, picture.height - 1] * 2
    scaled = np.clip((boxes.reshape(-1, 4) * factors).round(), 0, limits).tolist()
    return [(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)) for x1, y1, x2, y2 in scaled]


def _dashed_rectangle(draw: ImageDraw.ImageDraw, box: Box) -> None:
    left, top, right, bottom = box
    for width, colour in ((4, OUTLINE), (2, TRUE_COLOUR)):
        for start, end in _dashes(left, right):
            draw.line([(start, top), (end, top)], fill=colour, width=width)
            draw.line([(start, bottom), (end, bottom)], fill=colour, width=width)
        for start, end in _dashes(top, bottom):
            draw.line([(left, start), (left, end)], fill=colour, width=width)
            draw.line([(right, start), (right, end)], fill=colour, width=width)


def _dashes(start: float, end: float) -> Iterator[tuple[float, float]]:
    for position in np.arange(start, end, 2 * DASH).tolist():
        yield position, min(position + DASH, end)


def _label(
    draw: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont,
    text: str,
    box: Box,
    picture: Image.Image,
    taken: list[Box],
    at_top: bool,
) -> None:
    """Write black text on the box's colour, inside the picture always, at the first corner of the box where it hides no
    other label; nothing if there is none: in a crowd the surest are named, the others only drawn.
    """
    text = _shortened(text, picture.width - 4, font)
    width, height = math.ceil(font.getlength(text)) + 4, round(font.size) + 4
    left, top, right, bottom = box
    tops = [top - height, top, bottom, bottom - height] if at_top else [bottom - height, bottom, top, top - height]
    for x, y in ((x, y) for y in tops for x in (left, right - width)):
        corner = (min(max(0, x), max(0, picture.width - width)), min(max(0, y), max(0, picture.height - height)))
        area = (*corner, corner[0] + width, corner[1] + height)
        if not any(_overlap(area, other) for other in taken):
            taken.append(area)
            draw.rectangle(area, fill=FOUND_COLOUR if at_top else TRUE_COLOUR)
            draw.text((area[0] + 2, area[1]), text, fill=OUTLINE, font=font)
            return


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _shortened(text: str, width: float, font: ImageFont.FreeTypeFont) -> str:
    """Return ``text``, cut with an ellipsis if it is wider than ``width`` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
