"""``winnow data describe``: what a folder holds, and the command to train on it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winnow.errors import CLEAN, PROBLEMS

if TYPE_CHECKING:
    from winnow.families.detection.describe import Description


def add_describe(data: Any) -> None:
    """Add the subcommand to those of ``winnow data``; import nothing heavy."""
    describe = data.add_parser(
        "describe",
        help="say what a folder holds, and the command to train on it",
        description="Recognise COCO JSON, Roboflow's exports, Pascal VOC, YOLO and BDD100K, and count what is there. Images are "
        "not decoded: winnow data check does that.",
    )
    describe.add_argument("path", type=Path, help="folder, COCO JSON or data.yaml")
    describe.set_defaults(run=_describe)


def _describe(options: argparse.Namespace) -> int:
    from winnow.config.quoting import for_shell, quoted_override
    from winnow.families.detection.describe import describe_data
    from winnow.output import visible

    found = describe_data(options.path)
    print_splits(found)
    if not {"train", "all"} & found.splits.keys():
        print("there is no train split: nothing to train on")
        return PROBLEMS
    overrides = dict(found.overrides)
    if "val" not in found.splits and overrides["data"] != "bdd100k":  # a run without one says nothing of how good it is
        overrides["data.val_part"] = "0.15"
    words = " ".join(for_shell(quoted_override(*item)) for item in overrides.items())
    print(visible(f"train with: winnow train {words}"))
    return CLEAN


def print_splits(found: Description) -> None:
    """Print the format of a data set, its splits and how often each class is there."""
    from winnow.output import visible

    print(f"format: {found.format}")
    for split, part in found.splits.items():
        (width, height), (widest, highest) = part.smallest, part.largest
        sizes = f"{width}×{height}" if part.smallest == part.largest else f"{width}…{widest} × {height}…{highest}"
        print(
            f"{split}: {part.num_images} images of {sizes} px, {part.num_boxes} boxes, {part.num_empty} images without any"
        )
        print("".join(f"  {note}\n" for note in map(visible, part.notes)), end="")
    for name in dict.fromkeys(name for part in found.splits.values() for name in part.boxes_of):
        counts = ", ".join(f"{part.boxes_of.get(name, 0)} {split}" for split, part in found.splits.items())
        print(visible(f"class {name}: {counts}"))
