"""A picture of what a detector found: a grid of images with true and predicted boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from winnow.data.batch import Detections, Target

CELL = 360
"""Width in pixels of one image of the grid; small images are enlarged to it, large ones reduced."""
COLUMNS = 4
GAP = 8
LEGEND_HEIGHT = 30
FONT_SIZE = 14
BACKGROUND = (24, 24, 27)
TRUE_COLOUR = (74, 222, 128)
FOUND_COLOUR = (251, 146, 60)
DASH = 7


def draw_grid(
    images: Sequence[np.ndarray],
    detections: Sequence[Detections],
    targets: Sequence[Target],
    class_names: Sequence[str],
    path: Path,
    min_score: float = 0.3,
) -> None:
    """Write a PNG to ``path``: ``images`` (H, W, 3) uint8 in original size, in rows of four.

    True boxes are dashed and green with their class below, crowds left out; predicted ones of at least ``min_score`` solid and
    orange with class and score above. Raises ValueError where the sequences differ in length or are empty.
    """
    if not images or not len(images) == len(detections) == len(targets):
        raise ValueError(
            f"as many images as detections and targets, at least one: {len(images)}, {len(detections)}, {len(targets)}"
        )
    cells = [
        _draw_cell(image, found, target, class_names, min_score)
        for image, found, target in zip(images, detections, targets, strict=True)
    ]
    columns = min(COLUMNS, len(cells))
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    heights = [max(cell.height for cell in row) for row in rows]
    size = (columns * (CELL + GAP) + GAP, LEGEND_HEIGHT + sum(height + GAP for height in heights) + GAP)
    sheet = Image.new("RGB", size, BACKGROUND)
    _draw_legend(ImageDraw.Draw(sheet), min_score)
    top = LEGEND_HEIGHT + GAP
    for row, height in zip(rows, heights, strict=True):
        for column, cell in enumerate(row):
            sheet.paste(cell, (GAP + column * (CELL + GAP), top))
        top += height + GAP
    sheet.save(path)


def _draw_cell(
    image: np.ndarray, found: Detections, target: Target, class_names: Sequence[str], min_score: float
) -> Image.Image:
    scale = CELL / image.shape[1]
    picture = Image.fromarray(image).resize((CELL, max(1, round(image.shape[0] * scale))), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(FONT_SIZE)
    for box, label, crowd in zip(target.original_boxes, target.original_labels, target.original_crowd, strict=True):
        if not crowd:
            corners = [float(value) * scale for value in box]
            _dashed_rectangle(draw, corners)
            _label(draw, font, class_names[int(label)], (corners[0], corners[3]), picture, above=False)
    # The surest one is drawn last, on top of the others.
    order = [index for index in reversed(range(len(found.scores))) if found.scores[index] >= min_score]
    for index in order:
        corners = [float(value) * scale for value in found.boxes[index]]
        draw.rectangle(corners, outline=FOUND_COLOUR, width=2)
        text = f"{class_names[int(found.labels[index])]} {float(found.scores[index]):.2f}"
        _label(draw, font, text, (corners[0], corners[1]), picture, above=True)
    return picture


def _dashed_rectangle(draw: ImageDraw.ImageDraw, corners: Sequence[float]) -> None:
    left, top, right, bottom = corners
    for start in np.arange(left, right, 2 * DASH):
        end = min(float(start) + DASH, right)
        draw.line([(float(start), top), (end, top)], fill=TRUE_COLOUR, width=3)
        draw.line([(float(start), bottom), (end, bottom)], fill=TRUE_COLOUR, width=3)
    for start in np.arange(top, bottom, 2 * DASH):
        end = min(float(start) + DASH, bottom)
        draw.line([(left, float(start)), (left, end)], fill=TRUE_COLOUR, width=3)
        draw.line([(right, float(start)), (right, end)], fill=TRUE_COLOUR, width=3)


def _label(
    draw: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    text: str,
    corner: tuple[float, float],
    picture: Image.Image,
    above: bool,
) -> None:
    """Black text on the box's colour, outside of the box where there is room, inside the picture always."""
    width, height = math.ceil(draw.textlength(text, font=font)) + 4, FONT_SIZE + 4
    left = min(max(0.0, corner[0]), max(0, picture.width - width))
    top = min(max(0.0, corner[1] - height if above else corner[1]), picture.height - height)
    draw.rectangle([left, top, left + width, top + height], fill=FOUND_COLOUR if above else TRUE_COLOUR)
    draw.text((left + 2, top), text, fill="black", font=font)


def _draw_legend(draw: ImageDraw.ImageDraw, min_score: float) -> None:
    font = ImageFont.load_default(FONT_SIZE + 2)
    draw.text((GAP, 8), "dashed: true", fill=TRUE_COLOUR, font=font)
    draw.text((GAP + 110, 8), f"solid: found, score ≥ {min_score:g}", fill=FOUND_COLOUR, font=font)
