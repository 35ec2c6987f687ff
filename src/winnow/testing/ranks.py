"""Ranks as threads of one process: what a suite needs to see that two of them do what one does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from winnow.engine.ranks import Ranks

T = TypeVar("T")
SECONDS = 120.0
"""How long a rank waits for the others before it is a failure."""


class ThreadRanks(Ranks):
    """Hands values over in memory; sums are taken in the order of the ranks, bit for bit the same on each."""

    def __init__(self, rank: int, slots: list[Any], barrier: threading.Barrier) -> None:
        super().__init__(rank=rank, size=len(slots), local_rank=rank, local_size=len(slots))
        object.__setattr__(self, "_slots", slots)
        object.__setattr__(self, "_barrier", barrier)

    def sum(self, *numbers: float) -> list[float]:
        return [float(sum(column)) for column in zip(*self._exchange(numbers), strict=True)]

    def gather(self, value: T) -> list[T]:
        values = self._exchange(value)
        return values if self.is_main else []

    def broadcast(self, value: T) -> T:
        return cast(T, self._exchange(value)[0])

    def share_tensors(self, tensors: Sequence[Tensor]) -> None:
        self._replace(tensors, lambda parts: parts[0])

    def sum_tensors(self, tensors: Sequence[Tensor]) -> None:
        self._replace(tensors, lambda parts: torch.stack(parts).sum(dim=0))

    @torch.no_grad()
    def _replace(self, tensors: Sequence[Tensor], joined: Callable[[list[Tensor]], Tensor]) -> None:
        every = self._exchange([tensor.clone() for tensor in tensors])
        for tensor, *parts in zip(tensors, *every, strict=True):
            tensor.copy_(joined(parts))

    def _exchange(self, value: Any) -> list[Any]:
        """Return what every rank gave, in their order."""
        slots, barrier = vars(self)["_slots"], vars(self)["_barrier"]
        slots[self.rank] = value
        barrier.wait(SECONDS)
        values = list(slots)
        barrier.wait(SECONDS)
        return values


def run_as_ranks(size: int, work: Callable[[Ranks], T]) -> list[T]:
    """Return what ``work`` gave on each of ``size`` ranks; raise what the first of them raised."""
    slots: list[Any] = [None] * size
    results: list[Any] = [None] * size
    errors: list[BaseException] = []
    barrier = threading.Barrier(size)

    def run(rank: int) -> None:
        try:
            results[rank] = work(ThreadRanks(rank, slots, barrier))
        except BaseException as error:  # noqa: BLE001  # raised again in the caller's thread
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results
