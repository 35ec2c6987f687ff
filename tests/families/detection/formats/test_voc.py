import pytest

from winnow.errors import DataError
from winnow.families.detection.formats.voc import read_voc

BOX = "<xmin>3</xmin><ymin>4</ymin><xmax>13.5</xmax><ymax>24</ymax>"


def voc(tmp_path, objects, size="<width>64</width><height>48</height>"):
    path = tmp_path / "a.xml"
    path.write_text(f"<annotation><size>{size}<depth>1</depth></size>{objects}</annotation>")
    return path


def an_object(box=BOX, name="person", more=""):
    return f"<object><name>{name}</name><bndbox>{box}</bndbox>{more}</object>"


def test_corners_and_sizes_give_the_same_box(tmp_path):
    path = voc(
        tmp_path, an_object() + an_object("<x>3</x><y>4</y><w>10.5</w><h>20</h>", more="<occlusion>2</occlusion>")
    )
    file = read_voc(path)
    assert (file.width, file.height) == (64, 48)
    assert [entry.box for entry in file.objects] == [(3, 4, 13.5, 24)] * 2
    assert [entry.occlusion for entry in file.objects] == [0, 2]


def test_difficult_objects_are_marked(tmp_path):
    file = read_voc(voc(tmp_path, an_object(more="<difficult>1</difficult>") + an_object(name="cat")))
    assert [(entry.name, entry.is_difficult) for entry in file.objects] == [("person", True), ("cat", False)]


@pytest.mark.parametrize(("objects", "message"), [
    (an_object("<xmin>3</xmin><ymin>4</ymin><xmax>9</xmax>"), r"a.xml: object 1 \(person\): bndbox: there is no <ymax>"),
    (an_object() + an_object(BOX.replace("13.5", "left")), r"object 2 \(person\): bndbox: <xmax> is 'left', no number"),
    (an_object(BOX.replace("13.5", "1e999")), "<xmax> is '1e999', no number"),
    (an_object(name=""), r"object 1 \(without a name\): there is no <name>"),
    ("<object><name>cat</name></object>", r"object 1 \(cat\): there is no <bndbox>"),
    (an_object(more="<difficult>yes</difficult>"), "<difficult> is 'yes', no number"),
    (an_object(more="<occlusion>7</occlusion>"), "<occlusion> is 7; known are 0, 1 and 2"),
])  # fmt: skip
def test_what_can_not_be_used_is_named_by_object_and_tag(tmp_path, objects, message):
    with pytest.raises(DataError, match=message):
        read_voc(voc(tmp_path, objects))


@pytest.mark.parametrize("size", ["<width>0</width><height>48</height>", "<width>6.5</width><height>48</height>"])
def test_a_size_that_is_none_is_refused(tmp_path, size):
    with pytest.raises(DataError, match="is no size in pixels"):
        read_voc(voc(tmp_path, "", size))


def test_other_xml_is_refused(tmp_path):
    (tmp_path / "a.xml").write_text("<alto/>")
    with pytest.raises(DataError, match="a.xml: the root is <alto>"):
        read_voc(tmp_path / "a.xml")
