import shutil

import pytest
from composed import REPOSITORY
from pairs_parts import pair_values, write_llvip, write_voc

from winnow.data.plan import LoadingSettings
from winnow.errors import ConfigError, DataError
from winnow.families.pairs.data import llvip

MINI = REPOSITORY.parent / "shared/data/llvip_mini"
LOADING = LoadingSettings(
    batch_size=4, num_workers=0, drop_last=False, seed=0, subset_size=None, subset_seed=0, overfit=None
)


@pytest.fixture
def root(tmp_path):
    return write_llvip(tmp_path)


def build(root, **changes):
    return llvip(loading=LOADING, **pair_values("llvip", llvip_root=str(root), **changes))


def names(records):
    return [record.image_id for record in records]


def test_the_official_split_holds_out_scenes_of_the_training_part_and_never_the_test(root):
    data = build(root)
    assert names(data.train_records) == ["010001", "010002", "010003"]
    assert names(data.val_records) == ["020001", "020002"]
    assert list(data.classes) == ["person"]
    assert data.category_ids == (1,)


def test_scenes_are_named_by_the_first_two_digits(root, caplog):
    data = build(root, llvip_split={"train": ["01", "02"], "val": ["19", "02"]})
    assert len(data.train_records) == 5
    assert names(data.val_records) == ["020001", "020002", "190001"]
    assert "data.llvip_split: 2 pairs are in train as well as in val: 020001, 020002" in caplog.text


@pytest.mark.parametrize(("split", "message"), [
    ({"train": ["01"], "val": ["03"]}, r"data.llvip_split.val=\['03'\]: '03' matches nothing in .*; there are 01, 02, 19"),
    ({"train": ["0"], "val": ["02"]}, "data.llvip_split.train=.*'0' matches nothing"),
    ({"train": [1], "val": ["02"]}, r"data.llvip_split.train=\[1\]: names are texts, as '01'"),
    ({"train": ["01"]}, "data.llvip_split.val is missing"),
    ("offical", "data.llvip_split='offical': must be official, or {train"),
    (None, "data.llvip_split=None: must be official"),
])  # fmt: skip
def test_a_split_that_does_not_fit_is_named(root, split, message):
    with pytest.raises(ConfigError, match=message):
        build(root, llvip_split=split)


def test_one_training_scene_alone_can_not_be_split(root):
    for part in ("visible", "infrared"):
        for file in (root / part / "train").glob("02*"):
            file.unlink()
    with pytest.raises(DataError, match="data.llvip_split=official: .* has 1 sequences outside of the official test"):
        build(root)


def test_a_pair_without_annotation_file_is_no_negative(root, caplog):
    (root / "Annotations/010002.xml").unlink()
    write_voc(root / "Annotations/010003.xml", [])
    caplog.set_level("INFO")
    data = build(root)
    assert [(record.image_id, len(record.boxes)) for record in data.train_records] == [("010001", 1), ("010003", 0)]
    assert "train 1 pairs without annotation left out (data.unlabelled=skip)" in caplog.text
    data = build(root, unlabelled="empty")
    assert [(record.image_id, len(record.boxes)) for record in data.train_records][1] == ("010002", 0)
    assert data.train_records[1].width == 64
    with pytest.raises(
        DataError, match=r"1 of 3 pairs of data.llvip_root=.* have no annotation in .*: 010002 \(data.unl"
    ):
        build(root, unlabelled="error")


def test_a_missing_partner_is_an_error_or_said_to_the_model(root, caplog):
    (root / "infrared/train/010002.png").unlink()
    with pytest.raises(DataError, match=r"1 of 3 train pairs of data.llvip_root=.* lack an image: 010002 \(infrared\)"):
        build(root)
    data = build(root, missing_partner="absent")
    (batch,) = data.train_batches(1, 64)
    present = dict(zip(batch.image_ids, batch.present.tolist(), strict=True))
    assert present == {"010001": [True, True], "010002": [True, False], "010003": [True, True]}
    assert "train 1 pairs lack an image: 010002 (infrared)" in caplog.text
    assert len(build(root, modalities=["visible"]).train_records) == 3
    data = build(root, missing_partner="absent", modalities=["infrared"])
    assert names(data.train_records) == ["010001", "010003"]


def test_an_empty_split_names_what_it_looked_for(root):
    shutil.rmtree(root / "Annotations")
    write_voc(root / "Annotations/190001.xml", [])
    with pytest.raises(DataError) as failed:
        build(root)
    for words in (
        "no train pair of data.llvip_root=",
        "is left of 3",
        "looked in 01",
        "Annotations: 1 XML files",
        "3 have none",
    ):
        assert words in str(failed.value)


def test_which_annotations_were_read_is_said(root, caplog):
    caplog.set_level("INFO")
    write_voc(root / "Annotations/990001.xml", [])
    build(root)
    said = [message for message in caplog.messages if message.startswith("annotations: ")]
    assert f"{root / 'Annotations'}: 7 XML files (no release has so many), names and sizes" in said[0]
    assert "1 × annotation file without a pair" in caplog.messages
    write_voc(root / "Annotations/010001.xml", [(1, 1, 20, 30), (1, 1, 20, 30)])
    build(root)
    other = [message for message in caplog.messages if message.startswith("annotations: ")][1]
    assert other.split("sizes ")[1] != said[0].split("sizes ")[1]


def test_two_folders_of_annotations_must_be_told_apart(root):
    write_voc(root / "Annotations_v2/010001.xml", [(1, 1, 5, 5)])
    with pytest.raises(DataError, match=r"there is Annotations, Annotations_v2; name it by data.llvip_annotations"):
        build(root)
    split = {"train": ["01"], "val": ["01"]}
    data = build(root, llvip_annotations="Annotations_v2", llvip_split=split)
    assert data.train_records[0].boxes.tolist() == [[1, 1, 5, 5]]
    with pytest.raises(DataError, match=r"data.llvip_annotations=v3: there is no XML file in "):
        build(root, llvip_annotations="v3")


def test_boxes_are_clipped_and_what_is_not_sought_is_a_crowd(root, caplog):
    caplog.set_level("INFO")
    write_voc(root / "Annotations/010001.xml", [(-5, 4, 24, 70), (70, 4, 80, 20), (9, 9, 9, 20)])
    write_voc(root / "Annotations/010002.xml", [(4, 4, 24, 40)], name="dog")
    hard = root / "Annotations/010003.xml"
    hard.write_text(hard.read_text().replace("</object>", "<difficult>1</difficult></object>"))
    data = build(root)
    assert data.train_records[0].boxes.tolist() == [[0, 4, 24, 48]]
    assert data.train_records[0].areas.tolist() == [24 * 44]
    assert data.train_records[1].crowd.tolist() == [True]
    assert data.train_records[2].crowd.tolist() == [True]
    assert "repaired: 2 boxes outside of it or without area, 1 boxes clipped to the image" in caplog.text


def test_a_root_that_is_none_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"data.llvip_root=.*/none is no folder"):
        build(tmp_path / "none")
    with pytest.raises(ConfigError, match="data.llvip_root is null"):
        llvip(loading=LOADING, **pair_values("llvip", llvip_root=None))
    with pytest.raises(DataError, match=r"data.llvip_root=.* holds no LLVIP: there is no image in visible/"):
        build(tmp_path)


def test_the_fingerprint_follows_the_annotations(root):
    before = build(root).fingerprint
    assert build(root, missing_partner="absent").fingerprint == before
    write_voc(root / "Annotations/010001.xml", [(4, 4, 25, 40)])
    assert build(root).fingerprint != before


@pytest.mark.skipif(not MINI.is_dir(), reason="no ../shared/data")
def test_the_excerpt_of_llvip_is_read_as_it_is():
    data = build(MINI, llvip_split={"train": ["01"], "val": ["01"]})
    assert len(data.train_records) == 9
    assert sum(len(record.boxes) for record in data.train_records) == 45
    assert data.train_records[0].boxes[0].tolist() == [287, 428, 351, 662]
    assert {(record.width, record.height) for record in data.train_records} == {(1280, 1024)}
    batch = next(data.val_batches(640))
    assert batch.images.shape == (4, 4, 512, 640)
    red, green, blue, warm = batch.images[0].float().mean(dim=(1, 2)).tolist()
    assert (red, green, blue, warm) == pytest.approx((35.6, 32.5, 25.9, 17.7), abs=0.5)
