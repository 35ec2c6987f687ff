"""Names that stand in recorded configs and have moved since: ``_target_``s and choices of config groups.

Module paths are data: they stand in checkpoints, ``pipeline.yaml``, ``sweep.yaml``, studies and the commands that began them.
Whatever reads such a record, or compares one with what is composed now, applies these tables first. A name that is moved again
gets a further row, and the rows that lead to the old place are changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from winnow.errors import ConfigError

MOVED = {
    "winnow.data.detection": "winnow.families.detection.data",
    "winnow.data.ink_lines": "winnow.families.ink.lines.data",
    "winnow.data.ink_strokes": "winnow.families.ink.strokes.data",
    "winnow.evaluation.boxes": "winnow.families.detection.evaluation",
    "winnow.evaluation.ink": "winnow.families.ink.evaluation",
    "winnow.tasks.detection": "winnow.families.detection.models",
    "winnow.tasks.ink": "winnow.families.ink.model",
}
"""Modules and packages that a ``_target_`` may have named → where they lie now."""

MOVED_CHOICES = {
    "stage": {"all": "ink/all", "dense": "ink/dense", "structural": "ink/structural"},
}
"""Config group → choice → the choice that it is now."""


def moved_target(name: str) -> str:
    """Return where the object of the dotted ``name`` lies now; ``name`` itself where it has not moved."""
    for old, new in MOVED.items():
        if name.startswith(f"{old}."):
            return new + name[len(old) :]
    return name


def with_moved_targets(node: Any) -> Any:
    """Return ``node`` (a recorded config, nested or by dotted key, or a part of one) with every ``_target_`` in it moved."""
    if isinstance(node, Mapping):
        return {
            key: moved_target(value) if _names_target(key) and isinstance(value, str) else with_moved_targets(value)
            for key, value in node.items()
        }
    if isinstance(node, Sequence) and not isinstance(node, str):
        return [with_moved_targets(value) for value in node]
    return node


def moved_choice(group: str, choice: str) -> str:
    """Return what ``choice`` of the config group is called now."""
    return MOVED_CHOICES.get(group, {}).get(choice, choice)


def with_moved_choices(choices: Mapping[str, str]) -> dict[str, str]:
    """Return recorded choices, config group → choice, by today's names."""
    return {group: moved_choice(group, choice) for group, choice in choices.items()}


def require_todays_choices(choices: Mapping[str, Any]) -> None:
    """Raise ConfigError for a choice that has moved: only what began with it goes on by its old name."""
    for group, choice in choices.items():
        new = moved_choice(str(group), str(choice))
        if new != choice:
            raise ConfigError(
                f"{group}={choice} is now {group}={new}; the old name only goes on with runs and sweeps that began with it"
            )


def with_moved_names(overrides: Sequence[str]) -> list[str]:
    """Return recorded overrides of a command line of winnow's with their ``_target_``s and choices by today's names."""
    moved = []
    for text in map(with_moved_target, overrides):
        key, equals, value = text.partition("=")
        moved.append(f"{key}{equals}{moved_choice(key.lstrip('+~'), value)}")
    return moved


def with_moved_target(override: str) -> str:
    """Return the override of a command line with the ``_target_`` that it sets, if any, where that lies now."""
    key, equals, value = override.partition("=")
    return f"{key}{equals}{moved_target(value)}" if _names_target(key.lstrip("+~")) else override


def _names_target(key: Any) -> bool:
    return str(key).rpartition(".")[2] == "_target_"
