"""What recorded configs say in yesterday's words: ``_target_``s and choices that have moved, keys that came later.

Module paths are data: they stand in checkpoints, ``pipeline.yaml``, ``sweep.yaml``, studies and the commands that began them.
Whatever reads such a record, or compares one with what is composed now, applies these tables first. A name that is moved again
gets a further row, and the rows that lead to the old place are changed. A key that is added to ``conf/`` gets a row in ``ADDED``,
or half-done studies would end in "another definition".
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
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


ADDED: dict[str, Any] = {
    "report": True,
    "training.balance_threshold": 0.001,
    "training.class_balance": "none",
    "training.ema.also_raw": False,
    "training.frozen_source": None,
    "training.frozen_weights": "stored",
    "training.memory_format": "auto",
    "training.no_decay": [],
    "training.scheduler.warmup_part": None,
    "training.subset_stratified": False,
}
"""Dotted key that recorded configs may lack → the value that says what happened before there was the key."""


def _had_shared_heads(model: Mapping[str, Any]) -> bool:
    """Return false where heads were separate that may be shared now; with refinement the key changes nothing."""
    return bool(model.get("with_box_refine"))


def _norm_eps(model: Mapping[str, Any]) -> float | None:
    """Return what frozen norms added; without weights there are none."""
    return None if model.get("pretrained") is False else 1e-5


def _was_pure(model: Mapping[str, Any]) -> str:
    """Return how deformable attention was computed."""
    del model
    return "pure"


_MODELS = "winnow.families.detection.models"
_PAIRS = "winnow.families.pairs.models.pair_faster_rcnn"
ADDED_TO_MODEL: dict[str, dict[str, Callable[[Mapping[str, Any]], Any]]] = {
    f"{_MODELS}.deformable_detr.deformable_detr": {"share_heads": _had_shared_heads, "attention": _was_pure},
    f"{_MODELS}.deformable_detr.deformable_detr_tiny": {"share_heads": _had_shared_heads, "attention": _was_pure},
    f"{_MODELS}.faster_rcnn.faster_rcnn_r50_fpn": {"norm_eps": _norm_eps},
    f"{_PAIRS}.pair_faster_rcnn": {"macl": lambda model: {"weight": 0.0}},
    f"{_PAIRS}.pair_faster_rcnn_tiny": {"macl": lambda model: {"weight": 0.0}},
}
"""Target of a model → key that its recorded node may lack → what happened before, by the rest of the node."""

_PIXELS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "exif": lambda _: "auto",
    "depth": lambda _: "upper8",
    "max_pixels": lambda _: 166_666_666,
}
_LABELS: dict[str, Callable[[Mapping[str, Any]], Any]] = _PIXELS | {
    "box_format": lambda _: None,
    "box_unit": lambda _: None,
    "drop_duplicates": lambda _: False,
    "mend": lambda _: ["numbers", "file_names", "sizes", "masks", "jpeg_ends"],
}
_CHOSEN = {**_LABELS, "classes": lambda _: None, "ignore_categories": lambda _: []}
_HELD_OUT = {**_CHOSEN, "val_part": lambda _: None, "folds": lambda _: None, "fold": lambda _: 0}
_DATA = "winnow.families.detection.data"
_PAIR_DATA = "winnow.families.pairs.data"
ADDED_TO_DATA: dict[str, dict[str, Callable[[Mapping[str, Any]], Any]]] = {
    f"{_DATA}.coco_data": {"root": lambda _: None, "cache": lambda _: ".cache/coco", **_HELD_OUT},
    f"{_DATA}.voc_data": _HELD_OUT,
    f"{_DATA}.yolo_data": _HELD_OUT,
    f"{_DATA}.bdd100k_data": _CHOSEN,
    f"{_DATA}.digits_data": _PIXELS,
    **{f"{_PAIR_DATA}.{name}": _PIXELS for name in ("llvip", "kaist", "pairs_synthetic")},
}
"""The same of data sets, as new runs have it: a study goes on with it."""

KEPT = {"exif": "by_size"}
"""Key of such a data set that its recorded config may lack → what a run keeps that began before there was the key."""


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


def added_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted key → value of what ``config`` (recorded, nested or by dotted key) may lack."""
    added = dict(ADDED)
    for name, by_target in (("model", ADDED_TO_MODEL), ("data", ADDED_TO_DATA)):
        nested = config.get(name) or {}
        _require_mapping(name, nested)
        prefix = f"{name}."
        node = {
            **nested,
            **{key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)},
        }
        later = by_target.get(moved_target(str(node.get("_target_"))), {})
        added |= {f"{name}.{key}": before(node) for key, before in later.items()}
    return added


def with_kept_rules(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config that a run recorded, nested, with the rules that it began with before there were keys for them."""
    data = config.get("data")
    if not isinstance(data, Mapping):
        return dict(config)
    later = ADDED_TO_DATA.get(moved_target(str(data.get("_target_"))), {})
    kept = {key: value for key, value in KEPT.items() if key in later and key not in data}
    return {**config, "data": {**data, **kept}}


def with_added_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recorded config, nested, with the keys that came later. Raises ConfigError for what is no config of a run."""
    _require_mapping("the config", config)
    filled = copy.deepcopy(dict(config))
    for dotted, value in added_keys(config).items():
        *nodes, key = dotted.split(".")
        node = filled
        for name in nodes:
            node = node.get(name, {})
            _require_mapping(".".join(nodes), node)
        node.setdefault(key, copy.deepcopy(value))
    return filled


def _require_mapping(key: str, node: Any) -> None:
    if not isinstance(node, Mapping):
        raise ConfigError(f"{key} is {node!r:.60}, where a run records values by name")


def with_moved_choices(choices: Mapping[str, str], config: Mapping[str, Any]) -> dict[str, str]:
    """Return the recorded choices of ``config`` (nested or by dotted key), config group → choice, by today's names.

    A project may have a ``stage=all`` of its own: only with a model of the family whose stages moved it is winnow's.
    """
    family = _family_of_model(config)
    return {group: _moved_choice(group, choice, family) for group, choice in choices.items()}


def require_todays_choices(overrides: Sequence[str], choices: Mapping[str, str]) -> None:
    """Raise ConfigError where ``overrides`` name a choice by its old place: ``choices`` hold what they led to.

    The files that are left at the old places lead to the new ones, for runs and sweeps that began with them.
    """
    for text in overrides:
        group, _, choice = text.partition("=")
        new = MOVED_CHOICES.get(group, {}).get(choice)
        if new is not None and choices.get(group) == new:
            raise ConfigError(
                f"{group}={choice} is now {group}={new}; the old name only goes on with runs and sweeps that began with it"
            )


def with_moved_names(overrides: Sequence[str], config: Mapping[str, Any]) -> list[str]:
    """Return the recorded overrides of a run or sweep with their ``_target_``s and choices by today's names; ``config`` is
    what they composed, nested or by dotted key."""
    family = _family_of_model(config)
    moved = []
    for text in map(with_moved_target, overrides):
        key, equals, value = text.partition("=")
        moved.append(f"{key}{equals}{_moved_choice(key.lstrip('+~'), value, family)}")
    return moved


def with_moved_target(override: str) -> str:
    """Return the override of a command line with the ``_target_`` that it sets, if any, where that lies now."""
    key, equals, value = override.partition("=")
    return f"{key}{equals}{moved_target(value)}" if _names_target(key.lstrip("+~")) else override


def _moved_choice(group: str, choice: str, family: str | None) -> str:
    new = MOVED_CHOICES.get(group, {}).get(choice, choice)
    return new if new.partition("/")[0] == family else choice


def _family_of_model(config: Mapping[str, Any]) -> str | None:
    model = config.get("model")
    target = str(config.get("model._target_") or (model.get("_target_", "") if isinstance(model, Mapping) else ""))
    parts = moved_target(target).split(".")
    return parts[2] if parts[:2] == ["winnow", "families"] else None


def _names_target(key: Any) -> bool:
    return str(key).rpartition(".")[2] == "_target_"
