import pytest

from winnow.errors import DataError
from winnow.families.detection.describe import DescribedSplit, Description
from winnow.start.suitable import require_suitable


def described(data="coco", overrides=None, **splits):
    parts = {
        name: DescribedSplit(images, boxes, 0, (640, 480), (640, 480), {"cell": boxes})
        for name, (images, boxes) in splits.items()
    }
    return Description("COCO JSON", overrides or {"data": data, "data.root": "cells"}, parts)


@pytest.mark.parametrize(("found", "given", "message"), [
    (described(test=(20, 40)), [], "no train split, only test"),
    (described(train=(1, 3), val=(9, 9)), [], "has 1 images; at least 8"),
    (described(train=(20, 0), val=(9, 9)), [], "20 images and not one box"),
    (described(train=(20, 40), val=(9, 0)), [], "val split of cells has not one box"),
    (described(train=(20, 40)), [], r"no val split.*`winnow start cells data.val_part=0.15`"),
    (described("yolo", all=(20, 40)), ["training.max_epochs=3"], "no val split.*val_part"),
    (described("bdd100k", train=(20, 40)), [], "which trial is better$"),
    (described(overrides={"data": "coco", "data.train.images": "FOLDER"}, all=(20, 40)), [], "is one file"),
])  # fmt: skip
def test_what_can_t_be_trained_is_refused_in_one_message(found, given, message):
    with pytest.raises(DataError, match=message):
        require_suitable(found, "cells", given)


@pytest.mark.parametrize(("found", "given"), [
    (described(train=(20, 40), val=(9, 9)), []), (described(all=(20, 40)), ["data.val_part=0.2"]),
])  # fmt: skip
def test_what_can_be_trained_is_not(found, given):
    assert require_suitable(found, "cells", given) is None
