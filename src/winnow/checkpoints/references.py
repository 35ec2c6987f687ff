"""Frozen weights that a checkpoint does not hold, but names: a tensor of a file, which is known by its SHA-256."""

from __future__ import annotations

import copy
import functools
import hashlib
import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from winnow.errors import WeightsError

KEY = "frozen_references"
"""Where a checkpoint has its references: ``sources``, files; ``tensors``, model's name → source's number, name there and dtype;
``names``, all names of the model in their order."""
VERSION = 2
"""Of a checkpoint with references, so that a winnow that knows none does not take it for a whole one."""
_SHOWN = 12  # hexadecimal digits of a checksum
_READERS = "winnow.families."
_READER_MARK = "winnow_weights_reader"

Read = Callable[[Path], Mapping[str, Tensor]]
R = TypeVar("R", bound=Read)


@dataclass(frozen=True)
class FileTensor:
    """A tensor of a weights file: ``source`` is the file as the config names it, ``file`` where it was found. ``reader``: the
    ``@weights_reader`` that makes it of the file, which does not hold it as it is; empty for one that does."""

    source: str
    file: Path
    name: str
    reader: str = ""


def weights_reader(read: R) -> R:
    """Mark a builder's function ``read(file)``, at the top of a family's module, which gives tensors by name that a file does
    not hold as they are (dequantised, permuted), the same bits each time. A checkpoint may name it (``reader_name``)."""
    setattr(read, _READER_MARK, True)
    return read


def reader_name(read: Read) -> str:
    """Return what a ``FileTensor`` names the reader by."""
    return f"{read.__module__}.{read.__qualname__}"


def reader_of(name: str) -> Read:
    """Return the reader of that name. Raises WeightsError unless it is one that winnow's own families mark: a file names it, and
    must not choose what is executed."""
    module, _, function = name.rpartition(".")
    read = None
    if module.startswith(_READERS):
        try:
            read = getattr(importlib.import_module(module), function, None)
        except ImportError:
            read = None
    if read is None or not getattr(read, _READER_MARK, False) or reader_name(read) != name:
        raise WeightsError(f"{name!r} is no reader of weights that winnow knows")
    return read


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, which is read for it once per process."""
    stat = path.stat()
    return _sha256(str(path.resolve()), stat.st_ino, stat.st_size, stat.st_mtime_ns)


@functools.cache
def _sha256(path: str, *_: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def with_references(
    checkpoint: Mapping[str, Any], references: Mapping[str, FileTensor], own: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Return ``checkpoint`` without the ``references``, by name, where its weights are the model's ``own`` tensors; the same
    where there are none."""
    if not references:
        return dict(checkpoint)
    files = list(dict.fromkeys((tensor.source, tensor.file, tensor.reader) for tensor in references.values()))
    recorded = {
        "sources": [
            {"source": source, "file": str(file.absolute()), "sha256": sha256_of(file), **({"reader": reader} if reader else {})}
            for source, file, reader in files
        ],
        "tensors": {
            name: {
                "source": files.index((tensor.source, tensor.file, tensor.reader)),
                "name": tensor.name,
                "dtype": str(own[name].dtype).removeprefix("torch."),
            }
            for name, tensor in references.items()
        },
        "names": list(checkpoint["model_state_dict"]),
    }  # fmt: skip

    def without(weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        held = copy.copy(weights)  # keeps the versions that torch attaches to a model's state
        for name in references:
            if held[name].data_ptr() == own[name].data_ptr():
                del held[name]  # type: ignore[attr-defined]
        return held

    return {**_with_weights(checkpoint, without), "version": VERSION, KEY: recorded}


def filled(
    checkpoint: Mapping[str, Any],
    path: Path,
    frozen_source: str | None,
    read: Read,
) -> dict[str, Any]:
    """Return the ``checkpoint`` of ``path`` with the tensors that it names, which ``read`` gives of a file, or the reader that
    it names; its references then say where the files were found. ``frozen_source`` names a file that has moved, or the folder
    that it is in now. Raises WeightsError where a file is missing or has changed."""
    recorded = checkpoint.get(KEY)
    if recorded is None:
        return dict(checkpoint)
    sources = [_found(source, path, frozen_source) for source in recorded["sources"]]
    contents = [
        (reader_of(source["reader"]) if "reader" in source else read)(Path(source["file"])) for source in sources
    ]
    values: dict[str, Tensor] = {}
    for name, entry in recorded["tensors"].items():
        content, dtype = contents[entry["source"]], getattr(torch, entry["dtype"], None)
        if entry["name"] not in content or not isinstance(dtype, torch.dtype):
            file = sources[entry["source"]]["file"]
            raise WeightsError(f"{path}: {name} is said to be {entry['name']!r} of {file} as {entry['dtype']!r}")
        values[name] = content[entry["name"]].to(dtype)

    def complete(weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        whole = copy.copy(weights)
        whole.clear()  # type: ignore[attr-defined]
        whole.update({name: weights[name] if name in weights else values[name] for name in recorded["names"]})  # type: ignore[attr-defined]
        return whole

    return {**_with_weights(checkpoint, complete), KEY: {**recorded, "sources": sources}}


def file_tensors(checkpoint: Mapping[str, Any]) -> dict[str, FileTensor]:
    """Return the references of a ``filled`` checkpoint by the model's names."""
    recorded = checkpoint.get(KEY)
    if recorded is None:
        return {}
    sources = [(source["source"], Path(source["file"]), source.get("reader", "")) for source in recorded["sources"]]
    of = {name: (*sources[entry["source"]], entry["name"]) for name, entry in recorded["tensors"].items()}
    return {name: FileTensor(source, file, in_file, reader) for name, (source, file, reader, in_file) in of.items()}


def moved_sources(checkpoint: Mapping[str, Any], path: Path, frozen_source: str | None) -> dict[str, str]:
    """Return source as the config names it → the file that ``frozen_source`` gives for it, where that is another one. Raises
    WeightsError as ``filled`` does."""
    recorded = checkpoint.get(KEY) or {"sources": ()}
    found = {source["source"]: _found(source, path, frozen_source)["source"] for source in recorded["sources"]}
    return {source: file for source, file in found.items() if file != source}


def _with_weights(
    checkpoint: Mapping[str, Any], change: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]
) -> dict[str, Any]:
    """Return ``checkpoint`` with each of its sets of weights changed."""
    keys = ("model_state_dict", "training_state_dict")
    changed = {key: change(checkpoint[key]) for key in keys if checkpoint.get(key) is not None}
    ema = checkpoint.get("ema_state_dict")
    return {**checkpoint, **changed, "ema_state_dict": ema and {**ema, "weights": change(ema["weights"])}}


def _found(source: Mapping[str, str], path: Path, frozen_source: str | None) -> dict[str, str]:
    """Return ``source`` with the file that is, byte for byte, the one that was referenced."""
    named = [source["source"], source["file"]]
    if frozen_source is not None:
        moved = os.path.expanduser(frozen_source)
        named.insert(0, os.path.join(moved, Path(source["file"]).name) if os.path.isdir(moved) else moved)
    there = [name for name in dict.fromkeys(named) if os.path.isfile(os.path.expanduser(name))]
    for name in there:
        file = Path(os.path.expanduser(name))
        if sha256_of(file) == source["sha256"]:
            now = source["source"]
            if frozen_source is not None and name == named[0]:
                # The config names the file, or the folder or repository that holds it.
                now = name if Path(now).name == Path(source["file"]).name else str(file.parent)
            return {**source, "source": now, "file": str(file.absolute())}
    raise WeightsError(_not_found(source, path, named, there))


def _not_found(source: Mapping[str, str], path: Path, named: Sequence[str], there: Sequence[str]) -> str:
    advice = "training.frozen_source=PATH names the file, or its folder, where it has moved"
    if there:
        now = ", ".join(f"{sha256_of(Path(os.path.expanduser(name)))[:_SHOWN]}… of {name}" for name in there)
        return (
            f"{path} takes its frozen weights from {source['source']}, which has changed since: its SHA-256 was "
            f"{source['sha256'][:_SHOWN]}…, not {now}; {advice}"
        )
    looked_for = ", ".join(dict.fromkeys(named))
    return (
        f"{path} takes its frozen weights from {source['source']}, which is missing (looked for {looked_for}); {advice}"
    )
