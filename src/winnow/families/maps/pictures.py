"""Pictures of maps: true and found lines from above, and the same lines in the image of the front camera."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from winnow.families.maps.batch import MapBatch
from winnow.families.maps.frame import CAMERAS, NUM_CAMERAS, Array, Region, on_ground, project
from winnow.families.maps.predictions import MapPredictions
from winnow.families.pictures import BACKGROUND, TEXT, Colour, font_of

FRONT = CAMERAS.index("CAM_FRONT")
COLOURS: tuple[Colour, ...] = ((250, 204, 21), (96, 165, 250), (74, 222, 128))
"""Of dividers, crossings and boundaries."""
HEIGHT = 360
"""Pixels of a picture's height; from above, and of the camera's image."""
SHOWN = Region(34.0, 66.0)
"""What is shown from above, a little more than the usual region."""
GAP, LINE_HEIGHT, FONT_SIZE = 6, 20, 13
GRID: Colour = (52, 52, 58)
STEP_M = 0.25
"""Lines are projected into a camera in steps of this length: what is straight on the ground may leave the image and come back."""
LINE_PX = 2
_FARTHEST_M = 1000.0
"""A prediction with a point further off, or with one that is no number, is not drawn."""


def draw_maps(
    seen: Sequence[tuple[MapBatch, Sequence[MapPredictions] | None]],
    classes: Sequence[str],
    path: Path,
    threshold: float = 0.0,
    most: int | None = None,
) -> None:
    """Write a PNG to ``path`` with a row per sample, the first ``most``; batches and predictions on the CPU, at least one sample.

    Of each sample: the true lines from above and in the front camera; then, where there are predictions, those of at least
    ``threshold`` in the same two views. The car is at the cross, and looks up.
    """
    font = font_of(FONT_SIZE)
    rows = [
        _row(batch, found, index, threshold, font) for batch, found, index in itertools.islice(_samples(seen), most)
    ]
    width, height = max(row.size[0] for row in rows), sum(row.size[1] + GAP for row in rows)
    sheet = Image.new("RGB", (width + 2 * GAP, LINE_HEIGHT + GAP + height), BACKGROUND)
    draw, left = ImageDraw.Draw(sheet), float(GAP)
    legend = [("true" + (" | found" if any(found is not None for _, found in seen) else ""), TEXT)]
    legend += [(f"— {name.replace('_', ' ')}", colour) for name, colour in zip(classes, COLOURS, strict=False)]
    for words, colour in legend:
        draw.text((left, GAP / 2), words, fill=colour, font=font)
        left += font.getlength(words) + 2 * GAP
    top = LINE_HEIGHT + GAP
    for row in rows:
        sheet.paste(row, (GAP, top))
        top += row.size[1] + GAP
    sheet.save(path)


def sample_picture(
    true: Sequence[tuple[Array, int]], found: Sequence[tuple[Array, int]], batch: MapBatch | None
) -> Image.Image:
    """Draw a sample's true lines, (P, 2) each with its label, above the found ones: from above and, where there is a ``batch`` of
    that sample alone, in the front camera."""
    rows = []
    for lines in (true, found):
        is_drawable = [(points, label) for points, label in lines if (np.abs(points) < _FARTHEST_M).all()]
        shown = [(np.asarray(points, np.float64), COLOURS[label % len(COLOURS)]) for points, label in is_drawable]
        rows.append([_from_above(shown), *([] if batch is None else [_in_front_camera(batch, 0, shown)])])
    if batch is None:  # beside each other
        rows = [[row[0] for row in rows]]
    width = sum(cell.width + GAP for cell in rows[0]) - GAP
    sheet = Image.new("RGB", (width, len(rows) * (HEIGHT + GAP) - GAP), BACKGROUND)
    for number, row in enumerate(rows):
        left = 0
        for cell in row:
            sheet.paste(cell, (left, number * (HEIGHT + GAP)))
            left += cell.width + GAP
    return sheet


def _samples(
    seen: Sequence[tuple[MapBatch, Sequence[MapPredictions] | None]],
) -> Iterator[tuple[MapBatch, MapPredictions | None, int]]:
    for batch, found in seen:
        for index in range(batch.num_samples):
            yield batch, None if found is None else found[index], index


def _row(
    batch: MapBatch, found: MapPredictions | None, index: int, threshold: float, font: ImageFont.FreeTypeFont
) -> Image.Image:
    target = batch.targets[index]
    sets = [list(zip(target.lines, target.lines.labels.tolist(), strict=True))]
    if found is not None:
        is_drawable = (found.points.abs() < _FARTHEST_M).flatten(1).all(dim=1)
        most = max(10, 2 * len(target.lines))
        kept = ((found.scores >= threshold) & is_drawable).nonzero()[:most, 0].tolist()
        sets.append([(found.points[line].numpy(), int(found.labels[line])) for line in kept])
    cells = []
    for lines in sets:
        shown = [(np.asarray(points, np.float64), COLOURS[label % len(COLOURS)]) for points, label in lines]
        cells += [_from_above(shown), _in_front_camera(batch, index, shown)]
    width = sum(cell.size[0] + GAP for cell in cells) - GAP
    row = Image.new("RGB", (width, HEIGHT + LINE_HEIGHT), BACKGROUND)
    left = 0
    for cell in cells:
        row.paste(cell, (left, 0))
        left += cell.size[0] + GAP
    counts = f"{len(target.lines)} true" + (f", {len(sets[1])} found" if found is not None else "")
    ImageDraw.Draw(row).text((2, HEIGHT + 2), f"{target.image_id}, {target.city}: {counts}", fill=TEXT, font=font)
    return row


def _from_above(lines: Sequence[tuple[Array, Colour]]) -> Image.Image:
    scale = HEIGHT / SHOWN.length
    low_x, _, _, high_y = SHOWN.bounds()

    def place(points: Array) -> list[tuple[float, float]]:
        return [((x - low_x) * scale, (high_y - y) * scale) for x, y in points.tolist()]

    picture = Image.new("RGB", (round(SHOWN.width * scale), HEIGHT), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    for metres in range(-30, 31, 15):
        ends = [((-15, metres), (15, metres))] + ([((metres, -30), (metres, 30))] if abs(metres) <= 15 else [])
        for end in ends:
            draw.line(place(np.array(end, np.float64)), fill=GRID)
    for points, colour in lines:
        draw.line(place(points), fill=colour, width=LINE_PX, joint="curve")
        x, y = place(points[:1])[0]
        draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=colour)
    for arm in (np.array([[-1.0, 0.0], [1.0, 0.0]]), np.array([[0.0, -1.0], [0.0, 2.0]])):
        draw.line(place(arm), fill=TEXT)
    return picture


def _in_front_camera(batch: MapBatch, index: int, lines: Sequence[tuple[Array, Colour]]) -> Image.Image:
    """Draw lines on the ground over the image of the front camera."""
    camera = index * NUM_CAMERAS + FRONT
    pixels = batch.images[camera].permute(1, 2, 0).numpy()
    scale = HEIGHT / pixels.shape[0]
    picture = Image.fromarray(np.ascontiguousarray(pixels)).resize((round(pixels.shape[1] * scale), HEIGHT))
    draw = ImageDraw.Draw(picture)
    frame_to_camera, intrinsics = (
        tensor[index, FRONT].double().numpy() for tensor in (batch.frame_to_camera, batch.intrinsics)
    )
    ground = batch.ground[index].double().numpy()
    for points, colour in lines:
        for piece in _seen_pieces(
            on_ground(_fine(points), ground), frame_to_camera, intrinsics, pixels.shape[1], pixels.shape[0]
        ):
            draw.line([(x * scale, y * scale) for x, y in piece.tolist()], fill=colour, width=LINE_PX)
    return picture


def _seen_pieces(points: Array, frame_to_camera: Array, intrinsics: Array, width: int, height: int) -> Iterator[Array]:
    """Yield the pixels of those pieces of a line that lie in front of a camera and about in its image."""
    pixels, _ = project(points, frame_to_camera, intrinsics)
    with np.errstate(invalid="ignore"):
        is_near = np.abs(pixels - (width / 2, height / 2)) < (width, height)
    is_seen = is_near[:, 0] & is_near[:, 1]
    for is_in, group in itertools.groupby(range(len(points)), key=lambda index: bool(is_seen[index])):
        piece = list(group)
        if is_in and len(piece) > 1:
            yield pixels[piece]


def _fine(points: Array) -> Array:
    """Return the points of a line with more between them, at most ``STEP_M`` apart."""
    parts = [
        np.linspace(begin, end, max(1, int(np.ceil(np.linalg.norm(end - begin) / STEP_M))), endpoint=False)
        for begin, end in itertools.pairwise(points)
    ]
    return np.concatenate([*parts, points[-1:]])
