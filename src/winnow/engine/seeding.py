"""Random numbers of the process: seeding at start, and what a checkpoint must hold to go on with them."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch


def choose_seed(seed: int | None) -> int:
    """Return ``seed`` itself, or a fresh one from the operating system's entropy, for the caller to record."""
    return seed if seed is not None else secrets.randbelow(2**31)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy's legacy generator and torch on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - user code and libraries draw from the legacy generator
    torch.manual_seed(seed)


def seed_of_rank(seed: int, rank: int) -> int:
    """Return the seed of ``rank``'s (> 0) dropout: the model began alike on all ranks, from here on each has its own
    numbers.
    """
    return int(np.random.SeedSequence([seed, rank]).generate_state(1, np.uint64)[0] >> 1)


def make_deterministic(wanted: bool) -> None:
    """Allow only deterministic kernels, where an operation without one raises and names itself; or any again."""
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(wanted)


def rng_state() -> dict[str, Any]:
    """Return the state of every generator ``seed_everything`` seeds, as tensors, numbers and lists only."""
    version, words, gauss = random.getstate()
    algorithm, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    return {
        "python": [version, list(words), gauss],
        "numpy": [algorithm, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    algorithm, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((algorithm, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


@contextlib.contextmanager
def undisturbed_rng() -> Iterator[None]:
    """Leave no trace outside of what is drawn inside: evaluating more often must not change the training."""
    state = rng_state()
    try:
        yield
    finally:
        set_rng_state(state)
