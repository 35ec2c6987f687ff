"""Names files that are something else than a COCO file, and says how to go on with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from winnow.reading import UnreadableError, parse_json

_BEGINNINGS = (
    (b"\x1f\x8b", "is packed with gzip: gunzip it first"),
    (b"PK\x03\x04", "is a ZIP archive: unzip it first, and name the JSON in it"),
    (b"BZh", "is packed with bzip2: bunzip2 it first"),
    (b"\xfd7zXZ", "is packed with xz: unxz it first"),
    (b"version https://git-lfs", "is a Git LFS pointer, not the file itself: git lfs pull fetches it"),
    (b"\x89PNG", "is a picture, not annotations"),
    (b"\xff\xd8\xff", "is a picture, not annotations"),
)
_COCO_OF = "to COCO JSON (images, annotations, categories)"


def content_of_another_kind(data: bytes) -> str | None:
    """Return what the bytes of a file are that is no JSON, as the end of a sentence with the way to go on; None where it is not
    known."""
    for beginning, words in _BEGINNINGS:
        if data.startswith(beginning):
            return words
    text = data.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not text:
        return "is empty"
    if text.startswith(b"<"):
        return _of_markup(text)
    lines = [line for line in text.split(b"\n", 2)[:2] if line.strip()]
    if len(lines) == 2 and all(_is_json(line) for line in lines):
        return f"holds JSON lines, a value each: bring them {_COCO_OF}, one for the whole file"
    numbers = text.split(b"\n", 1)[0].split()
    if len(numbers) >= 5 and all(number.replace(b".", b"", 1).isdigit() for number in numbers):
        return "holds YOLO's lines of numbers: data=yolo data.root=FOLDER reads the folder with its data.yaml or classes.txt"
    if len(text.split(b"\n", 1)[0].split(b",")) >= 4:
        return f"is a table (CSV): bring it {_COCO_OF}"
    return None


def unlike_coco(content: Any) -> str | None:
    """Return what JSON is that is not of COCO's kind, as ``content_of_another_kind`` does."""
    return next((words for is_it, words in _KINDS if is_it(content)), None)


def _of_markup(text: bytes) -> str:
    head = text[:2000].lower()
    if b"<!doctype html" in head or b"<html" in head:
        return "is a web page, as of a download that needs a login: fetch the file again"
    if b"<annotation>" in head or b"<annotation " in head:
        return "is XML of Pascal VOC, for one image: data=voc data.root=FOLDER reads a folder of them"
    if b"<annotations>" in head:
        return "is XML of CVAT: export it there as COCO 1.0"
    return "is XML: data=voc reads folders of Pascal VOC's; other kinds have to be exported as COCO"


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(parse_json(line), dict | list)
    except UnreadableError:
        return False


def _first(content: Any) -> dict[str, Any]:
    """Return the first entry of a list, or the first value of a mapping, where that is a mapping."""
    if isinstance(content, dict):
        content = list(content.values())[:1]
    return content[0] if isinstance(content, list) and content and isinstance(content[0], dict) else {}


def _has_lists(content: Any) -> bool:
    return isinstance(content, dict) and all(isinstance(content.get(key), list) for key in ("images", "annotations"))


def _is_via(content: Any) -> bool:
    entry = _first(content)
    return isinstance(content, dict) and ("_via_img_metadata" in content or {"filename", "regions"} <= entry.keys())


def _is_results(content: Any) -> bool:
    return isinstance(content, list) and {"image_id", "category_id", "bbox", "score"} <= _first(content).keys()


def _is_lvis(content: Any) -> bool:
    if not _has_lists(content):
        return False
    image, category = _first(content["images"]), _first(content.get("categories"))
    return "coco_url" in image and "file_name" not in image and ("frequency" in category or "synset" in category)


def _is_bdd100k(content: Any) -> bool:
    return (
        isinstance(content, list)
        and "name" in _first(content)
        and bool({"labels", "attributes"} & _first(content).keys())
    )


def _is_createml(content: Any) -> bool:
    return isinstance(content, list) and "image" in _first(content) and "annotations" in _first(content)


def _is_label_studio(content: Any) -> bool:
    return isinstance(content, list) and "data" in _first(content) and "annotations" in _first(content)


def _is_labelme(content: Any) -> bool:
    return isinstance(content, dict) and {"shapes", "imagePath"} <= content.keys()


def _is_panoptic(content: Any) -> bool:
    return _has_lists(content) and "segments_info" in _first(content["annotations"])


def _is_captions(content: Any) -> bool:
    first = _first(content["annotations"]) if _has_lists(content) else {}
    return "caption" in first and "category_id" not in first


_KINDS: tuple[tuple[Callable[[Any], bool], str], ...] = (
    (_is_via, f"is a project of the VGG Image Annotator (VIA): export it there as COCO, or bring it {_COCO_OF}"),
    (_is_results, "is a list of results, what a detector found, and holds no annotations: name the file that it was judged by"),
    (_is_lvis, "is of LVIS, whose images have a coco_url and no file_name: write the last two parts of the address "
        "(train2017/000000391895.jpg) into each as its file_name, and give the folder above train2017 and val2017 as images"),
    (_is_bdd100k, "is a list of frames, as BDD100K and Scalabel write it: data=bdd100k data.root=FOLDER reads BDD100K's folder"),
    (_is_createml, f"is a list of images, as CreateML writes it: bring it {_COCO_OF}"),
    (_is_label_studio, "is of Label Studio: export it there as COCO"),
    (_is_labelme, f"is of LabelMe, for one image: bring the folder {_COCO_OF}, as labelme2coco does"),
    (_is_panoptic, "is of COCO's panoptic task, whose segments have no boxes of their own: name instances_….json"),
    (_is_captions, "holds COCO's captions: name instances_….json"),
)  # fmt: skip
"""How each kind is recognised, and what is said of it."""
