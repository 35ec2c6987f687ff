"""What lies on disk of a data set of pairs: frames of two cameras, and the labels of each."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from winnow.data.image import image_size

_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Frame:
    """The two images of one moment; ``name`` is its id, ``sequence`` the recording that it is from, ``is_test`` that it belongs
    to the set's official test part, ``exists`` which of visible and infrared are there."""

    name: str
    sequence: str
    visible: Path
    infrared: Path
    exists: tuple[bool, bool]
    is_test: bool

    @property
    def lacks(self) -> str:
        """Return the name of the image that is not there; empty where both are."""
        return {(True, False): "infrared", (False, True): "visible"}.get(self.exists, "")


@dataclass(frozen=True, eq=False)
class FrameLabels:
    """What an annotation says of a frame of ``width`` × ``height`` px: ``boxes`` (N, 4) float64 xyxy as written, ``ignored`` (N,)
    bool what is neither to be learnt nor to be found."""

    width: int
    height: int
    boxes: np.ndarray
    ignored: np.ndarray


@dataclass(frozen=True)
class PairSource:
    """Everything of a data set: ``key`` is what its config keys begin with (``data.llvip``), ``labels`` gives those of a frame,
    None where nobody looked at it; ``words`` say which annotations are read; ``unused`` counts what of them fits no frame."""

    key: str
    root: Path
    frames: tuple[Frame, ...]
    labels: Callable[[Frame], FrameLabels | None]
    words: str
    unused: Counter[str] = field(default_factory=Counter)

    @property
    def sequences(self) -> list[str]:
        return sorted({frame.sequence for frame in self.frames})


def list_images(folder: Path) -> dict[str, Path]:
    """Return the images in ``folder`` by name without suffix, in the order of names; none where there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name.lower().endswith(_SUFFIXES))
    except OSError:
        return {}
    return {name.rsplit(".", 1)[0]: folder / name for name in names}


def paired(visible: Path, infrared: Path, prefix: str, sequence_of: Callable[[str], str], is_test: bool) -> list[Frame]:
    """Return the frames in two folders whose images have equal names; one that has no partner is a frame too."""
    of_visible, of_infrared = list_images(visible), list_images(infrared)
    frames = []
    for name in sorted(of_visible.keys() | of_infrared.keys()):
        one = of_visible.get(name) or of_infrared[name]
        paths = of_visible.get(name, visible / one.name), of_infrared.get(name, infrared / one.name)
        exists = name in of_visible, name in of_infrared
        frames.append(Frame(prefix + name, sequence_of(name), *paths, exists, is_test))
    return frames


def size_of(frame: Frame) -> tuple[int, int]:
    """Return width and height in px of the frame's visible image, or of the infrared where there is none, by its header. Raises
    DataError if it can't be read."""
    return image_size(frame.visible if frame.exists[0] else frame.infrared)


def labels_of(
    size: tuple[int, int], boxes: Sequence[tuple[float, float, float, float]], ignored: Sequence[bool]
) -> FrameLabels:
    """Return ``FrameLabels`` of lists."""
    return FrameLabels(*size, np.array(boxes, dtype=np.float64).reshape(-1, 4), np.array(ignored, dtype=bool))


def first(names: Sequence[str], most: int = 5) -> str:
    """Return the first of ``names``, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
