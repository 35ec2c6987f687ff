"""Where the tensors of a batch are made, so that handing it over from a worker process copies nothing."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.utils.data import get_worker_info


def new_tensor(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return an uninitialised tensor; in a worker process right in shared memory, so that handing the batch over copies
    nothing.
    """
    if get_worker_info() is None:
        return torch.empty(shape, dtype=dtype)
    storage = torch.UntypedStorage._new_shared(math.prod(shape) * dtype.itemsize)
    return torch.empty((0,), dtype=dtype).set_(storage, 0, shape)  # type: ignore[call-overload]
