"""Predictions as files: COCO JSON written as it comes, and pictures with what was found."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from winnow.engine.progress import Progress
from winnow.errors import ConfigError
from winnow.run_folder import MadeFolders, unfinished_name
from winnow.trained.pictures import Picture

if TYPE_CHECKING:
    from winnow.trained.model import TrainedModel

logger = logging.getLogger(__name__)

FILE = "predictions.json"
_FOUND = ("annotations", "key_points", "lines")
"""Where a family's ``record()`` holds what was found."""
_ESCAPED = "backslashreplace"
"""What of a name is no character, as a byte of a file name in another encoding, is written as JSON's escape of it."""


@dataclass
class Report:
    """How many pictures were read, how many objects were found on them, and why others were left out."""

    num_read: int = 0
    num_found: int = 0
    problems: list[str] = field(default_factory=list)


class CocoWriter:
    """Writes a COCO file picture by picture, so that memory does not grow with their number; the file gets its name when it is
    whole. What a family's ``record()`` holds besides ``annotations`` stands under ``images``."""

    def __init__(self, path: Path, categories: Sequence[dict[str, Any]], info: dict[str, Any]) -> None:
        self._path = path
        self._parts = {
            name: unfinished_name(path.with_name(f"{name}_{path.name}")) for name in ("images", "annotations")
        }
        self._files: dict[str, TextIO] = {}
        self._head = json.dumps({"info": info, "categories": list(categories)}, ensure_ascii=False)
        self._num = {"images": 0, "annotations": 0}

    def __enter__(self) -> CocoWriter:
        self._files = {name: path.open("w+", encoding="utf-8", errors=_ESCAPED) for name, path in self._parts.items()}
        return self

    def add(self, record: dict[str, Any]) -> int:
        """Add a picture with what was found on it; return how many objects that is."""
        image_id = self._num["images"] + 1
        self._write("images", {"id": image_id, **{key: value for key, value in record.items() if key != "annotations"}})
        for annotation in record.get("annotations", []):
            self._write("annotations", {"id": self._num["annotations"] + 1, "image_id": image_id, **annotation})
        return next((len(record[name]) for name in _FOUND if name in record), 0)

    def _write(self, name: str, value: dict[str, Any]) -> None:
        file = self._files[name]
        file.write((",\n" if self._num[name] else "\n") + json.dumps(value, ensure_ascii=False))
        self._num[name] += 1

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            if kind is None:
                self._join()
        finally:
            for name, file in self._files.items():
                file.close()
                self._parts[name].unlink(missing_ok=True)

    def _join(self) -> None:
        unfinished = unfinished_name(self._path)
        with unfinished.open("w", encoding="utf-8", errors=_ESCAPED) as whole:
            whole.write(self._head[:-1])
            for name, file in self._files.items():
                whole.write(f',\n"{name}": [')
                file.seek(0)
                while text := file.read(1 << 20):
                    whole.write(text)
                whole.write("]")
            whole.write("}\n")
        unfinished.replace(self._path)


def write_predictions(
    model: TrainedModel,
    images: Sequence[Any],
    folder: Path,
    batch_size: int | None,
    exif: str,
    min_score: float | None,
) -> Report:
    """Write predictions.json into ``folder``, and into its ``pictures`` what was found of at least ``min_score`` (None: no
    pictures). Pictures that can't be read are logged and left out. Raises ConfigError where ``folder`` can't be written."""
    categories = [{"id": number, "name": name} for number, name in zip(model.category_ids, model.classes, strict=True)]
    report = Report()
    made = MadeFolders(folder / "pictures" if min_score is not None else folder)
    try:
        made.make()
        with (
            made,  # a command that is refused before its first picture leaves no folder
            CocoWriter(folder / FILE, categories, {"model": str(model.path.absolute()), "exif": exif}) as writer,
            Progress().task("predict", len(images)) as advance,
        ):
            for number, (picture, found) in enumerate(model.stream(images, batch_size, exif)):
                made.keep()
                advance(samples=1)
                if picture.problem is not None:
                    logger.error("%s; left out", picture.problem)
                    report.problems.append(picture.problem)
                    continue
                if report.num_read == 0 and not model.has_category_ids and "annotations" in found.record():
                    logger.warning(
                        "%s lacks the data set's category ids: %s has labels from 0 instead", model.path, FILE
                    )
                report.num_read += 1
                report.num_found += writer.add(found.record())
                if min_score is not None:
                    _draw(found, picture, folder / "pictures", number, min_score)
    except OSError as error:
        raise ConfigError(f"{folder} can't be written: {error}") from error
    return report


def _draw(found: Any, picture: Picture, folder: Path, number: int, min_score: float) -> None:
    """Write a picture under its own name; its number goes before a name that is taken."""
    path = folder / f"{Path(picture.name).stem}.png"
    while path.exists():
        path = folder / f"{number}_{path.name}"
    found.draw(picture.pixels, min_score).save(path)
