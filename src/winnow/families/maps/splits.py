"""Which samples are trained on and which validated on: nuScenes' lists, one of ours that is disjoint in space, or a file's."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from winnow.errors import DataError
from winnow.families.maps.keyframe import Keyframe
from winnow.reading import read_yaml

DISJOINT_M = 60.0
"""No validation sample of the disjoint split lies nearer to a training sample."""
CELL_M = 300.0
"""The side of the squares that the disjoint split holds out as a whole."""
VAL_PART = 0.15
"""How much of each city's samples the disjoint split validates on, at least."""

# The numbers of the official scenes, as in nuscenes-devkit 1.2.0.
_TRAIN = (
    "1-2 4-11 19-34 41-76 120-135 138-139 149-152 154-155 157-168 170-185 187-188 190-196 199-200 202-204 206-214 218-220 222 "
    "224-264 283-306 315-318 321 323-324 328 347-386 388-403 405-408 410-459 461-465 467-469 471-472 474-480 499-502 504-515 "
    "517-518 525-539 541-546 566 568 570-578 580 582-600 639-679 681 683-689 695-698 700-701 703-719 726-728 730-731 733-741 744 "
    "746-747 749-752 757-765 767-769 786-787 789-792 803-806 808-813 815-817 819-822 847-856 858 860-866 868-873 875-878 880 "
    "882-903 945 947 949 952-953 955-961 975-984 988-992 994-1025 1044-1058 1074-1102 1104-1110"
)
_VAL = (
    "3 12-18 35-36 38-39 92-110 221 268-278 329-332 344-346 519-524 552-565 625-627 629-630 632-638 770-771 775 777-778 780-784 "
    "794-800 802 904-917 919-931 962-963 966-969 971-972 1059-1073"
)
_MINI_TRAIN, _MINI_VAL = "61 553 655 757 796 1077 1094 1100", "103 916"


def split_keyframes(keyframes: Sequence[Keyframe], split: str, version: str) -> tuple[list[int], list[int]]:
    """Return the places of training and of validation samples among ``keyframes``, in their order; some may be in neither.

    ``split`` is ``official`` (for tables of ``version``), ``disjoint``, or a YAML or JSON file with lists ``train`` and ``val``
    of scenes' names. Raises DataError where nothing is left to train on, and for scenes that are in both lists.
    """
    if split == "disjoint":
        train, val = disjoint(keyframes)
    else:
        train_names, val_names = official_scenes(version) if split == "official" else read_lists(Path(split))
        train, val = (
            [place for place, keyframe in enumerate(keyframes) if keyframe.scene in names]
            for names in (train_names, val_names)
        )
    if not train:
        raise DataError(f"data.split={split} leaves none of the {len(keyframes)} samples to train on")
    return train, val


def official_scenes(version: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the names of nuScenes' training and validation scenes: those of its mini set for ``v1.0-mini``."""
    lists = (_MINI_TRAIN, _MINI_VAL) if version == "v1.0-mini" else (_TRAIN, _VAL)
    return _names(lists[0]), _names(lists[1])


def read_lists(path: Path) -> tuple[frozenset[str], frozenset[str]]:
    """Return the scenes' names of a file's ``train`` and ``val``. Raises DataError."""
    content = read_yaml(path, "lists of scenes (data.split)", DataError)
    lists = [content.get(part) if isinstance(content, dict) else None for part in ("train", "val")]
    if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in lists):
        raise DataError(
            f"{path} can't be read as lists of scenes (data.split): it needs lists train and val of scenes' names"
        )
    train, val = (frozenset(map(str, names or ())) for names in lists)
    if train & val:
        raise DataError(f"{path}: {sorted(train & val)[0]} is in train and in val")
    return train, val


def disjoint(keyframes: Sequence[Keyframe]) -> tuple[list[int], list[int]]:
    """Return places of samples so that none to validate on lies within ``DISJOINT_M`` of one to train on.

    Squares of ``CELL_M`` of each city are held out whole, in an order that depends on their places alone, until they hold
    ``VAL_PART`` of its samples; training samples too near to them are left out.
    """
    train: list[int] = []
    val: list[int] = []
    for city in sorted({keyframe.city for keyframe in keyframes}):
        places = np.array([place for place, keyframe in enumerate(keyframes) if keyframe.city == city])
        xy = np.array([keyframes[place].xy for place in places])
        is_val = _held_out(city, xy)
        is_near = np.zeros(len(places), dtype=bool)
        if is_val.any():
            distances, _ = cKDTree(xy[is_val]).query(xy, distance_upper_bound=DISJOINT_M * 1.001)
            is_near = distances <= DISJOINT_M
        val += places[is_val].tolist()
        train += places[~is_val & ~is_near].tolist()
    return sorted(train), sorted(val)


def nearest_training_sample(
    keyframes: Sequence[Keyframe], train: Sequence[int], val: Sequence[int]
) -> NDArray[np.float64]:
    """Return for each validation sample how far the nearest training sample of its city is, in m; infinite if there is none."""
    distances = np.full(len(val), np.inf)
    for city in {keyframes[place].city for place in val}:
        there = np.array([keyframes[place].xy for place in train if keyframes[place].city == city])
        rows = [row for row, place in enumerate(val) if keyframes[place].city == city]
        if len(there):
            distances[rows] = cKDTree(there).query([keyframes[val[row]].xy for row in rows])[0]
    return distances


def _held_out(city: str, xy: NDArray[np.float64]) -> NDArray[np.bool_]:
    cells = [tuple(cell) for cell in np.floor(xy / CELL_M).astype(int).tolist()]
    counts = Counter(cells)
    order = sorted(counts, key=lambda cell: hashlib.sha256(f"{city} {cell[0]} {cell[1]}".encode()).digest())
    chosen: set[tuple[int, ...]] = set()
    while sum(counts[cell] for cell in chosen) < VAL_PART * len(xy) and len(chosen) + 1 < len(order):
        chosen.add(order[len(chosen)])
    return np.array([cell in chosen for cell in cells], dtype=bool)


def _names(numbers: str) -> frozenset[str]:
    spans = [[int(end) for end in span.split("-")] for span in numbers.split()]
    return frozenset(f"scene-{number:04d}" for span in spans for number in range(span[0], span[-1] + 1))
