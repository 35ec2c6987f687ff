"""The one coordinate frame: facts of the real keyframe, there and back, and what a flip does to everything at once."""

import json

import numpy as np
import pytest

from winnow.families.maps.city_map import Pose
from winnow.families.maps.formats.expansion import path_of, read_expansion
from winnow.families.maps.formats.infos import read_infos
from winnow.families.maps.frame import (
    CAMERAS,
    MIRROR,
    Region,
    apply,
    ego_to_camera_of,
    frame_to_ego_of,
    frame_to_global,
    global_to_frame,
    ground_at,
    ground_of,
    inverse,
    on_ground,
    project,
    rigid,
    rotation_of,
    yaw_of,
)
from winnow.families.maps.samples import RawSample, flipped, pixel_size, scaled_intrinsics

INFOS = "infos_mmdet3d_v1.1.json"


@pytest.fixture(scope="module")
def mini(shared_data):
    return shared_data / "nuscenes_mini"


@pytest.fixture(scope="module")
def keyframe(mini):
    (keyframe,), refused = read_infos(mini / INFOS, "singapore-onenorth", "scene-0061")
    assert not refused
    return keyframe


@pytest.fixture(scope="module")
def true_lines(mini, keyframe):
    city_map = read_expansion(path_of(mini, "singapore-onenorth"), ["drivable_area"])
    lines, _ = city_map.lines_at(Pose(keyframe.xy, keyframe.yaw, keyframe.frame_to_ego("lidar")), Region())
    return lines


def test_the_lidar_sits_ahead_of_the_ego_origin_and_is_turned_by_a_quarter(keyframe):
    lidar_to_ego = keyframe.frame_to_ego("lidar")
    assert lidar_to_ego[0, 3] == pytest.approx(0.944, abs=5e-4)
    assert np.rad2deg(yaw_of(lidar_to_ego)) == pytest.approx(-90, abs=0.2)
    forward, right = apply(lidar_to_ego, np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])) - lidar_to_ego[:3, 3]
    assert forward == pytest.approx([1, 0, 0], abs=0.03)
    assert right == pytest.approx([0, -1, 0], abs=0.03)


def test_by_the_cameras_own_pose_a_point_is_a_third_of_a_metre_further(mini, keyframe):
    image = json.loads((mini / INFOS).read_text())["data_list"][0]["images"]["CAM_FRONT"]
    point = np.array([[10.0, 1.0, 0.0]])
    through_own_pose = apply(keyframe.cameras[CAMERAS.index("CAM_FRONT")].ego_to_camera, point)
    as_if_standing = apply(inverse(np.array(image["cam2ego"])), point)
    assert (through_own_pose - as_if_standing)[0, 2] == pytest.approx(0.328, abs=2e-3)


def test_a_camera_is_composed_by_way_of_the_ego_pose_at_its_own_time():
    turned = rigid(rotation_of(np.array([np.cos(0.1), 0, 0, np.sin(0.1)])), np.array([5.0, 2.0, 0.0]))
    then = turned @ rigid(np.eye(3), np.array([-0.33, 0.0, 0.0]))
    camera_to_ego = rigid(np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]), np.array([1.7, 0.0, 1.5]))
    ego_to_camera = ego_to_camera_of(camera_to_ego, then, turned)
    assert apply(ego_to_camera, np.array([[11.7, 0.0, 1.5]])) == pytest.approx(np.array([[0.0, 0.0, 10.33]]))


@pytest.mark.parametrize("map_frame", ["lidar", "ego"])
def test_a_place_on_a_citys_map_goes_into_the_frame_and_back(keyframe, map_frame):
    frame_to_ego = keyframe.frame_to_ego(map_frame)
    points = keyframe.xy + np.random.default_rng(0).uniform(-40, 40, (50, 2))
    there = global_to_frame(points, keyframe.xy, keyframe.yaw, frame_to_ego)
    assert frame_to_global(there, keyframe.xy, keyframe.yaw, frame_to_ego) == pytest.approx(points, abs=1e-6)


def test_in_both_frames_y_is_forward_and_x_to_the_right_and_the_origins_differ_by_the_lidars_place(keyframe):
    ahead = keyframe.xy + 10 * np.array([np.cos(keyframe.yaw), np.sin(keyframe.yaw)])
    ego, lidar = (
        global_to_frame(ahead[None], keyframe.xy, keyframe.yaw, keyframe.frame_to_ego(name))[0]
        for name in ("ego", "lidar")
    )
    assert ego == pytest.approx([0.0, 10.0], abs=1e-9)
    assert lidar == pytest.approx([0.0, 10 - 0.944], abs=0.08)


def test_the_ground_is_the_plane_of_the_ego_frame(keyframe):
    frame_to_ego = keyframe.frame_to_ego("lidar")
    points = np.random.default_rng(1).uniform(-30, 30, (20, 2))
    assert apply(frame_to_ego, on_ground(points, ground_of(frame_to_ego)))[:, 2] == pytest.approx(
        np.zeros(20), abs=1e-9
    )
    assert ground_of(frame_to_ego_of("ego", frame_to_ego)) == pytest.approx(np.zeros(3))


def test_the_lidar_measures_the_road_where_the_ground_is(mini, keyframe):
    sweep = next((mini / "samples" / "LIDAR_TOP").glob("*.bin"))
    points = np.fromfile(sweep, np.float32).reshape(-1, 5)[:, :3].astype(float)
    ground = ground_of(keyframe.frame_to_ego("lidar"))
    ahead = points[(np.abs(points[:, 0]) < 3) & (points[:, 1] > 4) & (points[:, 1] < 20)]
    height = ahead[:, 2] - (ahead[:, :2] @ ground[:2] + ground[2])
    assert abs(np.median(height[np.abs(height) < 0.5])) < 0.05


@pytest.mark.parametrize("camera", range(6))
def test_true_lines_go_into_a_camera_and_back(keyframe, true_lines, camera):
    frame_to_ego = keyframe.frame_to_ego("lidar")
    ground, frame_to_camera = ground_of(frame_to_ego), keyframe.frame_to_camera("lidar")[camera]
    points = true_lines.resampled(100).reshape(-1, 2).astype(float)
    pixels, depth = project(on_ground(points, ground), frame_to_camera, keyframe.cameras[camera].intrinsics)
    is_seen = depth > 0.5
    assert is_seen.any()
    assert np.isnan(pixels[depth < 0.1]).all()
    back = ground_at(pixels[is_seen], ground, frame_to_camera, keyframe.cameras[camera].intrinsics)
    assert back == pytest.approx(points[is_seen], abs=1e-6)


def test_a_pixel_of_the_sky_is_no_place_on_the_ground(keyframe):
    ground = ground_of(keyframe.frame_to_ego("lidar"))
    camera = keyframe.cameras[0]
    places = ground_at(
        np.array([[800.0, 10.0], [800.0, 890.0]]), ground, keyframe.frame_to_camera("lidar")[0], camera.intrinsics
    )
    assert np.isnan(places[0]).all()
    assert 2 < places[1, 1] < 8


@pytest.fixture(scope="module")
def sample(keyframe, true_lines):
    width, height = pixel_size(320, 16 / 9)
    images = np.random.default_rng(0).integers(0, 256, (6, height, width, 3), dtype=np.uint8)
    intrinsics = np.stack([scaled_intrinsics(c.intrinsics, c.width, c.height, width, height) for c in keyframe.cameras])
    ground = ground_of(keyframe.frame_to_ego("lidar"))
    return RawSample("a", "b", images, keyframe.frame_to_camera("lidar"), intrinsics, ground, true_lines)


def test_a_flip_twice_is_the_identity(sample):
    twice = flipped(flipped(sample))
    assert np.array_equal(twice.images, sample.images)
    for name in ("frame_to_camera", "intrinsics", "ground"):
        assert getattr(twice, name) == pytest.approx(getattr(sample, name), abs=1e-12)
    assert np.array_equal(twice.lines.vertices, sample.lines.vertices)


def test_after_a_flip_each_line_lies_on_the_mirrored_pixels_of_the_camera_of_the_other_side(sample):
    other = flipped(sample)
    width = sample.images.shape[2]
    for camera, mirrored in ((0, 0), (1, 2), (2, 1), (3, 3), (4, 5), (5, 4)):
        before, depth = project(
            on_ground(sample.lines.vertices.astype(float), sample.ground),
            sample.frame_to_camera[camera],
            sample.intrinsics[camera],
        )
        after, _ = project(
            on_ground(other.lines.vertices.astype(float), other.ground),
            other.frame_to_camera[mirrored],
            other.intrinsics[mirrored],
        )
        seen = depth > 0.5
        assert seen.any()
        assert after[seen, 0] == pytest.approx(width - before[seen, 0], abs=1e-6)
        assert after[seen, 1] == pytest.approx(before[seen, 1], abs=1e-6)
        assert np.array_equal(other.images[mirrored], sample.images[camera][:, ::-1])


def test_a_flip_negates_x_and_keeps_cameras_right_handed(sample):
    other = flipped(sample)
    assert np.array_equal(other.lines.vertices, sample.lines.vertices * [-1, 1])
    assert np.linalg.det(other.frame_to_camera[:, :3, :3]) == pytest.approx(np.ones(6))
    assert np.array_equal(MIRROR @ MIRROR, np.eye(4))


@pytest.mark.parametrize(
    ("image_size", "expected"), [(112, (112, 64)), (640, (640, 352)), (64, (64, 32)), (16, (16, 16))]
)
def test_width_and_height_go_by_the_aspect_in_multiples_of_16(image_size, expected):
    assert pixel_size(image_size, 16 / 9) == expected
