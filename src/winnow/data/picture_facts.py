"""What the headers of pictures say, looked at once and kept: size, EXIF orientation, bits, whether a JPEG has its end."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import ExifTags

from winnow.data.image import QUARTER_TURNS, has_deep_colours, opened_image, size_and_orientation
from winnow.data.jpeg_end import JPEG_END
from winnow.errors import DataError
from winnow.reading import read_arrays
from winnow.run_folder import whole_file

logger = logging.getLogger(__name__)

_MANY = 5000
_PART = 64
"""Pictures that a thread looks at before it is given others."""
_MAX_THREADS = 8
_FRAME_MARKERS = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_SHORT = 3
_PNG = b"\x89PNG\r\n\x1a\n"


class PictureFacts(NamedTuple):
    """Of one picture: ``width`` and ``height`` as stored, 0 where it can't be read; EXIF ``orientation``, 1 to 8; ``bits`` of a
    channel; ``has_end`` is false for a JPEG that breaks off."""

    width: int
    height: int
    orientation: int = 1
    bits: int = 8
    has_end: bool = True

    @property
    def shown(self) -> tuple[int, int]:
        """Return (width, height) as viewers show it."""
        return (self.height, self.width) if self.orientation in QUARTER_TURNS else (self.width, self.height)


UNREADABLE = PictureFacts(0, 0)


def facts_table(paths: Sequence[str], cache: Path | None = None) -> np.ndarray:
    """Return the facts of each picture, (N, 5) int32 in the order of ``PictureFacts``; of one that can't be read, ``UNREADABLE``.

    With ``cache``, a folder, they are kept there by path, size and time of the file, so that only what has changed is read again.
    """
    states = np.array([_state(path) for path in paths], dtype=np.int64).reshape(-1, 2)
    file = None if cache is None else cache / f"pictures_{hashlib.sha256(_text(paths)).hexdigest()[:16]}.npz"
    kept = None if file is None else _kept(file, len(paths))
    facts = np.zeros((len(paths), 5), np.int32) if kept is None else kept[1].copy()
    is_new = np.ones(len(paths), bool) if kept is None else (kept[0] != states).any(axis=1)
    rows = np.flatnonzero(is_new).tolist()
    if len(rows) > _MANY:
        logger.info("looking at the headers of %d images%s", len(rows), "" if file is None else f", once: {file}")
    parts = [rows[start : start + _PART] for start in range(0, len(rows), _PART)]
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        for part, found in zip(
            parts, pool.map(lambda part: [facts_of_file(paths[row]) for row in part], parts), strict=True
        ):
            facts[part] = found
    if file is not None and rows:
        _keep(file, states, facts)
    return facts


def facts_of_file(path: str) -> PictureFacts:
    """Return the facts of one picture, by its header; nothing is decoded."""
    try:
        with open(path, "rb") as file:
            found = _by_header(file)
        return _by_pillow(path) if found is None else found
    except (OSError, DataError, ValueError, struct.error):
        return UNREADABLE


def _by_header(file: BinaryIO) -> PictureFacts | None:
    """Return what the header of a JPEG or PNG says; None for other files, and for those that Pillow has to be asked about."""
    head = file.read(8)
    if not head:
        return UNREADABLE
    if head[:3] == b"\xff\xd8\xff":
        file.seek(2)
        return _of_jpeg(file)
    return _of_png(file) if head == _PNG else None


def _of_jpeg(file: BinaryIO) -> PictureFacts | None:
    size: tuple[int, int] | None = None
    orientation = bits = 0
    while True:
        marker = _next_marker(file)
        if marker == 0xDA:
            break
        (length,) = struct.unpack(">H", file.read(2))
        if marker in _FRAME_MARKERS:
            bits, height, width = struct.unpack(">BHH", file.read(5))
            size, length = (width, height), length - 5
        elif marker == 0xE1:
            content, length = file.read(length - 2), 2
            if content.startswith(b"http://ns.adobe.com/xap") and b"Orientation" in content:
                return None
            if content.startswith(b"Exif\0\0") and not orientation:
                orientation = _orientation(content[6:])
        file.seek(length - 2, io.SEEK_CUR)
    if size is None or 0 in size:
        return None
    return PictureFacts(*size, orientation or 1, 16 if bits > 8 else 8, _has_end(file))


def _next_marker(file: BinaryIO) -> int:
    byte = file.read(1)
    if byte != b"\xff":
        raise ValueError("no marker")
    while byte == b"\xff":
        byte = file.read(1)
    if not byte:
        raise ValueError("breaks off")
    return byte[0]


def _has_end(file: BinaryIO) -> bool:
    """Tell whether the marker of the end comes after the place that ``file`` is at, the beginning of the scan."""
    start = file.tell()
    file.seek(-2, io.SEEK_END)
    if file.read(2) == JPEG_END:
        return True
    file.seek(start)
    return JPEG_END in file.read()


def _orientation(exif: bytes) -> int:
    """Return the orientation that the first directory of EXIF data gives, 1 for none."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    with contextlib.suppress(struct.error):  # damaged: the pixels are none the worse
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        for number in range(count):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", exif, start + 2 + 12 * number)
            if tag == ExifTags.Base.Orientation:
                return int(value) if kind == _SHORT and 1 <= value <= 8 else 1
    return 1


def _of_png(file: BinaryIO) -> PictureFacts | None:
    width = height = bits = 0
    orientation = 1
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IHDR":
            width, height, bits = struct.unpack(">IIB", file.read(9))
            length -= 9
        elif kind == b"eXIf":
            orientation, length = _orientation(file.read(length)), 0
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            keyword = file.read(min(length, 32))
            if keyword.startswith((b"Raw profile type", b"XML:com.adobe.xmp")):
                return None
            length -= len(keyword)
        elif kind == b"IEND":
            break
        file.seek(length + 4, io.SEEK_CUR)
    return PictureFacts(width, height, orientation, 16 if bits == 16 else 8) if width and height else None


def _by_pillow(path: str) -> PictureFacts:
    with opened_image(Path(path), None) as image:
        (width, height), orientation = size_and_orientation(image)
        is_deep = image.mode.startswith("I;16") or has_deep_colours(image)
    return PictureFacts(width, height, orientation, 16 if is_deep else 8)


def _state(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return -1, 0
    return found.st_size, found.st_mtime_ns


def _text(paths: Sequence[str]) -> bytes:
    return "\n".join(paths).encode("utf-8", "surrogatepass")


def _kept(file: Path, count: int) -> tuple[np.ndarray, np.ndarray] | None:
    if not file.is_file():
        return None
    try:
        arrays = read_arrays(file, DataError)
    except DataError as error:
        logger.warning("%s; the images are looked at again", error)
        return None
    states, facts = arrays.get("states"), arrays.get("facts")
    if states is None or facts is None or states.shape != (count, 2) or facts.shape != (count, 5):
        return None
    return states, facts


def _keep(file: Path, states: np.ndarray, facts: np.ndarray) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(file) as content:
            np.savez(content, states=states, facts=facts)
    except OSError as error:
        logger.warning("%s can't be written, so the images are looked at again next time: %s", file, error.strerror)
