"""Limits on what files of ``torch.save`` may grow to: a small file takes no memory that its bytes can't fill."""

from __future__ import annotations

import mmap
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from winnow.reading import UnreadableError, require_no_growth

ODD_BYTES = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, RuntimeError, TypeError, ValueError, struct.error,
    zlib.error, zipfile.BadZipFile,
)  # fmt: skip
"""What torch's readers raise on bytes that they don't expect; text alone gives an IndexError."""

_MAKES_BYTES = (b"builtins\nbytearray\n", b"__builtin__\nbytearray\n")
"""How a pickle names what makes as many zeros as it is told to; no file of tensors needs it."""


def require_stored(path: Path, archive: zipfile.ZipFile) -> None:
    """Raise UnreadableError where members of the zip are compressed, as torch never writes them, or promise too much."""
    members = archive.infolist()
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise UnreadableError(
                f"its member {member.filename!r:.80} is compressed, {member.compress_size} bytes that promise "
                f"{member.file_size}, and torch.save compresses nothing"
            )
    promised, size = sum(member.file_size for member in members), path.stat().st_size
    if promised > size:
        raise UnreadableError(f"its members promise {promised} bytes, and the whole file has {size}")


def require_inert_bytes(path: Path) -> None:
    """Raise UnreadableError for a file that has memory made which it does not hold. Not for an empty file."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if any(content.find(name) >= 0 for name in _MAKES_BYTES):
            raise UnreadableError("it names builtins.bytearray, which takes memory that the file does not hold")


def require_bounded(content: Any, path: Path, unwrap: Callable[[Any], Any] = lambda value: value) -> None:
    """Raise UnreadableError where what was read from ``path`` would take more memory than it has bytes as soon as it is used:
    a tensor larger than its storage, as an expanded one, tensors without values, lists within lists. ``unwrap`` gives the list
    or mapping that stands for an object."""
    size = path.stat().st_size
    require_no_growth(content, size, unwrap)
    storages: dict[int, int] = {}
    for name, value in _leaves(content, unwrap, ""):
        if isinstance(value, np.ndarray) and value.nbytes > size:
            raise UnreadableError(f"{name} is an array of {value.nbytes} bytes, and the whole file has {size}")
        if not isinstance(value, Tensor):
            continue
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized or value.is_nested:
            raise UnreadableError(
                f"{name} is a {value.layout} tensor on {value.device}; only dense ones with values are read"
            )
        own, held = value.numel() * value.element_size(), value.untyped_storage().nbytes()
        if own > held:
            raise UnreadableError(
                f"{name} is a tensor of {own} bytes, {tuple(value.shape)}, whose storage has {held}: save it with .clone()"
            )
        storages[value.untyped_storage().data_ptr()] = held
    if sum(storages.values()) > size:
        raise UnreadableError(f"its tensors take {sum(storages.values())} bytes, and the whole file has {size}")


def _leaves(value: Any, unwrap: Callable[[Any], Any], name: str) -> Iterator[tuple[str, Any]]:
    """Yield what is no list or mapping, by its place. For content that nests within bounds."""
    value = unwrap(value)
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, unwrap, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple | set | frozenset):
        for index, item in enumerate(value):
            yield from _leaves(item, unwrap, f"{name}[{index}]")
    else:
        yield name, value
