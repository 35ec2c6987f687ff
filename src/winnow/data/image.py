"""Decodes one image file to RGB pixels that agree with the size its annotations were made for, and that fit into memory."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image

from winnow.data.grey_levels import LevelsLeft, levels_left, to_8_bits
from winnow.data.jpeg_end import without_end
from winnow.data.pixel_rule import MAX_PIXELS, PLAIN, Depth, Exif, PixelRule
from winnow.errors import DataError

# What Pillow's readers raise on damaged files: not OSError alone.
_DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error)
# Our own bound holds, by the header, before anything is decoded; set here, for around a call it would not be safe in threads.
Image.MAX_IMAGE_PIXELS = None
_LFS_POINTER = b"version https://git-lfs"


QUARTER_TURNS = (5, 6, 7, 8)
SAME_SIZE_TURNS = (2, 3, 4)
"""EXIF orientations that exchange width and height, and those that don't; 1 is upright."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Orientation → what shows the image upright."""
_UNDONE = {Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270}


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
        (width, height), orientation = size_and_orientation(image)
    return (width, height), (height, width) if orientation in QUARTER_TURNS else (width, height)


def size_and_orientation(image: Image.Image) -> tuple[tuple[int, int], int]:
    """Return (width, height) as stored and the EXIF orientation, 1 for none, of an image whose header was read. Pillow turns TIFF
    by itself, and gives its size as shown."""
    orientation = image.getexif().get(ExifTags.Base.Orientation)
    if type(orientation) is not int or orientation not in _TURNS:
        return image.size, 1
    is_exchanged = image.format == "TIFF" and orientation in QUARTER_TURNS
    return (image.size[::-1] if is_exchanged else image.size), orientation


def turns(orientation: int, stored: tuple[int, int], annotated: tuple[int, int], exif: Exif) -> bool:
    """Tell whether an image of the size that is ``stored`` is turned by its ``orientation``, whose annotations say the size
    ``annotated``."""
    if exif in ("always", "never"):
        return exif == "always"
    return stored != annotated or (exif == "auto" and orientation in SAME_SIZE_TURNS)


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
        stored, orientation, decoded = _stored(image, path, rule)
        is_turned = turns(orientation, stored, (width, height), rule.exif)
        pixels = _rgb(_shown(decoded, orientation, is_turned), path, rule.depth)
    if pixels.shape[:2] != (height, width):
        raise _wrong_size(path, (pixels.shape[1], pixels.shape[0]), width, height)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def read_upright(path: Path, turn: bool = True, rule: PixelRule = PLAIN) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB of an image without annotations, turned as its EXIF orientation says where ``turn``; else as
    ``read_image``. Raises DataError naming the file."""
    with opened_image(path, rule.max_pixels) as image:
        _, orientation, decoded = _stored(image, path, rule)
        return _rgb(_shown(decoded, orientation, turn), path, rule.depth)


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


def _stored(image: Image.Image, path: Path, rule: PixelRule) -> tuple[tuple[int, int], int, Image.Image]:
    """Return (width, height) and orientation as ``size_and_orientation``, and the image decoded and as stored; a TIFF as shown,
    and of orientation 1, where ``rule`` is from before it could be taken otherwise."""
    before = size_and_orientation(image) if image.format == "TIFF" else None
    decoded = _decoded(image, path, rule)
    if before is None:
        return *size_and_orientation(decoded), decoded
    size, orientation = before
    if rule.exif == "by_size" or orientation == 1:
        return decoded.size, 1, decoded
    turn = _TURNS[orientation]
    return size, orientation, decoded.transpose(_UNDONE.get(turn, turn))


def _shown(image: Image.Image, orientation: int, is_turned: bool) -> Image.Image:
    return image.transpose(_TURNS[orientation]) if is_turned and orientation != 1 else image


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
