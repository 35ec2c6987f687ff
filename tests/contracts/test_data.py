"""Every data set of winnow keeps the contract of ``protocols.Data``."""

import json

import numpy as np
import pytest
from composed import compose_plain
from drawn_ink import stroke_values
from nuscenes_files import write_nuscenes
from pairs_parts import pair_values, synthetic_values, write_llvip
from PIL import Image, ImageDraw

from winnow.families.detection.data import coco_data, digits_data
from winnow.families.ink.lines.data import ink_lines
from winnow.families.ink.strokes.data import ink_strokes
from winnow.families.maps.conversion import convert_nuscenes_map
from winnow.families.maps.data import map_synthetic, nuscenes_map
from winnow.families.maps.truth import Recipe
from winnow.families.pairs.data import llvip, pairs_synthetic
from winnow.testing.data import DataContract


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def detection_values(**changes):
    values = compose_plain("data=digits")["data"] | changes
    values.pop("_target_")
    return values


class TestDigits(DataContract):
    @pytest.fixture(autouse=True)
    def _values(self, folder):
        self.values = detection_values(root=str(folder / "digits"), num_train=5, num_val=4, size=64, image_size=64)

    def make_data(self, loading):
        return digits_data(loading=loading, **self.values)


class TestCocoWithoutAugmentation(DataContract):
    augments = False

    @pytest.fixture(autouse=True)
    def _values(self, folder):
        common = detection_values(image_size=64)
        for key in ("root", "num_train", "num_val", "size", "objects", "object_scale", "seed"):
            common.pop(key)
        plain = {"horizontal_flip": 0.0, "photometric": 0.0, "crop": 0.0, "resize_scale": [1.0, 1.0]}
        self.values = common | {"name": "coco", "augmentation": common["augmentation"] | plain}
        for part, count in (("train", 5), ("val", 4)):
            self.values[part] = write_coco(folder / part, count)

    def make_data(self, loading):
        return coco_data(loading=loading, **self.values)


def write_coco(folder, count):
    """Write images of noise of different shapes; every second image has no box."""
    annotations = folder / "instances.json"
    if not annotations.exists():
        folder.mkdir()
        images, boxes = [], []
        for number in range(count):
            width, height = 64 + 16 * (number % 3), 48
            pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
            images.append({"id": number, "file_name": f"{number}.png", "width": width, "height": height})
            if number % 2 == 0:
                boxes.append(
                    {
                        "id": number,
                        "image_id": number,
                        "category_id": 1,
                        "bbox": [4, 4, 20, 30],
                        "area": 600,
                        "iscrowd": 0,
                    }
                )
        content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "thing"}]}
        annotations.write_text(json.dumps(content))
    return {"images": str(folder), "annotations": str(annotations)}


class TestInkStrokes(DataContract):
    @pytest.fixture(autouse=True)
    def _values(self, folder):
        self.values = stroke_values(folder / "strokes", num_train=5, num_val=4)

    def make_data(self, loading):
        return ink_strokes(loading=loading, **self.values)


class TestInkLines(DataContract):
    @pytest.fixture(autouse=True)
    def _values(self, folder):
        pages = {
            part: write_page(folder / f"pages_{part}", tops) for part, tops in (("train", (20, 120)), ("val", (60,)))
        }
        values = compose_plain("data=ink_lines", *(f"data.train.{key}=x" for key in ("images", "annotations")))["data"]
        values.pop("_target_")
        self.values = values | pages | {"cache": str(folder / "lines")}

    def make_data(self, loading):
        return ink_lines(loading=loading, **self.values)


def write_page(folder, tops):
    """Write a page with lines of waves on grey paper, each 40 px high."""
    if not folder.exists():
        folder.mkdir()
        page = Image.new("L", (400, 300), 220)
        x = np.arange(24, 316)
        lines = []
        for number, top in enumerate(tops):
            ImageDraw.Draw(page).line(
                list(zip(x, top + 20 + 16 * np.sin(x / (5 + number)), strict=True)), fill=40, width=4
            )
            corners = [20, top, 320, top, 320, top + 40, 20, top + 40]
            lines.append(
                {
                    "id": number,
                    "image_id": 1,
                    "category_id": 1,
                    "baseline": [20, top + 36, 320, top + 36],
                    "segmentation": [corners],
                }
            )
        page.save(folder / "page.png")
        image = {"id": 1, "file_name": "page.png", "width": 400, "height": 300}
        categories = [{"id": 1, "name": "line"}]
        content = {"images": [image], "annotations": lines, "categories": categories}
        (folder / "lines.json").write_text(json.dumps(content))
    return {"images": str(folder), "annotations": str(folder / "lines.json")}


class TestPairsSynthetic(DataContract):
    @pytest.fixture(autouse=True)
    def _values(self, folder):
        self.values = synthetic_values(
            folder / "pairs", image_size=64, modality_dropout={"visible": 0.3, "infrared": 0.3}
        )

    def make_data(self, loading):
        return pairs_synthetic(loading=loading, **self.values)


class TestLlvip(DataContract):
    @pytest.fixture(autouse=True)
    def _values(self, folder):
        root, names = folder / "llvip", [f"01000{number}" for number in range(5)]
        if not root.is_dir():
            write_llvip(root, train=names, test=["190001", "190002", "190003", "190004"])
        split = {"train": ["01"], "val": ["19"]}
        self.values = pair_values("llvip", llvip_root=str(root), llvip_split=split, image_size=64)

    def make_data(self, loading):
        return llvip(loading=loading, **self.values)


class TestMapSynthetic(DataContract):
    image_size = 32

    def make_data(self, loading):
        values = compose_plain("data=map_synthetic")["data"] | {"num_train": 5, "num_val": 4, "image_size": 32}
        values.pop("_target_")
        return map_synthetic(loading=loading, **values)


class TestMapsWithNewScenesInEachEpoch(DataContract):
    image_size = 32

    def make_data(self, loading):
        values = compose_plain("data=map_synthetic")["data"] | {"num_train": 5, "num_val": 4, "image_size": 32}
        values.pop("_target_")
        plain = {"flip": 0.0, "brightness": 0.0, "noise": 0.0}
        return map_synthetic(loading=loading, **values | {"new_scenes": True, "augmentation": plain})


class TestNuscenesMap(DataContract):
    @pytest.fixture(autouse=True)
    def _values(self, folder):
        root = folder / "nuscenes"
        if not root.exists():
            convert_nuscenes_map(write_nuscenes(root, num_keyframes=5), root / "truth", Recipe())
        self.values = compose_plain("data=nuscenes_map", f"data.root={root}")["data"]
        self.values.pop("_target_")
        self.values |= {"ground_truth": str(root / "truth"), "image_size": 64}

    def make_data(self, loading):
        return nuscenes_map(loading=loading, **self.values)
