"""Decodes one image file to RGB pixels that agree with the size its annotations were made for, and that fit into memory."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps

from winnow.data.grey_levels import LevelsLeft, levels_left, to_8_bits
from winnow.data.jpeg_end import without_end
from winnow.data.pixel_rule import MAX_PIXELS, PLAIN, Depth, PixelRule
from winnow.errors import DataError

# What Pillow's readers raise on damaged files: not OSError alone.
_DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error)
# Our own bound holds, by the header, before anything is decoded; set here, for around a call it would not be safe in threads.
Image.MAX_IMAGE_PIXELS = None
_LFS_POINTER = b"version https://git-lfs"


class ImageSizeError(DataError):
    """The file's pixels do not have the annotated size, so its boxes would lie elsewhere."""


class ImageTooLargeError(DataError):
    """The file promises more pixels than are allowed."""


def image_size(path: Path) -> tuple[int, int]:
    """Return (width, height) by the file's header. Raises DataError as ``read_image`` does; nothing is decoded."""
    with opened_image(path) as image:
        return image.size


def image_sizes(path: Path, max_pixels: int | None = MAX_PIXELS) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return (width, height) as stored, and as shown where the EXIF orientation turns the image by a quarter; else as
    ``image_size``."""
    with opened_image(path, max_pixels) as image:
        width, height = image.size
        is_turned = image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
    return (width, height), (height, width) if is_turned else (width, height)


def read_image(path: Path, width: int, height: int, rule: PixelRule = PLAIN) -> torch.Tensor:
    """Return (3, H, W) uint8 RGB, a view on channels-last memory, for an image annotated as ``width`` × ``height``
    pixels, taken as ``rule`` says.

    Alpha is dropped, and of several frames the first is taken. Raises DataError naming the file if it is missing, truncated,
    larger than allowed (before anything is decoded) or of a kind that has no right conversion, and ImageSizeError
    if its size is neither the annotated one nor its rotation.
    """
    with opened_image(path, rule.max_pixels) as image:
        if image.size not in ((width, height), (height, width)):
            raise _wrong_size(path, image.size, width, height)
        pixels = _rgb(_upright(_decoded(image, path, rule), width, height, rule), path, rule.depth)
    if pixels.shape[:2] != (height, width):
        raise _wrong_size(path, (pixels.shape[1], pixels.shape[0]), width, height)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def read_upright(path: Path, turn: bool = True, rule: PixelRule = PLAIN) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB of an image without annotations, turned as its EXIF orientation says where ``turn``; else as
    ``read_image``. Raises DataError naming the file."""
    with opened_image(path, rule.max_pixels) as image:
        decoded = _decoded(image, path, rule)
        return _rgb(ImageOps.exif_transpose(decoded) if turn else decoded, path, rule.depth)


def levels_of(path: Path, rule: PixelRule) -> LevelsLeft | None:
    """Return what ``rule`` leaves of a grey picture's 16 bits; None for other pictures. Raises DataError as ``read_image``."""
    with opened_image(path, rule.max_pixels) as image:
        decoded = _decoded(image, path, rule)
        return levels_left(np.asarray(decoded), rule.depth) if _is_deep(decoded) else None


def read_grey(path: Path, width: int, height: int, rule: PixelRule = PLAIN) -> np.ndarray:
    """Return (H, W) uint8 brightness (ITU-R BT.601), else as ``read_image``."""
    return np.asarray(Image.fromarray(read_image(path, width, height, rule).permute(1, 2, 0).numpy()).convert("L"))


@contextmanager
def opened_image(path: Path, max_pixels: int | None = MAX_PIXELS) -> Iterator[Image.Image]:
    """Give the image with its header read, for decoding inside. Raises DataError for what Pillow raises,
    ImageTooLargeError for more pixels than ``max_pixels`` (None: any number)."""
    try:
        with Image.open(path) as image:
            if image.format == "EPS":  # Pillow would start Ghostscript
                raise DataError(f"image {path} is PostScript, a program to be run; save it as PNG")
            _require_room(path, image, max_pixels)
            yield image
    except FileNotFoundError:
        raise DataError(f"image {path} is missing") from None
    except _DECODING_ERRORS as error:
        if _is_pointer(path):
            raise DataError(f"image {path} is a Git LFS pointer, not the image: git lfs pull fetches it") from error
        raise DataError(f"image {path} cannot be read: {error}") from error


def _is_pointer(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_LFS_POINTER)) == _LFS_POINTER
    except OSError:
        return False


def _require_room(path: Path, image: Image.Image, max_pixels: int | None) -> None:
    width, height = image.size
    if max_pixels is not None and width * height > max_pixels:
        raise ImageTooLargeError(
            f"image {path} has {width}×{height} pixels, which take {_megabytes(3 * width * height)} decoded; at most "
            f"{_megabytes(3 * max_pixels)} are allowed: make it smaller, cut it up, or raise data.max_pixels={max_pixels}"
        )


def has_deep_colours(image: Image.Image) -> bool:
    """Tell of an image that is not decoded yet whether each of its colours has 16 bits, of which Pillow gives 8."""
    return any(str(tile[3]).startswith(("RGB;16", "RGBA;16", "RGBX;16")) for tile in getattr(image, "tile", ()))


def _decoded(image: Image.Image, path: Path, rule: PixelRule) -> Image.Image:
    """Return ``image``, decoded. Raises what Pillow raises, and DataError for what ``rule`` can't be kept with."""
    if rule.depth != "upper8" and has_deep_colours(image):
        raise DataError(
            f"image {path} has colours of 16 bits, of which only the upper 8 are read: data.depth=upper8, or save it in grey"
        )
    try:
        image.load()
    except OSError:
        mended = without_end(path.read_bytes()) if rule.mends_ends and image.format in ("JPEG", "MPO") else None
        if mended is None:
            raise
        return mended
    return image


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


def _wrong_size(path: Path, size: tuple[int, int], width: int, height: int) -> ImageSizeError:
    return ImageSizeError(f"image {path} has {size[0]}×{size[1]} pixels, but is annotated as {width}×{height}")


def _upright(image: Image.Image, width: int, height: int, rule: PixelRule) -> Image.Image:
    """Return ``image`` turned by its EXIF orientation where ``rule`` says so."""
    is_turned = rule.exif == "always" or (rule.exif != "never" and image.size != (width, height))
    if rule.exif == "auto" and not is_turned:
        is_turned = image.getexif().get(ExifTags.Base.Orientation) in (2, 3, 4)
    return ImageOps.exif_transpose(image) if is_turned else image


def _is_deep(image: Image.Image) -> bool:
    # Pillow before 11 opens 16-bit grey PNG as 32-bit "I".
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")


def _rgb(image: Image.Image, path: Path, depth: Depth) -> np.ndarray:
    if image.mode == "RGB":
        return np.array(image)
    if _is_deep(image):
        return np.repeat(to_8_bits(np.asarray(image), depth)[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise DataError(f"image {path} has 32-bit pixels of unknown range; save it with 8 or 16 bits per channel")
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))
