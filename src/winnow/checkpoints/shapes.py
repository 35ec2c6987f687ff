"""Building and running a model by shapes alone: tensors on torch's meta device, which take no memory and have no values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch._subclasses.fake_tensor import FakeTensorMode

_active: ContextVar[bool] = ContextVar("shapes_only", default=False)


@contextmanager
def shapes_only() -> Iterator[None]:
    """Give what is made inside neither memory nor values. Its tensors are fake ones, which lie on the meta device and obey the
    rules of a CPU all the same: those of autocast, and which attention is taken. No weights are loaded."""
    token = _active.set(True)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            yield
    finally:
        _active.reset(token)


def is_shapes_only() -> bool:
    """Tell whether this runs inside of ``shapes_only``: a builder then loads no weights and asks for no tensor's values."""
    return _active.get()
