"""The one place that knows what can be wrong with an entry of a COCO file, and what training does about it."""

from __future__ import annotations

from enum import Enum


class Rule(Enum):
    """What an entry can violate: its label, the list it is in, and what training does about it.

    ``repair`` is None where training refuses the file; ``is_problem`` is false where nothing needs mending.
    """

    BAD_CATEGORY = "malformed category", "categories", None, True
    DUPLICATE_CATEGORY = "duplicate category id", "categories", None, True
    DUPLICATE_NAME = "duplicate category name", "categories", "renamed", True
    BAD_IMAGE = "malformed image", "images", None, True
    DUPLICATE_IMAGE = "duplicate image id", "images", None, True
    REPEATED_IMAGE = "repeated image entry", "images", "dropped", True
    OTHER_NAME = "file name not as the file is called", "images", "taken", True
    NO_SIZE = "size missing, taken from the image", "images", "taken", True
    EXCHANGED_SIZE = "width and height exchanged, taken from the image", "images", "taken", True
    TEXT_IN_CATEGORY = "number of a category written as text", "categories", "read", True
    TEXT_IN_IMAGE = "number of an image written as text", "images", "read", True
    DUPLICATE_FILE = "file listed under several image ids", "images", "kept", True
    EMPTY_IMAGE = "image without annotation", "images", "kept", False
    ORPHAN = "annotation without image", "annotations", "dropped", True
    REPEATED_ANNOTATION = "repeated annotation", "annotations", "dropped", True
    DUPLICATE_ID = "duplicate annotation id", "annotations", "kept", True
    UNKNOWN_CATEGORY = "unknown category", "annotations", None, True
    BAD_BOX = "malformed box", "annotations", None, True
    EMPTY_BOX = "box without area", "annotations", "dropped", True
    BOX_OUTSIDE = "box wholly outside the image", "annotations", "dropped", True
    BOX_CLIPPED = "box partly outside the image", "annotations", "clipped", True
    BAD_NUMBER = "iscrowd or area that is no number", "annotations", None, True
    TEXT_IN_ANNOTATION = "number of an annotation written as text", "annotations", "read", True
    BOX_OF_MASK = "no box, taken from the mask", "annotations", "taken", True
    SAME_BOX = "same box twice", "annotations", "kept", True
    SAME_BOX_DROPPED = "same box twice, dropped", "annotations", "dropped", True
    NO_AREA = "area missing", "annotations", "filled", False
    NO_CROWD_FLAG = "iscrowd missing", "annotations", "filled", False

    def __init__(self, label: str, table: str, repair: str | None, is_problem: bool) -> None:
        self.label = label
        self.table = table
        self.repair = repair
        self.is_problem = is_problem

    @property
    def is_refused(self) -> bool:
        return self.repair is None


# What to show of an entry beside its id.
SHOWN_KEYS: dict[Rule, tuple[str, ...]] = {
    Rule.BAD_CATEGORY: ("id", "name"),
    Rule.DUPLICATE_CATEGORY: ("name",),
    Rule.DUPLICATE_NAME: ("name",),
    Rule.BAD_IMAGE: ("file_name", "width", "height"),
    Rule.ORPHAN: ("image_id",),
    Rule.UNKNOWN_CATEGORY: ("category_id",),
    Rule.BAD_BOX: ("bbox",),
    Rule.BAD_NUMBER: ("iscrowd", "area"),
    Rule.OTHER_NAME: ("file_name",),
    Rule.NO_SIZE: ("width", "height"),
    Rule.EXCHANGED_SIZE: ("width", "height"),
    Rule.TEXT_IN_CATEGORY: ("id",),
    Rule.TEXT_IN_IMAGE: ("width", "height"),
    Rule.TEXT_IN_ANNOTATION: ("image_id", "category_id", "bbox", "area", "iscrowd"),
    Rule.SAME_BOX: ("bbox",),
    Rule.SAME_BOX_DROPPED: ("bbox",),
    Rule.EMPTY_BOX: ("bbox",),
    Rule.BOX_OUTSIDE: ("bbox",),
    Rule.BOX_CLIPPED: ("bbox",),
}
