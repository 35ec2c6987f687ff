"""What of the true boxes reaches a model: at an image size, and within the number of objects that it can give."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from winnow.errors import DataError
from winnow.families.detection.formats.records import Columns, ImageRecord, columns_of
from winnow.families.detection.transforms import MIN_SIDE, resized_size

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BoxCounts:
    """``boxes`` of a split, of which ``crowds`` are never learnt from, and how many of the others are large enough at each
    image size."""

    boxes: int
    crowds: int
    trainable: Mapping[int, int]

    @classmethod
    def of(cls, records: Sequence[ImageRecord], sizes: Sequence[int], square: bool, drops_small: bool) -> BoxCounts:
        """Count those of ``records`` at image ``sizes``, uncropped; ``drops_small`` says that boxes with a side below 1 px are
        left out."""
        columns = columns_of(records)
        crowd = columns.crowd
        boxes, owners = columns.boxes[~crowd], columns.owners[~crowd]
        trainable = {}
        for size in sizes:
            sides = (boxes.reshape(-1, 2, 2) * _ratios(columns, size, square)[owners][:, None]).astype(np.float32)
            is_large = ((sides[:, 1] - sides[:, 0]) >= MIN_SIDE).all(axis=1)
            trainable[size] = int(is_large.sum()) if drops_small else len(boxes)
        return cls(len(crowd), int(crowd.sum()), trainable)

    def words(self) -> str:
        """Return the counts for the log."""
        sizes = ", ".join(f"{count} at {size} px" for size, count in self.trainable.items())
        return f"trainable: {sizes}"

    def require_some(self) -> None:
        """Raise DataError where a run would have nothing to learn from; warn of a size at which more than half of it is lost."""
        if not any(self.trainable.values()):
            small = self.boxes - self.crowds
            raise DataError(
                f"nothing to learn from: none of the {self.boxes} boxes of the training images is trainable, {self.crowds} "
                f"are crowds and {small} have a side below {MIN_SIDE:g} px at size ({', '.join(map(str, self.trainable))}); "
                "see to the annotations, or raise data.image_size (training.resize_schedule)"
            )
        wanted = self.boxes - self.crowds
        for size, count in self.trainable.items():
            if 2 * count < wanted:
                logger.warning(
                    "at image size %d only %d of the %d boxes of the training images are trainable: the others have "
                    "a side below %g px and are left out; raise data.image_size (training.resize_schedule) if they matter",
                    size, count, wanted, MIN_SIDE,
                )  # fmt: skip


def warn_of_crowded(part: str, records: Sequence[ImageRecord], key: str, limit: int) -> None:
    """Warn where images of a ``part`` hold more objects than ``limit``, which the config's ``key`` sets."""
    columns = columns_of(records)
    counts = np.bincount(columns.owners[~columns.crowd], minlength=columns.num)
    over = int((counts > limit).sum())
    if over:
        most = int(counts.argmax())
        logger.warning(
            "%d of %d %s images hold more objects than %s=%d: %d objects go beyond it; the most are in image id %s, %d",
            over, len(records), part, key, limit, int((counts - limit).clip(min=0).sum()), records[most].image_id, counts[most],
        )  # fmt: skip


def _ratios(columns: Columns, size: int, square: bool) -> np.ndarray:
    """Return (N, 2) float32, what x and y of each image are multiplied by."""
    sides, which = np.unique(columns.sizes, axis=0, return_inverse=True)
    new = [resized_size(height, width, size, square)[::-1] for width, height in sides.tolist()]
    return (np.array(new, dtype=np.float64).reshape(-1, 2) / sides)[which.reshape(-1)].astype(np.float32)
