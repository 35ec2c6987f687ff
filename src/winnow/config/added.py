"""Keys that the config was given after runs and studies had been recorded, and what those did without them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ADDED = {
    "training.no_decay": [],
    "training.ema.also_raw": False,
    "training.frozen_weights": "stored",
    "training.frozen_source": None,
}
"""Dotted key → the value that changes nothing."""


def with_added_keys(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recorded config by dotted keys, with the keys that it lacks as its run went without them. One of another program
    than winnow's, which a sweep may run, stays as it is."""
    is_ours = any(key.startswith("training.optimizer.") for key in recorded)
    return {**(ADDED if is_ours else {}), **recorded}
