"""Keeps drawn pairs as files: PNGs as a camera's would lie there, and what is on them as JSON."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from PIL import Image
from pydantic import Field

from winnow.errors import DataError
from winnow.families.detection.formats.records import CocoSplit
from winnow.families.pairs.records import CATEGORY_IDS, CLASS_NAMES, PairRecord
from winnow.families.pairs.synthetic.drawing import HEIGHT, WIDTH, DrawnPair, draw_pair
from winnow.reading import UnreadableError, as_record, read_json
from winnow.settings import Settings

logger = logging.getLogger(__name__)

# Part of the folder's name: raise it when the same settings draw other pairs than before.
_VERSION = 2
SPLITS = ("train", "val")


class SyntheticSettings(Settings):
    """The keys of ``conf/data/pairs_synthetic.yaml`` that decide what is drawn."""

    num_train: int = Field(gt=0)
    num_val: int = Field(ge=0)
    seed: int = Field(ge=0)


@dataclass(frozen=True)
class StoredFigure:
    """What is kept of a figure: see ``figures.Figure``."""

    kind: str
    box: tuple[int, int, int, int]
    seen_in: tuple[bool, bool]


def make_pairs(root: Path, settings: SyntheticSettings) -> Path:
    """Return the folder of the data set with these settings (``{visible,infrared}/{train,val}/``, ``figures_….json``), drawn
    first if it is not there yet."""
    folder = root / f"v{_VERSION}_train{settings.num_train}_val{settings.num_val}_seed{settings.seed}"
    if folder.is_dir():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".lock"):
        if folder.is_dir():
            return folder
        logger.info("drawing %d train and %d val pairs into %s", settings.num_train, settings.num_val, folder)
        unfinished = root / f".{folder.name}.{os.getpid()}"
        try:
            for number, count in enumerate((settings.num_train, settings.num_val)):
                _write(unfinished, SPLITS[number], [draw_pair(settings.seed, number, index) for index in range(count)])
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def read_pairs(folder: Path, split: str) -> CocoSplit:
    """Return the ``train`` or ``val`` pairs that ``make_pairs`` wrote. Raises DataError naming the file and the pair where what
    it wrote was changed since."""
    path = folder / f"figures_{split}.json"
    content = read_json(path, "figures of drawn pairs", DataError)
    if not isinstance(content, Mapping):
        raise DataError(f"{path} holds a {type(content).__name__}, no figures by pair; delete {folder} to draw it anew")
    records = tuple(_record(folder, split, name, figures, path) for name, figures in content.items())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return CocoSplit(records, CLASS_NAMES, CATEGORY_IDS, f"pairs{_VERSION}-{digest}", Counter())


def _write(folder: Path, split: str, pairs: list[DrawnPair]) -> None:
    for modality in ("visible", "infrared"):
        (folder / modality / split).mkdir(parents=True)
    content: dict[str, Any] = {}
    for number, pair in enumerate(pairs, start=1):
        name = f"{number:06d}"
        for modality, pixels in (("visible", pair.visible), ("infrared", pair.infrared)):
            Image.fromarray(pixels).save(folder / modality / split / f"{name}.png", compress_level=1)
        content[name] = [{"kind": f.kind, "box": f.box, "seen_in": f.seen_in} for f in pair.figures]
    (folder / f"figures_{split}.json").write_text(json.dumps(content))


def _record(folder: Path, split: str, name: str, figures: Any, path: Path) -> PairRecord:
    try:
        stored = [as_record(StoredFigure, figure) for figure in figures]
    except (UnreadableError, TypeError) as error:
        raise DataError(f"{path}: pair {name!r:.80}: {error}; delete {folder} to draw it anew") from None
    persons = [figure for figure in stored if figure.kind == "person"]
    boxes = np.array([person.box for person in persons], dtype=np.float32).reshape(-1, 4)
    return PairRecord(
        image_id=name,
        path=folder / "visible" / split / f"{name}.png",
        width=WIDTH,
        height=HEIGHT,
        boxes=boxes,
        labels=np.zeros(len(persons), dtype=np.int64),
        areas=(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
        crowd=np.zeros(len(persons), dtype=bool),
        infrared=folder / "infrared" / split / f"{name}.png",
        exists=(True, True),
        sequence=split,
        seen_in=np.array([person.seen_in for person in persons], dtype=bool).reshape(-1, 2),
    )
