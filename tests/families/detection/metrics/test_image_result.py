import numpy as np
import pytest
from detection_parts import batch, jittered, nothing_found
from test_coco_ap import targets

from winnow.families.detection.metrics.coco_ap import CocoAp
from winnow.families.detection.metrics.image_result import from_arrays


def gathered(truth, found):
    metric = CocoAp(["car", "bus", "bike"], [3, 1, 9])
    metric.update(found, batch(*truth))
    return metric


def nothing_is_found(truth):
    return gathered(truth, [nothing_found() for _ in truth])


def test_what_is_computed_from_the_arrays_is_the_same_to_the_last_bit(tmp_path):
    metric = gathered(*jittered(np.random.default_rng(0)))
    np.savez_compressed(tmp_path / "arrays.npz", **metric.arrays())
    with np.load(tmp_path / "arrays.npz", allow_pickle=False) as arrays:
        images = from_arrays(arrays)
        assert arrays["category_ids"].tolist() == [3, 1, 9]
    again = CocoAp(["car", "bus", "bike"])
    again.merge({"images": images, "num_dropped": 0})
    assert again.compute() == metric.compute()
    for one, other in zip(images, metric.sorted_images(), strict=True):
        for column, value in one._asdict().items():
            np.testing.assert_array_equal(value, getattr(other, column))


def test_images_without_boxes_and_ids_of_both_kinds_come_back():
    metric = CocoAp(["car", "bus", "bike"])
    assert from_arrays(metric.arrays()) == []
    truth = targets()
    metric = nothing_is_found(truth)
    images = from_arrays(metric.arrays())
    assert [image.image_id for image in images] == [7, 9, "b"]
    assert [len(image.true_labels) for image in images] == [2, 0, 1]
    assert images[0].size == truth[0].original_size


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("true_boxes", lambda value: value[:-1]),
        ("true_image", lambda value: value + 100),
        ("true_image", lambda value: value[::-1] - 1),
        ("image_sizes", lambda value: value[:, :1]),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(name, change):
    arrays = nothing_is_found(targets()).arrays()
    with pytest.raises(ValueError, match="shape|images"):
        from_arrays({**arrays, name: change(arrays[name])})
