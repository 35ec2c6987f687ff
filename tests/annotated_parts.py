"""Small annotated data sets of one's own, written as COCO JSON, and what is built of them."""

import json

from composed import compose_plain
from PIL import Image

from winnow.data.plan import LoadingSettings
from winnow.families.detection.data import coco_data

LOADING = {
    "batch_size": 2, "num_workers": 0, "drop_last": False, "seed": 0, "subset_size": None, "subset_seed": 0, "overfit": None,
}  # fmt: skip


def write_set(folder, objects, categories, ids=None, split="train", crowd=()):
    """Write pictures of 40×30 px, each of its own shade, with an object of each of the class names that ``objects`` list for it;
    those in ``crowd`` are crowds. Category ids are ``ids``, else from 1."""
    number_of = dict(zip(categories, ids or range(1, len(categories) + 1), strict=True))
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for row, names in enumerate(objects):
        file_name = f"{split}_{row}.png"
        Image.new("RGB", (40, 30), (row, len(split), 7)).save(folder / "images" / file_name)
        images.append({"id": row, "file_name": file_name, "width": 40, "height": 30})
        for place, name in enumerate(names):
            annotations.append(
                {"id": len(annotations) + 1, "image_id": row, "category_id": number_of[name],
                 "bbox": [3 * place, place, 12, 9], "area": 108, "iscrowd": int(name in crowd)}
            )  # fmt: skip
    path = folder / f"{split}.json"
    listed = [{"id": number, "name": name} for name, number in number_of.items()]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": listed}))
    return path


def coco_values(folder, splits=("train", "val"), **values):
    """Return the values of ``data=coco`` for what ``write_set`` wrote into ``folder``."""
    node = compose_plain("data=coco")["data"] | {"cache": str(folder / "cache"), "image_size": 32, "max_bad_images": 0}
    del node["_target_"]
    for part in ("train", "val"):
        is_there = part in splits
        node[part] = (
            {"images": str(folder / "images"), "annotations": str(folder / f"{part}.json")} if is_there else None
        )
    return node | values


def build(folder, splits=("train", "val"), loading=(), **values):
    """Build ``data=coco`` of what ``write_set`` wrote into ``folder``."""
    return coco_data(loading=LoadingSettings(**LOADING | dict(loading)), **coco_values(folder, splits, **values))


def objects_of(data, records):
    """Return for each record the names of its objects, crowds in capitals."""
    return [
        [data.classes[label].upper() if crowd else data.classes[label] for label, crowd in pairs]
        for pairs in (zip(record.labels, record.crowd, strict=True) for record in records)
    ]
