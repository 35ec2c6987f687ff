"""nuScenes' files: poses and calibrations composed as they should be, and every broken one refused in one message."""

import json

import numpy as np
import pytest
from nuscenes_files import CITY_MAPS, NUM_KEYFRAMES, SIZE, VERSION, change, change_map, write_nuscenes

from winnow.errors import DataError
from winnow.families.maps.formats.expansion import path_of, read_expansion
from winnow.families.maps.formats.infos import read_infos
from winnow.families.maps.formats.nuscenes import find_version, read_keyframes
from winnow.families.maps.formats.vector_map import read_scene
from winnow.families.maps.frame import CAMERAS, apply

CITY = "singapore-onenorth"


@pytest.fixture
def root(tmp_path):
    return write_nuscenes(tmp_path)


def test_keyframes_come_by_scene_and_time_with_the_six_cameras_in_order(root):
    keyframes, refused = read_keyframes(root / VERSION)
    assert [keyframe.token for keyframe in keyframes] == [
        f"{scene}_{number}" for scene in ("scene-0061", "scene-0103") for number in range(NUM_KEYFRAMES)
    ]
    assert not refused
    first = keyframes[0]
    assert (first.scene, first.city, first.xy.tolist()) == ("scene-0061", CITY, [100.0, 200.0])
    assert first.yaw == pytest.approx(0.3)
    assert [camera.path.split("/")[1] for camera in first.cameras] == list(CAMERAS)
    assert (first.cameras[0].width, first.cameras[0].height) == SIZE


def test_a_cameras_own_pose_counts_and_not_the_lidars(root):
    keyframe = read_keyframes(root / VERSION)[0][0]
    for back, camera in enumerate(
        keyframe.cameras, start=1
    ):  # each image is taken 5 cm further back than the one before
        place = -camera.ego_to_camera[:3, :3].T @ camera.ego_to_camera[:3, 3]
        assert place == pytest.approx([1.5 - 0.05 * back, 0.0, 1.5], abs=1e-6)
    ahead, left = (
        apply(keyframe.cameras[CAMERAS.index(name)].ego_to_camera, np.array([[20.0, 0.0, 1.5], [1.4, 20.0, 1.5]]))
        for name in ("CAM_FRONT", "CAM_FRONT_LEFT")
    )
    assert ahead[0] == pytest.approx([0.0, 0.0, 18.55], abs=1e-6)
    assert left[1, 2] > 15
    assert left[1, 0] < 0


def drop(condition):
    def edit(records):
        records[:] = [record for record in records if not condition(record)]

    return edit


def put(token, **values):
    def edit(records):
        next(record for record in records if record["token"] == token).update(values)

    return edit


def forget(token, key):
    return lambda records: next(record for record in records if record["token"] == token).pop(key)


@pytest.mark.parametrize(("table", "edit", "message"), [
    ("scene", lambda records: records.append(3), r"scene\.json: record 2 has no token"),
    ("sample", forget("scene-0061_0", "timestamp"), r"sample\.json: scene-0061_0 has no timestamp"),
    ("sample", put("scene-0061_0", timestamp="early"), r"v1\.0-mini: sample\.json: scene-0061_0: its timestamp is 'early'"),
    ("sample", put("scene-0061_0", scene_token="gone"), r"sample\.json: scene-0061_0 names the scene 'gone', which is not in"),
    ("log", put("log_scene-0061", location=3), r"log\.json: log_scene-0061: its location is 3"),
    ("log", put("log_scene-0061", location="a\0b"), r"log\.json: log_scene-0061: its location is 'a\\x00b'"),
    ("log", put("log_scene-0061", location="../x"), r"log\.json: log_scene-0061: its location is '../x'"),
    ("log", drop(lambda record: record["token"] == "log_scene-0061"), r"the log 'log_scene-0061', which is not in log\.json"),
    ("sample_data", put("scene-0061_0_CAM_BACK_True", ego_pose_token=7), r"names the ego_pose 7, which is not in ego_pose\.json"),
    ("sample_data", put("scene-0061_0_CAM_BACK_True", calibrated_sensor_token="no"), "names the calibrated_sensor 'no'"),
    ("calibrated_sensor", put("calibrated_CAM_BACK", sensor_token=None), "names the sensor None"),
])  # fmt: skip
def test_tables_that_do_not_fit_together_are_refused_by_record(root, table, edit, message):
    change(root, table, edit)
    with pytest.raises(DataError, match=message):
        read_keyframes(root / VERSION)


@pytest.mark.parametrize("table", ["log", "scene", "sample", "sensor", "calibrated_sensor", "ego_pose", "sample_data"])
@pytest.mark.parametrize("content", [None, b"{", b'{"a": 1}', b"[" * 1000])
def test_a_missing_or_damaged_table_is_named(root, table, content):
    path = root / VERSION / f"{table}.json"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(DataError, match=rf"{table}\.json can't be read as nuScenes' table {table}: \S"):
        read_keyframes(root / VERSION)


@pytest.mark.parametrize(("table", "edit", "kind", "detail"), [
    ("sample_data", drop(lambda record: record["token"] == "scene-0061_1_CAM_BACK_True"), "missing camera", "without CAM_BACK"),
    ("sample_data", drop(lambda record: record["token"] == "scene-0061_1_LIDAR_TOP_True"), "missing camera", "without LIDAR_TOP"),
    ("sample_data", put("scene-0061_1_CAM_BACK_True", width=None), "broken calibration", "CAM_BACK is None×36 px"),
    ("ego_pose", put("pose_scene-0061_1_CAM_BACK", rotation=[1, 1, 0, 0]), "broken calibration", "has length 1.414"),
    ("ego_pose", put("pose_scene-0061_1_CAM_BACK", translation=[1, float("nan"), 0]), "broken calibration", "translation="),
    ("ego_pose", put("pose_scene-0061_1_CAM_BACK", translation=[1, 1e200, 0]), "broken calibration", "translation="),
    ("ego_pose", put("pose_scene-0061_1_LIDAR_TOP", rotation="none"), "broken calibration", "rotation='none'"),
])  # fmt: skip
def test_a_sample_without_a_camera_or_with_a_broken_calibration_is_left_out_and_named(root, table, edit, kind, detail):
    change(root, table, edit)
    keyframes, refused = read_keyframes(root / VERSION)
    assert len(keyframes) == 2 * NUM_KEYFRAMES - 1
    assert [(entry.kind, entry.token) for entry in refused] == [(kind, "scene-0061_1")]
    assert detail in refused[0].detail


@pytest.mark.parametrize("intrinsics", [
    [], [[40, 0, 32], [0, 40, 18]], [[0, 0, 32], [0, 40, 18], [0, 0, 1]], [[40, 0, 320], [0, 40, 18], [0, 0, 1]],
    [[40, 0, 32], [0, 40, 18], [0, 0, 2]], [[40, 0, 32], [0, "x", 18], [0, 0, 1]], None,
])  # fmt: skip
def test_intrinsics_that_are_none_of_the_image_leave_all_samples_of_the_camera_out(root, intrinsics):
    change(root, "calibrated_sensor", put("calibrated_CAM_FRONT", camera_intrinsic=intrinsics))
    keyframes, refused = read_keyframes(root / VERSION)
    assert not keyframes
    assert all("CAM_FRONT: camera_intrinsic=" in entry.detail for entry in refused)


def test_the_tables_are_found_or_asked_for(root):
    assert find_version(root, None) == VERSION
    (root / "v1.0-trainval").mkdir()
    assert find_version(root, "v1.0-trainval") == "v1.0-trainval"
    with pytest.raises(DataError, match="name one of .* by --version"):
        find_version(root, None)
    with pytest.raises(DataError, match=r"no folder v1\.0-test of tables; there are: v1\.0-trainval, v1\.0-mini"):
        find_version(root, "v1.0-test")


def layer(name, edit):
    return lambda content: edit(content[name])


@pytest.mark.parametrize(("edit", "message"), [
    (lambda content: content.pop("version"), "its version is None, and 1.3 or later is needed"),
    (lambda content: content.update(version="1.2"), "its version is '1.2'"),
    (lambda content: content.pop("ped_crossing"), "it has no list ped_crossing"),
    (lambda content: content.update(node={}), "it has no list node"),
    (layer("lane", lambda records: records.append({})), "entry 2 of lane is no object with a token"),
    (layer("lane", put("lane_0", polygon_token="gone")), "lane names the polygon 'gone', which is not there"),
    (layer("lane_divider", put("lane_divider_0", line_token=None)), "lane_divider names the line None"),
    (layer("line", put("line_0", node_tokens=["node_0", "gone"])), "line line_0 names the node 'gone', which is not there"),
    (layer("polygon", put("polygon_0", exterior_node_tokens=3)), "polygon polygon_0 has no list of node tokens"),
    (layer("polygon", put("polygon_0", holes=[3])), "the holes of polygon polygon_0 are no list of objects"),
    (layer("polygon", put("polygon_0", holes=[{"node_tokens": [None]}])), "a hole of polygon polygon_0 names the node None"),
    (layer("node", put("node_0", x="east")), "node node_0 lies at x='east'"),
    (layer("node", put("node_0", x=1e300)), r"node node_0 lies at x=1e\+300"),
    (layer("node", put("node_0", y=None)), "node node_0 lies at .* y=None"),
])  # fmt: skip
def test_a_broken_map_is_refused_by_layer_and_token(root, edit, message):
    change_map(root, CITY, edit)
    with pytest.raises(DataError, match=f"{CITY}.json can't be read as a map expansion of nuScenes: .*{message}"):
        read_expansion(path_of(root, CITY), ["road_segment", "lane"])


def test_a_shape_of_too_few_points_is_left_out_and_counted(root):
    change_map(root, CITY, layer("line", put("line_0", node_tokens=["node_0"])))
    change_map(root, CITY, layer("polygon", put("polygon_0", exterior_node_tokens=["node_0", "node_1"])))
    city_map = read_expansion(path_of(root, CITY), ["road_segment", "lane"])
    assert city_map.repairs == {"road_divider without length": 1, "lane without area": 1}
    assert (len(city_map.dividers), len(city_map.crossings), len(city_map.roads)) == (1, 3, 2)


def test_the_layers_of_the_roads_are_chosen(root):
    assert [len(read_expansion(path_of(root, CITY), layers).roads) for layers in (["lane"], ["drivable_area"])] == [
        2,
        2,
    ]
    assert set(CITY_MAPS) == {CITY, "boston-seaport"}


@pytest.fixture
def infos(shared_data, tmp_path):
    content = json.loads((shared_data / "nuscenes_mini" / "infos_mmdet3d_v1.1.json").read_text())
    path = tmp_path / "infos.json"

    def write(edit):
        edit(content)
        path.write_text(json.dumps(content))
        return read_infos(path, CITY, "scene-0061")

    return write


@pytest.mark.parametrize(("edit", "kind"), [
    (lambda sample: sample["images"].pop("CAM_BACK"), "missing camera"),
    (lambda sample: sample.update(images=[]), "missing camera"),
    (lambda sample: sample.pop("lidar_points"), "broken calibration"),
    (lambda sample: sample["images"]["CAM_BACK"].pop("img_path"), "broken calibration"),
    (lambda sample: sample["images"]["CAM_BACK"].update(lidar2cam=[[1]]), "broken calibration"),
    (lambda sample: sample["images"]["CAM_BACK"].update(cam2img=[[1, 0, 0], [0, 1, 0], [0, 0, 1]]), "broken calibration"),
    (lambda sample: sample.update(ego2global=[[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]]), "broken calibration"),
    (lambda sample: sample.update(ego2global=[[-1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "broken calibration"),
])  # fmt: skip
def test_infos_leave_out_what_is_broken(infos, edit, kind):
    keyframes, refused = infos(lambda content: edit(content["data_list"][0]))
    assert not keyframes
    assert [entry.kind for entry in refused] == [kind]


def test_infos_that_are_none_are_refused(infos):
    with pytest.raises(
        DataError, match=r"infos\.json can't be read as infos of mmdetection3d: it has no list data_list"
    ):
        infos(lambda content: content.pop("data_list"))


def scene_content():
    return {
        "scene": "scene-1", "location": "here", "sample_rate": 0.1,
        "ego": {"xy": [[0.1 * step, 0.0] for step in range(21)], "heading": [0.0] * 21},
        "map_features": [
            {"nuscenes_layer": "lane_divider", "polyline": [[-50, 0], [50, 0]]},
            {"nuscenes_layer": "drivable_area_boundary", "polyline": [[-50, -4], [50, -4], [50, 4], [-50, 4], [-50, -4]]},
            {"nuscenes_layer": "lane", "polyline": "not looked at"},
            {"nuscenes_layer": {"of": "another kind"}},
        ],
    }  # fmt: skip


def test_a_tracked_scene_has_poses_at_the_begin_of_each_whole_span(tmp_path):
    path = tmp_path / "scene.json"
    path.write_text(json.dumps(scene_content()))
    scene = read_scene(path)
    assert (scene.every(0.5), scene.every(1.0), scene.every(9.0)) == ([0, 5, 10, 15], [0, 10], [])
    assert (len(scene.city_map.dividers), len(scene.city_map.roads)) == (1, 1)


@pytest.mark.parametrize(("edit", "message"), [
    (lambda content: content.pop("ego"), "it has no object ego"),
    (lambda content: content.update(location=3), "location=3"),
    (lambda content: content.update(sample_rate=0), "sample_rate=0"),
    (lambda content: content["ego"].update(heading=3), r"ego\.xy and ego\.heading are no equally long lists"),
    (lambda content: content["ego"].update(heading=[0.0]), r"ego\.xy and ego\.heading are no equally long lists"),
    (lambda content: content["ego"].update(xy=[["a", 0]] * 21), r"ego\.xy and ego\.heading are no equally long lists"),
    (lambda content: content.update(map_features=[3]), "no list map_features of objects"),
    (lambda content: content["map_features"][0].update(polyline=[[1, 2, 3]]), r"map_features\[0\] \(lane_divider\) has no"),
    (lambda content: content["map_features"][0].update(polyline=[[1, float("inf")]]), r"map_features\[0\]"),
])  # fmt: skip
def test_a_broken_tracked_scene_is_refused(tmp_path, edit, message):
    content = scene_content()
    edit(content)
    path = tmp_path / "scene.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"scene\.json can't be read as a scene of vector_map: .*{message}"):
        read_scene(path)
