"""Decodes one image file to RGB pixels that agree with the size its annotations were made for, and that fit into memory."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps

from winnow.errors import DataError

MAX_BYTES = 500_000_000
"""The most that an image may take decoded, as RGB: 166 megapixels. A file of a few kB can promise terabytes."""

# What Pillow's readers raise on damaged files: not OSError alone.
_DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error)
# Our own bound is lower than where Pillow gives up; here, for what silences a warning around a call is not safe in threads.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class ImageSizeError(DataError):
    """The file's pixels do not have the annotated size, so its boxes would lie elsewhere."""


class ImageTooLargeError(DataError):
    """The file promises more pixels than ``MAX_BYTES`` allow."""


def image_size(path: Path) -> tuple[int, int]:
    """Return (width, height) by the file's header. Raises DataError as ``read_image`` does; nothing is decoded."""
    with _opened(path) as image:
        return image.size


def image_sizes(path: Path) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return (width, height) as stored, and as shown where the EXIF orientation turns the image by a quarter; else as
    ``image_size``."""
    with _opened(path) as image:
        width, height = image.size
        is_turned = image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
    return (width, height), (height, width) if is_turned else (width, height)


def read_image(path: Path, width: int, height: int) -> torch.Tensor:
    """Return (3, H, W) uint8 RGB, a view on channels-last memory, for an image annotated as ``width`` × ``height``
    pixels.

    An EXIF rotation is applied only if the stored size is the transpose of the annotated one: then the annotator saw
    the rotated image; otherwise the boxes belong to the pixels as stored. 16-bit values keep their upper 8 bits, alpha
    is dropped, and of several frames the first is taken. Raises DataError naming the file if it is missing, truncated,
    larger than ``MAX_BYTES`` (before anything is decoded) or of a kind that has no right conversion, and ImageSizeError
    if its size is neither the annotated one nor its rotation.
    """
    with _opened(path) as image:
        if image.size not in ((width, height), (height, width)):
            raise _wrong_size(path, image.size, width, height)
        image.load()
        pixels = _rgb(_upright(image, width, height), path)
    if pixels.shape[:2] != (height, width):
        raise _wrong_size(path, (pixels.shape[1], pixels.shape[0]), width, height)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def read_upright(path: Path, turn: bool = True) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB of an image without annotations, turned as its EXIF orientation says where ``turn``; else as
    ``read_image``. Raises DataError naming the file."""
    with _opened(path) as image:
        image.load()
        return _rgb(ImageOps.exif_transpose(image) if turn else image, path)


def read_grey(path: Path, width: int, height: int) -> np.ndarray:
    """Return (H, W) uint8 brightness (ITU-R BT.601), else as ``read_image``."""
    return np.asarray(Image.fromarray(read_image(path, width, height).permute(1, 2, 0).numpy()).convert("L"))


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Give the image with its header read, for decoding inside. Raises DataError for what Pillow raises,
    ImageTooLargeError for more pixels than ``MAX_BYTES`` allow."""
    try:
        with Image.open(path) as image:
            if image.format == "EPS":  # Pillow would start Ghostscript
                raise DataError(f"image {path} is PostScript, a program to be run; save it as PNG")
            _require_room(path, image)
            yield image
    except FileNotFoundError:
        raise DataError(f"image {path} is missing") from None
    except Image.DecompressionBombError as error:  # so large that Pillow does not even give its size
        raise ImageTooLargeError(
            f"image {path} would take more than the {_megabytes(MAX_BYTES)} that are allowed, decoded: {error}"
        ) from error
    except _DECODING_ERRORS as error:
        raise DataError(f"image {path} cannot be read: {error}") from error


def _require_room(path: Path, image: Image.Image) -> None:
    width, height = image.size
    if (size := 3 * width * height) > MAX_BYTES:
        raise ImageTooLargeError(
            f"image {path} has {width}×{height} pixels, which take {_megabytes(size)} decoded; at most "
            f"{_megabytes(MAX_BYTES)} are allowed: make it smaller, or cut it up"
        )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


def _wrong_size(path: Path, size: tuple[int, int], width: int, height: int) -> ImageSizeError:
    return ImageSizeError(f"image {path} has {size[0]}×{size[1]} pixels, but is annotated as {width}×{height}")


def _upright(image: Image.Image, width: int, height: int) -> Image.Image:
    if image.size == (width, height):
        return image
    return ImageOps.exif_transpose(image)


def _rgb(image: Image.Image, path: Path) -> np.ndarray:
    if image.mode == "RGB":
        return np.array(image)
    # Pillow before 11 opens 16-bit grey PNG as 32-bit "I".
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        grey = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise DataError(f"image {path} has 32-bit pixels of unknown range; save it with 8 or 16 bits per channel")
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))
