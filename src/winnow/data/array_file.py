"""Arrays in a file that is mapped into memory: what is read of it is shared by all processes that read it."""

from __future__ import annotations

import json
import math
import mmap
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from winnow.errors import DataError
from winnow.reading import NOT_READ, reason
from winnow.run_folder import whole_file

_MAGIC = b"winnow arrays 1\n"
# Checksum of all that follows, and the length of the header, JSON.
_HEAD = struct.Struct("<II")
_ALIGNMENT = 64


def write_arrays(path: Path, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write ``arrays`` and ``header``, which goes through JSON, to ``path``, whole or not at all. Raises OSError."""
    places, end = {}, 0
    for name, array in arrays.items():
        places[name] = (array.dtype.str, array.shape, end)
        end += array.nbytes + -array.nbytes % _ALIGNMENT
    text = json.dumps({"header": header, "arrays": places}).encode()
    text += b" " * (-(len(_MAGIC) + _HEAD.size + len(text)) % _ALIGNMENT)
    body: list[Any] = [text]
    for array in arrays.values():
        body += [np.ascontiguousarray(array).reshape(-1).view(np.uint8), bytes(-array.nbytes % _ALIGNMENT)]
    checksum = zlib.crc32(struct.pack("<I", len(text)))
    for part in body:
        checksum = zlib.crc32(part, checksum)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        file.write(_MAGIC + _HEAD.pack(checksum, len(text)))
        for part in body:
            file.write(part)


def map_arrays(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the header and the arrays, which can't be written to. Raises OSError, and DataError for a damaged file."""
    with path.open("rb") as file:
        try:
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            begin = len(_MAGIC) + _HEAD.size
            if data[: len(_MAGIC)] != _MAGIC:
                raise DataError(f"{path} is no file of arrays")
            checksum, length = _HEAD.unpack(data[len(_MAGIC) : begin])
            if zlib.crc32(data[begin:], zlib.crc32(struct.pack("<I", length))) != checksum:
                raise DataError(f"{path} is damaged: its checksum is another one")
            content = json.loads(bytes(data[begin : begin + length]))
            arrays = {
                name: np.frombuffer(data, np.dtype(kind), math.prod(shape), begin + length + place).reshape(shape)
                for name, (kind, shape, place) in content["arrays"].items()
            }
        except (struct.error, *NOT_READ) as error:
            raise DataError(f"{path} is damaged: {reason(error)}") from error
    return content["header"], arrays
