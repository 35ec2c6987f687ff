import json

import pytest
from composed import REPOSITORY
from pairs_parts import pair_values, write_cameras

from winnow.data.plan import LoadingSettings
from winnow.errors import ConfigError, DataError
from winnow.families.pairs.data import kaist
from winnow.families.pairs.formats.kaist import find_kaist
from winnow.families.pairs.formats.kaist_labels import JsonLabels, read_txt

SHARED = REPOSITORY.parent / "shared/data"
MINI = SHARED / "kaist_mini"
needs_shared = pytest.mark.skipif(not MINI.is_dir(), reason="no ../shared/data")
LOADING = LoadingSettings(
    batch_size=4, num_workers=0, drop_last=False, seed=0, subset_size=None, subset_seed=0, overfit=None
)
HEAD = "% bbGt version=3\n"
FRAMES = (
    "set00/V000/I00019", "set00/V000/I00020", "set00/V001/I00019", "set00/V001/I00020", "set01/V000/I00019", "set06/V000/I00039",
)  # fmt: skip


@pytest.fixture
def root(tmp_path):
    """Return a small KAIST: two recordings of set 00, one of 01 and one of 06, with a txt annotation each."""
    write_cameras(tmp_path / "written", [name.replace("/", "_") for name in FRAMES])
    for name in FRAMES:
        folder, frame = name.rsplit("/", 1)
        for modality, own in (("visible", "visible"), ("infrared", "lwir")):
            target = tmp_path / "images" / folder / own / f"{frame}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "written" / modality / f"{name.replace('/', '_')}.png").rename(target)
        write_txt(tmp_path / "annotations" / f"{name}.txt", "person 4 5 20 30 0 0 0 0 0 0 0")
    return tmp_path


def write_txt(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEAD + "\n".join(lines))


def build(root, **changes):
    return kaist(loading=LOADING, **pair_values("kaist", kaist_root=str(root), **changes))


def names(records):
    return [record.image_id for record in records]


def test_the_official_split_holds_out_the_last_recording_of_a_training_set_and_judges_every_20th_frame(root):
    data = build(root)
    assert names(data.train_records) == ["set00/V000/I00019", "set00/V000/I00020", "set01/V000/I00019"]
    assert names(data.val_records) == ["set00/V001/I00019"]


def test_sets_and_recordings_are_named_by_their_folders(root):
    data = build(root, kaist_split={"train": ["set00/V001", "set01"], "val": ["set06", "set00"]})
    assert names(data.train_records) == ["set00/V001/I00019", "set00/V001/I00020", "set01/V000/I00019"]
    assert names(data.val_records) == ["set00/V000/I00019", "set00/V001/I00019", "set06/V000/I00039"]
    with pytest.raises(ConfigError, match=r"data.kaist_split.val=\['set0'\]: 'set0' matches nothing in"):
        build(root, kaist_split={"train": ["set01"], "val": ["set0"]})


def test_txt_boxes_are_corner_and_size_and_the_image_says_its_own(root):
    (record, *_) = build(root).train_records
    assert record.boxes.tolist() == [[4, 5, 24, 35]]
    assert (record.width, record.height, record.sequence) == (64, 48, "set00/V000")


def test_what_is_no_person_or_hidden_or_marked_is_neither_learnt_nor_sought(tmp_path):
    lines = [
        "person 1 1 9 9 0 0 0 0 0 0 0", "person 1 1 9 9 1 0 0 0 0 0 0", "person 1 1 9 9 2 0 0 0 0 0 0",
        "people 1 1 9 9 0 0 0 0 0 0 0", "cyclist 1 1 9 9 0 0 0 0 0 0 0", "person? 1 1 9 9 0 0 0 0 0 0 0",
        "person 1 1 9 9 0 0 0 0 0 1 0",
    ]  # fmt: skip
    write_txt(tmp_path / "a.txt", *lines)
    assert read_txt(tmp_path / "a.txt")[1] == [False, False, True, True, True, True, True]


@pytest.mark.parametrize(("content", "message"), [
    ("", "a.txt: line 1 is '', not '% bbGt version=3'"),
    ("person 1 2 3 4 0 0 0 0 0 0 0", "a.txt: line 1 is 'person 1 2 3 4"),
    (HEAD + "\nperson 1 2 3", "a.txt: line 3 is 'person 1 2 3', not a label and 11 numbers"),
    (HEAD + "person 1 2 3 x 0 0 0 0 0 0 0", "a.txt: line 2 is 'person 1 2 3 x"),
    (HEAD + "person 1 2 3 nan 0 0 0 0 0 0 0", "a.txt: line 2 is"),
])  # fmt: skip
def test_a_txt_line_that_can_not_be_used_is_named(tmp_path, content, message):
    (tmp_path / "a.txt").write_text(content)
    with pytest.raises(DataError, match=message):
        read_txt(tmp_path / "a.txt")


def json_of(root, **changes):
    """Write a JSON file that knows set06's frame, with annotation id 0."""
    content = {
        "images": [{"id": 0, "im_name": "set06/V000/I00039", "width": 64, "height": 48}],
        "categories": [{"id": 0, "name": "__ignore__"}, {"id": 1, "name": "person"}, {"id": 3, "name": "people"}],
        "annotations": [
            {"id": 0, "image_id": 0, "category_id": 1, "bbox": [1, 2, 30, 40], "height": 40, "occlusion": 0, "ignore": 0},
            {"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 2, 30, 40], "height": 40, "occlusion": 0, "ignore": 1},
            {"id": 2, "image_id": 0, "category_id": 1, "bbox": [1, 2, 30, 40], "height": 40, "occlusion": 2, "ignore": 0},
            {"id": 3, "image_id": 0, "category_id": 3, "bbox": [1, 2, 30, 40], "height": 40, "occlusion": 0, "ignore": 0},
        ],
    }  # fmt: skip
    (root / "test.json").write_text(json.dumps(content | changes))
    return root / "test.json"


def test_json_is_believed_before_xml_before_txt_frame_by_frame(root):
    json_of(root)
    (root / "other.json").write_text('{"images": [{"file_name": "a.png"}]}')
    xml = root / "annotations-xml" / "set00/V000/I00019.xml"
    xml.parent.mkdir(parents=True)
    box = "<object><name>person</name><bndbox><x>7</x><y>8</y><w>10</w><h>11</h></bndbox><occlusion>0</occlusion></object>"
    xml.write_text(f"<annotation><size><width>64</width><height>48</height></size>{box}</annotation>")
    data = build(root, kaist_split={"train": ["set00/V000"], "val": ["set06"]})
    assert [record.boxes.tolist() for record in data.train_records] == [[[7, 8, 17, 19]], [[4, 5, 24, 35]]]
    assert data.val_records[0].boxes.tolist() == [[1, 2, 31, 42]] * 4
    assert data.val_records[0].crowd.tolist() == [False, True, True, True]
    data = build(root, kaist_split={"train": ["set00/V000"], "val": ["set06"]}, kaist_annotations=["annotations"])
    assert data.val_records[0].boxes.tolist() == [[4, 5, 24, 35]]
    with pytest.raises(DataError, match="data.kaist_annotations: other.json: .* holds no KAIST annotations"):
        build(root, kaist_annotations=["other.json"])


@pytest.mark.parametrize(("changes", "message"), [
    ({"annotations": [{"id": 0, "image_id": 0, "category_id": 1, "bbox": [1, 2, 3]}]}, r"annotation 0: bbox \[1, 2, 3\]"),
    ({"annotations": [{"id": 5, "image_id": 9, "category_id": 1, "bbox": [1, 2, 3, 4]}]}, "annotation 5: no image 9, or no"),
    ({"annotations": [{"id": 5, "image_id": 0, "category_id": [], "bbox": [1, 2, 3, 4]}]}, "no category"),
    ({"annotations": [{"id": 5, "category_id": 1}]}, "entry 0 of annotations has no whole number as image_id"),
    ({"annotations": {}}, "annotations is a dict, not a list"),
    ({"images": [{"id": 0, "im_name": "a", "width": 0, "height": 48}]}, "image a: width and height are 0 and 48"),
    ({"images": [{"id": n, "im_name": "a", "width": 4, "height": 4} for n in (0, 1)]}, "image 1: im_name is 'a', listed twice"),
    ({"images": [{"id": 0, "im_name": ["a"], "width": 4, "height": 4}]}, r"im_name is \['a'\], no name"),
    ({"images": [{"id": 0.5, "im_name": "a"}]}, "entry 0 of images has no whole number as id"),
])  # fmt: skip
def test_an_entry_of_json_that_can_not_be_used_is_named(tmp_path, changes, message):
    path = json_of(tmp_path, **changes)
    with pytest.raises(DataError, match=f"{path}: .*{message}"):
        JsonLabels.at(path)


def test_annotations_that_are_nowhere_are_an_error(root, tmp_path):
    (root / "annotations").rename(root / "images" / "annotations")
    with pytest.raises(
        DataError, match=r"data.kaist_root=.*: no annotations lie right under it: a JSON file with im_name"
    ):
        build(root)
    with pytest.raises(DataError, match="holds no KAIST: no folder set00, set01"):
        find_kaist(root / "written", None)


@needs_shared
@pytest.mark.parametrize(("annotations", "boxes", "crowds"), [
    ("kaist_annotations_test20.subset.json", 59, 8), ("annotations-xml-new", 60, 8), ("annotations_txt_improved", 59, 8),
])  # fmt: skip
def test_the_excerpt_of_kaist_is_read_in_all_three_forms(annotations, boxes, crowds):
    split = {"train": ["set06", "set08"], "val": ["set09", "set10", "set11"]}
    data = build(MINI, kaist_annotations=[annotations], kaist_split=split)
    assert (len(data.train_records), len(data.val_records)) == (4, 5)
    records = [*data.train_records, *data.val_records]
    assert {(record.width, record.height) for record in records} == {(640, 512)}
    assert sum(len(record.boxes) for record in records) == boxes
    assert sum(int(record.crowd.sum()) for record in records) == crowds
    assert records[0].image_id == "set06/V001/I00459"
    assert records[0].boxes[0].tolist() == [282, 209, 334, 320]


@needs_shared
def test_the_excerpts_official_split_says_that_it_holds_test_sets_only():
    with pytest.raises(
        DataError, match=r"data.kaist_split=official: .* has 0 sequences outside of the official test sets \(none"
    ):
        build(MINI)


@needs_shared
def test_the_annotations_of_the_public_evaluation_are_read_whole():
    labels = JsonLabels.at(SHARED / "kaist_eval/KAIST_annotation.json")
    assert len(labels.names) == 2252
    every = [labels._of_name[name] for name in labels.names]
    assert sum(len(of_frame.boxes) for of_frame in every) == 4254
    assert sum(int(of_frame.ignored.sum()) for of_frame in every) == 775 + 233 + 54 + 35
