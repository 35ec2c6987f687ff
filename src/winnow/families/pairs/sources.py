"""The frames of each data set, split as its settings say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from winnow.errors import ConfigError
from winnow.families.pairs.formats.kaist import find_kaist
from winnow.families.pairs.formats.llvip import find_llvip
from winnow.families.pairs.frames import Frame, PairSource
from winnow.families.pairs.settings import CameraSettings
from winnow.families.pairs.splits import choose_frames, last_of_each_set, last_tenth

# Frames of KAIST that are evaluated on: every 20th of a recording, I00019, I00039 …, as the official test list has them.
_JUDGED_EVERY = 20
_NUMBER = re.compile(r"\d+$")


@dataclass(frozen=True)
class Selected:
    """What lies on disk, and which of its frames are trained and evaluated on."""

    source: PairSource
    train: list[Frame]
    val: list[Frame]


def select_llvip(settings: CameraSettings) -> Selected:
    """Find LLVIP and split it by scenes. Raises DataError or ConfigError as ``find_llvip`` and ``choose_frames`` do."""
    source = find_llvip(_root(settings.llvip_root, "data.llvip_root"), settings.llvip_annotations)
    return Selected(source, *choose_frames(source, settings.llvip_split, last_tenth))


def select_kaist(settings: CameraSettings) -> Selected:
    """Find KAIST and split it by recordings, as ``select_llvip`` does by scenes."""
    source = find_kaist(_root(settings.kaist_root, "data.kaist_root"), settings.kaist_annotations)
    return Selected(source, *choose_frames(source, settings.kaist_split, last_of_each_set, _is_judged))


def _is_judged(frame: Frame) -> bool:
    number = _NUMBER.search(frame.name)
    return number is not None and (int(number.group()) + 1) % _JUDGED_EVERY == 0


def _root(root: str | None, key: str) -> Path:
    if root is None:
        raise ConfigError(f"{key} is null; it must name the folder of the data set")
    if not Path(root).is_dir():
        raise ConfigError(f"{key}={root} is no folder")
    return Path(root)
