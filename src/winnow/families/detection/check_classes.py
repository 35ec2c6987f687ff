"""What the check says of classes: how many objects each has in a split, which have none, and which only val has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from winnow.data.check import Finding
from winnow.data.split_by_hash import place_of
from winnow.families.detection.class_choice import names_to_learn
from winnow.families.detection.class_counts import count_labels, without_object
from winnow.families.detection.formats.coco_table import CocoTable
from winnow.families.detection.held_out import held_out_mask
from winnow.families.detection.settings import ChosenSettings, HeldOutSettings


@dataclass(frozen=True, eq=False)
class SplitClasses:
    """The classes of a split by label, and of each object that can be learnt its label and the hash of its image's file, None
    where that can't be read."""

    names: tuple[str, ...]
    labels: np.ndarray
    hashes: tuple[str | None, ...]

    @classmethod
    def of(cls, table: CocoTable, hashes: Mapping[str, str]) -> SplitClasses:
        rows = np.flatnonzero(table.keep & ~table.crowd & (table.labels >= 0))
        files = [table.file_names[row] for row in table.image_rows[rows].tolist()]
        return cls(table.class_names, table.labels[rows], tuple(hashes.get(file) for file in files))


def objects_in_parts(splits: Mapping[str, SplitClasses], settings: ChosenSettings | None) -> dict[str, dict[str, int]]:
    """Return part → class → objects, of the classes that are learnt, as ``settings`` choose them and hold a part out."""
    names = {part: split.names for part, split in splits.items()}
    wanted = names_to_learn(names, settings.classes, settings.ignore_categories) if settings else names["train"]
    counts = {part: count_labels(split.labels, split.names) for part, split in splits.items()}
    if isinstance(settings, HeldOutSettings) and settings.holds_out:
        train = splits["train"]
        is_val = held_out_mask(np.array([place_of(hash) if hash else np.nan for hash in train.hashes]), settings)
        counts = {
            part: count_labels(train.labels[mask], train.names) for part, mask in (("train", ~is_val), ("val", is_val))
        }
    return {part: {name: of_part.get(name, 0) for name in wanted} for part, of_part in counts.items()}


def absent_classes(objects: Mapping[str, Mapping[str, int]]) -> dict[str, list[Finding]]:
    """Return part → a finding for each class without an object in it."""
    return {
        part: [
            Finding("class without an object", "", None, f"{name!r} has none in {part}", is_problem=False)
            for name in without_object(counts)
        ]
        for part, counts in objects.items()
    }


def foreign_classes(splits: Mapping[str, SplitClasses], settings: ChosenSettings | None) -> Iterator[Finding]:
    """Give the classes of val that train lacks, where they are not left out or ignored; a run refuses them."""
    if "val" not in splits or (settings is not None and settings.classes is not None):
        return
    ignored = settings.ignore_categories if settings is not None else ()
    for name in splits["val"].names:
        if name not in splits["train"].names and name not in ignored:
            yield Finding("class that train lacks", "", None, f"{name!r} is in val alone")
