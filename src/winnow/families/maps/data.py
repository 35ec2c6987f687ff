"""Map data sets as the engine sees them: the builders of ``data=nuscenes_map``, ``map_synthetic`` and ``map_rendered``."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from winnow.builders import builder
from winnow.data.plan import LoadingSettings
from winnow.data.splits import DataFacts, SplitData, chosen_samples
from winnow.errors import DataError
from winnow.families.maps.batch import MapBatch
from winnow.families.maps.check import check_map_rendered, check_map_synthetic, check_nuscenes_map
from winnow.families.maps.drives import drive_scenes, read_drives
from winnow.families.maps.extra import require_extra
from winnow.families.maps.frame import frame_to_ego_of
from winnow.families.maps.keyframe import Keyframe
from winnow.families.maps.lines import CLASSES, MapLines
from winnow.families.maps.rendering.views import LIDAR_TO_EGO, nominal_cameras
from winnow.families.maps.samples import Collate, MapSamples, MapSource
from winnow.families.maps.settings import MapRenderedSettings, MapSettings, MapSyntheticSettings, NuscenesMapSettings
from winnow.families.maps.sources import ConvertedSource, RenderedSource
from winnow.families.maps.splits import split_keyframes
from winnow.families.maps.synthetic import CITY, RandomScenes
from winnow.families.maps.truth import SceneTruth, read_index
from winnow.settings import build_settings

logger = logging.getLogger(__name__)


class MapData(SplitData):
    """Obeys ``protocols.Data``: batches of six-camera samples.

    ``cities`` are those that samples may lie in, ``region`` and ``num_points`` what a model's lines are to be in;
    ``num_val_lines`` counts the validation set's lines of each class, None where that would mean to draw them all;
    ``lines_per_sample`` those of each sample by part, empty then.
    """

    def __init__(
        self,
        train: MapSource,
        val: MapSource,
        cities: Collection[str],
        settings: MapSettings,
        loading: LoadingSettings,
        fingerprint: str,
        num_val_lines: list[int] | None = None,
        patience_seconds: float = 0.0,
        max_bad_samples: int = 0,
        lines_per_sample: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self.cities = tuple(sorted(cities))
        self.region, self.num_points = settings.area, settings.num_points
        self.num_val_lines = num_val_lines
        self.lines_per_sample = lines_per_sample or {}
        self._max_bad_samples = max_bad_samples
        self._problems: set[str] = set()
        augmentation = settings.augmentation if loading.overfit is None else None
        super().__init__(
            DataFacts(CLASSES, fingerprint, settings.image_size),
            MapSamples(train, augmentation, loading.seed), MapSamples(val, None, loading.seed),
            Collate(settings.num_points), loading, patience_seconds,
        )  # fmt: skip

    def checked(self, batches: Iterator[MapBatch]) -> Iterator[MapBatch]:
        """Pass on the batches while no more than ``data.max_bad_samples`` different samples can't be read."""
        for batch in batches:
            for problem in batch.problems:
                if problem not in self._problems:
                    logger.error("%s; left out", problem)
                    self._problems.add(problem)
            if len(self._problems) > self._max_bad_samples:
                shown = "\n  ".join(sorted(self._problems)[:20])
                limit = f"data.max_bad_samples={self._max_bad_samples}"
                raise DataError(f"{len(self._problems)} samples can't be read, more than {limit}:\n  {shown}")
            yield batch


@builder(NuscenesMapSettings, check=check_nuscenes_map)
def nuscenes_map(*, loading: LoadingSettings, **values: Any) -> MapData:
    """Build the data of nuScenes' images with ground truth that ``winnow convert nuscenes-map`` made."""
    settings = build_settings(NuscenesMapSettings, values, "data")
    folder = Path(settings.ground_truth)
    index = read_index(folder, settings.recipe)
    samples: list[tuple[Keyframe, MapLines]] = []
    for scene in index.scenes:
        truth = SceneTruth.read(folder / scene.file, scene.name, scene.city)
        samples += zip(truth.keyframes, truth.lines, strict=True)
    train_places, val_places = split_keyframes([keyframe for keyframe, _ in samples], settings.split, index.version)
    train = [samples[train_places[index]] for index in chosen_samples(len(train_places), loading)]
    val = train if loading.overfit is not None else [samples[place] for place in val_places]
    _log("train", [lines for _, lines in train], {keyframe.city for keyframe, _ in train})
    num_val_lines = _log("val", [lines for _, lines in val], {keyframe.city for keyframe, _ in val})
    sha = hashlib.sha256(
        f"{settings.recipe.key} {[scene.file for scene in index.scenes]} {loading.overfit}".encode(
            errors="surrogatepass"
        )
    )
    for part in (train, val):
        sha.update("\n".join(keyframe.token for keyframe, _ in part).encode(errors="surrogatepass") + b"\n\n")
    root, frame = Path(settings.root), settings.map_frame
    table = root / index.version / "sample_data.json"
    origin = f"the infos of {folder} (img_path)" if index.version == "infos" else f"{table} (filename)"
    for name, chosen in (("train", train), ("val", val)):
        _require_images(root, name, [keyframe for keyframe, _ in chosen], origin)
    train_source, val_source = (ConvertedSource(root, chosen, frame, origin) for chosen in (train, val))
    return MapData(
        train_source, val_source, {scene.city for scene in index.scenes},
        settings, loading, sha.hexdigest()[:16], num_val_lines, settings.wait_for_files_seconds, settings.max_bad_samples,
        {part: [len(lines) for _, lines in own] for part, own in (("training", train), ("validation", val))},
    )  # fmt: skip


def _require_images(root: Path, part: str, keyframes: Sequence[Keyframe], origin: str) -> None:
    """Raise DataError where a folder of images of ``keyframes`` is not below ``root`` (one that is gone in mid-run is waited
    for), and where each of the samples lacks an image. ``origin`` says what names the images."""
    paths = [camera.path for keyframe in keyframes for camera in keyframe.cameras]
    folders = {folder: os.path.isdir(root / folder) for folder in dict.fromkeys(map(os.path.dirname, paths))}
    missing = [path for path in paths if not folders[os.path.dirname(path)]]
    is_any_whole = any(all(os.path.isfile(root / camera.path) for camera in own.cameras) for own in keyframes)
    if not missing and not is_any_whole:
        missing = [path for path in paths if not os.path.isfile(root / path)]
    if missing:
        raise DataError(
            f"{origin}: {len(missing)} of {len(paths)} images of {part} are not below data.root={root}: {missing[0]!r:.200}"
            + (" …" if len(missing) > 1 else "")
        )


@builder(MapSyntheticSettings, check=check_map_synthetic)
def map_synthetic(*, loading: LoadingSettings, **values: Any) -> MapData:
    """Build the data of random local maps, rendered."""
    require_extra("data=map_synthetic")
    settings = build_settings(MapSyntheticSettings, values, "data")
    indices = chosen_samples(settings.num_train, loading)
    is_overfit = loading.overfit is not None
    frame_to_ego, cameras = frame_to_ego_of(settings.map_frame, LIDAR_TO_EGO), nominal_cameras()
    scenes = RandomScenes("train", settings.map_frame, loading.seed, indices, settings.new_scenes and not is_overfit)
    train = RenderedSource(scenes, cameras, frame_to_ego, settings.area)
    val_scenes = RandomScenes(
        "val", settings.map_frame, settings.seed, range(settings.num_val), new_in_each_epoch=False
    )
    val = train if is_overfit else RenderedSource(val_scenes, cameras, frame_to_ego, settings.area)
    drawn = settings.model_dump(exclude={"name", "image_size"})
    words = "new ones in each epoch" if settings.new_scenes else "the same in each epoch"
    logger.info("train %d random maps, %s; val %d", len(indices), words, len(val))
    sha = hashlib.sha256(f"{RandomScenes.VERSION} {drawn} {indices} {is_overfit}".encode(errors="surrogatepass"))
    return MapData(train, val, [CITY], settings, loading, sha.hexdigest()[:16])


@builder(MapRenderedSettings, check=check_map_rendered)
def map_rendered(*, loading: LoadingSettings, **values: Any) -> MapData:
    """Build the data of real drives through real maps, rendered."""
    require_extra("data=map_rendered")
    settings = build_settings(MapRenderedSettings, values, "data")
    drives = read_drives(Path(settings.root), [*settings.train_cities, *settings.val_cities])
    train_scenes, val_scenes = (
        drive_scenes(drives, cities, settings) for cities in (settings.train_cities, settings.val_cities)
    )
    train_scenes = train_scenes.take(chosen_samples(len(train_scenes), loading))
    if loading.overfit is not None:
        val_scenes = train_scenes
    cameras, frame_to_ego = drives.keyframe.cameras, drives.keyframe.frame_to_ego(settings.map_frame)
    train, val = (RenderedSource(scenes, cameras, frame_to_ego, settings.area) for scenes in (train_scenes, val_scenes))
    sha = hashlib.sha256(f"{settings.map_frame} {settings.region} {loading.overfit}".encode(errors="surrogatepass"))
    num_lines = []
    for part, scenes in (("train", train_scenes), ("val", val_scenes)):
        num_lines.append(_log(part, scenes.lines, scenes.cities))
        sha.update(scenes.digest())
    return MapData(
        train, val, drives.cities, settings, loading, sha.hexdigest()[:16], num_lines[1],
        lines_per_sample={"training": list(map(len, train_scenes.lines)), "validation": list(map(len, val_scenes.lines))},
    )  # fmt: skip


def _log(part: str, lines: Sequence[MapLines], cities: set[str]) -> list[int]:
    """Log how many samples and lines a part holds; return the lines of each class."""
    counts = [sum(own[label] for own in map(MapLines.counts, lines)) for label in range(len(CLASSES))]
    words = ", ".join(f"{count} {name}" for count, name in zip(counts, CLASSES, strict=True))
    logger.info("%-5s %d samples (%s): %s", part, len(lines), ", ".join(sorted(cities)) or "none", words)
    return counts
