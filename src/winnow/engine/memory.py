"""Out of memory, said in the words of the run: which batch it was, and what makes it smaller."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Sequence

import torch

from winnow.engine.precision import Precision
from winnow.errors import MemoryExhaustedError
from winnow.protocols import Batch

# torch has an exception type of its own for GPUs only; its CPU allocator raises RuntimeError.
_CPU_MESSAGES = ("DefaultCPUAllocator: can't allocate memory", "DefaultCPUAllocator: not enough memory")


@contextlib.contextmanager
def memory_explained(batches: Sequence[Batch], precision: Precision, during: str) -> Iterator[None]:
    """Turn any kind of out of memory inside into MemoryExhaustedError with the shapes of ``batches`` and advice."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not _is_exhausted(error):
            raise
        shapes = "; ".join(_shape_words(batch) for batch in batches)
        dtype = "float32" if precision.dtype is None else str(precision.dtype).removeprefix("torch.")
        raise MemoryExhaustedError(
            f"out of memory on {precision.device} in {during}, with {shapes} in {dtype}: {_first_line(error)}; "
            "halve training.batch_size and double training.accumulate (the same step in less memory), lower data.image_size, "
            "or set training.amp=auto on a GPU"
        ) from error


def release_memory() -> None:
    """Free what a failed attempt held, cycles and the GPU's cache included."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _shape_words(batch: Batch) -> str:
    images, height, width = batch.shape
    return f"{images} images of {height}×{width} pixels"


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _is_exhausted(error: Exception) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(message in str(error) for message in _CPU_MESSAGES)
