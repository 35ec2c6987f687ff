"""LLVIP as it is downloaded: ``visible`` and ``infrared``, each with ``train`` and ``test``, and one VOC XML per pair."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from pathlib import Path

from winnow.errors import DataError
from winnow.families.detection.formats.voc import read_voc
from winnow.families.pairs.frames import Frame, FrameLabels, PairSource, first, labels_of, paired
from winnow.families.pairs.records import CLASS_NAMES

_RELEASES = {16_836: "the first release's count", 15_488: "the count of the release of September 2021"}


def find_llvip(root: Path, annotations: str | None) -> PairSource:
    """Find the pairs under ``root`` and their annotations: in the folder ``annotations`` (relative to ``root``), or, where it is
    None, in the one sub-folder that holds XML files. Raises DataError if there are none, or several."""
    frames: list[Frame] = []
    for part in ("train", "test"):
        frames += paired(root / "visible" / part, root / "infrared" / part, "", _scene, part == "test")
    if not frames:
        raise DataError(
            f"data.llvip_root={root} holds no LLVIP: there is no image in visible/{{train,test}} or infrared/…"
        )
    twice = [name for name, count in Counter(frame.name for frame in frames).items() if count > 1]
    if twice:
        raise DataError(f"data.llvip_root={root}: in train as well as in test: {first(twice)}")
    folder = root / annotations if annotations is not None else _only_folder(root)
    sizes = _xml_sizes(folder)
    if not sizes:
        raise DataError(f"data.llvip_annotations={annotations}: there is no XML file in {folder}")

    def labels(frame: Frame) -> FrameLabels | None:
        return _read(folder / f"{frame.name}.xml") if f"{frame.name}.xml" in sizes else None

    names = {frame.name for frame in frames}
    unused = Counter({"annotation file without a pair": sum(name[:-4] not in names for name in sizes)})
    return PairSource("data.llvip", root, tuple(frames), labels, _version(folder, sizes), +unused)


def _scene(name: str) -> str:
    return name[:2]


def _only_folder(root: Path) -> Path:
    found = [path for path in sorted(root.iterdir()) if path.is_dir() and _xml_sizes(path)]
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise DataError(
            f"data.llvip_root={root}: one sub-folder with XML annotations is wanted, there is {names}; name it by "
            "data.llvip_annotations"
        )
    return found[0]


def _xml_sizes(folder: Path) -> dict[str, int]:
    """Return the XML files of ``folder`` and their sizes in bytes."""
    try:
        with os.scandir(folder) as entries:
            files = {entry.name: entry.stat().st_size for entry in entries if entry.name.endswith(".xml")}
    except OSError:
        return {}
    return dict(sorted(files.items()))


def _version(folder: Path, sizes: dict[str, int]) -> str:
    """Return which annotations these are: nothing in the files tells the versions apart, so by their number and a digest."""
    digest = hashlib.sha256(repr(sorted(sizes.items())).encode()).hexdigest()[:8]
    release = _RELEASES.get(len(sizes), "no release has so many")
    return f"{folder}: {len(sizes)} XML files ({release}), names and sizes {digest}"


def _read(path: Path) -> FrameLabels:
    file = read_voc(path)
    ignored = [entry.name not in CLASS_NAMES or entry.is_difficult for entry in file.objects]
    return labels_of((file.width, file.height), [entry.box for entry in file.objects], ignored)
