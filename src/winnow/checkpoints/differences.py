"""Where the contents of two checkpoints differ: every tensor, number and text, to the last bit."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def differences(one: Any, other: Any, name: str = "") -> Iterator[str]:
    """Yield a line for each place where ``one`` and ``other`` differ, in types, order, keys, shapes or any bit; NaN equals the
    same NaN, and 0.0 is not −0.0. ``name`` is what the place is called."""
    if type(one) is not type(other):
        yield f"{name}: {_shown(one)} and {_shown(other)} are of different types"
    elif isinstance(one, Tensor):
        yield from _tensor_differences(one, other, name)
    elif isinstance(one, Mapping):
        yield from _mapping_differences(one, other, name)
        if vars_of(one) or vars_of(other):
            yield from _mapping_differences(vars_of(one), vars_of(other), f"{name} (attributes)")
    elif isinstance(one, list | tuple):
        if len(one) != len(other):
            yield f"{name}: {len(one)} and {len(other)} entries"
            return
        for index, (first, second) in enumerate(zip(one, other, strict=True)):
            yield from differences(first, second, f"{name}[{index}]")
    elif isinstance(one, float):
        if struct.pack("<d", one) != struct.pack("<d", other):
            yield f"{name}: {one!r} and {other!r}"
    elif one != other:
        yield f"{name}: {_shown(one)} and {_shown(other)}"


def count_values(content: Any) -> tuple[int, int]:
    """Return how many tensors ``content`` holds, and how many other values."""
    if isinstance(content, Tensor):
        return 1, 0
    if isinstance(content, Mapping):
        content = list(content.values())
    if isinstance(content, list | tuple):
        counts = [count_values(item) for item in content]
        return sum(tensors for tensors, _ in counts), sum(others for _, others in counts)
    return 0, 1


def vars_of(value: Any) -> dict[str, Any]:
    """Return the attributes of a value that has some, as the versions that a state dict notes."""
    return getattr(value, "__dict__", {})


def _mapping_differences(one: Mapping[Any, Any], other: Mapping[Any, Any], name: str) -> Iterator[str]:
    for key in [*one, *(key for key in other if key not in one)]:
        place = f"{name}.{key}" if name else str(key)
        if key not in one or key not in other:
            yield f"{place}: only in the {'first' if key in one else 'second'}"
        else:
            yield from differences(one[key], other[key], place)
    if one.keys() == other.keys() and list(one) != list(other):
        yield f"{name}: the keys stand in another order"


def _tensor_differences(one: Tensor, other: Tensor, name: str) -> Iterator[str]:
    form, other_form = (
        (tensor.dtype, tuple(tensor.shape), tensor.stride(), tensor.requires_grad) for tensor in (one, other)
    )
    if form != other_form:
        yield f"{name}: {form} and {other_form} (type, shape, strides, requires_grad)"
        return
    bits, other_bits = (_bits(tensor) for tensor in (one, other))
    if not torch.equal(bits, other_bits):
        count = int((bits != other_bits).any(dim=-1).sum())
        yield f"{name}: {count} of {one.numel()} values differ"


def _bits(tensor: Tensor) -> Tensor:
    """Return the bytes of each value of ``tensor`` [values, bytes]."""
    values = tensor.detach().contiguous().reshape(-1, 1)
    return values.view(torch.uint8) if values.dtype is not torch.bool else values.to(torch.uint8)


def _shown(value: Any) -> str:
    return f"{value!r:.60}"
