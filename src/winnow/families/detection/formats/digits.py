"""The embedded data set: scikit-learn's handwritten digits pasted onto crops of its two photographs, as JPEG and COCO JSON."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from filelock import FileLock
from PIL import Image
from pydantic import Field, model_validator

from winnow.settings import Settings

logger = logging.getLogger(__name__)

_VERSION = 1
_JPEG_QUALITY = 92
# Pixels of the 8×8 originals run from 0 to 16; below this one they are paper.
_INK = 4
_PASTE_TRIES = 20


class DigitsSettings(Settings):
    """The keys of ``conf/data/digits.yaml`` that decide what is drawn."""

    num_train: int = Field(gt=0)
    num_val: int = Field(ge=0)
    size: int = Field(ge=32, le=1024)
    objects: Annotated[tuple[int, int], Field(strict=False)]
    object_scale: Annotated[tuple[float, float], Field(strict=False)]
    seed: int = Field(ge=0)

    @model_validator(mode="after")
    def _spans_rise(self) -> DigitsSettings:
        if not 1 <= self.objects[0] <= self.objects[1]:
            raise ValueError(f"objects={list(self.objects)} must be [low, high] with 1 ≤ low ≤ high")
        if not 0 < self.object_scale[0] <= self.object_scale[1] <= 1:
            raise ValueError(f"object_scale={list(self.object_scale)} must be [low, high] with 0 < low ≤ high ≤ 1")
        return self


def make_digits(root: Path, settings: DigitsSettings) -> Path:
    """Return the folder of the data set with these settings (``train/``, ``val/``, ``annotations/instances_….json``),
    drawn first if it is not there yet.

    A pure function of ``settings``: no digit of the train pool is in the val pool, whatever the counts.
    """
    folder = root / _folder_name(settings)
    if folder.is_dir():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".lock"):
        if folder.is_dir():
            return folder
        logger.info("drawing %d train and %d val images into %s", settings.num_train, settings.num_val, folder)
        unfinished = root / f".{folder.name}.{os.getpid()}"
        try:
            _write(unfinished, settings)
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _folder_name(settings: DigitsSettings) -> str:
    objects = "-".join(str(count) for count in settings.objects)
    scale = "-".join(f"{part:g}" for part in settings.object_scale)
    return (
        f"v{_VERSION}_{settings.size}px_train{settings.num_train}_val{settings.num_val}_objects{objects}_scale{scale}"
        f"_seed{settings.seed}"
    )


def _write(folder: Path, settings: DigitsSettings) -> None:
    from sklearn.datasets import load_digits, load_sample_images  # heavy, and only needed once per data set

    digits, photographs = load_digits(), load_sample_images().images
    order = np.random.default_rng([settings.seed, 0]).permutation(len(digits.images))
    held_out = len(order) // 5
    pools = {"train": order[held_out:], "val": order[:held_out]}
    (folder / "annotations").mkdir(parents=True)
    for number, (part, count) in enumerate((("train", settings.num_train), ("val", settings.num_val)), start=1):
        (folder / part).mkdir()
        rng = np.random.default_rng([settings.seed, number])
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for image_id in range(1, count + 1):
            canvas = _background(photographs, settings.size, rng)
            for index, box in _paste_digits(canvas, digits.images, pools[part], settings, rng):
                x, y, width, height = box
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": image_id, "category_id": int(digits.target[index]) + 1,
                     "bbox": [x, y, width, height], "area": width * height, "iscrowd": 0}
                )  # fmt: skip
            name = f"{image_id:06d}.jpg"
            Image.fromarray(canvas).save(folder / part / name, quality=_JPEG_QUALITY)
            images.append({"id": image_id, "file_name": name, "width": settings.size, "height": settings.size})
        categories = [{"id": digit + 1, "name": str(digit)} for digit in range(10)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))


def _background(photographs: list[np.ndarray], size: int, rng: np.random.Generator) -> np.ndarray:
    """Return a random square crop of a photograph, resized to ``size``."""
    photograph = photographs[rng.integers(len(photographs))]
    height, width = photograph.shape[:2]
    side = int(rng.integers(min(size, min(height, width)), min(height, width) + 1))
    top, left = int(rng.integers(0, height - side + 1)), int(rng.integers(0, width - side + 1))
    crop = Image.fromarray(photograph[top : top + side, left : left + side])
    return np.array(crop.resize((size, size), Image.Resampling.BILINEAR))


def _paste_digits(
    canvas: np.ndarray, glyphs: np.ndarray, pool: np.ndarray, settings: DigitsSettings, rng: np.random.Generator
) -> list[tuple[int, tuple[int, int, int, int]]]:
    """Draw digits onto ``canvas`` in place; (index of the digit, box as x, y, width, height) of each."""
    taken = np.zeros(canvas.shape[:2], dtype=bool)
    pasted = []
    for _ in range(rng.integers(settings.objects[0], settings.objects[1] + 1)):
        index = int(pool[rng.integers(len(pool))])
        ink = _ink(glyphs[index], round(settings.size * rng.uniform(*settings.object_scale)))
        height, width = ink.shape
        for _ in range(_PASTE_TRIES):
            top = int(rng.integers(0, settings.size - height + 1))
            left = int(rng.integers(0, settings.size - width + 1))
            area = np.s_[top : top + height, left : left + width]
            if taken[area].any():
                continue
            taken[area] = True
            canvas[area] = _blend(canvas[area], ink, rng)
            pasted.append((index, (left, top, width, height)))
            break
    return pasted


def _ink(glyph: np.ndarray, side: int) -> np.ndarray:
    """Return the opacity in [0, 1] of a digit, cut to its ink, whose longer side is ``side`` px: its box is exact."""
    large = Image.fromarray((glyph / 16 * 255).astype(np.uint8)).resize((64, 64), Image.Resampling.BICUBIC)
    ink = _cut_to_ink(np.asarray(large) / 255)
    scale = side / max(ink.shape)
    size = (max(1, round(ink.shape[1] * scale)), max(1, round(ink.shape[0] * scale)))
    resized = np.asarray(Image.fromarray(ink.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
    return np.clip((resized - _INK / 16) / 0.4, 0, 1)


def _cut_to_ink(opacity: np.ndarray) -> np.ndarray:
    inked = opacity > _INK / 16
    rows, columns = np.flatnonzero(inked.any(axis=1)), np.flatnonzero(inked.any(axis=0))
    return opacity[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _blend(under: np.ndarray, ink: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a digit in a random colour that stands out from what lies under it."""
    mean = under.reshape(-1, 3).mean(axis=0)
    colour = rng.uniform(0, 255, size=3)
    for _ in range(_PASTE_TRIES):
        if np.abs(colour - mean).max() >= 90:
            break
        colour = rng.uniform(0, 255, size=3)
    mixed = under * (1 - ink[..., None]) + colour * ink[..., None]
    return np.round(mixed).astype(np.uint8)
