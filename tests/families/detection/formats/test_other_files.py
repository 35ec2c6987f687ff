"""Files that are something else than COCO are named as what they are, with the way to go on."""

import gzip
import json

import pytest

from winnow.errors import DataError
from winnow.families.detection.formats.coco_table import read_table

BOX = [1, 2, 3, 4]
COCO = {"images": [], "annotations": [], "categories": []}
LVIS = {
    "images": [{"id": 1, "coco_url": "http://images.cocodataset.org/train2017/1.jpg", "height": 4, "width": 5}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": BOX}],
    "categories": [{"id": 1, "name": "cat", "synset": "cat.n.01", "frequency": "f"}],
}


def as_json(content):
    return json.dumps(content).encode()


@pytest.mark.parametrize(("content", "words"), [
    (gzip.compress(as_json(COCO), mtime=0), "is packed with gzip: gunzip it first"),
    (b"PK\x03\x04...", "is a ZIP archive: unzip it first"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "is a Git LFS pointer.*git lfs pull"),
    (b'{"file": "a.jpg"}\n{"file": "b.jpg"}\n', "holds JSON lines"),
    (b"<annotation><object/></annotation>", "is XML of Pascal VOC, for one image: data=voc data.root=FOLDER"),
    (b'<?xml version="1.0"?>\n<annotations><version>1.1</version></annotations>', "is XML of CVAT: export it there as COCO"),
    (b"<!DOCTYPE html><html></html>", "is a web page"),
    (b"", "is empty"),
    (b"0 0.5 0.5 0.1 0.1\n", "holds YOLO's lines of numbers: data=yolo"),
    (b"file,x,y,w,h\na.jpg,1,2,3,4\n", r"is a table \(CSV\)"),
    (b"\x89PNG\r\n\x1a\n", "is a picture, not annotations"),
    (as_json({"a.jpg123": {"filename": "a.jpg", "size": 123, "regions": [], "file_attributes": {}}}), "VGG Image Annotator"),
    (as_json({"_via_settings": {}, "_via_img_metadata": {}}), "VGG Image Annotator"),
    (as_json([{"image_id": 1, "category_id": 1, "bbox": BOX, "score": 0.5}]), "is a list of results, what a detector found"),
    (as_json(LVIS), "is of LVIS, whose images have a coco_url and no file_name: write the last two parts"),
    (as_json([{"name": "a.jpg", "labels": []}]), "data=bdd100k"),
    (as_json([{"image": "a.jpg", "annotations": []}]), "CreateML"),
    (as_json([{"id": 1, "data": {"image": "a.jpg"}, "annotations": []}]), "is of Label Studio: export it there as COCO"),
    (as_json({"shapes": [], "imagePath": "a.jpg"}), "is of LabelMe, for one image"),
    (as_json(COCO | {"annotations": [{"image_id": 1, "segments_info": []}]}), "panoptic"),
    (as_json(COCO | {"annotations": [{"image_id": 1, "caption": "a cat"}]}), "captions"),
    (b"{", "not JSON"),
    (as_json([]), "no list images and no list annotations and no list categories"),
    (as_json({"images": []}), "no list annotations and no list categories"),
])  # fmt: skip
def test_a_file_of_another_kind_is_named_with_the_way_to_go_on(tmp_path, content, words):
    path = tmp_path / "labels.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"annotation file \S+labels\.json.* ?{words}"):
        read_table(path)


def test_lvis_with_file_names_is_read(tmp_path):
    images = [{"id": 1, "file_name": "train2017/1.jpg", "height": 4, "width": 5, "coco_url": "x"}]
    (tmp_path / "lvis.json").write_bytes(as_json(LVIS | {"images": images}))
    assert read_table(tmp_path / "lvis.json").file_names == ["train2017/1.jpg"]
