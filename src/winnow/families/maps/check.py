"""The checks of map data: what conversion refused, every image read, empty maps, and how near validation lies to training."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from winnow.data.check import DataReport, Finding, Progress, SplitProgress, SplitReport
from winnow.data.image import ImageSizeError, read_image
from winnow.errors import DataError
from winnow.families.maps.drives import drive_scenes, read_drives
from winnow.families.maps.extra import require_extra
from winnow.families.maps.frame import frame_to_ego_of
from winnow.families.maps.keyframe import Keyframe
from winnow.families.maps.lines import MapLines
from winnow.families.maps.rendering.views import LIDAR_TO_EGO, nominal_cameras
from winnow.families.maps.settings import MapRenderedSettings, MapSyntheticSettings, NuscenesMapSettings
from winnow.families.maps.sources import RenderedSource
from winnow.families.maps.splits import nearest_training_sample, split_keyframes
from winnow.families.maps.synthetic import RandomScenes
from winnow.families.maps.truth import SceneTruth, read_index

NEAR_M = 5.0
"""A validation sample nearer than this to a training sample shows about the same place."""
# Decoding releases the interpreter lock, so threads suffice.
_MAX_THREADS = 8
# Random training maps that a check draws.
_CHECKED_MAPS = 64

Sample = tuple[Keyframe, MapLines]


def check_nuscenes_map(settings: NuscenesMapSettings, progress: SplitProgress) -> DataReport:
    """Check the converted ground truth, and every image of both splits."""
    folder = Path(settings.ground_truth)
    index = read_index(folder, settings.recipe)
    between = [
        Finding(kind, token, None, f"left out by the conversion: {detail}") for kind, token, detail in index.refused
    ]
    samples: list[Sample] = []
    for scene in index.scenes:
        try:
            truth = SceneTruth.read(folder / scene.file, scene.name, scene.city)
            samples += zip(truth.keyframes, truth.lines, strict=True)
        except DataError as error:
            between.append(Finding("unreadable file", scene.file, None, str(error)))
    keyframes = [keyframe for keyframe, _ in samples]
    places = dict(zip(("train", "val"), split_keyframes(keyframes, settings.split, index.version), strict=True))
    reports = {
        part: _check_samples([samples[place] for place in own], settings, folder, partial(progress, part))
        for part, own in places.items()
        if own
    }
    return DataReport(reports, (*between, *_compare(keyframes, places["train"], places["val"])))


def _check_samples(
    samples: Sequence[Sample], settings: NuscenesMapSettings, folder: Path, progress: Progress
) -> SplitReport:
    findings: list[Finding] = []
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        checked = pool.map(partial(_check_images, Path(settings.root)), [keyframe for keyframe, _ in samples])
        for done, ((keyframe, lines), found) in enumerate(zip(samples, checked, strict=True), start=1):
            findings += [*found, *_empty(keyframe.token, lines)]
            progress(done, len(samples))
    return SplitReport(folder, len(samples), sum(len(lines) for _, lines in samples), tuple(findings))


def _check_images(root: Path, keyframe: Keyframe) -> list[Finding]:
    found = []
    for camera in keyframe.cameras:
        try:
            read_image(root / camera.path, camera.width, camera.height)
        except ImageSizeError as error:
            found.append(Finding("size mismatch", camera.path, keyframe.token, str(error)))
        except DataError as error:
            kind = "unreadable image" if os.path.exists(root / camera.path) else "missing image"
            found.append(Finding(kind, camera.path, keyframe.token, str(error)))
    return found


def _compare(keyframes: Sequence[Keyframe], train: Sequence[int], val: Sequence[int]) -> Iterator[Finding]:
    left_out = len(keyframes) - len(train) - len(val)
    if left_out:
        yield Finding("in neither split", "", None, f"{left_out} of {len(keyframes)} samples", is_problem=False)
    near = np.asarray(nearest_training_sample(keyframes, train, val) < NEAR_M)
    if near.any():
        words = f"{near.sum()} of {len(near)} validation samples lie within {NEAR_M:g} m of a training sample"
        yield Finding("validation near training", "", None, words, is_problem=False)


def _empty(name: str, lines: MapLines) -> list[Finding]:
    return [] if len(lines) else [Finding("empty map", name, None, "no line in the region", is_problem=False)]


def check_map_synthetic(settings: MapSyntheticSettings, progress: SplitProgress) -> DataReport:
    """Draw a few training maps, with ``data.seed``, and the validation set."""
    require_extra("data=map_synthetic")
    frame_to_ego, cameras = frame_to_ego_of(settings.map_frame, LIDAR_TO_EGO), nominal_cameras()
    reports = {}
    for part, count in (("train", min(settings.num_train, _CHECKED_MAPS)), ("val", settings.num_val)):
        scenes = RandomScenes(part, settings.map_frame, settings.seed, range(count), new_in_each_epoch=False)
        source = RenderedSource(scenes, cameras, frame_to_ego, settings.area)
        findings: list[Finding] = []
        num_lines = 0
        for place in range(count):
            sample = source.read(place, 0, settings.image_size)
            findings += _empty(str(sample.image_id), sample.lines)
            num_lines += len(sample.lines)
            progress(part, place + 1, count)
        if count:
            reports[part] = SplitReport("drawn", count, num_lines, tuple(findings))
    return DataReport(reports)


def check_map_rendered(settings: MapRenderedSettings, progress: SplitProgress) -> DataReport:
    """Read all drives, and cut out the lines of every sample."""
    require_extra("data=map_rendered")
    drives = read_drives(Path(settings.root), [*settings.train_cities, *settings.val_cities])
    reports = {}
    for part, cities in (("train", settings.train_cities), ("val", settings.val_cities)):
        scenes = drive_scenes(drives, cities, settings)
        progress(part, len(scenes), len(scenes))
        findings = [
            finding
            for scene, lines in zip(scenes.scenes, scenes.lines, strict=True)
            for finding in _empty(scene.image_id, lines)
        ]
        num_lines = sum(map(len, scenes.lines))
        reports[part] = SplitReport(f"drawn, {', '.join(cities)}", len(scenes), num_lines, tuple(findings))
    return DataReport(reports)
