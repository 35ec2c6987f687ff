import shutil

import numpy as np
import pytest
import torch
from composed import compose_plain
from PIL import Image

from winnow.data.loader import FolderGone, NothingReadable
from winnow.data.plan import SampleKey
from winnow.errors import ConfigError, DataError
from winnow.families.detection.data import LoadingSettings, digits_data
from winnow.families.detection.formats.records import ImageRecord
from winnow.families.detection.samples import Collate, DetectionSamples

COMMON = {"num_train": 20, "num_val": 6, "size": 64, "image_size": 64}


@pytest.fixture(scope="module")
def make_data(tmp_path_factory):
    root = tmp_path_factory.mktemp("digits")

    def make(num_workers=0, augmentation=None, image_size=64, max_bad_images=0, resize="pad", **loading):
        values = (
            compose_plain("data=digits")["data"]
            | COMMON
            | {"root": str(root), "image_size": image_size, "max_bad_images": max_bad_images, "resize": resize}
        )
        values.pop("_target_")
        values["augmentation"] = values["augmentation"] | {"horizontal_flip": 0.5, **(augmentation or {})}
        plain = {
            "batch_size": 4,
            "drop_last": False,
            "seed": 0,
            "subset_size": None,
            "subset_seed": 42,
            "overfit": None,
        }
        return digits_data(loading=LoadingSettings(num_workers=num_workers, **plain | loading), **values)

    return make


def contents(batches):
    return [(batch.image_ids, batch.images.clone(), [target.boxes for target in batch.targets]) for batch in batches]


def assert_same(first, second):
    assert len(first) == len(second)
    for (ids, images, boxes), (other_ids, other_images, other_boxes) in zip(first, second, strict=True):
        assert ids == other_ids
        assert images.equal(other_images)
        assert all(a.equal(b) for a, b in zip(boxes, other_boxes, strict=True))


def test_batches_are_the_same_whatever_the_workers_and_the_random_state(make_data):
    first = contents(make_data(num_workers=0).train_batches(3, 64))
    torch.rand(5)
    assert_same(first, contents(make_data(num_workers=2).train_batches(3, 64)))


def test_an_epoch_can_be_entered_in_its_middle(make_data):
    data = make_data(num_workers=2)
    whole = contents(data.train_batches(2, 64))
    iterator = data.train_batches(1, 64)
    next(iterator)
    assert_same(whole[3:], contents(data.train_batches(2, 64, start_sample=12)))


def test_epochs_differ_in_order_and_augmentation(make_data):
    data = make_data()
    first, second = contents(data.train_batches(1, 64)), contents(data.train_batches(2, 64))
    ids = [sorted(image_id for batch in epoch for image_id in batch[0]) for epoch in (first, second)]
    assert ids[0] == ids[1] == sorted(set(ids[0]))
    assert [batch[0] for batch in first] != [batch[0] for batch in second]
    pictures = [{image_id: image for ids, images, _ in epoch for image_id, image in zip(ids, images, strict=True)} for epoch in
                (first, second)]  # fmt: skip
    same = [image_id for image_id, image in pictures[0].items() if image.equal(pictures[1][image_id])]
    assert len(same) < 15, "each epoch flips others of the 20"


def test_training_images_bring_no_truth_in_original_pixels(make_data):
    batch = next(make_data().train_batches(1, 64))
    assert all(len(target.boxes) > 0 for target in batch.targets)
    for name in ("original_boxes", "original_labels", "original_areas", "original_crowd"):
        assert {len(getattr(target, name)) for target in batch.targets} == {0}


def test_reading_leaves_the_global_generator_alone(make_data):
    data = make_data()
    before = torch.get_rng_state()
    contents(data.train_batches(1, 64))
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize("resize", ["pad", "square"])
@pytest.mark.parametrize("image_size", [48, 64, 100])
def test_boxes_stay_inside_their_image_and_the_mask_marks_it(make_data, image_size, resize):
    for batch in make_data(augmentation={"crop": 1.0}, resize=resize).train_batches(1, image_size):
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.images.shape[2] % 32 == batch.images.shape[3] % 32 == 0
        for row, target in enumerate(batch.targets):
            height, width = target.size
            assert max(height, width) <= image_size
            assert batch.pixel_mask[row].sum() == height * width
            assert not batch.images[row][:, ~batch.pixel_mask[row]].any()
            normalised = target.boxes / torch.tensor([width, height, width, height])
            assert ((normalised >= 0) & (normalised <= 1)).all()
            assert (target.boxes[:, 2:] > target.boxes[:, :2]).all()


def test_validation_keeps_every_annotation_in_original_pixels(make_data):
    data = make_data(image_size=32)
    targets = [target for batch in data.val_batches(32) for target in batch.targets]
    assert [target.image_id for target in targets] == [record.image_id for record in data.val_records]
    for target, record in zip(targets, data.val_records, strict=True):
        assert target.original_boxes.numpy() == pytest.approx(record.boxes)
        assert target.original_labels.equal(torch.from_numpy(record.labels))
        assert target.original_areas.equal(torch.from_numpy(record.areas))
        assert target.original_crowd.equal(torch.from_numpy(record.crowd))
        assert target.labels.equal(target.original_labels[~target.original_crowd])
        assert target.original_size == (record.height, record.width)
        assert max(target.size) == 32
        scale = torch.tensor([*target.scale, *target.scale])
        torch.testing.assert_close(target.boxes * scale, target.original_boxes, atol=0.01, rtol=0)


def test_a_subset_is_the_same_in_every_run_and_chosen_by_its_seed(make_data):
    ids = [
        sorted(i for batch in data.train_batches(1, 64) for i in batch.image_ids)
        for data in (
            make_data(subset_size=7),
            make_data(subset_size=7, seed=5),
            make_data(subset_size=7, subset_seed=1),
        )
    ]
    assert ids[0] == ids[1] != ids[2]
    assert len(ids[0]) == 7


def test_overfitting_evaluates_the_first_samples_it_trains_on_unchanged(make_data):
    data = make_data(overfit=5)
    train, val = contents(data.train_batches(1, 64)), contents(data.val_batches(64))
    assert_same(train, val)
    assert_same(train, contents(data.train_batches(2, 64)))
    assert [i for ids, _, _ in train for i in ids] == [1, 2, 3, 4, 5]


def test_the_fingerprint_tells_what_is_trained_on(make_data):
    assert make_data().fingerprint == make_data(seed=9).fingerprint != make_data(subset_size=7).fingerprint


@pytest.mark.parametrize(("batch_size", "drop_last", "batches", "smallest"), [
    (8, False, 3, 4), (8, True, 2, 8), (5, False, 4, 5), (19, False, 2, 1),
])  # fmt: skip
def test_the_last_incomplete_batch_is_kept_or_dropped(make_data, batch_size, drop_last, batches, smallest):
    data = make_data(batch_size=batch_size, drop_last=drop_last)
    assert data.num_train_batches() == len(contents(data.train_batches(1, 64))) == batches
    assert data.smallest_batch() == smallest


def test_no_batch_at_all_is_a_config_error(make_data):
    with pytest.raises(ConfigError, match="training.batch_size=64 with training.drop_last=true leaves no batch"):
        make_data(batch_size=64, drop_last=True)


@pytest.mark.parametrize(("augmentation", "message"), [
    ({"crop_scale": [0.9, 0.1]}, r"data.augmentation.crop_scale=\[0.9, 0.1\]: must be \[low, high\]"),
    ({"photometric": 2.0}, "data.augmentation.photometric=2.0"),
    ({"rotate": 1.0}, "data.augmentation.rotate=1.0 is not a known key; allowed here: crop, crop_scale"),
])  # fmt: skip
def test_wrong_augmentation_settings_are_named(make_data, augmentation, message):
    with pytest.raises(ConfigError, match=message):
        make_data(augmentation=augmentation)


@pytest.fixture
def broken(make_data):
    """Return the data set with two truncated images and one that is gone."""
    records = make_data().val_records
    folder = records[0].path.parents[1] / "train"
    files = sorted(folder.glob("*.jpg"))[:3]
    contents = [file.read_bytes() for file in files]
    yield files
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_unreadable_images_are_named_and_left_out_up_to_a_limit(make_data, broken, caplog, num_workers):
    data = make_data(num_workers=num_workers, max_bad_images=2)
    for file in broken[:2]:
        file.write_bytes(file.read_bytes()[:500])
    batches = contents(data.train_batches(1, 64))
    ids = [image_id for batch in batches for image_id in batch[0]]
    assert (len(batches), len(ids)) == (5, 20)
    assert not {1, 2} & set(ids)
    assert caplog.text.count("left out") == 2
    assert f"image id 1: image {broken[0]} cannot be read" in caplog.text
    broken[2].unlink()
    with pytest.raises(DataError, match=r"3 images can't be read, more than data.max_bad_images=2:\n  image id 1: .*"):
        contents(data.train_batches(2, 64))


def test_a_batch_without_a_readable_image_is_an_error(make_data, broken):
    data = make_data(batch_size=1, max_bad_images=2)
    broken[0].write_bytes(b"no jpeg")
    with pytest.raises(DataError, match=f"no image of the batch can be read: image id 1: image {broken[0]} cannot"):
        contents(data.train_batches(1, 64))


def test_a_folder_that_is_gone_is_told_from_an_image_that_is_broken(tmp_path):
    records = []
    for number, name in enumerate(("there", "there", "gone")):
        boxes = np.array([[2, 2, 9, 9]], dtype=np.float32)
        path = tmp_path / name / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 24), (number + 1, 0, 0)).save(path)
        labels = np.array([number])
        records.append(ImageRecord(number, path, 40, 24, boxes, labels, np.array([49.0]), np.array([False])))
    samples = DetectionSamples(records, None, False, 0, with_truth=True)
    assert len(samples) == 3
    read = [samples[SampleKey(1, number, 40)] for number in range(3)]
    whole = Collate(32)(read)
    assert (whole.image_ids, whole.images.shape, whole.problems) == ([0, 1, 2], (3, 3, 32, 64), ())
    records[1].path.write_bytes(b"no image")
    shutil.rmtree(tmp_path / "gone")
    good, broken, gone = (samples[SampleKey(1, number, 40)] for number in range(3))
    assert broken.problem.startswith("image id 1: ")
    assert (broken.gone_folder, gone.gone_folder) == (None, str(tmp_path / "gone"))
    assert Collate(32)([good, broken, gone]) == FolderGone(str(tmp_path / "gone"))
    assert Collate(32)([broken, broken]) == NothingReadable((broken.problem, broken.problem))
    mended = Collate(32)([broken, good, broken])
    assert (mended.image_ids, mended.problems) == ([0, 0, 0], (broken.problem, broken.problem))
    assert mended.images[2].equal(whole.images[0])


def test_a_share_without_samples_is_a_batch_without_images():
    empty = Collate(32)([])
    assert (empty.num_samples, empty.images.shape, empty.pixel_mask.shape) == (0, (0, 3, 32, 32), (0, 32, 32))
    assert (empty.images.dtype, empty.pixel_mask.dtype) == (torch.uint8, torch.bool)


@pytest.mark.parametrize(
    ("size", "ranks", "last"), [(4, 2, [2, 2]), (4, 3, [3, 3, 2]), (6, 3, [1, 1, 0]), (4, 5, [4] * 5)]
)
def test_the_shares_of_the_ranks_are_the_batches_of_one_process(make_data, size, ranks, last):
    whole = contents(make_data(batch_size=size * ranks).train_batches(1, 64))
    datas = [make_data(batch_size=size, rank=rank, ranks=ranks, num_workers=rank // 2) for rank in range(ranks)]
    shares = [contents(data.train_batches(1, 64)) for data in datas]
    assert [[image for share in number for image in share[0]] for number in zip(*shares, strict=True)] == [
        ids for ids, _, _ in whole
    ]
    images = torch.cat([share[0][1] for share in shares])
    assert images.equal(whole[0][1])
    assert [len(share[-1][0]) for share in shares] == last
    assert {data.num_train_batches() for data in datas} == {len(whole)}
    assert datas[0].smallest_share() == min(last)
