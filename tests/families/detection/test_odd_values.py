"""Label files and pictures as people have them, through the builders: what a run sees of them, what is said, what is refused."""

import json
import logging

import numpy as np
import pytest
from composed import compose_plain
from PIL import Image

from winnow.data.plan import LoadingSettings, SampleKey
from winnow.errors import ConfigError, DataError
from winnow.families.detection.check import check_coco, check_voc
from winnow.families.detection.data import coco_data, voc_data, yolo_data
from winnow.families.detection.settings import CocoNode, VocNode
from winnow.settings import build_settings

ORIENTATION = 0x0112
LOADING = LoadingSettings(
    batch_size=1, num_workers=0, drop_last=False, seed=0, subset_size=None, subset_seed=0, overfit=None
)


def pixels_of(seed=0, width=64, height=48):
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)


def save(path, pixels, orientation=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation is not None:
        exif[ORIENTATION] = orientation
    Image.fromarray(pixels).save(path, exif=exif)


def box(number=1, bbox=(4, 6, 20, 10), image_id=1, **more):
    return {"id": number, "image_id": image_id, "category_id": 1, "bbox": list(bbox), "iscrowd": 0} | more


def image(number=1, file_name="a.png", width=64, height=48, **more):
    return {"id": number, "file_name": file_name, "width": width, "height": height} | more


def write_coco(folder, images, annotations, categories=({"id": 1, "name": "cat"},)):
    content = {"images": list(images), "annotations": list(annotations), "categories": list(categories)}
    (folder / "coco.json").write_text(json.dumps(content))


def node_of(choice, folder, **values):
    node = compose_plain(f"data={choice}")["data"]
    del node["_target_"]
    return node | {"cache": str(folder / "cache"), "val": None, "image_size": 64} | values


def coco_node(folder, **values):
    paths = {"images": str(folder / "images"), "annotations": str(folder / "coco.json")}
    return node_of("coco", folder, train=paths, **values)


def read(folder, images=None, annotations=None, pictures=("a.png",), categories=({"id": 1, "name": "cat"},), **values):
    """Write ``images`` and ``annotations`` as COCO beside random ``pictures``, and return the data made of it."""
    for seed, name in enumerate(pictures):
        save(folder / "images" / name, pixels_of(seed))
    write_coco(
        folder, [image()] if images is None else images, [box()] if annotations is None else annotations, categories
    )
    return coco_data(loading=LOADING, **coco_node(folder, **values))


def boxes(data, index=0):
    return data.train_records[index].boxes.tolist()


@pytest.mark.parametrize(
    ("flag", "is_crowd"), [("0", False), ("1", True), (" 0 ", False), ("0.0", False), (0, False), (True, True)]
)
def test_a_crowd_flag_in_text_is_the_number_that_it_is(tmp_path, caplog, flag, is_crowd):
    caplog.set_level(logging.INFO)
    data = read(tmp_path, annotations=[box(1, iscrowd=flag), box(2, (1, 2, 3, 4))])
    assert data.train_records[0].crowd.tolist() == [is_crowd, False]
    assert ("1 number of an annotation written as text" in caplog.text) == isinstance(flag, str)


@pytest.mark.parametrize(
    ("key", "value"), [("iscrowd", "no"), ("iscrowd", "false"), ("iscrowd", []), ("area", "wide"), ("area", "")]
)
def test_text_that_is_no_number_is_an_error_with_its_place(tmp_path, key, value):
    with pytest.raises(DataError, match=rf"iscrowd or area that is no number \(1\): annotation 7 of a\.png: .*{key} "):
        read(tmp_path, annotations=[box(7, **{key: value})])


def test_every_number_of_a_file_may_be_text(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    written = box("1", ["4", "6.0", "2e1", "10"], image_id="1", category_id="1", area="150", iscrowd="0")
    data = read(tmp_path, [image(1, width="64", height="48")], [written], categories=[{"id": "1", "name": "cat"}])
    record = data.train_records[0]
    assert (record.width, record.height) == (64, 48)
    assert record.boxes.tolist() == [[4, 6, 24, 16]]
    assert (record.labels.tolist(), record.areas.tolist(), record.crowd.tolist()) == ([0], [150], [False])
    assert all(
        f"1 number of {what} written as text" in caplog.text for what in ("a category", "an image", "an annotation")
    )


def test_ids_of_images_in_text_meet_numbers_and_the_other_way_round(tmp_path):
    images = [image("1", "a.png"), image(2, "b.png"), image("c3", "c.png")]
    annotations = [box(1, image_id=1), box(2, image_id="2"), box(3, image_id="c3")]
    data = read(tmp_path, images, annotations, ["a.png", "b.png", "c.png"])
    assert [len(record.boxes) for record in data.train_records] == [1, 1, 1]
    assert [record.image_id for record in data.train_records] == ["1", 2, "c3"]


def many(count=25, unit=(64, 48), form="xywh"):
    """Return annotations of ``count`` boxes anywhere on an image, in px of it over ``unit``, and the corners in px."""
    rng = np.random.default_rng(3)
    sides = rng.integers(6, 30, (count, 2))
    first = (rng.uniform(0, 1, (count, 2)) * (np.array([64, 48]) - sides)).round()
    scale = np.array([64, 48]) / np.array(unit)
    written = {
        "xywh": [first / scale, sides / scale],
        "xyxy": [first / scale, (first + sides) / scale],
        "cxcywh": [(first + sides / 2) / scale, sides / scale],
    }[form]
    numbers = np.concatenate(written, axis=1).tolist()
    corners = np.concatenate([first, first + sides], axis=1)
    return [box(number, bbox) for number, bbox in enumerate(numbers)], corners


@pytest.mark.parametrize(("form", "unit", "override"), [
    ("xywh", (1, 1), "data.box_unit=fraction"),
    ("xyxy", (64, 48), "data.box_format=xyxy"),
    ("cxcywh", (1, 1), "data.box_format=cxcywh data.box_unit=fraction"),
])  # fmt: skip
def test_boxes_of_another_convention_are_refused_and_the_override_reads_them(tmp_path, form, unit, override):
    annotations, corners = many(unit=unit, form=form)
    with pytest.raises(DataError, match=rf"boxes of another convention: .*\({override}\)"):
        read(tmp_path, annotations=annotations)
    values = dict(part.removeprefix("data.").split("=") for part in override.split())
    assert np.allclose(boxes(read(tmp_path, annotations=annotations, **values)), corners, atol=1e-4)


def test_boxes_that_masks_give_do_not_count_for_or_against_a_convention(tmp_path):
    annotations, _ = many(form="xyxy")
    masked = [box(100 + number, (0, 0, 0, 0), segmentation=[[1, 2, 9, 2, 9, 8]]) for number in range(9)]
    with pytest.raises(DataError, match=r"of its 25 boxes .*\(data\.box_format=xyxy\)"):
        read(tmp_path, annotations=annotations + masked)


def test_boxes_that_are_right_as_they_are_can_be_said_to_be(tmp_path):
    annotations, corners = many(form="xyxy")
    data = read(tmp_path, annotations=annotations, box_format="xywh")
    assert boxes(data)[0][:2] == corners[0, :2].tolist()


def test_a_mask_gives_the_box_that_is_missing(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    runs = {"size": [48, 64], "counts": [48 * 10 + 5, 7, 41, 7, 48 * 64 - 48 * 10 - 60]}
    lacking = box(3, segmentation=[[1, 2, 9, 2, 9, 8]])
    del lacking["bbox"]
    annotations = [
        box(1), box(2, (0, 0, 0, 0), segmentation=runs), lacking,
        box(4, (1, 1, 2, 2), segmentation=[[30, 30, 40, 30, 40, 40]]),
    ]  # fmt: skip
    data = read(tmp_path, annotations=annotations)
    assert boxes(data) == [[4, 6, 24, 16], [10, 5, 12, 12], [1, 2, 9, 8], [1, 1, 3, 3]]
    assert "2 no box, taken from the mask" in caplog.text


def test_the_same_box_twice_is_reported_and_dropped_where_that_is_asked_for(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    annotations = [box(1), box(2), box(3, (4, 6, 20, 11))]
    assert len(boxes(read(tmp_path, annotations=annotations))) == 3
    assert "same box twice: 1, left as they are" in caplog.text
    assert len(boxes(read(tmp_path, annotations=annotations, drop_duplicates=True))) == 2
    assert "1 same box twice, dropped" in caplog.text


@pytest.mark.parametrize("size", [
    {"width": None, "height": None}, {"width": 0, "height": 0}, {"width": -1, "height": -1}, {"width": 48, "height": 64},
    {"width": 64, "height": None},
])  # fmt: skip
def test_sizes_that_are_missing_zero_or_exchanged_come_from_the_picture(tmp_path, size):
    data = read(tmp_path, [image(**size)], [box(1, (40, 6, 20, 10))])
    record = data.train_records[0]
    assert (record.width, record.height) == (64, 48)
    assert record.boxes.tolist() == [[40, 6, 60, 16]]
    assert len(next(data.train_batches(1, 64)).images) == 1


def test_a_size_that_is_no_number_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"malformed image \(1\): image 1 \(a\.png\): .*width 'wide'"):
        read(tmp_path, [image(width="wide")])


@pytest.mark.parametrize(
    "name", ["sub\\a.png", "images/sub/a.png", "Sub/A.PNG", "sub/a.jpeg", "sub%2Fa.png", "D:\\set\\images\\sub\\a.png"]
)
def test_file_names_as_tools_write_them_are_taken_and_said(tmp_path, caplog, name):
    caplog.set_level(logging.INFO)
    data = read(tmp_path, [image(file_name=name)], pictures=["sub/a.png"])
    assert data.train_records[0].path == tmp_path / "images/sub/a.png"
    assert "names of 1 images are not as the files are called" in caplog.text
    assert str(tmp_path / "images/sub/a.png") in caplog.text


def test_where_several_files_fit_a_name_they_are_named_and_what_was_looked_for(tmp_path):
    with pytest.raises(
        DataError, match=r"1 of 1 images .* \(may be a\.(bmp|png) or a\.(bmp|png)\); looked for it with other sep"
    ):
        read(tmp_path, [image(file_name="a.jpg")], pictures=["a.png", "a.bmp"])


def test_file_names_are_taken_as_they_stand_where_that_is_asked_for(tmp_path):
    with pytest.raises(DataError, match=r"1 of 1 images .*sub\\a\.png$"):
        read(tmp_path, [image(file_name="sub\\a.png")], pictures=["sub/a.png"], mend=["numbers"])


def turned_data(folder, orientation=3, size=(64, 48), **values):
    stored = pixels_of(9)
    save(folder / "images/a.png", stored, orientation)
    write_coco(folder, [image(width=size[0], height=size[1])], [box()])
    node = coco_node(folder, **values)
    data = coco_data(loading=LOADING, **node)
    samples = data.val_samples(data.train_records, build_settings(CocoNode, node, "data"), LOADING)
    return data, samples[SampleKey(0, 0, 64)].image.permute(1, 2, 0).numpy(), stored


@pytest.mark.parametrize(
    ("orientation", "turn"), [(2, np.fliplr), (3, lambda pixels: np.rot90(pixels, 2)), (4, np.flipud)]
)
def test_a_picture_whose_size_can_not_tell_is_turned_and_counted_with_the_key(tmp_path, caplog, orientation, turn):
    caplog.set_level(logging.INFO)
    data, seen, stored = turned_data(tmp_path, orientation)
    assert (seen == turn(stored)).all()
    assert boxes(data) == [[4, 6, 24, 16]]
    assert "1 images have an EXIF orientation of 2 to 4" in caplog.text
    assert "turned as viewers show them (data.exif=auto; never takes them as they are stored)" in caplog.text


@pytest.mark.parametrize("exif", ["never", "by_size"])
def test_a_key_leaves_pictures_as_they_are_stored(tmp_path, exif):
    _, seen, stored = turned_data(tmp_path, exif=exif)
    assert (seen == stored).all()


def test_the_annotated_size_decides_for_quarter_turns(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    _, seen, stored = turned_data(tmp_path, orientation=6)
    assert (seen == stored).all()
    _, seen, stored = turned_data(tmp_path, orientation=6, size=(48, 64))
    assert (seen == np.rot90(stored, -1)).all()
    assert caplog.text.count("1 images have an EXIF orientation of 5 to 8") == 2


def test_always_takes_the_size_that_is_shown_too(tmp_path):
    data, seen, stored = turned_data(tmp_path, orientation=6, exif="always")
    assert (data.train_records[0].width, data.train_records[0].height) == (48, 64)
    assert (seen == np.rot90(stored, -1)).all()


def test_16_bits_of_a_12_bit_camera_say_what_they_lose_and_a_key_keeps_it(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    values = np.linspace(0, 4095, 64 * 48).astype(np.uint16).reshape(48, 64)
    (tmp_path / "images").mkdir()
    Image.fromarray(values).save(tmp_path / "images/a.png")
    read(tmp_path, pictures=())
    assert (
        "1 images have 16 bits; a.png has values from 0 to 4095: of 3072 grey levels 16 are left (data.depth=upper8)"
        in caplog.text
    )
    assert "data.depth=[0,4095] or percentile keeps more" in caplog.text
    caplog.clear()
    data = read(tmp_path, pictures=(), depth=[0, 4095])
    assert "256 are left (data.depth=[0,4095])" in caplog.text
    assert len(np.unique(next(data.train_batches(1, 64)).images)) > 100
    with pytest.raises(ConfigError, match=r"depth=\[9, 9\] must be \[low, high\] with 0 ≤ low < high"):
        read(tmp_path, pictures=(), depth=[9, 9])


def write_voc(folder, name="a", label=None, corners=(5, 7, 24, 16), size=(64, 48)):
    tags = "".join(
        f"<{tag}>{value}</{tag}>" for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    )
    Image.fromarray(pixels_of(width=size[0], height=size[1])).save(folder / f"{name}.jpg")
    (folder / f"{label or name}.xml").write_text(
        f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>"
        f"<object><name>cat</name><bndbox>{tags}</bndbox></object></annotation>"
    )


def voc_node(folder, **values):
    return node_of("voc", folder, **{"root": str(folder), **values})


def test_a_voc_folder_whose_jpeg_lacks_its_last_20_bytes_is_read_whole(tmp_path, caplog):
    write_voc(tmp_path, size=(200, 160))
    path = tmp_path / "a.jpg"
    path.write_bytes(path.read_bytes()[:-20])
    data = voc_data(loading=LOADING, **voc_node(tmp_path))
    assert boxes(data) == [[4, 6, 24, 16]]
    assert "1 JPEGs lack their end, as a.jpg: read where nearly all of it is there" in caplog.text
    assert [batch.problems for batch in data.train_batches(1, 64)] == [()]
    report = check_voc(build_settings(VocNode, voc_node(tmp_path), "data"), lambda *_: None)
    assert [(finding.kind, finding.file) for _, finding in report.findings()] == [("JPEG without its end", "a.jpg")]


def test_an_xml_whose_name_has_other_accents_finds_its_picture(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    write_voc(tmp_path, "Za\u0308hler", "Z\u00e4hler")
    data = voc_data(loading=LOADING, **voc_node(tmp_path))
    assert data.train_records[0].path.name == "Za\u0308hler.jpg"
    assert "1 XML files are not named as their images" in caplog.text


def test_voc_corners_that_hold_widths_are_refused_and_the_override_reads_them(tmp_path):
    annotations, corners = many(40)
    (tmp_path / "set").mkdir()
    for number, entry in enumerate(annotations):
        x, y, width, height = entry["bbox"]
        write_voc(tmp_path / "set", f"{number}", corners=(x + 1, y + 1, width, height))
    node = voc_node(tmp_path, root=str(tmp_path / "set"))
    with pytest.raises(DataError, match=r"\(data\.box_format=xywh\)"):
        voc_data(loading=LOADING, **node)
    data = voc_data(loading=LOADING, **node | {"box_format": "xywh"})
    assert np.allclose(
        [record.boxes[0] for record in data.train_records],
        corners[[int(record.path.stem) for record in data.train_records]],
    )


def write_yolo(folder, lines, names=("a.png",), listed=None):
    for name in names:
        save(folder / "images" / name, pixels_of())
        path = (folder / "labels" / name).with_suffix(".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines))
    train = "images"
    if listed is not None:
        (folder / "train.txt").write_text("\n".join(listed))
        train = "train.txt"
    (folder / "data.yaml").write_text(f"names: [cat]\ntrain: {train}\n")


def test_yolo_in_pixels_is_refused_with_the_key_that_reads_it(tmp_path):
    write_yolo(tmp_path, ["0 14 11 20 10"])
    node = node_of("yolo", tmp_path, root=str(tmp_path))
    del node["val"]
    with pytest.raises(DataError, match=r"line 1: .*data\.box_unit=pixels reads pixels"):
        yolo_data(loading=LOADING, **node)
    assert boxes(yolo_data(loading=LOADING, **node | {"box_unit": "pixels"})) == [[4, 6, 24, 16]]


def test_yolo_with_corners_for_centres_is_refused_and_the_override_reads_it(tmp_path):
    annotations, corners = many(40, unit=(1, 1), form="xyxy")
    write_yolo(tmp_path, [" ".join(map(str, [0, *entry["bbox"]])) for entry in annotations])
    node = node_of("yolo", tmp_path, root=str(tmp_path))
    del node["val"]
    with pytest.raises(DataError, match=r"\(data\.box_format=xyxy\)"):
        yolo_data(loading=LOADING, **node)
    data = yolo_data(loading=LOADING, **node | {"box_format": "xyxy"})
    assert np.allclose(boxes(data), corners, atol=1e-3)
    assert np.allclose(data.train_records[0].areas, (corners[:, 2:] - corners[:, :2]).prod(axis=1), rtol=1e-3)


def test_a_list_of_images_of_another_machine_is_found_here(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    write_yolo(tmp_path, ["0 .5 .5 .2 .2"], listed=["C:\\sets\\cats\\images\\a.png"])
    node = node_of("yolo", tmp_path, root=str(tmp_path))
    del node["val"]
    assert yolo_data(loading=LOADING, **node).train_records[0].path == tmp_path / "images/a.png"
    assert "1 images are not called as it lists them" in caplog.text


def test_the_check_lists_each_kind_once_and_draws_what_can_not_be_told(tmp_path):
    names = ["a.png", "b.png", "c.png", "d.png", "e.png"]
    for seed, name in enumerate(names):
        save(
            tmp_path / "images" / name,
            pixels_of(seed),
            {"d.png": 6}.get(name, 3 if name in ("b.png", "c.png") else None),
        )
    images = [
        image(1, "A.png"),
        image(2, "b.png"),
        image(3, "c.png", 0, 0),
        image(4, "d.png"),
        image(5, "e.png", 48, 64),
    ]
    annotations = [
        box(1, iscrowd="0"), box(2, image_id=2), box(3, image_id=3), box(4, image_id=4), box(5, image_id=5), box(6, image_id=5),
        box(7, None or [], image_id=4, segmentation=[[1, 2, 9, 2, 9, 8]]),
    ]  # fmt: skip
    write_coco(tmp_path, images, annotations)
    report = check_coco(build_settings(CocoNode, coco_node(tmp_path), "data"), lambda *_: None)
    found = {(finding.kind, finding.file, finding.annotation) for _, finding in report.findings()}
    drawn = tmp_path / "cache/exif_coco.png"
    assert found == {
        ("number of an annotation written as text", "A.png", 1),
        ("file name not as the file is called", "A.png", None),
        ("EXIF orientation of the same size", "b.png", None),
        ("EXIF orientation of the same size", "c.png", None),
        ("size missing, taken from the image", "c.png", None),
        ("EXIF orientation by a quarter", "d.png", None),
        ("no box, taken from the mask", "d.png", 7),
        ("width and height exchanged, taken from the image", "e.png", None),
        ("same box twice", "e.png", 6),
        ("EXIF orientations drawn", str(drawn), None),
    }
    with Image.open(drawn) as picture:
        assert picture.size[0] > 4 * 480  # two pictures, two ways each, in a row


def test_the_check_names_boxes_of_another_convention(tmp_path):
    annotations, _ = many(form="xyxy")
    save(tmp_path / "images/a.png", pixels_of())
    write_coco(tmp_path, [image()], annotations)
    report = check_coco(build_settings(CocoNode, coco_node(tmp_path), "data"), lambda *_: None)
    (words,) = [finding.detail for _, finding in report.findings() if finding.kind == "boxes of another convention"]
    assert "data.box_format=xyxy" in words
