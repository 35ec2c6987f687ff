from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from pairs_parts import pair_values, synthetic_values, write_llvip, write_voc
from PIL import Image

from winnow.data.plan import LoadingSettings, SampleKey, sample_seed
from winnow.errors import ConfigError, DataError, TransientDataError
from winnow.families.detection.transforms import AugmentationSettings
from winnow.families.pairs.batch import ABSENT_PIXEL, PairBatch
from winnow.families.pairs.data import llvip, pairs_synthetic
from winnow.families.pairs.samples import PairSamples, read_pair
from winnow.families.pairs.transforms import PairAugmentation, change_brightness

PLAIN = {
    "batch_size": 4,
    "num_workers": 0,
    "drop_last": False,
    "seed": 3,
    "subset_size": None,
    "subset_seed": 0,
    "overfit": None,
}
ONLY_FLIP = {
    "horizontal_flip": 1.0,
    "photometric": 0.0,
    "crop": 0.0,
    "crop_scale": [1.0, 1.0],
    "resize_scale": [1.0, 1.0],
}


def loading(**changes):
    return LoadingSettings.model_validate(PLAIN | changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pairs")


@pytest.fixture
def make(folder):
    def make(num_train=8, image_size=160, loaded=(), **changes):
        values = synthetic_values(folder, num_train=num_train, image_size=image_size) | changes
        return pairs_synthetic(loading=loading(**dict(loaded)), **values)

    return make


def as_stored(record):
    visible, infrared = (np.asarray(Image.open(path)) for path in record.paths)
    return torch.from_numpy(np.dstack([visible, infrared])).permute(2, 0, 1)


def test_channels_are_red_green_blue_and_infrared_and_the_memory_is_channels_last(make):
    data = make()
    batch = next(data.val_batches(160))
    assert isinstance(batch, PairBatch)
    assert batch.images.shape == (4, 4, 128, 160)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    for row, record in enumerate(data.val_records):
        assert batch.images[row].equal(as_stored(record))
    assert batch.present.all()
    assert batch.seeds == tuple(sample_seed(0, 0, row) for row in range(4))


def test_one_geometry_moves_both_images_the_boxes_and_who_sees_them(make):
    data = make(augmentation=ONLY_FLIP, loaded={"batch_size": 8})
    batch = next(data.train_batches(1, 160))
    records = {record.image_id: record for record in data.train_records}
    for row, target in enumerate(batch.targets):
        record = records[target.image_id]
        assert batch.images[row].equal(as_stored(record).flip(-1))
        boxes = torch.from_numpy(record.boxes)
        assert target.boxes.equal(torch.stack([160 - boxes[:, 2], boxes[:, 1], 160 - boxes[:, 0], boxes[:, 3]], dim=1))
        assert batch.seen_in[row].equal(torch.from_numpy(record.seen_in))


def test_who_sees_a_box_stays_with_it_when_the_other_is_cropped_away(tmp_path):
    pixels = np.zeros((60, 100, 3), dtype=np.uint8)
    pixels[20:40, 5:35, 0], pixels[20:40, 65:95, 1] = 255, 255
    write_llvip(tmp_path)
    for folder in ("visible", "infrared"):
        Image.fromarray(pixels).save(tmp_path / folder / "train/010001.png")
    write_voc(tmp_path / "Annotations/010001.xml", [(5, 20, 35, 40), (65, 20, 95, 40)], size=(100, 60))
    data = llvip(loading=loading(), **pair_values("llvip", llvip_root=str(tmp_path)))
    record = replace(data.train_records[0], seen_in=np.array([[True, False], [False, True]]))
    settings = AugmentationSettings(**ONLY_FLIP | {"horizontal_flip": 0.5, "crop": 1.0, "crop_scale": (0.4, 0.5)})
    samples = PairSamples([record], PairAugmentation(settings), False, 0, False)
    alone = Counter()
    for epoch in range(60):
        image, target, _, seen_in, _ = samples[SampleKey(epoch, 0, 100)]
        assert seen_in.shape == (len(target.boxes), 2)
        assert len(target.labels) == len(target.boxes)
        for (x1, y1, x2, y2), seen in zip(target.boxes.round().int().tolist(), seen_in.tolist(), strict=True):
            if min(x2 - x1, y2 - y1) > 8:
                is_red = int(image[0, (y1 + y2) // 2, (x1 + x2) // 2]) > 128
                assert seen == ([True, False] if is_red else [False, True])
                alone[is_red] += len(target.boxes) == 1
    assert min(alone[True], alone[False]) > 5


def test_what_the_model_reads_moves_with_the_batch(make):
    batch = next(make().val_batches(160))
    moved = batch.to(torch.device("meta"))
    assert {moved.present.device.type, moved.images.device.type, *(seen.device.type for seen in moved.seen_in)} == {
        "meta"
    }
    assert moved.seeds == batch.seeds
    assert batch.to(torch.device("cpu")) is batch


def test_a_folder_of_either_camera_that_is_gone_is_waited_for(tmp_path):
    write_llvip(tmp_path)
    data = llvip(loading=loading(), **pair_values("llvip", llvip_root=str(tmp_path)))
    (tmp_path / "infrared/train").rename(tmp_path / "away")
    with pytest.raises(TransientDataError, match=f"the image folder {tmp_path / 'infrared/train'} is gone"):
        next(data.train_batches(1, 64))
    (tmp_path / "away").rename(tmp_path / "infrared/train")
    assert next(data.train_batches(1, 64)).num_samples == 3


def test_colours_and_infrared_change_by_draws_of_their_own(make):
    augmentation = ONLY_FLIP | {"horizontal_flip": 0.0, "photometric": 0.5}
    data = make(num_train=40, augmentation=augmentation)
    records = {record.image_id: record for record in data.train_records}
    changes = Counter()
    for batch in data.train_batches(1, 160):
        for row, image_id in enumerate(batch.image_ids):
            same = batch.images[row] == as_stored(records[image_id])
            changes[bool(same[:3].all()), bool(same[3].all())] += 1
    assert set(changes) == {(True, True), (True, False), (False, True), (False, False)}
    assert min(changes.values()) >= 4


def test_brightness_and_contrast_of_one_change_nothing_and_of_others_what_they_say():
    image = torch.tensor([[[10, 110]]], dtype=torch.uint8)
    assert change_brightness(image, 1, 1).equal(image)
    assert change_brightness(image, 1, 0.5).tolist() == [[[35, 85]]]
    assert change_brightness(image, 1.5, 1).tolist() == [[[15, 165]]]


@pytest.mark.parametrize(("modalities", "present"), [(["visible"], [True, False]), (["infrared"], [False, True])])
def test_an_unused_modality_is_its_mean_in_training_and_evaluation(make, modalities, present):
    whole, data = make(), make(modalities=modalities)
    absent = torch.tensor(ABSENT_PIXEL)[:, None, None]
    pairs = [
        *zip(whole.val_batches(160), data.val_batches(160), strict=True),
        *zip(whole.train_batches(1, 160), data.train_batches(1, 160), strict=True),
    ]
    for both, one in pairs:
        assert one.present.tolist() == [present] * len(one.targets)
        is_there = torch.tensor([present[0]] * 3 + [present[1]])[:, None, None]
        assert one.images.equal(torch.where(is_there, both.images, absent).to(torch.uint8))


def test_padding_stays_zero_where_a_modality_is_absent(make):
    batch = next(make(modalities=["infrared"], image_size=100).val_batches(100))
    assert batch.images.shape[2:] == (96, 128)
    assert not batch.images.permute(0, 2, 3, 1)[~batch.pixel_mask].any()


def test_dropout_leaves_one_image_out_as_often_as_it_says_and_never_both(folder):
    values = synthetic_values(folder, num_train=8)
    records = pairs_synthetic(loading=loading(), **values).train_records
    samples = PairSamples(list(records) * 250, None, False, 5, False, dropout={"visible": 0.3, "infrared": 0.1})
    drawn = Counter(samples._present(records[0], key) for key in keys(2000))
    assert drawn[False, True] / 2000 == pytest.approx(0.3, abs=0.03)
    assert drawn[True, False] / 2000 == pytest.approx(0.1, abs=0.02)
    assert drawn[False, False] == 0


def keys(count, epoch=1):
    return [SampleKey(epoch, index, 160) for index in range(count)]


def test_dropout_is_a_function_of_seed_epoch_and_index_and_changes_nothing_else(make):
    dropout = {"visible": 0.5, "infrared": 0.5}
    first, again, plain = (list(make(**changes).train_batches(2, 160)) for changes in (
        {"modality_dropout": dropout}, {"modality_dropout": dropout, "loaded": {"num_workers": 2}}, {}
    ))  # fmt: skip
    for one, two, whole in zip(first, again, plain, strict=True):
        assert one.present.equal(two.present)
        assert one.images.equal(two.images)
        assert all(a.equal(b) for a, b in zip(one.seen_in, two.seen_in, strict=True))
        assert (one.present.sum(dim=1) == 1).all()
        assert [t.boxes.tolist() for t in one.targets] == [t.boxes.tolist() for t in whole.targets]
        for row in range(len(one.targets)):
            channels = slice(0, 3) if one.present[row, 0] else slice(3, 4)
            assert one.images[row, channels].equal(whole.images[row, channels])
    other = torch.cat([batch.present for batch in make(modality_dropout=dropout).train_batches(3, 160)])
    assert not other.equal(torch.cat([batch.present for batch in first]))
    assert all(batch.present.all() for batch in make(modality_dropout=dropout).val_batches(160))


@pytest.mark.parametrize(("changes", "message"), [
    ({"modality_dropout": {"visible": 0.7, "infrared": 0.5}}, "data.modality_dropout: visible=0.7 and infrared=0.5 are left out"),
    ({"modality_dropout": {"visible": 1.5, "infrared": 0.0}}, "data.modality_dropout.visible=1.5"),
    ({"modalities": []}, r"data.modalities=\[\]"),
    ({"modalities": ["visible", "visible"]}, "data.modalities=.*: names one modality twice"),
    ({"modalities": ["radar"]}, "data.modalities.0='radar': input should be 'visible' or 'infrared'"),
])  # fmt: skip
def test_wrong_settings_are_named(make, changes, message):
    with pytest.raises(ConfigError, match=message):
        make(**changes)


def test_an_infrared_file_of_three_channels_is_read_as_one(tmp_path):
    grey = np.arange(48 * 64, dtype=np.uint8).reshape(48, 64)
    write_llvip(tmp_path)
    Image.fromarray(np.repeat(grey[:, :, None], 3, axis=2)).save(tmp_path / "infrared/train/010001.png")
    split = {"train": ["01"], "val": ["02"]}
    data = llvip(loading=loading(), **pair_values("llvip", llvip_root=str(tmp_path), llvip_split=split))
    assert np.array_equal(read_pair(data.train_records[0], (True, True))[3].numpy(), grey)


def test_a_batch_of_drawn_pairs_says_who_is_seen_and_one_of_cameras_does_not(make, tmp_path):
    write_llvip(tmp_path)
    cameras = llvip(loading=loading(), **pair_values("llvip", llvip_root=str(tmp_path)))
    assert next(cameras.val_batches(64)).seen_in is None
    assert next(make().val_batches(160)).seen_in is not None


def test_a_pair_that_can_not_be_read_is_named_and_another_stands_in_its_place(tmp_path, caplog):
    write_llvip(tmp_path)
    (tmp_path / "infrared/train/010002.png").write_bytes(b"no picture")
    split = {"train": ["01"], "val": ["02"]}
    data = llvip(loading=loading(), **pair_values("llvip", llvip_root=str(tmp_path), llvip_split=split))
    batch = next(data.train_batches(1, 64))
    assert sorted(Counter(batch.image_ids).values()) == [1, 2]
    assert len(batch.seeds) == len(batch.present) == 3
    assert f"image id 010002: image {tmp_path / 'infrared/train/010002.png'} cannot be read" in caplog.text


def test_a_size_that_no_image_has_takes_no_memory(tmp_path):
    write_llvip(tmp_path)
    write_voc(tmp_path / "Annotations/010001.xml", [(1, 1, 9, 9)], size=(2**40, 48))
    data = llvip(loading=loading(batch_size=1), **pair_values("llvip", llvip_root=str(tmp_path), max_bad_images=0))
    with pytest.raises(DataError, match=r"010001.png has 64×48 pixels, but is annotated as 1099511627776×48"):
        list(data.train_batches(1, 64))
