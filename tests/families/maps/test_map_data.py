"""Rendered maps: what is drawn is where the truth says, unseen cities stay unseen, and a batch is a function of its keys."""

import itertools
import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from composed import compose_plain
from drawn_ink import loading_settings

from winnow.builders import mark_of
from winnow.errors import ConfigError, DataError
from winnow.families.maps.data import map_rendered, map_synthetic
from winnow.families.maps.evaluation import map_evaluation
from winnow.families.maps.frame import on_ground, project
from winnow.settings import build_settings
from winnow.testing.contents import digest

PLAIN = {"flip": 0.0, "brightness": 0.0, "noise": 0.0}


def values(name, *overrides, **changed):
    node = compose_plain(f"data={name}", *overrides)["data"]
    node.pop("_target_")
    return node | changed


def synthetic(loading=None, **changed):
    return map_synthetic(loading=loading_settings(**loading or {}), **values("map_synthetic", **changed))


def rendered(shared_data, loading=None, **changed):
    root = shared_data / "nuscenes_mini"
    return map_rendered(
        loading=loading_settings(**loading or {}), **values("map_rendered", f"data.root={root}", **changed)
    )


def own_evaluation():
    node = compose_plain("evaluation=maps")["evaluation"]
    node.pop("_target_")
    return map_evaluation(**node)


def bright_pixels(batch, index, label):
    """Return, of all true points of a class at most 20 m off that a camera sees, the part that lies on bright pixels."""
    hits = []
    for camera in range(6):
        image = batch.images[6 * index + camera].float().numpy()
        lines = [line.astype(float) for line in batch.targets[index].lines.of_class(label)]
        points = np.concatenate([np.linspace(a, b, 60)[5:-5] for line in lines for a, b in itertools.pairwise(line)])
        points = points[np.linalg.norm(points, axis=1) < 12]
        calibration = (
            batch.frame_to_camera[index, camera].double().numpy(),
            batch.intrinsics[index, camera].double().numpy(),
        )
        pixels, _ = project(on_ground(points, batch.ground[index].double().numpy()), *calibration)
        height, width = image.shape[1:]
        with np.errstate(invalid="ignore"):
            inside = ((pixels > 1) & (pixels < (width - 1, height - 1))).all(axis=1)
        columns, rows = pixels[inside].astype(int).T
        hits += (image[:, rows, columns].min(axis=0) > 180).tolist()
    return np.mean(hits), len(hits)


@pytest.mark.parametrize(("map_frame", "flip"), [("lidar", 0.0), ("lidar", 1.0), ("ego", 0.0)])
def test_dividers_are_drawn_where_the_truth_says_also_after_a_flip(map_frame, flip):
    data = synthetic(image_size=480, map_frame=map_frame, num_train=3, augmentation=PLAIN | {"flip": flip})
    (batch,) = data.train_batches(1, 480)
    shares = [bright_pixels(batch, index, 0) for index in range(3)]
    assert sum(number for _, number in shares) > 100
    assert np.average([share for share, _ in shares], weights=[number for _, number in shares]) > 0.85


def test_the_same_lines_without_a_flip_of_the_calibration_would_not_be_there():
    data = synthetic(image_size=480, num_train=3, augmentation=PLAIN)
    (batch,) = data.train_batches(1, 480)
    mirrored = type(batch)(batch.images.flip(3), batch.frame_to_camera, batch.intrinsics, batch.ground, batch.targets)
    assert bright_pixels(mirrored, 0, 0)[0] < 0.3


def test_a_random_map_holds_every_class_somewhere_and_rings_among_the_crossings():
    targets = [target for batch in synthetic(num_val=24).val_batches(32) for target in batch.targets]
    counts = np.sum([target.lines.counts() for target in targets], axis=0)
    assert (counts > 8).all()
    rings = [target.closed[target.labels == 1] for target in targets]
    assert torch.cat(rings).all()
    assert all(np.abs(target.lines.vertices).max() <= 30 for target in targets)


def test_scenes_are_the_same_in_every_epoch_or_new_ones():
    def vertices(data, epoch):
        batches = data.train_batches(epoch, 32)
        return sorted(digest(target.lines) for batch in batches for target in batch.targets)

    fixed, new = (synthetic(num_train=4, new_scenes=kind, augmentation=PLAIN) for kind in (False, True))
    assert vertices(fixed, 1) == vertices(fixed, 2)
    assert not set(vertices(new, 1)) & set(vertices(new, 2))
    assert set(vertices(synthetic({"seed": 1}, num_train=4, augmentation=PLAIN), 1)).isdisjoint(vertices(fixed, 1))


def test_what_is_kept_changes_nothing(monkeypatch):
    whole = [digest(batch) for epoch in (1, 2) for batch in synthetic(num_train=6).train_batches(epoch, 32)]
    monkeypatch.setattr("winnow.families.maps.sources._CACHED_BYTES", 30_000)
    assert [digest(batch) for epoch in (1, 2) for batch in synthetic(num_train=6).train_batches(epoch, 32)] == whole


def test_a_kill_in_mid_epoch_goes_on_with_the_same_batches_whatever_the_workers():
    loading = {"batch_size": 2, "seed": 5}
    whole = [digest(batch) for batch in synthetic(loading, num_train=6).train_batches(3, 32)]
    resumed = synthetic(loading | {"num_workers": 2}, num_train=6)
    assert [digest(batch) for batch in resumed.train_batches(3, 32, start_sample=2)] == whole[1:]


def test_real_drives_come_twice_a_second_and_the_validation_city_is_never_trained_on(shared_data, caplog):
    caplog.set_level(logging.INFO)
    data = rendered(shared_data, {"batch_size": 64})
    assert data.num_train_samples == 238
    assert (
        "train 238 samples (boston-seaport, singapore-queenstown): 1381 divider, 0 ped_crossing, 861 boundary"
        in caplog.text
    )
    assert "val   118 samples (singapore-hollandvillage): 709 divider, 0 ped_crossing, 486 boundary" in caplog.text
    assert data.cities == ("boston-seaport", "singapore-hollandvillage", "singapore-onenorth", "singapore-queenstown")
    caplog.clear()
    own_evaluation().look_over(None, data)
    absent = "the validation set holds no ped_crossing: val/map is the mean over 2 classes, divider and boundary"
    assert caplog.messages == [absent]
    caplog.clear()
    own_evaluation().look_over(SimpleNamespace(num_instances=15), data)
    beyond = "samples hold more lines than model.num_instances=15:"
    assert caplog.messages == [
        f"12 of 238 training {beyond} 13 go beyond it; the most in one are 17",
        f"1 of 118 validation {beyond} 2 go beyond it; the most in one are 17",
        absent,
    ]


def test_every_number_says_which_way_is_better():
    modes = own_evaluation().metric_modes
    assert (modes["map"], modes["error_m"], modes["map_city/*"]) == ("max", "min", "max")
    data = synthetic(num_val=2)
    metric = own_evaluation().model_arguments(data)["new_metric"]()
    assert set(metric.names) <= set(modes)


def test_real_drives_in_one_city_are_drawn_where_the_truth_says(shared_data):
    data = rendered(shared_data, {"overfit": 3}, train_cities=["singapore-onenorth"], val_cities=[], image_size=480)
    assert data.num_train_samples == 3
    (batch,) = data.train_batches(1, 480)
    assert batch.image_ids == ["scene-0061_0", "scene-0061_5", "scene-0061_10"]
    assert bright_pixels(batch, 1, 0)[0] > 0.8


@pytest.mark.parametrize(("changed", "message"), [
    ({"region": [61.0, 60.0]}, r"region=\[61.0, 60.0\] is larger than what is painted, 60 × 120 m"),
    ({"region": [0.0, 60.0]}, r"data\.region\.0=0\.0: input should be greater than 0"),
    ({"map_frame": "camera"}, r"data\.map_frame='camera': input should be 'lidar' or 'ego'"),
])  # fmt: skip
def test_settings_that_can_not_be_drawn_are_refused(changed, message):
    with pytest.raises(ConfigError, match=message):
        synthetic(**changed)


def test_a_city_without_a_drive_is_refused_and_so_is_a_folder_without_any(shared_data, tmp_path):
    with pytest.raises(
        ConfigError,
        match="no drive of \\S+vector_map is in 'atlantis'; there are boston-seaport, singapore-hollandvillage",
    ):
        rendered(shared_data, val_cities=["atlantis"])
    with pytest.raises(DataError, match=r"vector_map: no drive in \S+, .* lasts data.seconds=1000: scene-"):
        rendered(shared_data, seconds=1000.0)
    with pytest.raises(DataError, match=r"vector_map holds no scene \(data\.root\)"):
        map_rendered(loading=loading_settings(), **values("map_rendered", f"data.root={tmp_path}"))


@pytest.mark.parametrize(
    ("name", "counts"), [("map_synthetic", {"train": 5, "val": 4}), ("map_rendered", {"train": 38, "val": 38})]
)
def test_the_checks_read_or_draw_every_sample(shared_data, name, counts):
    builder = {"map_synthetic": map_synthetic, "map_rendered": map_rendered}[name]
    cities = ["singapore-onenorth"]
    own = {"num_train": 5, "num_val": 4} if name == "map_synthetic" else {"train_cities": cities, "val_cities": cities}
    overrides = [] if name == "map_synthetic" else [f"data.root={shared_data / 'nuscenes_mini'}"]
    mark = mark_of(builder)
    report = mark.check(
        build_settings(mark.settings_class, values(name, *overrides, **own, image_size=32), "data"), lambda *_: None
    )
    assert {split: part.num_images for split, part in report.splits.items()} == counts
    assert not report.findings()
    assert all(part.num_annotations > 2 * part.num_images for part in report.splits.values())


def test_two_validation_sets_differ_by_their_seed_and_by_nothing_of_the_training(tmp_path):
    def look(loading=None, **changed):
        return [digest(batch) for batch in synthetic(loading, num_val=3, **changed).val_batches(32)]

    assert look() == look({"seed": 7})
    assert look() != look(seed=1)
    assert json.dumps(look()) == json.dumps(look(num_train=5))
