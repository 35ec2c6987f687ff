"""A copy of a run's state in host memory that training does not touch, quick enough for training to wait for it."""

from __future__ import annotations

import contextlib
import copy
import mmap
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, UntypedStorage

_ALIGNMENT = 64
# A few more loss terms than at the first save shall not cost a new allocation.
_SLACK = 1 << 20
_PAGE = 4096
# From linux/mman.h; Python's mmap does not name it.
_WIPE_ON_FORK = 18

StorageKey = tuple[torch.device, int, int]
Sources = dict[StorageKey, UntypedStorage]


@dataclass(frozen=True)
class HostCopy:
    """``content`` lies in ``memory`` and is complete once ``wait`` has returned; it holds until the next copy is taken."""

    content: dict[str, Any]
    memory: Any
    events: tuple[Any, ...] = ()

    def wait(self) -> None:
        """Wait for copies from a GPU, which are still under way when training goes on; the device orders them before
        the next update.
        """
        for event in self.events:
            event.synchronize()


class HostMemory:
    """Copies states, always into the same memory: touching 500 MB of fresh memory takes 10× as long as filling it again."""

    def __init__(self) -> None:
        self._memory: Any = None
        self._still: list[tuple[Tensor, int]] = []
        self._still_copies: dict[StorageKey, UntypedStorage] | None = None

    def hold_still(self, tensors: Iterable[Tensor]) -> None:
        """Copy these ``tensors`` once and not each time, for they don't change; one that does all the same, as its version
        tells, is copied each time from then on."""
        self._still = [(tensor, tensor._version) for tensor in tensors if _fills_its_storage(tensor)]
        self._still_copies = None

    def copy(self, content: dict[str, Any]) -> HostCopy:
        """Return ``content`` with each storage of its tensors copied once, so that tensors which share one still do.

        Raises OSError or RuntimeError where there is no memory. What an earlier copy held is overwritten.
        """
        sources, still = self._parted(content)
        copies = self._copies_of(still)
        memory = self._reserve(sources)
        targets = {**copies, **_copied(sources, memory)}
        gpus = {device for device, _, _ in sources if device.type == "cuda"}
        events = tuple(torch.cuda.current_stream(gpu).record_event() for gpu in gpus)
        return HostCopy(_mapped(content, lambda tensor: _moved(tensor, targets)), memory, events)

    def room_for(self, content: dict[str, Any]) -> Callable[[], None]:
        """Reserve the memory for a copy of ``content``; calling the result touches its pages and copies what holds still, which
        is slow and may be done in another thread, before the first copy."""
        sources, still = self._parted(content)
        memory = self._reserve(sources)

        def touch() -> None:
            np.frombuffer(memory, dtype=np.uint8)[::_PAGE] = 0
            with contextlib.suppress(OSError, RuntimeError, MemoryError):  # the first copy tries again, and says so
                self._copies_of(still)

        return touch

    def give_away(self, taken: HostCopy) -> None:
        """Leave ``taken`` its memory; the next copy gets another."""
        if self._memory is taken.memory:
            self._memory = None

    def _parted(self, content: Any) -> tuple[Sources, Sources]:
        """Return the storages of ``content`` that may change, and those that hold still."""
        unchanged = {_key(tensor) for tensor, version in self._still if tensor._version == version}
        sources = _storages(content)
        still = {key: storage for key, storage in sources.items() if key in unchanged}
        return {key: storage for key, storage in sources.items() if key not in unchanged}, still

    def _copies_of(self, still: Sources) -> Sources:
        if self._still_copies is None:
            size = sum(_aligned(source.nbytes()) for source in still.values())
            self._still_copies = _copied(still, _allocate(size, False)) if still else {}
            for device in {device for device, _, _ in still if device.type == "cuda"}:
                torch.cuda.synchronize(device)  # the first copy may be taken by another thread
        return {key: self._still_copies[key] for key in still}

    def _reserve(self, sources: dict[StorageKey, UntypedStorage]) -> Any:
        size = sum(_aligned(source.nbytes()) for source in sources.values())
        if self._memory is None or len(self._memory) < size:
            self._memory = None  # freed before as much is asked for again
            self._memory = _allocate(size + _SLACK, _is_on_gpu(sources))
        return self._memory


def state_bytes(content: dict[str, Any]) -> int:
    """Return what the tensors of ``content`` take, those that share memory counted once: about the size of its file."""
    return sum(storage.nbytes() for storage in _storages(content).values())


def _copied(sources: Sources, memory: Any) -> Sources:
    """Copy ``sources`` one after the other into ``memory``; from a GPU the copies may still be under way."""
    targets = {}
    offset = 0
    for key, source in sources.items():
        target = torch.frombuffer(memory, dtype=torch.uint8, count=source.nbytes(), offset=offset)
        target.copy_(_bytes(source), non_blocking=source.device.type == "cuda")
        targets[key] = target.untyped_storage()
        offset += _aligned(source.nbytes())
    return targets


def _allocate(size: int, pinned: bool) -> Any:
    if pinned:
        return torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if sys.platform == "linux":
        # Loader workers forked from here would keep the old pages alive, and each save would have to allocate new ones.
        with contextlib.suppress(OSError):  # a kernel before 4.14: only slower
            memory.madvise(_WIPE_ON_FORK)
    return memory


def _storages(content: Any) -> dict[StorageKey, UntypedStorage]:
    """Yield each storage once; empty ones need no memory."""
    storages = {}
    for tensor in _tensors(content):
        if _is_plain(tensor) and tensor.untyped_storage().nbytes():
            storages[_key(tensor)] = tensor.untyped_storage()
    return storages


def _key(tensor: Tensor) -> StorageKey:
    storage = tensor.untyped_storage()
    return tensor.device, storage.data_ptr(), storage.nbytes()


def _is_plain(tensor: Tensor) -> bool:
    """Return whether a tensor is nothing but numbers in a storage: not sparse, quantised, or a lazy conjugate."""
    is_lazy = tensor.is_conj() or tensor.is_neg()
    return tensor.layout is torch.strided and not tensor.is_quantized and not is_lazy


def _fills_its_storage(tensor: Tensor) -> bool:
    """Tell whether nothing else can lie in a tensor's storage; one of inference mode has no version that would tell of a
    change."""
    return (
        _is_plain(tensor)
        and not tensor.is_inference()
        and tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    )


def _is_on_gpu(sources: dict[StorageKey, UntypedStorage]) -> bool:
    return any(device.type == "cuda" for device, _, _ in sources)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _bytes(storage: UntypedStorage) -> Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)


def _moved(tensor: Tensor, targets: dict[StorageKey, UntypedStorage]) -> Tensor:
    """Return the same view of the copied storage."""
    if not _is_plain(tensor):
        return tensor.detach().cpu().clone()
    empty = torch.empty(0, dtype=tensor.dtype)
    if _key(tensor) not in targets:
        return empty.reshape(tensor.shape)
    return empty.set_(targets[_key(tensor)], tensor.storage_offset(), tensor.size(), tensor.stride())


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Build new containers all the way down, so that what training changes in its own is not seen here."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        twin = copy.copy(value)  # keeps the type, and the versions that torch attaches to a model's state
        for key, item in value.items():
            twin[key] = _mapped(item, change)
        return twin
    if isinstance(value, list | tuple):
        return type(value)(_mapped(item, change) for item in value)
    return value
