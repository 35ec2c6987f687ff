"""Image files of many formats, and arrays of tiles."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import numpy as np
from fuzz.mutations import mutated_bytes
from fuzz.pool import Case, Kind
from PIL import Image

from winnow.data.image import read_grey, read_image
from winnow.families.ink.store import stored
from winnow.families.ink.tiles import InkTiles

_FORMATS = {
    "png": {},
    "jpeg": {},
    "tiff": {"compression": "tiff_lzw"},
    "webp": {},
    "gif": {},
    "bmp": {},
    "jpeg2000": {},
    "ppm": {},
    "ico": {},
}


def _prepare_images(folder: Path) -> Any:
    del folder
    return image_files()


def image_files() -> list[bytes]:
    """Return small image files of every format and mode, some of them turned by their EXIF orientation."""
    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 4), dtype=np.uint8)
    files = []
    for mode in ("RGB", "L", "P", "RGBA", "1", "I;16", "CMYK", "F", "LA", "YCbCr"):
        image = (
            Image.fromarray(pixels[..., 0].astype(np.uint16) << 6)
            if mode == "I;16"
            else Image.fromarray(pixels).convert(mode)
        )
        for name, options in _FORMATS.items():
            file = io.BytesIO()
            try:
                image.save(file, name, **options)
            except (OSError, ValueError, KeyError):  # not every format has every mode
                continue
            files.append(file.getvalue())
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(pixels[..., :3]).save(file, "jpeg", exif=exif)
    return [*files, *[file.getvalue()] * 10]


def _images(rng: random.Random, shared: Any, folder: Path) -> Case:
    path = folder / "x.png"
    path.write_bytes(mutated_bytes(rng, rng.choice(shared)))
    width, height = rng.choice(((32, 24), (32, 24), (24, 32), (1, 1), (2**24, 2**24)))
    return Case(
        {"read": lambda: read_image(path, width, height), "grey": lambda: read_grey(path, width, height)}, (path.name,)
    )


def _prepare_npz(folder: Path) -> Any:
    tiles: dict[str, Any] = {
        "images": np.zeros((2, 32, 32), np.uint8), "starts": np.array([0, 2, 3]), "pixel": np.array([1, 2, 3]),
        "tangent": np.zeros((3, 2), np.float32), "width": np.ones(3, np.float32), "offset": np.zeros((3, 2), np.float32),
        "key_points": np.zeros((2, 1, 32, 32), bool), "has_full_labels": np.array(True),
    }  # fmt: skip
    return tiles


def _npz(rng: random.Random, shared: Any, folder: Path) -> Case:
    path, arrays, file = folder / "tiles.npz", dict(shared), io.BytesIO()
    for _ in range(rng.choice((0, 1, 1, 2))):
        name = rng.choice(list(arrays))
        arrays[rng.choice((name, name, name, "x", "../x", ""))] = rng.choice((
            np.array("text"), np.zeros((0,)), np.array(1 + 2j), np.zeros((1,) * 30), np.array(b"x"), np.array("2020",
            "datetime64[s]"),
            np.array(7), np.full((3,), np.nan), np.zeros(2, [("a", "f4"), ("b", "i8")]), np.zeros((3, 0, 10**6)),
            np.array([object()]),
            np.array(10**400), np.zeros(10**7),
        ))  # fmt: skip
        if rng.random() < 0.3:
            arrays.pop(name, None)
    rng.choice((np.savez, np.savez_compressed))(file, **arrays)
    data = file.getvalue()
    path.write_bytes(mutated_bytes(rng, data) if rng.random() < 0.6 else data)
    return Case({"stored": lambda: stored(path, InkTiles, lambda: None)}, (path.name,))


KINDS = (Kind("images", _prepare_images, _images), Kind("npz", _prepare_npz, _npz))
