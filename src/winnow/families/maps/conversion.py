"""``winnow convert nuscenes-map``: the ground truth of every sample, cut out of the cities' maps, in parallel, scene by scene."""

from __future__ import annotations

import functools
import hashlib
import itertools
import logging
import multiprocessing
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from winnow.errors import DataError
from winnow.families.maps.extra import require_extra
from winnow.families.maps.formats.infos import read_infos
from winnow.families.maps.formats.nuscenes import find_version, read_keyframes
from winnow.families.maps.keyframe import Keyframe, Refused
from winnow.families.maps.lines import CLASSES
from winnow.families.maps.truth import Recipe, SceneEntry, SceneTruth, TruthIndex, index_path, refused_rows

if TYPE_CHECKING:
    from winnow.families.maps.city_map import CityMap

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]

_UNUSUAL = re.compile(r"[^\w.-]", re.ASCII)
"""What of a scene's name is not taken into a file's."""


@dataclass(frozen=True)
class Infos:
    """Infos of mmdetection3d instead of tables, and what they don't say: the city and the scene."""

    path: Path
    city: str
    scene: str


@dataclass(frozen=True, eq=False)
class _Scene:
    """One scene to convert: its keyframes, its city's map file, and the file that it becomes."""

    name: str
    city: str
    map_path: Path
    map_checksum: str
    file: Path
    keyframes: Sequence[Keyframe]
    recipe: Recipe


def convert_nuscenes_map(
    root: Path,
    target: Path,
    recipe: Recipe,
    version: str | None = None,
    infos: Infos | None = None,
    num_workers: int = 0,
    progress: Progress | None = None,
) -> TruthIndex:
    """Write the ground truth of all samples below nuScenes' ``root`` into ``target`` and return its index; scenes that are there
    already, made by the same recipe from the same map file and samples, are kept. 0 workers: in this process.

    Raises DataError for tables and maps that can't be read, ConfigError without shapely.
    """
    require_extra("winnow convert nuscenes-map")
    if infos is not None:
        (keyframes, refused), version = read_infos(infos.path, infos.city, infos.scene), "infos"
    else:
        version = find_version(root, version)
        keyframes, refused = read_keyframes(root / version)
    target.mkdir(parents=True, exist_ok=True)
    scenes = list(_scenes(root, target, recipe, keyframes))
    _convert(scenes, num_workers, progress)
    index = _index_of(scenes, version, recipe, refused)
    index.write(index_path(target, recipe))
    return index


def _scenes(root: Path, target: Path, recipe: Recipe, keyframes: Sequence[Keyframe]) -> Iterator[_Scene]:
    from winnow.families.maps.formats.expansion import checksum_of, path_of

    checksum = functools.cache(checksum_of)
    for name, group in itertools.groupby(keyframes, key=lambda keyframe: keyframe.scene):
        own = list(group)
        map_path = path_of(root, own[0].city)
        map_checksum = checksum(map_path)
        key = recipe.key_with(map_checksum, _digest(own))
        file = target / f"{_UNUSUAL.sub('_', name)[:60]}.{key}.npz"
        yield _Scene(name, own[0].city, map_path, map_checksum, file, own, recipe)


def _digest(keyframes: Sequence[Keyframe]) -> str:
    sha = hashlib.sha256()
    for keyframe in keyframes:
        sha.update(f"{keyframe.token} {keyframe.yaw!r}".encode())
        sha.update(keyframe.xy.tobytes() + keyframe.lidar_to_ego.tobytes())
        for camera in keyframe.cameras:
            sha.update(f"{camera.path} {camera.width} {camera.height}".encode())
            sha.update(camera.intrinsics.tobytes() + camera.ego_to_camera.tobytes())
    return sha.hexdigest()


def _convert(scenes: Sequence[_Scene], num_workers: int, progress: Progress | None) -> None:
    missing = [scene for scene in scenes if not _is_done(scene)]
    if len(missing) < len(scenes):
        logger.info("%d of %d scenes are there already", len(scenes) - len(missing), len(scenes))
    done = itertools.count(len(scenes) - len(missing) + 1)
    if num_workers == 0:
        for scene in missing:
            convert_scene(scene)
            _tell(progress, next(done), len(scenes))
        return
    with ProcessPoolExecutor(num_workers, multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(convert_scene, scene) for scene in missing]
        try:
            for future in as_completed(futures):
                future.result()
                _tell(progress, next(done), len(scenes))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _tell(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)


def _is_done(scene: _Scene) -> bool:
    try:
        return scene.file.exists() and len(SceneTruth.read(scene.file, scene.name, scene.city).keyframes) > 0
    except DataError:
        return False


def convert_scene(scene: _Scene) -> None:
    """Write the ground truth of one scene."""
    from winnow.families.maps.city_map import Pose

    city_map = _city_map(scene.map_path, scene.map_checksum, scene.recipe.boundary_layers)
    lines, dropped = [], Counter[str]()
    for keyframe in scene.keyframes:
        pose = Pose(keyframe.xy, keyframe.yaw, keyframe.frame_to_ego(scene.recipe.map_frame))
        own, own_dropped = city_map.lines_at(pose, scene.recipe.region)
        lines.append(own)
        dropped += own_dropped
    SceneTruth(scene.keyframes, lines, dropped, city_map.repairs).write(scene.file)


@functools.cache
def _city_map(path: Path, checksum: str, boundary_layers: tuple[str, ...]) -> CityMap:
    """Return a city's map; a process reads one that has this ``checksum`` once."""
    del checksum
    from winnow.families.maps.formats.expansion import read_expansion

    return read_expansion(path, boundary_layers)


def _index_of(scenes: Sequence[_Scene], version: str, recipe: Recipe, refused: Sequence[Refused]) -> TruthIndex:
    lines, dropped, repairs = Counter[str](dict.fromkeys(CLASSES, 0)), Counter[str](), dict[str, Counter[str]]()
    entries = []
    for scene in scenes:
        truth = SceneTruth.read(scene.file, scene.name, scene.city)
        for own in truth.lines:
            lines.update(dict(zip(CLASSES, own.counts(), strict=True)))
        dropped += truth.dropped
        repairs[scene.city] = truth.repairs
        entries.append(SceneEntry(scene.name, scene.city, scene.file.name, len(truth.keyframes)))
    for counter in repairs.values():
        dropped += counter
    return TruthIndex(version, asdict(recipe), entries, dict(lines), dict(dropped), refused_rows(refused))


def describe(index: TruthIndex) -> str:
    """Return how many samples and lines there are, and what was dropped, for people."""
    words = f"{index.num_samples} samples of {len(index.scenes)} scenes: "
    words += ", ".join(f"{count} {name}" for name, count in index.lines.items())
    dropped = {f"{kind} (sample)": count for kind, count in Counter(kind for kind, *_ in index.refused).items()}
    dropped |= index.dropped
    return words + (
        "; dropped or repaired: " + ", ".join(f"{n} {kind}" for kind, n in dropped.items()) if dropped else ""
    )
