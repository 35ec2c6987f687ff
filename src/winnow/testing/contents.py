"""What is in a value, as one string: for suites that compare batches, predictions and states without knowing their types."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch


def digest(value: Any, tensors_only: bool = False) -> str:
    """Return a checksum of all that ``value`` holds; with ``tensors_only`` of its tensors and arrays alone, not of names and
    ids.

    Fields of dataclasses that are not compared, such as a memo, are left out.
    """
    sha = hashlib.sha256()
    for part in _parts(value):
        if isinstance(part, np.ndarray):
            sha.update(f"{part.dtype} {part.shape}".encode() + np.ascontiguousarray(part).tobytes())
        elif not tensors_only:
            sha.update(f"{type(part).__name__} {part!r};".encode())
    return sha.hexdigest()


def tensors_of(value: Any) -> list[torch.Tensor]:
    """Return every tensor in ``value``, in their order."""
    return [part for part in _leaves(value) if isinstance(part, torch.Tensor)]


def _parts(value: Any) -> Iterator[Any]:
    for leaf in _leaves(value):
        yield leaf.detach().cpu().numpy() if isinstance(leaf, torch.Tensor) else leaf


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, torch.Tensor | np.ndarray):
        yield value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            if field.compare:
                yield from _leaves(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield key
            yield from _leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        yield from _leaves(vars(value))
    else:
        yield value
