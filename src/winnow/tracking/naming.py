"""Turns names and values into what MLflow's stores allow."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

logger = logging.getLogger(__name__)

PARAM_LENGTH = 6000
TAG_LENGTH = 5000
_ALLOWED_NAME = re.compile(r"[\w.\- ][/\w.\- ]{0,249}")


def is_allowed_name(name: object) -> bool:
    """Return whether MLflow takes ``name`` on every platform: a tidy path of letters, digits, ``_-./``, spaces; up to
    250 long.
    """
    if not isinstance(name, str) or not _ALLOWED_NAME.fullmatch(name):
        return False
    return all(part not in ("", ".", "..") for part in name.split("/"))


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested mappings as dotted names; lists and other leaves as short text (``null``, ``true``, ``[0.9, 0.999]``)."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{path}.")
        else:
            flat[path] = value if isinstance(value, str) else json.dumps(_plain(value), default=str)
    return flat


def cut(values: Mapping[str, str], length: int) -> dict[str, str]:
    """Return the same with long values cut to ``length`` characters, the last of them an ellipsis; the log says which."""
    long = [name for name, value in values.items() if len(value) > length]
    if long:
        logger.info("cut to %s characters for MLflow (the run folder has them whole): %s", length, ", ".join(long))
    return {name: value if len(value) <= length else value[: length - 1] + "…" for name, value in values.items()}


def chunks(values: Mapping[str, Any], size: int) -> Iterator[dict[str, Any]]:
    """Yield the items in order, at most ``size`` at a time."""
    items = iter(values.items())
    while chunk := dict(islice(items, size)):
        yield chunk


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [_plain(item) for item in value]
    return value
