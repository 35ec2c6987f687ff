"""A pair before it is read: where its two images lie, and what is true of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from winnow.families.detection.formats.records import ImageRecord

CLASS_NAMES = ("person",)
CATEGORY_IDS = (1,)


@dataclass(frozen=True, eq=False, slots=True)
class PairRecord(ImageRecord):
    """Two images of one size and their objects; ``path`` is the visible one's.

    ``exists`` says which of (visible, infrared) lie on disk; ``seen_in`` (N, 2) bool which of them shows each object, None where
    nobody knows; ``sequence`` is the recording, or scene, that the pair is from.
    """

    infrared: Path
    exists: tuple[bool, bool]
    sequence: str
    seen_in: np.ndarray | None = None

    @property
    def paths(self) -> tuple[Path, Path]:
        """Return where the visible and the infrared image lie, or should."""
        return self.path, self.infrared
