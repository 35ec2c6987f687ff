"""Batches on their way to the device: the next one travels while the model computes on the one before."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from winnow.engine.precision import Precision
from winnow.protocols import Batch

T = TypeVar("T")


class Transfer:
    """Moves batches to the device and the memory format of ``precision``. On a GPU the batch that ``start`` was told of travels
    on a stream of its own; on a CPU ``start`` does nothing.

    The memory of a moved batch belongs to that stream, and the model's stream reads it: so each tensor is recorded there, for
    the allocator; and each copy waits for what the model's stream has been given so far, for what a batch may hide from
    ``tensors_in``.
    """

    def __init__(self, precision: Precision, is_ahead: bool | None = None) -> None:
        self._precision = precision
        self.is_ahead = precision.device.type == "cuda" if is_ahead is None else is_ahead
        """Whether the next batch is wanted before its turn; by default on GPUs alone."""
        self._streams: Any = torch.get_device_module(precision.device)
        self._stream = _stream_of(precision.device) if self.is_ahead else None
        self._started: tuple[Batch, Batch] | None = None

    def start(self, batch: Batch | None) -> None:
        """Begin to move ``batch``, if there is one and it holds a sample; what was begun before and not asked for is dropped."""
        self._started = None
        if self._stream is None or batch is None or not batch.num_samples:
            return
        self._stream.wait_stream(self._streams.current_stream(self._precision.device))
        with self._streams.stream(self._stream):
            self._started = batch, self._move(batch)

    def __call__(self, batch: Batch) -> Batch:
        """Return ``batch`` on the device, there by the time that what is queued next will read it."""
        started, self._started = self._started, None
        if self._stream is None or started is None or started[0] is not batch:
            return self._move(batch)
        current = self._streams.current_stream(self._precision.device)
        current.wait_stream(self._stream)
        for tensor in tensors_in(started[1]):
            if tensor.is_cuda:
                tensor.record_stream(current)
        return started[1]

    def _move(self, batch: Batch) -> Batch:
        return batch.to(self._precision.device, self._precision.memory_format)


@functools.cache
def _stream_of(device: torch.device) -> Any:
    """Return the stream of ``device`` that all batches travel on: each stream keeps the memory that it was given."""
    return torch.get_device_module(device).Stream(device)


def tensors_in(batch: Any) -> Iterator[Tensor]:
    """Yield the tensors among the attributes of ``batch`` and theirs, in mappings and sequences."""
    left, seen = [batch], {id(batch)}
    while left:
        value = left.pop()
        if isinstance(value, Tensor):
            yield value
            continue
        if isinstance(value, Mapping):
            parts = list(value.values())
        elif isinstance(value, list | tuple):
            parts = list(value)
        else:
            parts = list(getattr(value, "__dict__", {}).values())
        left += [part for part in parts if id(part) not in seen]
        seen.update(map(id, parts))


def with_next(items: Iterable[T], is_ahead: bool) -> Iterator[tuple[T, T | None]]:
    """Yield each item with the one after it, or with None: after the last, and where the next one is not wanted ahead
    (``is_ahead``), which is then not read before its turn. What goes wrong in reading it is raised in its turn, too."""
    iterator = iter(items)
    if not is_ahead:
        for item in iterator:
            yield item, None
        return
    current = next(iterator, None)
    while current is not None:
        try:
            following = next(iterator, None)
        except Exception:
            yield current, None
            raise
        yield current, following
        current = following
