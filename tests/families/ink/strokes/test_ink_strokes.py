"""Drawn tiles as data: what they depend on, how the curriculum reaches them, and the validation set."""

import multiprocessing

import numpy as np
import pytest
import torch
from drawn_ink import random_strokes, stroke_settings, stroke_values, strokes_data

from winnow.errors import ConfigError, DataError
from winnow.families.ink.batch import KEY_POINT_KINDS
from winnow.families.ink.strokes.data import InkStrokesSettings, draw_tiles
from winnow.settings import build_settings


def tensors(batch):
    return [batch.images, *vars(batch.target).values()]


def equal(batches, others):
    batches, others = list(batches), list(others)
    return len(batches) == len(others) > 0 and all(
        one.image_ids == other.image_ids
        and all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))
        for one, other in zip(batches, others, strict=True)
    )


def test_a_batch_has_the_shapes_types_and_ranges_that_tasks_are_written_against(tmp_path):
    batch = next(strokes_data(tmp_path).train_batches(1, 64))
    target = batch.target
    shapes = {name: tuple(tensor.shape) for name, tensor in vars(target).items()}
    assert shapes == {
        "skeleton": (8, 1, 64, 64), "tangent": (8, 2, 64, 64), "width": (8, 1, 64, 64), "offset": (8, 2, 64, 64),
        "key_points": (8, len(KEY_POINT_KINDS), 64, 64), "has_full_labels": (8,),
    }  # fmt: skip
    assert {tensor.dtype for tensor in [batch.images, *list(vars(target).values())[:-1]]} == {torch.float32}
    assert batch.shape == (8, 64, 64)
    assert 0 <= batch.images.min() < 0.1
    assert batch.images.max() == 1
    assert target.has_full_labels.all()


def test_labels_are_zero_off_the_skeleton_and_unit_on_it(tmp_path):
    target = next(strokes_data(tmp_path).train_batches(3, 64)).target
    off = target.skeleton == 0
    for labels in (target.tangent, target.width, target.offset, target.key_points):
        assert not (labels * off).any()
    norm = target.tangent.norm(dim=1, keepdim=True)
    assert torch.allclose(norm, target.skeleton, atol=1e-5)
    assert (target.width > 0).equal(target.skeleton > 0)


def test_a_tile_is_the_same_bit_for_bit_alone_and_among_others():
    settings = stroke_settings(affine=1.0)
    cells = [(epoch, index, 1 + index % 10) for epoch in (1, 2) for index in range(20)]
    together = draw_tiles(settings, 0, cells, 64)
    for number in (0, 7, 19, 33):
        alone, same = draw_tiles(settings, 0, [cells[number]], 64), together.take([number])
        assert all(np.array_equal(getattr(alone, name), getattr(same, name)) for name in vars(alone))


@pytest.mark.parametrize(
    "changed", [(1, 1, 5, 3), (0, 2, 5, 3), (0, 1, 6, 3), (0, 1, 5, 4)], ids=["seed", "epoch", "index", "level"]
)
def test_a_tile_changes_with_its(changed):
    settings = stroke_settings()
    one, other = (draw_tiles(settings, seed, [cell], 64) for seed, *cell in ((0, 1, 5, 3), changed))
    assert not np.array_equal(one.images, other.images)


@pytest.mark.parametrize("key", ["noise", "blur", "texture"])
def test_the_pen_goes_the_same_way_with_and_without(key):
    cells = [(1, index, 5) for index in range(4)]
    clean = stroke_settings(noise=0.0, blur=0.0, texture=0.0)
    spoilt = stroke_settings(**{"noise": 0.0, "blur": 0.0, "texture": 0.0, key: 0.8})
    one, other = draw_tiles(clean, 0, cells, 64), draw_tiles(spoilt, 0, cells, 64)
    assert np.array_equal(one.pixel, other.pixel)
    assert not np.array_equal(one.images, other.images)


def test_levels_go_from_one_stroke_to_several_paths_of_several_segments():
    paths, segments = [], []
    for level in range(1, 11):
        strokes = random_strokes(seed=1, level=level, count=40)
        paths.append(len(np.unique(strokes.path)) / 40)
        segments.append(len(strokes.path) / 40)
    assert (paths[0], segments[0]) == (1, 1)
    assert paths[9] > 4
    assert segments == sorted(segments)
    assert segments[9] > 12


def test_segments_of_a_path_meet_and_go_on_in_the_same_direction_but_at_corners():
    strokes = random_strokes(seed=2, level=10, affine=1.0, count=20)
    follows = np.flatnonzero(strokes.path[1:] == strokes.path[:-1])
    assert np.allclose(strokes.control[3][:, follows], strokes.control[0][:, follows + 1], atol=1e-3)
    assert np.allclose(strokes.width[1, follows], strokes.width[0, follows + 1], atol=1e-4)
    before = strokes.control[3][:, follows] - strokes.control[2][:, follows]
    after = strokes.control[1][:, follows + 1] - strokes.control[0][:, follows + 1]
    cosine = (before * after).sum(axis=0) / np.hypot(*before) / np.hypot(*after)
    is_smooth = strokes.joins[0, follows + 1] == 0
    assert is_smooth.any()
    assert (cosine[is_smooth] > 0.999).all()
    assert (cosine[~is_smooth] < 0.9).all()


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_nothing(tmp_path, workers):
    plain, loaded = strokes_data(tmp_path), strokes_data(tmp_path, loading={"num_workers": workers})
    assert equal(plain.train_batches(2, 64), loaded.train_batches(2, 64))
    assert equal(plain.val_batches(64), loaded.val_batches(64))


def test_the_curriculum_reaches_running_workers(tmp_path):
    settings = {"curriculum": [[1, 1], [3, 4]], "easier": 0.0}
    data = strokes_data(tmp_path, loading={"num_workers": 2}, **settings)
    levels, workers = [], []
    for epoch in (1, 2, 3):
        names = [name for batch in data.train_batches(epoch, 64) for name in batch.image_ids]
        levels.append({name.rpartition("_level")[2] for name in names})
        workers.append({child.pid for child in multiprocessing.active_children()})
    assert levels == [{"1"}, {"1"}, {"4"}]
    assert len(workers[0]) >= 2
    assert workers[0] == workers[1] == workers[2]
    assert equal(data.train_batches(3, 64), strokes_data(tmp_path, **settings).train_batches(3, 64))


def test_easier_tiles_are_of_all_lower_levels(tmp_path):
    data = strokes_data(tmp_path, curriculum=4, easier=0.5, num_train=200)
    names = [name for batch in data.train_batches(1, 64) for name in batch.image_ids]
    counts = np.bincount([int(name.rpartition("_level")[2]) for name in names], minlength=6)
    assert 70 < counts[4] < 130
    assert (counts[1:4] > 15).all()
    assert counts[0] == counts[5] == 0


def test_an_epoch_goes_on_after_the_first_samples_and_is_shared_by_ranks(tmp_path):
    whole = [name for batch in strokes_data(tmp_path).train_batches(1, 64) for name in batch.image_ids]
    rest = [name for batch in strokes_data(tmp_path).train_batches(1, 64, start_sample=8) for name in batch.image_ids]
    assert rest == whole[8:]
    shares = [
        strokes_data(tmp_path, loading={"batch_size": 4, "rank": rank, "ranks": 2}).train_batches(1, 64)
        for rank in (0, 1)
    ]
    together = [name for pair in zip(*shares, strict=True) for batch in pair for name in batch.image_ids]
    assert together == whole


def test_a_rank_without_samples_gets_an_empty_batch(tmp_path):
    data = strokes_data(tmp_path, num_train=1, loading={"batch_size": 1, "rank": 1, "ranks": 2})
    (batch,) = data.train_batches(1, 64)
    assert batch.shape == (0, 64, 64)
    assert data.smallest_share() == 0


def test_the_validation_set_covers_all_levels_and_knows_no_training_seed(tmp_path):
    one, other = strokes_data(tmp_path), strokes_data(tmp_path, loading={"seed": 1}, curriculum=3)
    assert equal(one.val_batches(64), other.val_batches(64))
    levels = [name.rpartition("_level")[2] for batch in one.val_batches(64) for name in batch.image_ids]
    assert levels == [str(level) for level in range(1, 11)] * 2
    assert not equal(one.train_batches(1, 64), other.train_batches(1, 64))


def test_the_validation_set_may_be_of_one_level(tmp_path):
    data = strokes_data(tmp_path, val_level=2)
    assert {name.rpartition("_level")[2] for batch in data.val_batches(64) for name in batch.image_ids} == {"2"}


def test_the_validation_set_is_drawn_once_and_then_only_read(tmp_path):
    first = list(strokes_data(tmp_path).val_batches(64))
    (file,) = tmp_path.glob("*.npz")
    written = file.stat().st_mtime_ns
    data = strokes_data(tmp_path)
    assert equal(first, data.val_batches(64))
    assert equal(data.val_batches(64), data.val_batches(64))
    assert file.stat().st_mtime_ns == written


def test_a_torn_validation_file_is_named(tmp_path):
    strokes_data(tmp_path)
    (file,) = tmp_path.glob("*.npz")
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(DataError, match=f"{file.name} can't be read.*delete it"):
        strokes_data(tmp_path)


def test_the_fingerprint_changes_with_what_is_drawn_and_with_nothing_else(tmp_path):
    fingerprint = strokes_data(tmp_path / "a").fingerprint
    assert fingerprint == strokes_data(tmp_path / "b", loading={"num_workers": 1, "batch_size": 4}).fingerprint
    for changed in ({"noise": 0.1}, {"curriculum": 5}, {"num_train": 25}, {"seed": 3}, {"val_level": 1}):
        assert strokes_data(tmp_path / "a", **changed).fingerprint != fingerprint


def test_an_overfit_run_sees_the_same_tiles_in_every_epoch_and_validates_on_them(tmp_path):
    data = strokes_data(tmp_path, loading={"overfit": 6})
    assert equal(data.train_batches(1, 64), data.train_batches(9, 64))
    assert equal(data.train_batches(1, 64), data.val_batches(64))
    assert data.num_train_samples == 6


def test_a_subset_takes_some_of_an_epochs_tiles(tmp_path):
    data = strokes_data(tmp_path, loading={"subset_size": 5})
    (batch,) = data.train_batches(1, 64)
    assert batch.num_samples == data.num_train_samples == 5


def test_other_sizes_show_the_same_strokes(tmp_path):
    data = strokes_data(tmp_path, noise=0.0, blur=0.0, texture=0.0, curriculum=2)
    small, large = (next(data.train_batches(1, size)) for size in (64, 128))
    assert large.shape == (8, 128, 128)
    shrunk = torch.nn.functional.avg_pool2d(large.images, 2)
    assert (shrunk - small.images).abs().mean() < 0.01


def test_the_preview_shows_the_first_validation_tiles(tmp_path):
    data = strokes_data(tmp_path)
    assert [batch.num_samples for batch in data.preview(10, 64)] == [8, 2]
    assert next(data.preview(10, 64)).image_ids == next(data.val_batches(64)).image_ids


@pytest.mark.parametrize(("changed", "message"), [
    ({"curriculum": 11}, "data.curriculum=11: levels go from 1 to 10"),
    ({"curriculum": "hard"}, "data.curriculum='hard': must be a level, or a list of"),
    ({"curriculum": [[5, 3]]}, r"data.curriculum=\[\[5, 3\]\]: must begin at epoch 1, its epochs rising"),
    ({"curriculum": [[1, 3], [1, 4]]}, "must begin at epoch 1, its epochs rising"),
    ({"curriculum": []}, "must begin at epoch 1"),
    ({"curriculum": [[1, True]]}, "must be a level, or a list of"),
    ({"val_level": 0}, "data.val_level=0"),
    ({"noise": 2.0}, "data.noise=2.0"),
    ({"blurr": 1}, "data.blurr=1 is not a known key; allowed here: .*blur"),
])  # fmt: skip
def test_a_wrong_setting_is_refused_under_its_key(changed, message):
    with pytest.raises(ConfigError, match=message):
        build_settings(InkStrokesSettings, stroke_values("unused", **changed), "data")
