"""``winnow convert nuscenes-map`` and ``data=nuscenes_map``: keyed, resumable, parallel, counted; and read back for training."""

import json
import re
import shutil
import sys

import numpy as np
import pytest
from composed import compose_plain
from drawn_ink import loading_settings
from nuscenes_files import VERSION, change, change_map, write_nuscenes

from winnow.commands.cli import main
from winnow.errors import ConfigError, DataError
from winnow.families.maps.check import check_nuscenes_map
from winnow.families.maps.conversion import convert_nuscenes_map, describe
from winnow.families.maps.data import nuscenes_map
from winnow.families.maps.settings import NuscenesMapSettings
from winnow.families.maps.truth import Recipe, SceneTruth, read_index
from winnow.settings import build_settings

SPOILED = b"PK\x03\x04 and no more"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return nuScenes' root and the ground truth of it, neither to be changed."""
    root = write_nuscenes(tmp_path_factory.mktemp("nuscenes"))
    convert_nuscenes_map(root, root / "truth", Recipe())
    return root


@pytest.fixture
def root(written, tmp_path):
    """Return a copy that may be changed."""
    return shutil.copytree(written, tmp_path / "nuscenes")


def convert(root, recipe=Recipe(), **more):  # noqa: B008
    return convert_nuscenes_map(root, root / "truth", recipe, **more)


def files(root):
    return {path.name: path.stat().st_mtime_ns for path in (root / "truth").glob("*.npz")}


def settings_values(root, **changed):
    values = compose_plain("data=nuscenes_map", f"data.root={root}")["data"]
    values.pop("_target_")
    return values | {"ground_truth": str(root / "truth"), "image_size": 64} | changed


def data(root, loading=None, **changed):
    return nuscenes_map(
        loading=loading_settings(**{"batch_size": 2} | (loading or {})), **settings_values(root, **changed)
    )


def check(root, **changed):
    settings = build_settings(NuscenesMapSettings, settings_values(root, **changed), "data")
    return check_nuscenes_map(settings, lambda split, done, total: None)


def test_it_counts_lines_of_each_class_and_what_was_dropped(root):
    change_map(
        root, "boston-seaport", lambda content: content["lane_divider"].append({"token": "a", "line_token": "short"})
    )
    change_map(
        root, "boston-seaport", lambda content: content["line"].append({"token": "short", "node_tokens": ["node_0"]})
    )
    change(root, "ego_pose", lambda records: records[1].update(rotation=[0, 0, 0, 0]))
    index = convert(root)
    assert index.lines == {"divider": 10, "ped_crossing": 10, "boundary": 15}
    assert index.dropped == {"lane_divider without length": 1}
    assert [kind for kind, *_ in index.refused] == ["broken calibration"]
    assert describe(index) == (
        "5 samples of 2 scenes: 10 divider, 10 ped_crossing, 15 boundary; dropped or repaired: 1 broken calibration (sample), "
        "1 lane_divider without length"
    )


def test_what_is_there_is_kept_and_what_is_missing_or_damaged_is_made_again(root):
    before = files(root)
    spoiled, gone = sorted(before)
    (root / "truth" / spoiled).write_bytes(SPOILED)
    (root / "truth" / gone).unlink()
    kept = convert(root)
    assert sorted(files(root)) == sorted(before)
    after = files(root)
    convert(root)
    assert files(root) == after
    assert kept.num_samples == 6


@pytest.mark.parametrize("edit", [
    lambda root: change_map(root, "singapore-onenorth", lambda content: content["node"][0].update(x=1.0)),
    lambda root: change(root, "ego_pose", lambda records: records[0]["translation"].__setitem__(0, 1.0)),
    lambda root: change(root, "calibrated_sensor", lambda records: records[1]["camera_intrinsic"][0].__setitem__(0, 41.0)),
])  # fmt: skip
def test_another_map_pose_or_calibration_is_another_file(root, edit):
    before = set(files(root))
    edit(root)
    convert(root)
    assert set(files(root)) - before


def test_a_map_that_changed_in_the_same_process_is_read_anew(root):
    change_map(root, "singapore-onenorth", lambda content: content.update(ped_crossing=[]))
    assert convert(root).lines["ped_crossing"] == 6


@pytest.mark.parametrize("name", ["../../up", "a/b", "\ud800", "x" * 300])
def test_a_scene_of_any_name_has_its_file_in_the_target(root, name):
    change(root, "scene", lambda records: records[0].update(name=name))
    index = convert(root)
    assert {scene.name for scene in index.scenes} == {name, "scene-0103"}
    assert all((root / "truth" / scene.file).parent.resolve() == (root / "truth").resolve() for scene in index.scenes)


@pytest.mark.parametrize("recipe", [
    Recipe("ego"), Recipe(width=40.0), Recipe(length=100.0), Recipe(boundary_layers=("drivable_area",)),
])  # fmt: skip
def test_another_recipe_is_another_index_and_other_files(root, recipe):
    before = set(files(root))
    convert(root, recipe)
    assert len(set(files(root)) - before) == 2
    assert read_index(root / "truth", recipe).lines != {} != read_index(root / "truth", Recipe()).lines
    assert read_index(root / "truth", recipe).recipe["map_frame"] == recipe.map_frame


def test_two_processes_write_what_one_does(root, written):
    shutil.rmtree(root / "truth")
    seen = []
    convert(root, num_workers=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
    assert sorted(files(root)) == sorted(files(written))
    for name in files(root):
        assert (root / "truth" / name).read_bytes() == (written / "truth" / name).read_bytes()


def test_a_kill_between_two_scenes_costs_one_scene(root, monkeypatch):
    shutil.rmtree(root / "truth")
    write = SceneTruth.write

    def killed_after_one(self, path):
        write(self, path)
        raise KeyboardInterrupt

    monkeypatch.setattr(SceneTruth, "write", killed_after_one)
    with pytest.raises(KeyboardInterrupt):
        convert(root)
    first = files(root)
    assert len(first) == 1
    monkeypatch.setattr(SceneTruth, "write", write)
    convert(root)
    assert first.items() <= files(root).items()


def test_files_hold_full_lines_and_no_objects(written):
    index = read_index(written / "truth", Recipe())
    for scene in index.scenes:
        with np.load(written / "truth" / scene.file, allow_pickle=False) as arrays:
            assert not any(arrays[name].dtype.hasobject for name in arrays.files)
        truth = SceneTruth.read(written / "truth" / scene.file, scene.name, scene.city)
        assert len(truth.keyframes) == scene.num_samples == 3
        ring = truth.lines[1].of_class(1)[1]
        assert len(ring) == 5  # as in the map, not resampled


def shorter(array):
    return array[:-1]


@pytest.mark.parametrize(("name", "spoil"), [
    *((name, shorter) for name in ("tokens", "line_counts", "point_counts", "labels", "vertices", "xy", "yaw", "sizes", "paths")),
    ("intrinsics", shorter), ("line_counts", lambda array: array[None]),
    ("labels", lambda array: array + 9), ("labels", lambda array: array.astype(str)), ("point_counts", lambda array: array * 0),
    ("vertices", lambda array: array * np.nan), ("ego_to_camera", lambda array: array + np.inf),
    ("dropped_kinds", lambda array: np.array(["a", "b"])), ("line_counts", lambda array: -array),
])  # fmt: skip
def test_a_file_with_odd_arrays_is_refused_in_one_line(written, tmp_path, name, spoil):
    scene = read_index(written / "truth", Recipe()).scenes[0]
    with np.load(written / "truth" / scene.file) as stored:
        arrays = {key: stored[key] for key in stored.files}
    np.savez(tmp_path / "odd.npz", **arrays | {name: spoil(arrays[name])})
    with pytest.raises(DataError, match=r"odd\.npz can't be read: .*; delete it and convert again") as refused:
        SceneTruth.read(tmp_path / "odd.npz", "a", "b")
    assert "\n" not in str(refused.value)


def test_the_command_says_what_it_did_and_goes_on(root, capsys):
    shutil.rmtree(root / "truth")
    arguments = ["convert", "nuscenes-map", str(root), str(root / "truth"), "--workers", "0"]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.out == "6 samples of 2 scenes: 12 divider, 12 ped_crossing, 18 boundary\n"
    assert "convert: 2 of 2 scenes" in captured.err
    assert main(arguments) == 0


@pytest.mark.parametrize(("arguments", "code", "message"), [
    (["--infos", "x.json"], 2, "name both by --city and --scene"),
    (["--version", "v1.0-test"], 1, "holds no folder v1.0-test of tables"),
    (["--infos", "x.json", "--city", "a", "--scene", "b"], 1, "x.json can't be read as infos of mmdetection3d"),
])  # fmt: skip
def test_bad_usage_and_bad_input_end_in_one_message(written, tmp_path, capsys, arguments, code, message):
    assert main(["convert", "nuscenes-map", str(written), str(tmp_path), *arguments]) == code
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize("version", [None, "1.8.5"])
def test_without_shapely_2_the_extra_is_named(written, tmp_path, monkeypatch, version):
    if version is None:
        monkeypatch.setitem(sys.modules, "shapely", None)
    else:
        monkeypatch.setattr("shapely.__version__", version)
    with pytest.raises(
        ConfigError, match=r"winnow convert nuscenes-map needs .*shapely.*: pip install -e '\.\[maps\]'"
    ):
        convert_nuscenes_map(written, tmp_path, Recipe())
    for name in ("map_synthetic", "map_rendered"):
        from winnow.families.maps import data as builders

        values = compose_plain(f"data={name}", *(["data.root=x"] if name == "map_rendered" else []))["data"]
        values.pop("_target_")
        with pytest.raises(ConfigError, match=rf"data={name} needs .*shapely.*pip install -e '\.\[maps\]'"):
            getattr(builders, name)(loading=loading_settings(), **values)


def test_images_travel_flat_six_per_sample_and_samples_are_counted(written):
    batch = next(iter(data(written).val_batches(64)))
    assert (batch.num_samples, batch.shape, batch.image_ids) == (2, (12, 32, 64), ["scene-0103_0", "scene-0103_1"])
    assert batch.images.permute(0, 2, 3, 1).is_contiguous()
    assert batch.frame_to_camera.shape == (2, 6, 4, 4)
    assert [target.city for target in batch.targets] == ["boston-seaport"] * 2
    target = batch.targets[0]
    assert target.points.shape == (7, 20, 2)
    assert (target.labels.tolist(), target.closed.tolist()) == (
        [0, 0, 1, 1, 2, 2, 2],
        [False, False, True, True, False, False, True],
    )


def test_calibration_is_that_of_the_images_as_they_travel(written):
    batch = next(iter(data(written, split="official").val_batches(64)))
    assert batch.intrinsics[0, 0].numpy() == pytest.approx(
        np.array([[40, 0, 32.5], [0, 40 * 32 / 36, 19 * 32 / 36], [0, 0, 1]])
    )


def test_official_scenes_are_those_of_the_tables_version_and_a_file_may_name_others(written, tmp_path):
    assert data(written).num_train_samples == 3
    lists = tmp_path / "lists.yaml"
    lists.write_text("train: [scene-0103, scene-0061]\nval: []\n")
    own = data(written, split=str(lists))
    assert (own.num_train_samples, own.num_val_batches()) == (6, 0)


def test_without_ground_truth_the_command_that_makes_it_is_named(written):
    with pytest.raises(
        DataError, match=r"winnow convert nuscenes-map ROOT \S+truth --map-frame ego --region 30 60 --boundary-layers"
    ):
        data(written, map_frame="ego")


def test_a_missing_image_is_replaced_by_another_sample_up_to_a_limit(root, caplog):
    (root / "samples/CAM_BACK/scene-0061_1.jpg").unlink()
    (batch,) = data(root, {"batch_size": 3}).train_batches(1, 64)
    assert batch.num_samples == 3
    assert re.search(r"sample scene-0061_1 of \S+sample_data.json \(filename\): image", caplog.text)
    with pytest.raises(DataError, match=r"1 samples can't be read, more than data\.max_bad_samples=0"):
        list(data(root, {"batch_size": 3}, max_bad_samples=0).train_batches(1, 64))


def test_a_folder_of_images_that_is_not_there_is_refused_before_a_run_waits_for_it(root):
    (root / "samples/CAM_BACK").rename(root / "samples/elsewhere")
    where = r"v1.0-mini/sample_data.json \(filename\): 3 of 18 images of train are not below data.root=\S+: "
    with pytest.raises(DataError, match=where + "'samples/CAM_BACK/scene-0061_0.jpg' …"):
        data(root)


def test_a_part_of_which_no_sample_has_all_its_images_is_refused_by_the_table_that_names_them(root):
    for number in range(3):
        (root / f"samples/CAM_FRONT/scene-0103_{number}.jpg").unlink()
    where = r"v1.0-mini/sample_data.json \(filename\): 3 of 18 images of val are not below data.root=\S+: "
    with pytest.raises(DataError, match=where + "'samples/CAM_FRONT/scene-0103_0.jpg' …"):
        data(root)


def test_the_check_finds_missing_cameras_broken_calibration_bad_images_and_empty_maps(root):
    assert not [finding for _, finding in check(root).findings() if finding.is_problem]
    (root / "samples/CAM_BACK/scene-0061_1.jpg").unlink()
    (root / "samples/CAM_FRONT/scene-0061_2.jpg").write_bytes(b"no image")
    change(root, "ego_pose", lambda records: records[0].update(translation=[9e5, 9e5, 0.0]))
    change(root, "ego_pose", lambda records: records[-1].update(rotation=[0, 0, 0, 0]))
    change(root, "sample_data", lambda records: records.__delitem__(slice(-16, -15)))
    convert(root)
    found = [
        (split, finding.kind, finding.annotation or finding.file, finding.is_problem)
        for split, finding in check(root).findings()
    ]
    assert ("train", "missing image", "scene-0061_1", True) in found
    assert ("train", "unreadable image", "scene-0061_2", True) in found
    assert ("train", "empty map", "scene-0061_0", False) in found
    assert ("both", "broken calibration", "scene-0103_2", True) in found


def test_the_check_is_reached_by_the_command(written, capsys, monkeypatch):
    from composed import REPOSITORY

    monkeypatch.chdir(REPOSITORY)
    command = ["data", "check", "data=nuscenes_map", f"data.root={written}", f"data.ground_truth={written / 'truth'}"]
    assert main([*command, "--format", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {split: part["num_images"] for split, part in report["splits"].items()} == {"train": 3, "val": 3}
    assert VERSION == "v1.0-mini"


def test_the_infos_of_the_real_keyframe_convert_and_are_read(shared_data, tmp_path):
    from winnow.families.maps.conversion import Infos

    root = shared_data / "nuscenes_mini"
    infos = Infos(root / "infos_mmdet3d_v1.1.json", "singapore-onenorth", "scene-0061")
    index = convert_nuscenes_map(root, tmp_path, Recipe(boundary_layers=("drivable_area",)), infos=infos)
    assert index.lines == {"divider": 4, "ped_crossing": 0, "boundary": 4}
    own = nuscenes_map(
        loading=loading_settings(overfit=1),
        **settings_values(root, ground_truth=str(tmp_path), boundary_layers=["drivable_area"], image_size=160),
    )
    batch = next(iter(own.train_batches(1, 160)))
    assert (batch.num_samples, batch.shape) == (1, (6, 96, 160))
    assert int(batch.images.float().std()) > 20
