"""KAIST as it is downloaded: ``setXX/VYYY/{visible,lwir}``, and annotations of any of its three forms."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from winnow.errors import DataError
from winnow.families.pairs.formats.kaist_labels import JsonLabels, TxtLabels, XmlLabels
from winnow.families.pairs.frames import Frame, FrameLabels, PairSource, paired

FIRST_TEST_SET = 6
_SET, _VIDEO = re.compile(r"set\d\d"), re.compile(r"V\d\d\d")
_FLAT_TXT = re.compile(r"set\d\d_V\d\d\d_I\d+\.txt")
Labels = JsonLabels | XmlLabels | TxtLabels


def find_kaist(root: Path, annotations: Sequence[str] | None) -> PairSource:
    """Find the pairs under ``root``, or its folder ``images``, and their annotations: the files and folders ``annotations``
    (relative to ``root``), or, where it is None, all that lie right under ``root``, JSON before XML before txt. The first that
    knows a frame is believed. Raises DataError if there are none."""
    base = next((folder for folder in (root, root / "images") if _sub_folders(folder, _SET)), None)
    if base is None:
        raise DataError(
            f"data.kaist_root={root} holds no KAIST: no folder set00, set01 … in it or in its folder images"
        )
    frames: list[Frame] = []
    for video in (video for part in _sub_folders(base, _SET) for video in _sub_folders(part, _VIDEO)):
        sequence = f"{video.parent.name}/{video.name}"
        is_test = int(video.parent.name[3:]) >= FIRST_TEST_SET
        frames += paired(video / "visible", video / "lwir", f"{sequence}/", lambda _, s=sequence: s, is_test)  # type: ignore[misc]
    if annotations is None:
        sources = _sorted_sources(root, base)
        wanted = "a JSON file with im_name, a folder with setXX/VYYY/*.xml or *.txt, or one with setXX_VYYY_I*.txt"
        if not sources:
            raise DataError(f"data.kaist_root={root}: no annotations lie right under it: {wanted}")
    else:
        sources = [_named(root / name, name) for name in annotations]

    def labels(frame: Frame) -> FrameLabels | None:
        return next((found for source in sources if (found := source.labels(frame)) is not None), None)

    names = {frame.name for frame in frames}
    unused = Counter(
        {
            f"frame of {source.path.name} without a pair": len(source.names - names)
            for source in sources
            if isinstance(source, JsonLabels)
        }
    )
    words = ", else ".join(f"{source.path} ({source.form})" for source in sources)
    return PairSource("data.kaist", root, tuple(frames), labels, words, +unused)


def _named(path: Path, name: str) -> Labels:
    source = _source_at(path)
    if source is None:
        raise DataError(
            f"data.kaist_annotations: {name}: {path} holds no KAIST annotations (JSON, or a folder of XML or txt)"
        )
    return source


def _sorted_sources(root: Path, base: Path) -> list[Labels]:
    found = [source for path in sorted(root.iterdir()) if path != base and (source := _source_at(path)) is not None]
    order = {JsonLabels: 0, XmlLabels: 1, TxtLabels: 2}
    is_mended = re.compile("sanitized|improved")
    return sorted(found, key=lambda source: (order[type(source)], not is_mended.search(source.path.name)))


def _source_at(path: Path) -> Labels | None:
    if path.suffix == ".json":
        return JsonLabels.at(path)
    for part in _sub_folders(path, _SET):
        for video in _sub_folders(part, _VIDEO):
            suffixes = {Path(name).suffix for name in _entries(video)}
            if ".xml" in suffixes:
                return XmlLabels(path)
            if ".txt" in suffixes:
                return TxtLabels(path, is_flat=False)
    if any(_FLAT_TXT.fullmatch(name) for name in _entries(path)):
        return TxtLabels(path, is_flat=True)
    return None


def _sub_folders(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    return [folder / name for name in sorted(_entries(folder)) if pattern.fullmatch(name)]


def _entries(folder: Path) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            yield from (entry.name for entry in entries)
    except OSError:
        return
