"""A small set of files in nuScenes' schema, written for tests: tables, map expansions, and tiny images."""

import json
import math

import numpy as np
from PIL import Image

from winnow.families.maps.frame import CAMERAS

VERSION = "v1.0-mini"
SIZE = (64, 36)
LIDAR_ROTATION = [math.sqrt(0.5), 0.0, 0.0, -math.sqrt(0.5)]
YAW_OF_CAMERA = {"CAM_FRONT": 0, "CAM_FRONT_RIGHT": -56, "CAM_FRONT_LEFT": 56, "CAM_BACK": 180, "CAM_BACK_LEFT": 109,
                 "CAM_BACK_RIGHT": -109}  # fmt: skip
SCENES = {
    "scene-0061": ("singapore-onenorth", (100.0, 200.0), 0.3),
    "scene-0103": ("boston-seaport", (300.0, 150.0), 2.0),
}
NUM_KEYFRAMES = 3
STEP_M = 4.0
CITY_MAPS = {"singapore-onenorth": ((100.0, 200.0), 0.3), "boston-seaport": ((300.0, 150.0), 2.0)}


def write_nuscenes(root, num_keyframes=NUM_KEYFRAMES):
    """Write two scenes of three keyframes each, in two cities, and the cities' maps; return ``root``."""
    written = tables(num_keyframes)
    for name, records in written.items():
        write_table(root, name, records)
    for city, (origin, yaw) in CITY_MAPS.items():
        path = root / "maps" / "expansion" / f"{city}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(expansion(origin, yaw)))
    for number, record in enumerate(written["sample_data"]):
        if record["filename"].endswith(".jpg") and record["is_key_frame"]:
            path = root / record["filename"]
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
    return root


def write_table(root, name, records):
    (root / VERSION).mkdir(parents=True, exist_ok=True)
    (root / VERSION / f"{name}.json").write_text(json.dumps(records))


def change(root, name, edit):
    """Rewrite a table after ``edit(records)``."""
    path = root / VERSION / f"{name}.json"
    records = json.loads(path.read_text())
    edit(records)
    path.write_text(json.dumps(records))


def change_map(root, city, edit):
    path = root / "maps" / "expansion" / f"{city}.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def tables(num_keyframes):
    """Return the records of all tables. Each camera's image is taken at a pose of its own, a little before the lidar's."""
    sensors = [{"token": f"sensor_{name}", "channel": name} for name in ("LIDAR_TOP", *CAMERAS)]
    calibrated = [
        {"token": "calibrated_LIDAR_TOP", "sensor_token": "sensor_LIDAR_TOP", "translation": [0.944, 0.0, 1.84],
         "rotation": LIDAR_ROTATION, "camera_intrinsic": []}
    ]  # fmt: skip
    calibrated += [
        {"token": f"calibrated_{name}", "sensor_token": f"sensor_{name}", "translation": [1.5, 0.0, 1.5],
         "rotation": camera_rotation(YAW_OF_CAMERA[name]),
         "camera_intrinsic": [[40.0, 0.0, 32.5], [0.0, 40.0, 19.0], [0.0, 0.0, 1.0]]}
        for name in CAMERAS
    ]  # fmt: skip
    made = {"sensor": sensors, "calibrated_sensor": calibrated, "log": [], "scene": [], "sample": [], "sample_data": [],
            "ego_pose": []}  # fmt: skip
    for scene, (city, origin, yaw) in SCENES.items():
        made["log"].append({"token": f"log_{scene}", "location": city})
        made["scene"].append({"token": f"token_{scene}", "name": scene, "log_token": f"log_{scene}"})
        for number in range(num_keyframes):
            sample = f"{scene}_{number}"
            made["sample"].append(
                {"token": sample, "scene_token": f"token_{scene}", "timestamp": 10**15 + 500_000 * number}
            )
            for back, name in enumerate(("LIDAR_TOP", *CAMERAS)):
                along = STEP_M * number - 0.05 * back
                made["ego_pose"].append({
                    "token": f"pose_{sample}_{name}", "rotation": [math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)],
                    "translation": [origin[0] + along * math.cos(yaw), origin[1] + along * math.sin(yaw), 0.0],
                })  # fmt: skip
                is_camera = name != "LIDAR_TOP"
                for is_key_frame in (True, False):
                    made["sample_data"].append({
                        "token": f"{sample}_{name}_{is_key_frame}", "sample_token": sample, "is_key_frame": is_key_frame,
                        "ego_pose_token": f"pose_{sample}_{name}", "calibrated_sensor_token": f"calibrated_{name}",
                        "filename": f"{'samples' if is_key_frame else 'sweeps'}/{name}/{sample}.{'jpg' if is_camera else 'bin'}",
                        "width": SIZE[0] if is_camera else 0, "height": SIZE[1] if is_camera else 0,
                    })  # fmt: skip
    return made


def camera_rotation(degrees):
    """Return the quaternion of a level camera (x right, y down, z ahead) that looks ``degrees`` to the left."""
    half = math.radians(degrees) / 2
    w, z = math.cos(half), math.sin(half)
    a, b, c, d = 0.5, -0.5, 0.5, -0.5  # of one that looks ahead
    return [w * a - z * d, w * b - z * c, w * c + z * b, w * d + z * a]


def expansion(origin, yaw):
    """Return a map around a place, its roads along ``yaw``: two lanes side by side, a segment ahead, dividers, two crossings that
    touch and one further on, and a small island in the road."""
    cos, sin = math.cos(yaw), math.sin(yaw)
    content = {name: [] for name in (
        "polygon", "line", "node", "drivable_area", "road_segment", "road_block", "lane", "ped_crossing", "walkway", "stop_line",
        "carpark_area", "road_divider", "lane_divider", "traffic_light", "lane_connector")}  # fmt: skip

    def nodes(points):
        tokens = []
        for along, left in points:
            tokens.append(f"node_{len(content['node'])}")
            x, y = origin[0] + along * cos - left * sin, origin[1] + along * sin + left * cos
            content["node"].append({"token": tokens[-1], "x": x, "y": y})
        return tokens

    def polygon(points, holes=()):
        token = f"polygon_{len(content['polygon'])}"
        holes = [{"node_tokens": nodes(hole)} for hole in holes]
        content["polygon"].append({"token": token, "exterior_node_tokens": nodes(points), "holes": holes})
        return token

    def add(layer, **values):
        content[layer].append({"token": f"{layer}_{len(content[layer])}", **values})

    def line(points):
        token = f"line_{len(content['line'])}"
        content["line"].append({"token": token, "node_tokens": nodes(points)})
        return token

    def box(begin, right, end, left):
        return [(begin, right), (end, right), (end, left), (begin, left)]

    island = [(5.0, -1.5), (9.0, -1.5), (9.0, -2.5), (5.0, -2.5)]
    segments = {"left_lane_divider_segments": [], "right_lane_divider_segments": []}
    add("lane", polygon_token=polygon(box(-80, -4, 20, 0), [island]), **segments)
    add("lane", polygon_token=polygon(box(-80, 0, 20, 4)), **segments)
    add("road_segment", polygon_token=polygon(box(20, -9, 45, 9)))
    add("drivable_area", polygon_tokens=[polygon(box(-80, -4, 45, 4)), polygon(box(20, -9, 45, 9))])
    add("road_divider", line_token=line([(-80, 0), (10, 0), (12, 0)]), road_segment_token=None)
    add("lane_divider", line_token=line([(45, 3), (25, 3)]), lane_divider_segments=[])
    add("ped_crossing", polygon_token=polygon(box(13, -4, 15, 4)))
    add("ped_crossing", polygon_token=polygon(box(15, -4, 17, 4)))
    add("ped_crossing", polygon_token=polygon(box(28, -9, 34, 9)))  # over the edge of the region at the first keyframe
    return {**content, "version": "1.3", "canvas_edge": [1000.0, 1000.0], "arcline_path_3": {}, "connectivity": {}}
