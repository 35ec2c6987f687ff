"""Pictures of maps: true and found lines from above, and the same lines in the image of the front camera."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
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


class CameraView(NamedTuple):
    """An image (H, W, 3) uint8, how the map's frame gets into its pixels, and the ground (a, b, c) of the frame."""

    pixels: NDArray[np.uint8]
    frame_to_camera: Array
    intrinsics: Array
    ground: Array


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
    title = "true" + (" | found" if any(found is not None for _, found in seen) else "")
    _write_legend(sheet, title, dict(enumerate(classes)), font)
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
        shown = _lines_shown([(points, label) for points, label in lines if (np.abs(points) < _FARTHEST_M).all()])
        rows.append([_from_above(shown), *([] if batch is None else [_in_camera(_front_view(batch, 0), shown)])])
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


def draw_found(found: MapPredictions, names: Sequence[str], view: CameraView, threshold: float) -> Image.Image:
    """Return a picture of the lines of at least ``threshold``, from above and in a camera's image; ``names`` says the class of
    each line."""
    lines = _lines_shown(_drawable(found, threshold))
    above, seen = _from_above(lines), _in_camera(view, lines)
    sheet = Image.new("RGB", (above.width + seen.width + 3 * GAP, LINE_HEIGHT + GAP + HEIGHT + GAP), BACKGROUND)
    sheet.paste(above, (GAP, LINE_HEIGHT + GAP))
    sheet.paste(seen, (above.width + 2 * GAP, LINE_HEIGHT + GAP))
    classes = dict(sorted(zip(found.labels.tolist(), names, strict=True)))
    _write_legend(sheet, f"found, score ≥ {threshold:g}", classes, font_of(FONT_SIZE))
    return sheet


def _write_legend(sheet: Image.Image, title: str, classes: Mapping[int, str], font: ImageFont.FreeTypeFont) -> None:
    """Write ``title`` and the names of ``classes`` by label, in their colours."""
    draw, left = ImageDraw.Draw(sheet), float(GAP)
    of_classes = [(f"— {name.replace('_', ' ')}", COLOURS[label % len(COLOURS)]) for label, name in classes.items()]
    for words, colour in [(title, TEXT), *of_classes]:
        draw.text((left, GAP / 2), words, fill=colour, font=font)
        left += font.getlength(words) + 2 * GAP


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
        sets.append(_drawable(found, threshold)[: max(10, 2 * len(target.lines))])
    cells = []
    for lines in sets:
        shown = _lines_shown(lines)
        cells += [_from_above(shown), _in_camera(_front_view(batch, index), shown)]
    width = sum(cell.size[0] + GAP for cell in cells) - GAP
    row = Image.new("RGB", (width, HEIGHT + LINE_HEIGHT), BACKGROUND)
    left = 0
    for cell in cells:
        row.paste(cell, (left, 0))
        left += cell.size[0] + GAP
    counts = f"{len(target.lines)} true" + (f", {len(sets[1])} found" if found is not None else "")
    ImageDraw.Draw(row).text((2, HEIGHT + 2), f"{target.image_id}, {target.city}: {counts}", fill=TEXT, font=font)
    return row


def _drawable(found: MapPredictions, threshold: float) -> list[tuple[NDArray[np.float32], int]]:
    """Return points and label of each line of at least ``threshold`` that has a place."""
    is_drawable = (found.points.abs() < _FARTHEST_M).flatten(1).all(dim=1)
    kept = ((found.scores >= threshold) & is_drawable).nonzero()[:, 0].tolist()
    return [(found.points[line].numpy(), int(found.labels[line])) for line in kept]


def _lines_shown(lines: Sequence[tuple[Array | NDArray[np.float32], int]]) -> list[tuple[Array, Colour]]:
    return [(np.asarray(points, np.float64), COLOURS[label % len(COLOURS)]) for points, label in lines]


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


def _front_view(batch: MapBatch, index: int) -> CameraView:
    pixels = batch.images[index * NUM_CAMERAS + FRONT].permute(1, 2, 0).numpy()
    frame_to_camera, intrinsics = (
        tensor[index, FRONT].double().numpy() for tensor in (batch.frame_to_camera, batch.intrinsics)
    )
    return CameraView(pixels, frame_to_camera, intrinsics, batch.ground[index].double().numpy())


def _in_camera(view: CameraView, lines: Sequence[tuple[Array, Colour]]) -> Image.Image:
    """Draw lines on the ground over the image of a camera."""
    pixels, frame_to_camera, intrinsics, ground = view
    scale = HEIGHT / pixels.shape[0]
    picture = Image.fromarray(np.ascontiguousarray(pixels)).resize((round(pixels.shape[1] * scale), HEIGHT))
    draw = ImageDraw.Draw(picture)
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
