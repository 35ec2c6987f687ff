"""Which classes are learnt, and in which order: those of train, matched in val by name, or a part of them; which are ignored."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from winnow.errors import ConfigError, DataError
from winnow.families.detection.formats.records import CocoSplit, FlatRecords, columns_of

logger = logging.getLogger(__name__)

_NUM_SHOWN = 12


def with_classes_of(train: CocoSplit, val: CocoSplit) -> CocoSplit:
    """Return ``val`` with the labels of ``train``, matched by name; it may lack some. Raises DataError naming the classes that
    ``train`` lacks."""
    if val.class_names == train.class_names:
        return val
    unknown = [name for name in val.class_names if name not in train.class_names]
    if unknown:
        raise DataError(
            f"val has {len(unknown)} of its {len(val.class_names)} classes that train lacks: "
            f"{_listed(unknown, train.class_names)}; train has {_first(train.class_names)}. Name them alike, or train on a part "
            "of both: data.classes=[…]"
        )
    return _relabelled(val, train.class_names, train.category_ids, frozenset())


def chosen_classes(
    splits: Mapping[str, CocoSplit], classes: Sequence[str] | None, ignored: Sequence[str]
) -> dict[str, CocoSplit]:
    """Return the splits with the ``classes`` alone (None: all), in that order; objects of ``ignored`` categories become ignored
    ones, as COCO's crowds, of each class. Raises ConfigError as ``names_to_learn`` does."""
    if classes is None and not ignored:
        return dict(splits)
    train = splits["train"]
    names = names_to_learn({part: split.class_names for part, split in splits.items()}, classes, ignored)
    number_of = dict(zip(train.class_names, train.category_ids, strict=True))
    chosen = {}
    for part, split in splits.items():
        # Without data.classes what only val has stays, for whoever matches the two to refuse.
        own = names if classes is not None or part == "train" else _with_new(names, split.class_names, ignored)
        numbers = {**dict(zip(split.class_names, split.category_ids, strict=True)), **number_of}
        new = _relabelled(split, own, [numbers[name] for name in own], frozenset(ignored))
        chosen[part] = replace(new, fingerprint=f"{split.fingerprint} classes {classes} ignored {sorted(ignored)}")
        _log_choice(part, split, new, ignored)
    return chosen


def names_to_learn(
    names_of: Mapping[str, Sequence[str]], classes: Sequence[str] | None, ignored: Sequence[str]
) -> tuple[str, ...]:
    """Return the classes that are learnt, by label, of the categories of each split. Raises ConfigError for names that no
    category has, for one that is to be learnt and ignored, and where none is left."""
    train = names_of["train"]
    _require_known("classes", classes or (), train)
    _require_known("ignore_categories", ignored, {name: None for names in names_of.values() for name in names})
    if both := [name for name in classes or () if name in ignored]:
        raise ConfigError(f"data.classes and data.ignore_categories both name {_first(both)}")
    names = tuple(classes) if classes is not None else tuple(name for name in train if name not in ignored)
    if not names and ignored:
        raise ConfigError(f"data.ignore_categories={list(ignored)} leaves no class to train on")
    return names


def _with_new(names: tuple[str, ...], own: Sequence[str], ignored: Sequence[str]) -> tuple[str, ...]:
    return names + tuple(name for name in own if name not in names and name not in ignored)


def _relabelled(split: CocoSplit, names: Sequence[str], numbers: Sequence[int], ignored: frozenset[str]) -> CocoSplit:
    """Return ``split`` with label i for ``names[i]``; objects of ``ignored`` names become crowds of every label, those of any
    other name are left out."""
    columns = columns_of(split.records)
    folder = split.records.folder if isinstance(split.records, FlatRecords) else ""
    label_of = {name: label for label, name in enumerate(names)}
    new_labels = np.array([label_of.get(name, -1) for name in split.class_names], dtype=np.int64)
    is_ignored = np.array([name in ignored for name in split.class_names], dtype=bool)
    # One row for each of the labels that an object becomes.
    times = np.where(new_labels >= 0, 1, np.where(is_ignored, len(names), 0))[columns.labels]
    rows = np.repeat(np.arange(len(times)), times)
    old = columns.labels[rows]
    nth = np.arange(len(rows)) - np.repeat(np.cumsum(times) - times, times)
    labels = np.where(is_ignored[old], nth, new_labels[old])
    columns = columns.take_objects(rows, labels, columns.crowd[rows] | is_ignored[old])
    return replace(split, records=FlatRecords(columns, folder), class_names=tuple(names), category_ids=tuple(numbers))


def _require_known(key: str, names: Sequence[str], known: Iterable[str]) -> None:
    known = list(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(
            f"data.{key}={list(names)}: there is no category {_listed(unknown, known)}; there are {_first(known)}"
        )


def _log_choice(part: str, before: CocoSplit, after: CocoSplit, ignored: Sequence[str]) -> None:
    old, new = columns_of(before.records), columns_of(after.records)
    is_ignored = np.array([name in ignored for name in before.class_names], dtype=bool)[old.labels]
    is_left_out = ~np.isin(np.array(before.class_names, dtype=object), after.class_names)[old.labels] & ~is_ignored
    logger.info(
        "%-5s classes %s: %d objects of others left out, %d of data.ignore_categories ignored, %d of %d images are now without "
        "an object", part, _first(after.class_names), int(is_left_out.sum()), int(is_ignored.sum()),
        int((np.diff(new.starts) == 0).sum() - (np.diff(old.starts) == 0).sum()), new.num,
    )  # fmt: skip


def _listed(unknown: Sequence[str], known: Sequence[str]) -> str:
    """Return the names in words, each with the one that may be meant."""
    words = []
    for name in unknown[:_NUM_SHOWN]:
        folded = {other.casefold().strip(): other for other in known}
        near = difflib.get_close_matches(name.casefold().strip(), list(folded), n=1)
        words.append(f"{name!r}" + (f" (did you mean {folded[near[0]]!r}?)" if near else ""))
    return ", ".join(words) + (f" and {len(unknown) - _NUM_SHOWN} more" if len(unknown) > _NUM_SHOWN else "")


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NUM_SHOWN} more" if len(names) > _NUM_SHOWN else ""
    return ", ".join(map(repr, names[:_NUM_SHOWN])) + more
