"""Reads keyframes from nuScenes' tables (``v1.0-…/*.json``): poses and calibrations, composed by way of each image's own pose.

An own reader: the devkit asks for numpy < 2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from winnow.errors import DataError
from winnow.families.maps.formats.calibration import CalibrationError, intrinsics_of, pose_of
from winnow.families.maps.frame import CAMERAS, Array, ego_to_camera_of, yaw_of
from winnow.families.maps.keyframe import Camera, Keyframe, Refused
from winnow.reading import naming, read_json

LIDAR = "LIDAR_TOP"
_CITY = re.compile(r"\w[\w .-]*")
VERSIONS = ("v1.0-trainval", "v1.0-mini", "v1.0-test")
_COLUMNS = {
    "log": ("location",),
    "scene": ("name", "log_token"),
    "sample": ("scene_token", "timestamp"),
    "sensor": ("channel",),
    "calibrated_sensor": ("sensor_token", "translation", "rotation", "camera_intrinsic"),
    "ego_pose": ("translation", "rotation"),
    "sample_data": ("sample_token", "ego_pose_token", "calibrated_sensor_token", "filename", "is_key_frame"),
}
Record = dict[str, Any]
Table = dict[str, Record]


def find_version(root: Path, version: str | None) -> str:
    """Return the folder of the tables below nuScenes' root: ``version``, or the only one there. Raises DataError."""
    there = [name for name in VERSIONS if (root / name).is_dir()]
    if version is not None:
        if not (root / version).is_dir():
            raise DataError(f"{root} holds no folder {version} of tables; there are: {', '.join(there) or 'none'}")
        return version
    if len(there) != 1:
        raise DataError(
            f"{root} holds {', '.join(there) or 'no tables'}; name one of {', '.join(VERSIONS)} by --version"
        )
    return there[0]


def read_keyframes(folder: Path) -> tuple[list[Keyframe], list[Refused]]:
    """Return the keyframes of the tables in ``folder``, in the order of scenes' names and of time, and those that can't be used:
    without one of the six cameras or the lidar, or with numbers that are no calibration.

    Raises DataError naming the table, and the record by its token, for what is no such table.
    """
    with naming(folder):
        return _keyframes({name: _read_table(folder, name) for name in _COLUMNS})


def _keyframes(tables: Mapping[str, Table]) -> tuple[list[Keyframe], list[Refused]]:
    scenes = {token: _follow(tables, "scene", token, "log_token", "log") for token in tables["scene"]}
    for log in scenes.values():
        if not isinstance(log["location"], str) or not _CITY.fullmatch(log["location"]):  # it becomes a file's name
            raise DataError(
                f"log.json: {log['token']}: its location is {log['location']!r:.40}, and should be a city's name"
            )
    recorded: dict[str, dict[str, Record]] = {token: {} for token in tables["sample"]}
    for record in tables["sample_data"].values():
        if record["is_key_frame"] is not True:
            continue
        calibrated = _follow(tables, "sample_data", record["token"], "calibrated_sensor_token", "calibrated_sensor")
        sensor = _follow(tables, "calibrated_sensor", calibrated["token"], "sensor_token", "sensor")
        if sensor["channel"] in (*CAMERAS, LIDAR):
            sample = _follow(tables, "sample_data", record["token"], "sample_token", "sample")
            recorded[sample["token"]][sensor["channel"]] = record
    keyframes, refused = [], []
    order = sorted(tables["sample"].values(), key=lambda sample: _order_of(tables, sample))
    for sample in order:
        own = recorded[sample["token"]]
        missing = [name for name in (*CAMERAS, LIDAR) if name not in own]
        if missing:
            refused.append(Refused("missing camera", sample["token"], f"without {', '.join(missing)}"))
            continue
        scene = tables["scene"][sample["scene_token"]]
        try:
            keyframes.append(_keyframe(tables, sample["token"], scene, scenes[scene["token"]]["location"], own))
        except CalibrationError as error:
            refused.append(Refused("broken calibration", sample["token"], str(error)))
    return keyframes, refused


def _order_of(tables: Mapping[str, Table], sample: Record) -> tuple[str, int]:
    scene = _follow(tables, "sample", sample["token"], "scene_token", "scene")
    timestamp = sample["timestamp"]
    if not isinstance(timestamp, int) or not isinstance(scene["name"], str):
        raise DataError(
            f"sample.json: {sample['token']}: its timestamp is {timestamp!r:.40}, its scene's name {scene['name']!r:.40}"
        )
    return scene["name"], timestamp


def _keyframe(tables: Mapping[str, Table], token: str, scene: Record, city: str, own: Mapping[str, Record]) -> Keyframe:
    lidar_to_ego, ego_to_global = (_pose(tables, own[LIDAR], table) for table in ("calibrated_sensor", "ego_pose"))
    cameras = []
    for name in CAMERAS:
        record = own[name]
        calibrated = tables["calibrated_sensor"][record["calibrated_sensor_token"]]
        width, height = record.get("width"), record.get("height")
        if type(width) is not int or type(height) is not int or not (0 < width < 1 << 16 and 0 < height < 1 << 16):
            raise CalibrationError(f"{name} is {width!r:.20}×{height!r:.20} px large")
        camera_to_ego, ego_to_global_then = (
            _pose(tables, record, table) for table in ("calibrated_sensor", "ego_pose")
        )
        try:
            intrinsics = intrinsics_of(calibrated["camera_intrinsic"], width, height)
        except CalibrationError as error:
            raise CalibrationError(f"{name}: {error}") from error
        ego_to_camera = ego_to_camera_of(camera_to_ego, ego_to_global_then, ego_to_global)
        cameras.append(Camera(str(record["filename"]), width, height, intrinsics, ego_to_camera))
    return Keyframe(
        token, scene["name"], city, ego_to_global[:2, 3], yaw_of(ego_to_global), lidar_to_ego, tuple(cameras)
    )


def _pose(tables: Mapping[str, Table], sample_data: Record, table: str) -> Array:
    record = _follow(tables, "sample_data", sample_data["token"], f"{table}_token", table)
    try:
        return pose_of(record["rotation"], record["translation"])
    except CalibrationError as error:
        raise CalibrationError(f"{table} {record['token']}: {error}") from error


def _follow(tables: Mapping[str, Table], table: str, token: str, key: str, other: str) -> Record:
    """Return the record of the table ``other`` that a record of ``table`` names. Raises DataError."""
    named = tables[table][token][key]
    record = tables[other].get(named) if isinstance(named, str) else None
    if record is None:
        raise DataError(f"{table}.json: {token} names the {other} {named!r:.60}, which is not in {other}.json")
    return record


def _read_table(folder: Path, name: str) -> Table:
    path = folder / f"{name}.json"
    records = read_json(path, f"nuScenes' table {name}", DataError)
    if not isinstance(records, list):
        raise DataError(f"{path} can't be read as nuScenes' table {name}: it is no list of records")
    table: Table = {}
    for number, record in enumerate(records):
        if not isinstance(record, dict) or not isinstance(record.get("token"), str):
            raise DataError(f"{path}: record {number} has no token")
        missing = [column for column in _COLUMNS[name] if column not in record]
        if missing:
            raise DataError(f"{path}: {record['token']} has no {missing[0]}")
        table[record["token"]] = record
    return table
