"""A nested config as dotted keys, and how two of them differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested config by dotted key: ``{"training": {"seed": 0}}`` → ``{"training.seed": 0}``; lists stay values."""
    values: dict[str, Any] = {}
    for key, value in config.items():
        values |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return values


def rename_keys_to_match(other: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``other`` under the keys of ``own``: another program's config may have other levels, so a key that ``own`` lacks
    is taken for the one whose last part it shares, where there is exactly one. What remains keeps its key."""
    by_last: dict[str, list[str]] = {}
    for key in own:
        by_last.setdefault(key.rpartition(".")[2], []).append(key)
    found = {key: value for key, value in other.items() if key in own}
    for key, value in other.items():
        alike = by_last.get(key.rpartition(".")[2], [])
        if key not in own:
            found.setdefault(alike[0] if len(alike) == 1 else key, value)
    return found


def differences_by_name(
    other: Mapping[str, Any], own: Mapping[str, Any]
) -> tuple[list[tuple[str, Any, Any]], list[str]]:
    """Return (key of ``own``, value in ``other``, value in ``own``) where they differ, and the keys of ``other`` that ``own``
    lacks."""
    found = rename_keys_to_match(other, own)
    differences = [(key, found[key], own[key]) for key in found if key in own and not same(found[key], own[key])]
    return differences, [key for key in found if key not in own]


def same(one: Any, other: Any) -> bool:
    """Tell whether two values of configs are the same; a tuple is a list, as in every YAML file."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    are_alike = type(one) is type(other) or (_is_number(one) and _is_number(other))
    return are_alike and bool(one == other)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
