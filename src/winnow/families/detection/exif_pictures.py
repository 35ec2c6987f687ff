"""A picture of what the EXIF orientation decides: images as stored beside the same as shown, each with its boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from winnow.data.image import read_image
from winnow.data.pixel_rule import Exif, PixelRule
from winnow.families.detection.batch import Target
from winnow.families.detection.formats.coco_table import CocoTable
from winnow.families.detection.pictures import draw_grid


def draw_both_ways(table: CocoTable, rows: Sequence[int], rule: PixelRule, path: Path) -> None:
    """Write a PNG to ``path``: the images at ``rows`` of ``table``, whose orientation keeps their size, two each. Raises
    DataError where one can't be read, OSError where the file can't be written."""
    ways: tuple[tuple[Exif, str], ...] = (("never", "as stored"), ("always", "as shown"))
    images, targets = list[np.ndarray](), list[Target]()
    for row in rows:
        size = int(table.widths[row]), int(table.heights[row])
        for exif, words in ways:
            pixels = read_image(Path(table.paths[row]), *size, replace(rule, exif=exif))
            images.append(pixels.permute(1, 2, 0).numpy())
            targets.append(_target(table, row, f"{table.file_names[row]} {words}"))
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_grid(images, None, targets, table.class_names, path)


def _target(table: CocoTable, row: int, name: str) -> Target:
    own = np.flatnonzero(table.keep & (table.image_rows == row))
    size = int(table.heights[row]), int(table.widths[row])
    boxes, labels = torch.from_numpy(table.boxes[own]), torch.from_numpy(table.labels[own])
    areas, crowd = torch.from_numpy(table.areas[own].astype(np.float32)), torch.from_numpy(table.crowd[own])
    return Target(name, boxes, labels, size, size, boxes, labels, areas, crowd)
