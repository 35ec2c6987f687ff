"""Real drives through real maps, twice a second: what ``data=map_rendered`` renders."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from winnow.errors import ConfigError, DataError
from winnow.families.maps.formats.infos import read_infos
from winnow.families.maps.keyframe import Keyframe
from winnow.families.maps.lines import MapLines
from winnow.families.maps.settings import MapRenderedSettings
from winnow.families.maps.sources import Scene

if TYPE_CHECKING:
    from winnow.families.maps.formats.vector_map import TrackedScene

INFOS = "infos_mmdet3d_v1.1.json"
TRACKS = "vector_map"


@dataclass(frozen=True, eq=False)
class Drives:
    """``scenes`` in the order of their names, and the keyframe whose cameras see them."""

    keyframe: Keyframe
    scenes: Sequence[TrackedScene]

    @property
    def cities(self) -> list[str]:
        return sorted({scene.city for scene in self.scenes})


class DriveScenes:
    """Places of drives with their lines, each the same in every epoch."""

    def __init__(self, scenes: Sequence[Scene], lines: Sequence[MapLines]) -> None:
        self.scenes, self.lines = scenes, lines

    def __len__(self) -> int:
        return len(self.scenes)

    def __call__(self, place: int, epoch: int) -> Scene:
        del epoch
        return self.scenes[place]

    @property
    def cities(self) -> set[str]:
        return {scene.city for scene in self.scenes}

    def take(self, places: Sequence[int]) -> Self:
        return type(self)([self.scenes[place] for place in places], [self.lines[place] for place in places])

    def digest(self) -> bytes:
        """Return a checksum of what these are."""
        sha = hashlib.sha256()
        for scene, lines in zip(self.scenes, self.lines, strict=True):
            sha.update(scene.image_id.encode(errors="surrogatepass"))
            sha.update(lines.vertices.tobytes() + lines.starts.tobytes() + lines.labels.tobytes())
        return sha.digest()


def read_drives(root: Path, cities: Sequence[str]) -> Drives:
    """Return the drives in ``root``: ``vector_map/*.json``, and the calibration of the first sample of the infos beside it.
    Raises DataError, and ConfigError where no drive is in one of ``cities``."""
    from winnow.families.maps.formats.vector_map import read_scene

    paths = sorted((root / TRACKS).glob("*.json"))
    if not paths:
        raise DataError(f"{root / TRACKS} holds no scene (data.root)")
    keyframes, refused = read_infos(root / INFOS, "", "")
    if not keyframes:
        why = f": sample {refused[0].token:.60}: {refused[0].kind}, {refused[0].detail}" if refused else ""
        raise DataError(f"{root / INFOS} holds no sample whose six calibrations could be used{why}")
    drives = Drives(keyframes[0], [read_scene(path) for path in paths])
    unknown = sorted(set(cities) - set(drives.cities))
    if unknown:
        raise ConfigError(
            f"data.train_cities and data.val_cities: no drive of {root / TRACKS} is in {unknown[0]!r}; there are "
            f"{', '.join(drives.cities)}"
        )
    return drives


def drive_scenes(drives: Drives, cities: Sequence[str], settings: MapRenderedSettings) -> DriveScenes:
    """Return the places of all drives in ``cities``, one per ``data.seconds``. Raises DataError where none is that long."""
    from winnow.families.maps.city_map import Pose

    frame_to_ego = drives.keyframe.frame_to_ego(settings.map_frame)
    scenes, lines = [], []
    for number, drive in enumerate(drives.scenes):
        for place in drive.every(settings.seconds) if drive.city in cities else ():
            pose = Pose(drive.xy[place], float(drive.yaw[place]), frame_to_ego)
            own, _ = drive.city_map.lines_at(pose, settings.area)
            city_map = partial(getattr, drive, "city_map")
            scenes.append(Scene(f"{drive.name}_{place}", drive.city, city_map, pose, own, [number, place]))
            lines.append(own)
    if cities and not scenes:
        names = ", ".join(drive.name for drive in drives.scenes if drive.city in cities)
        folder, where = Path(settings.root) / TRACKS, ", ".join(cities)
        raise DataError(f"{folder}: no drive in {where} lasts data.seconds={settings.seconds:g}: {names:.200}")
    return DriveScenes(scenes, lines)
