"""What is done with values of label files that are not as their format says: the keys, and what holds where none is given."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field

from winnow.data.pixel_rule import Exif
from winnow.settings import Settings

BoxFormat = Literal["xywh", "xyxy", "cxcywh"]
BoxUnit = Literal["pixels", "fraction"]
Mend = Literal["numbers", "file_names", "sizes", "masks", "jpeg_ends"]
MENDS: tuple[Mend, ...] = ("numbers", "file_names", "sizes", "masks", "jpeg_ends")


class Convention(NamedTuple):
    """What the four numbers of a box mean."""

    format: BoxFormat
    unit: BoxUnit


COCO_BOXES = Convention("xywh", "pixels")
CORNERS = Convention("xyxy", "pixels")
YOLO_BOXES = Convention("cxcywh", "fraction")


class LabelSettings(Settings):
    """The keys of ``conf/data/labels.yaml``; None for a convention is what the format says, unless the boxes speak against it."""

    box_format: BoxFormat | None = None
    box_unit: BoxUnit | None = None
    drop_duplicates: bool = False
    mend: list[Mend] = Field(default_factory=lambda: list(MENDS))


@dataclass(frozen=True)
class Reading:
    """How a COCO file is read: the folder of its ``images``, the ``labels``' rules, what its boxes mean unless they say otherwise
    (``native``; the file itself is COCO's), by which EXIF orientation sizes are judged, and where what the pictures' headers say
    is kept. ``knows_pictures`` is false where nobody need look at them: winnow drew them."""

    images: Path | None = None
    labels: LabelSettings = field(default_factory=LabelSettings)
    native: Convention = COCO_BOXES
    exif: Exif = "auto"
    cache: Path | None = None
    knows_pictures: bool = True

    @property
    def held(self) -> Convention:
        """Return what the numbers of boxes mean: what the keys say, else what the format does."""
        return Convention(self.labels.box_format or self.native.format, self.labels.box_unit or self.native.unit)

    @property
    def reads_anew(self) -> bool:
        """Tell whether a file that was converted to COCO's boxes is read as other numbers than it was converted from."""
        return self.native not in (COCO_BOXES, self.held)

    def mends(self, what: Mend) -> bool:
        return what in self.labels.mend

    def before(self) -> Reading:
        """Return how the same was read when these rules were not there yet."""
        held = LabelSettings(box_format=self.native.format, box_unit=self.native.unit, mend=[])
        return replace(self, labels=held, exif="by_size")
