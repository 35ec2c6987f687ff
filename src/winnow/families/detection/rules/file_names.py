"""Finds the files that a label file means whose names are not written as the files are called."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unicodedata import normalize
from urllib.parse import unquote, urlsplit

from winnow.families.detection.formats.conversion import PICTURE_SUFFIXES, SPLITS

LOOKED_FOR = (
    "looked for it with other separators, accents composed or not, %20 and the like decoded, in other case, with another "
    "extension, without the folders before it, and in folders below"
)
_SPLIT_OF = {name: split for split, names in SPLITS.items() for name in names}


@dataclass(frozen=True)
class FoundNames:
    """``taken``: name → the one file that fits, relative to the folder; ``lost``: name → the files that fit, none or several."""

    taken: Mapping[str, str] = field(default_factory=dict)
    lost: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def find_names(names: Collection[str], folder: Path, used: Collection[str] = ()) -> FoundNames:
    """Find the file below ``folder`` that fits each of ``names``, which are no files as they stand. ``used`` are files, relative
    to it, that other names mean; a file that two names would mean is nobody's."""
    files = _Files(folder)
    fitting = {name: files.fitting(name) for name in dict.fromkeys(names)}
    claims = Counter(found[0] for found in fitting.values() if len(found) == 1)
    claims.update(os.path.normpath(path) for path in used)
    taken = {name: found[0] for name, found in fitting.items() if len(found) == 1 and claims[found[0]] == 1}
    return FoundNames(taken, {name: tuple(found) for name, found in fitting.items() if name not in taken})


class _Files:
    """The files below a folder, by name as it is compared; read when first asked for."""

    def __init__(self, folder: Path) -> None:
        self._parts_of_folder = [part.casefold() for part in Path(os.path.abspath(folder)).parts]
        self._files = list(_files_below(folder))
        self._by_base: dict[int, dict[str, list[str]]] = {}

    def fitting(self, name: str) -> list[str]:
        """Return the files that fit ``name`` in the first way in which any does."""
        plain = _plain(name)
        for keeps_folders in (True, False):
            for level in range(len(_LEVELS)):
                wanted = _as_compared(plain, level).split("/")
                near = self._near(level).get(wanted[-1], [])
                found = [
                    file for file in near if self._agrees(wanted, _as_compared(file, level).split("/"), keeps_folders)
                ]
                if found:
                    return found
        return []

    def _near(self, level: int) -> dict[str, list[str]]:
        if level not in self._by_base:
            by_base = defaultdict(list)
            for file in self._files:
                if level == _ANY_EXTENSION and os.path.splitext(file)[1].lower() not in PICTURE_SUFFIXES:
                    continue  # labels may lie beside the pictures
                by_base[_as_compared(file, level).rpartition("/")[2]].append(file)
            self._by_base[level] = by_base
        return self._by_base[level]

    def _agrees(self, wanted: Sequence[str], file: Sequence[str], keeps_folders: bool) -> bool:
        """Tell whether the folders of one are the last of the other's, where ``keeps_folders``, and name no other split."""
        shorter = min(len(wanted), len(file)) if keeps_folders else 1
        if wanted[-shorter:] != file[-shorter:]:
            return False
        before, below = wanted[:-shorter], file[:-shorter]
        splits = {_SPLIT_OF[part.casefold()] for part in before if part.casefold() in _SPLIT_OF}
        places = {_SPLIT_OF[part.casefold()] for part in below if part.casefold() in _SPLIT_OF}
        if splits:
            places |= {_SPLIT_OF[part] for part in self._parts_of_folder[-2:] if part in _SPLIT_OF}
        return not places or bool(splits & places)


def _plain(name: str) -> str:
    """Return a name with / between its parts, without drive, host, query, and parts that lead nowhere."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", name):
        name = urlsplit(name).path
    parts = [
        part
        for part in re.sub(r"^[A-Za-z]:", "", name.strip()).replace("\\", "/").split("/")
        if part not in ("", ".", "..")
    ]
    return "/".join(parts)


_LEVELS = (
    lambda name: name,
    lambda name: normalize("NFC", name),
    lambda name: normalize("NFC", unquote(name)),
    lambda name: normalize("NFC", unquote(name).casefold()),
    lambda name: normalize("NFC", re.sub(r"\.[^./]{1,5}$", "", unquote(name).casefold())),
)
"""Ways of comparing names, from the strictest on."""
_ANY_EXTENSION = len(_LEVELS) - 1


def _as_compared(name: str, level: int) -> str:
    return _LEVELS[level](name)


def _files_below(folder: Path) -> Iterator[str]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = os.path.relpath(place, folder)
        yield from (name if inside == "." else f"{inside}/{name}" for name in sorted(names))
