"""Pictures of ink tiles: what came in, what is true, what was found, and where the two differ."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import hsv_to_rgb
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from winnow.families.ink.batch import InkBatch
from winnow.families.ink.metric import peaks
from winnow.families.ink.predictions import InkPredictions
from winnow.families.pictures import BACKGROUND, TEXT, Colour, font_of

Picture = NDArray[np.float64]
"""(H, W, 3) in [0, 1]."""

CELL = 240
"""Pixels of a tile's longer side, or as many as make whole pixels of the tile; each is drawn as a square."""
TILES_PER_ROW = 2
GAP = 6
LINE_HEIGHT = 20
FONT_SIZE = 13
FAINT = 0.35
"""Brightness of the ink under lines and strokes."""
KEY_POINT_COLOURS: tuple[Colour, ...] = ((74, 222, 128), (248, 113, 113), (250, 204, 21))
BOTH, MISSED, INVENTED = (1.0, 1.0, 1.0), (0.29, 0.87, 0.50), (0.98, 0.57, 0.24)


def draw_ink(
    seen: Sequence[tuple[InkBatch, InkPredictions | None]],
    kinds: Sequence[str],
    path: Path,
    skeleton_threshold: float,
    key_point_threshold: float,
    most: int | None = None,
) -> None:
    """Write a PNG to ``path``; batches and predictions on the CPU, at least one tile, the first ``most``, all of one size.

    Of each tile: the input; the true and the found skeleton, its colour the direction of the line, with key points as rings;
    the difference (white in both, green missed, orange invented); and, where widths are predicted, the found strokes as discs
    about the centre-line's closest points, on the same input. Without predictions: the input, the true skeleton, the true
    strokes.
    """
    font = font_of(FONT_SIZE)
    rows_of_all = ((batch, found, row) for batch, found in seen for row in range(batch.num_samples))
    tiles = [
        _tile(batch, found, row, skeleton_threshold, key_point_threshold, font)
        for batch, found, row in itertools.islice(rows_of_all, most)
    ]
    width, height = tiles[0].size
    rows = -(-len(tiles) // TILES_PER_ROW)
    columns = min(TILES_PER_ROW, len(tiles))
    size = (columns * (width + 2 * GAP), LINE_HEIGHT + GAP + rows * (height + GAP))
    sheet = Image.new("RGB", size, BACKGROUND)
    found = next((found for _, found in seen if found is not None), None)
    _write_legend(ImageDraw.Draw(sheet), kinds, font, found)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, TILES_PER_ROW)
        sheet.paste(tile, (GAP + column * (width + 2 * GAP), LINE_HEIGHT + GAP + row * (height + GAP)))
    sheet.save(path)


def tile_picture(
    ink: NDArray[np.float32] | None, true: NDArray[np.bool_], found: NDArray[np.bool_], true_points: NDArray[np.int32],
    found_points: NDArray[np.int32],
) -> Image.Image:  # fmt: skip
    """Draw a tile in four cells: above the ink (H, W), black where None, and the difference of both skeletons (H, W); below the
    true and the found one with their key points, (N, 3) rows of kind, y and x."""
    scale = max(1, CELL // max(true.shape))
    grey: NDArray[np.float64] = np.zeros(true.shape) if ink is None else ink.astype(np.float64)
    cells = [_enlarged(np.repeat(grey[..., None], 3, axis=2), scale), _enlarged(_difference(true, found), scale)]
    for line, points in ((true, true_points), (found, found_points)):
        cells.append(_enlarged(np.where(line, 1.0, FAINT * grey)[..., None].repeat(3, axis=2), scale))
        is_point = np.zeros((len(KEY_POINT_COLOURS), *true.shape), dtype=bool)
        is_point[tuple(points.T)] = True
        _ring(cells[-1], is_point, scale)
    width, height = cells[0].size
    sheet = Image.new("RGB", (2 * width + GAP, 2 * height + GAP), BACKGROUND)
    for index, cell in enumerate(cells):
        sheet.paste(cell, ((index % 2) * (width + GAP), (index // 2) * (height + GAP)))
    return sheet


def _write_legend(
    draw: ImageDraw.ImageDraw, kinds: Sequence[str], font: ImageFont.FreeTypeFont, found: InkPredictions | None
) -> None:
    """Write what the cells of a tile are, and the colours."""
    cells = ["input", "true"] + (["found", "difference"] if found is not None else [])
    cells += ["strokes"] if found is None or found.width is not None else []
    words = [(" | ".join(cells), TEXT)]
    if found is not None:
        words += [("in both", _bytes(BOTH)), ("missed", _bytes(MISSED)), ("invented", _bytes(INVENTED))]
    words += [(f"○ {kind.replace('_', ' ')}", colour) for kind, colour in zip(kinds, KEY_POINT_COLOURS, strict=False)]
    left = float(GAP)
    for text, colour in words:
        draw.text((left, GAP / 2), text, fill=colour, font=font)
        left += font.getlength(text) + 2 * GAP


def _tile(
    batch: InkBatch, found: InkPredictions | None, row: int, skeleton_threshold: float, key_point_threshold: float,
    font: ImageFont.FreeTypeFont,
) -> Image.Image:  # fmt: skip
    """Draw the cells of one tile side by side, above its id."""
    target = batch.target
    ink = batch.images[row, 0].numpy().astype(np.float64)
    scale = max(1, CELL // max(ink.shape))
    true_line = target.skeleton[row, 0].numpy() > 0
    true = _enlarged(_lines(ink, true_line, target.tangent[row].numpy()), scale)
    if found is None or found.key_points is not None:
        _ring(true, target.key_points[row].numpy() > 0, scale)
    cells = [_enlarged(np.repeat(ink[..., None], 3, axis=2), scale), true]
    if found is None:
        cells.append(_strokes(ink, true_line, target.width[row, 0].numpy(), target.offset[row].numpy(), scale))
    else:
        cells += _found_cells(ink, true_line, found, row, scale, skeleton_threshold, key_point_threshold)
    width, height = cells[0].size
    tile = Image.new("RGB", (len(cells) * (width + GAP) - GAP, height + LINE_HEIGHT), BACKGROUND)
    for column, cell in enumerate(cells):
        tile.paste(cell, (column * (width + GAP), 0))
    ImageDraw.Draw(tile).text((2, height + 2), f"image {batch.image_ids[row]}", fill=TEXT, font=font)
    return tile


def _found_cells(
    ink: NDArray[np.float64], true_line: NDArray[np.bool_], found: InkPredictions, row: int, scale: int,
    skeleton_threshold: float, key_point_threshold: float,
) -> list[Image.Image]:  # fmt: skip
    line = found.skeleton[row, 0].numpy() >= skeleton_threshold
    cells = [
        _enlarged(_lines(ink, line, found.tangent[row].numpy()), scale),
        _enlarged(_difference(true_line, line), scale),
    ]
    if found.key_points is not None:
        _ring(cells[0], peaks(found.key_points[row : row + 1], key_point_threshold)[0].numpy(), scale)
    if found.width is not None and found.offset is not None:
        cells.append(_strokes(ink, line, found.width[row, 0].numpy(), found.offset[row].numpy(), scale))
    return cells


def _lines(ink: NDArray[np.float64], line: NDArray[np.bool_], tangent: NDArray[np.float32]) -> Picture:
    """Draw faint ink under a line whose hue goes once around in half a turn of its direction."""
    hue = np.arctan2(tangent[1], tangent[0]) / (2 * np.pi) % 1
    coloured = hsv_to_rgb(np.stack([hue, np.full_like(hue, 0.6), np.ones_like(hue)], axis=2))
    return np.where(line[..., None], coloured, FAINT * ink[..., None])


def _difference(true: NDArray[np.bool_], found: NDArray[np.bool_]) -> Picture:
    picture = np.zeros((*true.shape, 3))
    for pixels, colour in ((true & found, BOTH), (true & ~found, MISSED), (found & ~true, INVENTED)):
        picture[pixels] = colour
    return picture


def _strokes(
    ink: NDArray[np.float64], line: NDArray[np.bool_], width: NDArray[np.float32], offset: NDArray[np.float32], scale: int
) -> Image.Image:  # fmt: skip
    """Draw the ink in grey, and over it in one colour what the line, its offsets and widths say it is."""
    cell = _enlarged(np.repeat(FAINT * ink[..., None], 3, axis=2), scale)
    draw = ImageDraw.Draw(cell)
    for y, x in _points(line):
        centre = scale * (x + 0.5 + offset[0, y, x]), scale * (y + 0.5 + offset[1, y, x])
        _circle(draw, centre, scale * width[y, x] / 2, fill=_bytes(INVENTED))
    for y, x in _points(line):
        centre = scale * (x + 0.5 + offset[0, y, x]), scale * (y + 0.5 + offset[1, y, x])
        _circle(draw, centre, 1, fill=BACKGROUND)
    return cell


def _ring(cell: Image.Image, key_points: NDArray[np.bool_], scale: int) -> None:
    draw = ImageDraw.Draw(cell)
    for number, (places, colour) in enumerate(zip(key_points, KEY_POINT_COLOURS, strict=False)):
        for y, x in _points(places):
            # Rings of kinds that share a pixel lie in each other.
            _circle(draw, (scale * (x + 0.5), scale * (y + 0.5)), scale * (1.2 + 0.6 * number), outline=colour)


def _circle(
    draw: ImageDraw.ImageDraw, centre: tuple[float, float], radius: float, fill: Colour | None = None,
    outline: Colour | None = None,
) -> None:  # fmt: skip
    (x, y), radius = centre, float(radius)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill, outline=outline, width=2)


def _points(places: NDArray[np.bool_]) -> list[tuple[int, int]]:
    return [(y, x) for y, x in np.argwhere(places).tolist()]


def _enlarged(picture: Picture, scale: int) -> Image.Image:
    pixels = np.clip(255 * picture, 0, 255).round().astype(np.uint8)
    return Image.fromarray(pixels.repeat(scale, axis=0).repeat(scale, axis=1))


def _bytes(colour: tuple[float, float, float]) -> Colour:
    red, green, blue = (round(255 * part) for part in colour)
    return red, green, blue
