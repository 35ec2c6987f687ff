"""What of the truth reaches a model is counted, said and, where it is nothing, refused before any training."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from winnow.data.plan import LoadingSettings
from winnow.errors import DataError
from winnow.families.detection.data import DetectionData
from winnow.families.detection.evaluation import BoxEvaluation, BoxSettings
from winnow.families.detection.formats.records import CocoSplit, ImageRecord
from winnow.families.detection.settings import DetectionSettings
from winnow.families.detection.trainable import BoxCounts
from winnow.families.detection.transforms import Augmentation, AugmentationSettings
from winnow.settings import build_settings

UNCHANGED = {
    "horizontal_flip": 0.0,
    "photometric": 0.0,
    "crop": 0.0,
    "crop_scale": (0.5, 1.0),
    "resize_scale": (1.0, 1.0),
}
LOADING = {
    "batch_size": 2, "num_workers": 0, "drop_last": False, "seed": 0, "subset_size": None, "subset_seed": 0, "overfit": None,
}  # fmt: skip


def record(boxes, image_id=1, crowd=None, size=(400, 640)):
    boxes = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    count = len(boxes)
    return ImageRecord(
        image_id, Path(f"{image_id}.png"), size[1], size[0], boxes, np.zeros(count, dtype=np.int64),
        np.ones(count, dtype=np.float32), np.array(crowd if crowd is not None else [False] * count, dtype=bool),
    )  # fmt: skip


def data(train, val=(), image_size=640, resize="pad", **loading):
    train, val = (CocoSplit(tuple(records), ("car",), (1,), "", {}) for records in (train, val))
    settings = DetectionSettings(
        image_size=image_size, resize=resize, augmentation=AugmentationSettings(**UNCHANGED), max_bad_images=0,
        wait_for_files_seconds=0,
    )  # fmt: skip
    return DetectionData(train, val, settings, LoadingSettings(**LOADING | loading))


BOX, SMALL = [10, 10, 110, 60], [10, 10, 17, 90]


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("size", [32, 100, 640])
def test_a_box_counts_where_the_transforms_of_training_keep_it(square, size):
    rng = np.random.default_rng(0)
    records = []
    for number in range(20):
        corner = rng.uniform(0, 200, (12, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(0.5, 40, (12, 2))], axis=1)
        records.append(record(boxes, number, crowd=rng.random(12) < 0.2, size=(int(rng.integers(240, 500)), 300)))
    augment = Augmentation(AugmentationSettings(**UNCHANGED))
    kept = 0
    for one in records:
        boxes, labels = torch.from_numpy(one.boxes[~one.crowd]), torch.from_numpy(one.labels[~one.crowd])
        image = torch.zeros(3, one.height, one.width, dtype=torch.uint8)
        kept += len(augment(image, boxes, labels, size, square)[1])
    counts = BoxCounts.of(records, [size], square, drops_small=True)
    assert counts.trainable == {size: kept}
    assert 0 < kept <= counts.boxes - counts.crowds < counts.boxes == 240


def test_the_log_counts_the_trainable_boxes_of_each_size(caplog):
    with caplog.at_level("INFO", logger="winnow"):
        data([record([BOX, SMALL, BOX], crowd=[False, False, True])], resize_schedule=[(1, 64), (5, 640)])
    assert "1 images, 3 boxes, 1 classes; trainable: 1 at 64 px, 2 at 640 px" in caplog.text
    assert not [line for line in caplog.records if line.levelname == "WARNING"], "half is not more than half"


@pytest.mark.parametrize(("records", "size", "numbers"), [
    ([record([BOX, BOX], crowd=[True, True])], 640, "none of the 2 boxes .* 2 are crowds and 0 have"),
    ([record([SMALL, BOX], crowd=[False, True]), record([SMALL])], 64, "none of the 3 boxes .* 1 are crowds and 2 have"),
    ([record([]), record([])], 640, "none of the 0 boxes"),
])  # fmt: skip
def test_a_training_set_without_a_trainable_box_is_refused(records, size, numbers):
    with pytest.raises(DataError, match=numbers):
        data(records, image_size=size)


def test_what_one_size_of_a_schedule_loses_another_may_keep():
    data([record([SMALL])], image_size=64, resize_schedule=[(1, 64), (5, 640)])
    with pytest.raises(DataError, match=r"at size \(32, 64\)"):
        data([record([SMALL])], resize_schedule=[(1, 32), (5, 64)])


def test_more_than_half_lost_is_a_warning_with_both_numbers(caplog):
    data([record([SMALL, SMALL, BOX])], image_size=64)
    assert "at image size 64 only 1 of the 3 boxes of the training images are trainable" in caplog.text


def test_an_overfit_run_keeps_small_boxes(caplog):
    data([record([SMALL, SMALL])], image_size=64, overfit=1)
    assert not caplog.records


def test_images_with_more_objects_than_can_be_given_are_told_of_with_the_numbers(caplog):
    crowded = [record([BOX] * 5, 7), record([BOX] * 3, 8), record([BOX] * 9, 9, crowd=[False] + [True] * 8)]
    given = data(crowded, [record([BOX] * 4, 17), record([BOX], 18)])
    evaluation = BoxEvaluation(BoxSettings(score_threshold=0.05, max_detections=3, backend="hotcoco"))
    evaluation.look_over(SimpleNamespace(num_queries=2), given)
    tail = "objects go beyond it; the most are in image id"
    assert [line.getMessage() for line in caplog.records] == [
        f"2 of 3 training images hold more objects than model.num_queries=2: 4 {tail} 7, 5",
        f"1 of 2 validation images hold more objects than model.num_queries=2: 2 {tail} 17, 4",
        f"1 of 2 validation images hold more objects than evaluation.max_detections=3: 1 {tail} 17, 4",
    ]
    caplog.clear()
    roomy = BoxEvaluation(BoxSettings(score_threshold=0.05, max_detections=4, backend="hotcoco"))
    roomy.look_over(SimpleNamespace(num_queries=5), given)
    roomy.look_over(SimpleNamespace(), data([record([BOX])]))
    assert not caplog.records


@pytest.mark.parametrize("name", ["winnow", "faster-coco-eval"])
def test_a_backend_that_runs_were_recorded_with_means_todays(name, caplog):
    with caplog.at_level("INFO"):
        settings = build_settings(
            BoxSettings, {"score_threshold": 0.05, "max_detections": 3, "backend": name}, "evaluation"
        )
    assert settings.backend == "hotcoco"
    assert f"evaluation.backend={name} is now hotcoco, whose numbers are the same bit for bit" in caplog.text
