"""Files of ``torch.save`` and safetensors by anybody, read so that damage is noticed and nothing in them is executed."""

from __future__ import annotations

import argparse
import datetime
import pathlib
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from winnow.checkpoints.bounds import ODD_BYTES, require_bounded, require_inert_bytes, require_stored
from winnow.errors import WinnowError
from winnow.reading import UnreadableError

_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how torch.save began a file before its zips
_ZIP_MAGIC = b"PK\x03\x04"
_LONGEST_HEADER = 100_000_000  # of safetensors, its own limit
_NOT_AS_EXPECTED = (*ODD_BYTES, MemoryError, OSError, pickle.UnpicklingError, safetensors.SafetensorError)


class Opaque:
    """Stands for an object of a library that is neither imported nor run: only what it held is kept."""

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state if isinstance(state, Mapping) else {"state": state})


def read_inert(path: Path, as_what: str, error: type[WinnowError]) -> Any:
    """Return the content of ``path``, on the CPU, after its checksums were compared.

    Tensors and plain values; settings kept as ``argparse.Namespace``, OmegaConf, NumPy or paths become plain values
    too. Raises ``error`` if the file is missing, damaged, of another kind, or names anything that would have to run.
    """
    if not path.is_file():
        what = "a folder" if path.is_dir() else f"looked for {path.absolute()}"
        raise error(f"{path} cannot be read as {as_what}: there is no such file ({what})")
    try:
        kind = _kind(path)
        if kind is None:
            begin = _first_bytes(path, 16)
            raise error(
                f"{path} cannot be read as {as_what}: it is no file of torch.save or safetensors (it begins with {begin!r})"
            )
        if kind == "safetensors":
            return load_file(path)
        require_inert_bytes(path)
        if kind == "zip":
            _require_whole(path)
        with safe_globals(_inert_globals()):
            content = torch.load(path, map_location="cpu", weights_only=True)
        require_bounded(content, path, _content_of)
        return _plain(content)
    except UnreadableError as reason:
        raise error(f"{path} cannot be read as {as_what}: {reason}") from reason
    except pickle.UnpicklingError as reason:
        # torch's own message advises to run whatever code the file holds.
        raise error(_refusal(path, as_what, reason)) from reason
    except _NOT_AS_EXPECTED as reason:
        first = (str(reason).splitlines() or [""])[0][:500]  # safetensors repeats a name of any length
        raise error(
            f"{path} cannot be read as {as_what}: damaged or cut short ({first or type(reason).__name__})"
        ) from reason


def _kind(path: Path) -> str | None:
    begin = _first_bytes(path, 16)
    if path.suffix == ".safetensors" or _is_safetensors(begin):
        return "safetensors"
    if begin.startswith(_ZIP_MAGIC):
        return "zip"
    return "legacy" if begin.startswith(_LEGACY_MAGIC) else None


def _is_safetensors(begin: bytes) -> bool:
    """Return whether a file is safetensors: the length of a JSON header in eight bytes, and the header."""
    return len(begin) > 8 and begin[8:9] == b"{" and int.from_bytes(begin[:8], "little") < _LONGEST_HEADER


def _first_bytes(path: Path, number: int) -> bytes:
    with path.open("rb") as file:
        return file.read(number)


def _require_whole(path: Path) -> None:
    """Compare the checksums of a zip, as torch does not, and refuse a program before torch warns of one."""
    with zipfile.ZipFile(path) as archive:
        if any(name.endswith("/constants.pkl") for name in archive.namelist()):
            raise pickle.UnpicklingError("a TorchScript program: GLOBAL torch.jit.load")
        require_stored(path, archive)
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"the checksum of {damaged} does not match")


def _refusal(path: Path, as_what: str, reason: Exception) -> str:
    try:
        with safe_globals(_inert_globals()):
            names = sorted(get_unsafe_globals_in_checkpoint(path))
    except _NOT_AS_EXPECTED:
        names = []
    if not names:
        names = re.findall(r"GLOBAL ([\w.]+)", str(reason))
    if not names:
        return f"{path} cannot be read as {as_what}: damaged, or it holds code, which is never run"
    shown = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
    return (
        f"{path} cannot be read as {as_what}: it names {shown}, and to read that means to run code, which is never done; "
        "save its tensors alone where it came from: torch.save({'model': model.state_dict()}, …)"
    )


def _inert_globals() -> list[Any]:
    """Return names that a file may hold besides torch's own, and what stands for them: none of it does anything when made."""
    return [
        argparse.Namespace,
        (_plain_dict, "collections.defaultdict"),
        *((builtin, f"builtins.{builtin.__name__}") for builtin in (bool, dict, float, int, list, set, str, tuple)),
        datetime.date, datetime.datetime, datetime.timedelta, datetime.timezone,
        *(
            (pathlib.PurePosixPath if "Posix" in name else pathlib.PureWindowsPath, f"{module}.{name}")
            for module in ("pathlib", "pathlib._local")
            for name in ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")
        ),
        np.ndarray, np.dtype, *(kind for kind in vars(np.dtypes).values() if isinstance(kind, type)),
        *(
            (made.__reduce__()[0], f"numpy.{package}.multiarray.{name}")
            for package in ("core", "_core")
            for made, name in ((np.zeros(0), "_reconstruct"), (np.float64(0), "scalar"))
        ),
        *((Opaque, name) for name in _SETTINGS_OF_LIBRARIES),
        *((dict, name) for name in _DICTS_OF_LIBRARIES),
    ]  # fmt: skip


def _plain_dict(*_: Any) -> dict[Any, Any]:
    return {}


_SETTINGS_OF_LIBRARIES = (
    "typing.Any",
    "omegaconf.base.ContainerMetadata", "omegaconf.base.Metadata", "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    *(f"omegaconf.nodes.{kind}Node" for kind in ("Any", "Boolean", "Bytes", "Enum", "Float", "Integer", "Path", "String")),
)  # fmt: skip
_DICTS_OF_LIBRARIES = (
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "addict.addict.Dict",
    "easydict.EasyDict",
)


def _content_of(value: Any) -> Any:
    """Return what an object of settings holds; anything else as it is. An OmegaConf node knows its parent, which is left out."""
    if isinstance(value, argparse.Namespace):
        return vars(value)
    if isinstance(value, Opaque):
        held = vars(value)
        return _content_of(held.get("_content", held.get("_val")))
    return value


def _plain(value: Any) -> Any:
    """Return plain values for the settings objects that were let in; tensors and all else as they are."""
    value = _content_of(value)
    if isinstance(value, pathlib.PurePath):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype != object:
        return torch.from_numpy(value.copy())
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(item) for item in value)
    return value
