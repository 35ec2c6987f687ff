"""Tiles of pages: lines found in ALTO and COCO, straightened and cut, and the labels made from their pixels."""

import json

import numpy as np
import pytest
import torch
from composed import compose_plain
from drawn_ink import loading_settings
from PIL import Image, ImageDraw

from winnow.errors import DataError
from winnow.families.ink.lines.data import ink_lines, split_lines
from winnow.families.ink.lines.pages import read_pages
from winnow.families.ink.lines.skeletons import label_pixels

ALTO = """<?xml version="1.0"?><alto xmlns="http://www.loc.gov/standards/alto/ns-v4#"><Description>
<MeasurementUnit>{unit}</MeasurementUnit><sourceImageInformation><fileName>{name}</fileName></sourceImageInformation>
</Description><Layout><Page WIDTH="400" HEIGHT="300"><PrintSpace><TextBlock>{lines}</TextBlock></PrintSpace></Page>
</Layout></alto>"""
LINE = '<TextLine ID="{id}" BASELINE="{baseline}" HPOS="20" VPOS="{top}" WIDTH="300" HEIGHT="40">{shape}</TextLine>'
SHAPE = '<Shape><Polygon POINTS="20 {top} 320 {top} 320 {bottom} 20 {bottom}"/></Shape>'


def draw_page(path, tops=(20, 120, 220), slope=0.0):
    """Return lines of waves, 40 px high, on grey paper that gets darker to the right."""
    paper = np.tile(np.linspace(235, 170, 400).astype(np.uint8), (300, 1))
    page = Image.fromarray(paper)
    pen = ImageDraw.Draw(page)
    x = np.arange(24, 316)
    for top in tops:
        pen.line(list(zip(x, top + 20 + 16 * np.sin(x / 5) + slope * (x - 20), strict=True)), fill=40, width=4)
    page.save(path)


def alto_line(name, top, baseline=None, shape=SHAPE):
    return LINE.format(
        id=name,
        baseline=baseline or f"20 {top + 36} 320 {top + 36}",
        top=top,
        shape=shape.format(top=top, bottom=top + 40),
    )


def write_alto(folder, name="page_a", lines=None, unit="pixel", image="page_a.png"):
    lines = "".join(
        lines if lines is not None else [alto_line(f"l{number}", top) for number, top in enumerate((20, 120, 220))]
    )
    (folder / f"{name}.xml").write_text(ALTO.format(name=image, lines=lines, unit=unit))


def coco(annotation=None, image=None):
    annotations = [
        {"id": 7 + number, "image_id": 1, "category_id": 1, "baseline": [20, top + 36, 320, top + 36],
         "segmentation": [[20, top, 320, top, 320, top + 40, 20, top + 40]]} for number, top in enumerate((20, 120, 220))
    ]  # fmt: skip
    annotations[1] |= annotation or {}
    return {
        "images": [{"id": 1, "file_name": "page_a.png", "width": 400, "height": 300} | (image or {})],
        "annotations": annotations,
    }


@pytest.fixture
def pages(tmp_path):
    """Return a folder with one drawn page and its lines in both formats."""
    draw_page(tmp_path / "page_a.png")
    (tmp_path / "alto").mkdir()
    write_alto(tmp_path / "alto")
    (tmp_path / "lines.json").write_text(json.dumps(coco()))
    return tmp_path


def lines_data(folder, annotations="alto", *, loading=None, **changed):
    where = {"images": str(folder), "annotations": str(folder / annotations)}
    values = compose_plain("data=ink_lines", "data.train.images=x", "data.train.annotations=x")["data"]
    values |= {"train": where, "split_by": "line", "cache": str(folder / "cache")} | changed
    values.pop("_target_")
    return ink_lines(loading=loading_settings(**loading or {}), **values)


def test_alto_and_coco_give_the_same_lines(pages):
    alto, in_coco = read_pages(pages / "alto", pages), read_pages(pages / "lines.json", pages)
    assert [line.line_id for line in alto] == ["l0", "l1", "l2"]
    assert [line.line_id for line in in_coco] == ["7", "8", "9"]
    for one, other in zip(alto, in_coco, strict=True):
        assert one.image == other.image
        assert one.page_size == other.page_size == (400, 300)
        assert np.array_equal(one.polygon, other.polygon)
        assert np.array_equal(one.baseline, other.baseline)


def test_older_alto_has_one_number_as_baseline_commas_in_points_or_a_box_alone(pages):
    write_alto(pages / "alto", lines=[alto_line("number", 20, "56"), alto_line("box", 20, shape=""),
                                      alto_line("commas", 20, "20,56 320,56")])  # fmt: skip
    number, box, commas = read_pages(pages / "alto", pages)
    assert number.baseline.tolist() == box.baseline.tolist() == commas.baseline.tolist() == [[20, 56], [320, 56]]
    assert box.polygon.tolist() == [[20, 20], [320, 20], [320, 60], [20, 60]]


def test_a_words_polygon_is_not_its_lines(pages):
    word = '<String HPOS="20" VPOS="20" CONTENT="a"><Shape><Polygon POINTS="20 20 60 20 60 60 20 60"/></Shape></String>'
    write_alto(pages / "alto", lines=[alto_line("box", 20, shape=word), alto_line("both", 20, shape=word + SHAPE)])
    for line in read_pages(pages / "alto", pages):
        assert line.polygon.tolist() == [[20, 20], [320, 20], [320, 60], [20, 60]]


def test_an_annotation_that_is_no_object_is_named(pages):
    (pages / "lines.json").write_text(json.dumps(coco() | {"annotations": [17]}))
    with pytest.raises(DataError, match="lines.json, annotation no. 1: must be an object, got 17"):
        read_pages(pages / "lines.json", pages)


def test_a_tile_shows_the_line_at_full_height_ink_1_on_0(pages):
    (batch,) = lines_data(pages, loading={"batch_size": 64}).train_batches(1, 64)
    assert batch.shape[1:] == (64, 64)
    assert not batch.target.has_full_labels.any()
    ink = batch.images > 0.5
    for tile in range(batch.num_samples):
        rows = torch.nonzero(ink[tile, 0].any(dim=1)).flatten()
        assert rows[0] < 8
        assert rows[-1] > 56
    # The paper, uneven as it is, is empty; the pen was 4 px of a 40 px line.
    assert (batch.images[~ink] > 0.3).float().mean() < 0.05
    assert 0.05 < ink.float().mean() < 0.25
    on = batch.target.skeleton > 0
    assert (batch.images[on] > 0.8).float().mean() > 0.95
    assert 4 < batch.target.width[on].median() < 8


def test_a_slanting_line_is_made_level(pages):
    draw_page(pages / "page_a.png", tops=(40,), slope=0.2)
    outline = '<Shape><Polygon POINTS="20 40 320 100 320 140 20 80"/></Shape>'
    write_alto(pages / "alto", lines=[alto_line(name, 40, "20 76 320 136", outline) for name in "st"])
    (batch,) = lines_data(pages, loading={"batch_size": 64}).val_batches(64)
    middle = [torch.nonzero(tile[0] > 0.5)[:, 0].float().mean().item() for tile in batch.images]
    assert max(middle) - min(middle) < 8


def test_training_tiles_move_sideways_with_the_epoch_and_validation_tiles_stay(pages):
    data = lines_data(pages)
    one, other, again = (next(data.train_batches(epoch, 64)) for epoch in (1, 2, 1))
    assert torch.equal(one.images, again.images)
    assert not torch.equal(one.images.sort(dim=0).values, other.images.sort(dim=0).values)
    first, second = (next(data.val_batches(64)) for _ in range(2))
    assert torch.equal(first.images, second.images)
    assert torch.equal(next(lines_data(pages, loading={"num_workers": 1}).train_batches(1, 64)).images, one.images)


def test_lines_are_cut_once_and_kept(pages):
    data = lines_data(pages)
    written = {file: file.stat().st_mtime_ns for file in (pages / "cache").glob("*.npz")}
    assert len(written) == 2
    assert lines_data(pages).fingerprint == data.fingerprint
    assert {file: file.stat().st_mtime_ns for file in (pages / "cache").glob("*.npz")} == written
    draw_page(pages / "page_a.png", tops=(22, 122, 222))
    assert lines_data(pages).fingerprint != data.fingerprint


@pytest.mark.parametrize("split_by", ["page", "line"])
def test_what_is_held_out_depends_on_names_alone_and_is_never_trained_on(pages, split_by):
    for name in "bcde":
        draw_page(pages / f"page_{name}.png")
        write_alto(pages / "alto", f"page_{name}", image=f"page_{name}.png")
    lines = read_pages(pages / "alto", pages)
    train, val = split_lines(lines, 0.4, split_by)
    again = split_lines(lines[::-1], 0.4, split_by)
    assert [{(line.image, line.line_id) for line in part} for part in (train, val)] == [
        {(line.image, line.line_id) for line in part} for part in again
    ]
    assert (len(train), len(val)) == (9, 6)
    if split_by == "page":
        assert not {line.image for line in train} & {line.image for line in val}


def test_one_page_can_not_be_split_by_page(pages):
    with pytest.raises(DataError, match="one page can't be split for validation; name pages for it in data.val"):
        lines_data(pages, split_by="page")


def test_pages_of_its_own_may_be_validated_on(pages):
    where = {"images": str(pages), "annotations": str(pages / "lines.json")}
    data = lines_data(pages, val=where)
    assert data.num_train_samples == sum(batch.num_samples for batch in data.val_batches(64))


@pytest.mark.parametrize(("lines", "message"), [
    ([alto_line("x1", 20, "20 56 320")], "page_a.xml, line x1: the baseline must be at least 2 points x y, got"),
    ([alto_line("x1", 20, "20 56 a b")], "page_a.xml, line x1: the baseline '20 56 a b' holds something else than numbers"),
    ([alto_line("x1", 20, "20 56 20 56")], "page_a.xml, line x1: the baseline is shorter than a pixel"),
    ([alto_line("x1", 20, shape='<Polygon POINTS="1 2 3 4"/>')], "line x1: the polygon must be at least 3 points"),
    (['<TextLine ID="x1" BASELINE="20 56 320 56"/>'], "line x1 has neither a Polygon nor HPOS, VPOS, WIDTH and HEIGHT"),
    (['<TextLine ID="x1" HPOS="nan" VPOS="1" WIDTH="9" HEIGHT="9" BASELINE="9"/>'], "line x1: the polygon must be at least 3"),
    ([alto_line("x1", 20, "20 56 1e12 56")], r"line x1: the baseline has a point 1e\+12 px off, on a page of "),
    ([alto_line("x1", 20, shape='<Polygon POINTS="1 2 -3e300 4 5 6"/>')], r"line x1: the polygon has a point 3e\+300 px off"),
    (['<TextLine BASELINE=""><Polygon POINTS="1 2 3 4 5 6"/></TextLine>'], "line no. 1: the baseline must be at least 2"),
])  # fmt: skip
def test_a_malformed_line_of_alto_is_named(pages, lines, message):
    write_alto(pages / "alto", lines=lines)
    with pytest.raises(DataError, match=message):
        read_pages(pages / "alto", pages)


@pytest.mark.parametrize(("change", "message"), [
    ({"annotation": {"baseline": None}}, "lines.json, annotation id 8: the baseline must be at least 2 points x y"),
    ({"annotation": {"segmentation": {"counts": "x"}}}, "annotation id 8: segmentation must be a list of one polygon"),
    ({"annotation": {"baseline": [20, 56, 10**400, 56]}}, "annotation id 8: the baseline must be at least 2 points x y"),
    ({"annotation": {"image_id": 5}}, "annotation id 8: image_id=5 is not among the images"),
    ({"image": {"file_name": "gone.png"}}, "annotation id 7: its page .*gone.png is missing"),
    ({"image": {"file_name": "x" * 5000}}, "annotation id 7: its page .*xxx is missing"),
    ({"annotation": {"image_id": [5]}}, r"annotation id 8: image_id=\[5\] is not among the images"),
    ({"image": {"width": float("inf")}}, "lines.json, image id 1: width and height must be numbers of px"),
    ({"image": {"width": 10**400}}, r"lines.json, annotation id 7: its page is 10{19}×300 px large; allowed: up to 1048576"),
    ({"image": {"width": None}}, "lines.json, image id 1: width and height must be numbers of px"),
])  # fmt: skip
def test_a_malformed_line_of_coco_is_named(pages, change, message):
    (pages / "lines.json").write_text(json.dumps(coco(**change)))
    with pytest.raises(DataError, match=message):
        read_pages(pages / "lines.json", pages)


@pytest.mark.parametrize(("content", "message"), [
    ("<alto><Layout>", "page_a.xml can't be read as ALTO: not XML: no element found"),
    ("<html/>", "page_a.xml is not ALTO: its root is <html>"),
    (ALTO.format(unit="mm10", name="page_a.png", lines=""), "MeasurementUnit is 'mm10'; only pixel is allowed"),
    (ALTO.format(unit="pixel", name="page_a.png", lines="").replace("400", "wide"), "Page must have WIDTH and HEIGHT in px"),
    (ALTO.format(unit="pixel", name="page_a.png", lines=alto_line("l", 20)).replace("400", "1e308"), "its page is 1000000000"),
])  # fmt: skip
def test_a_file_that_is_not_alto_in_pixels_is_named(pages, content, message):
    (pages / "alto" / "page_a.xml").write_text(content)
    with pytest.raises(DataError, match=message):
        read_pages(pages / "alto", pages)


def test_a_page_that_is_missing_or_of_another_size_is_named(pages):
    (pages / "page_a.png").rename(pages / "away.png")
    with pytest.raises(
        DataError, match="page_a.xml: its page is not in .*, neither as page_a.jpg .* nor as 'page_a.png'"
    ):
        lines_data(pages)
    Image.new("L", (200, 100)).save(pages / "page_a.png")
    with pytest.raises(
        DataError, match=r"a page of \S+alto: \S+ \S+page_a.png has 200×100 pixels, but is annotated as 400×300"
    ):
        lines_data(pages)


@pytest.mark.parametrize(("name", "message"), [
    ("nothing", "nothing is missing; allowed: a COCO file, an ALTO file or a folder"),
    ("empty", "empty holds no ALTO files"),
    ("page_a.png", "page_a.png is neither COCO"),
])  # fmt: skip
def test_annotations_that_are_not_there_are_named(pages, name, message):
    (pages / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        lines_data(pages, name)


def plus():
    ink = np.zeros((40, 40), dtype=bool)
    ink[19:22, 5:36] = ink[5:36, 19:22] = True
    return ink


def marks(labels, kind):
    return sorted(zip(labels.column[labels.key_points[:, kind]], labels.row[labels.key_points[:, kind]], strict=True))


def test_pixels_tell_ends_junctions_widths_and_directions():
    labels = label_pixels(plus())
    assert marks(labels, 1) == [(20, 20)]
    ends = np.array(marks(labels, 0))
    assert len(ends) == 4
    assert np.abs(ends - [(5, 20), (20, 5), (20, 35), (35, 20)]).max() <= 2
    assert np.median(labels.width) == 3
    arm = (labels.column > 25) & (labels.column < 29)
    assert np.allclose(labels.tangent[arm], [1, 0], atol=0.02)


def test_a_rough_edge_grows_no_branches():
    ink = np.zeros((30, 60), dtype=bool)
    ink[12:19, 5:55] = True
    ink[10:12, 20:22] = ink[19:21, 35:37] = True
    labels = label_pixels(ink)
    assert marks(labels, 1) == []
    assert len(marks(labels, 0)) == 2


@pytest.mark.slow
def test_real_pages_are_read_from_alto_and_from_coco_and_cut(shared_data, tmp_path):
    folder = shared_data / "ink_lines"
    lines = read_pages(folder / "alto", folder / "images")
    assert len(lines) == 779
    of_coco = [
        line
        for part in ("train", "val")
        for line in read_pages(folder / f"annotations/instances_{part}.json", folder / "images")
    ]
    assert len(of_coco) == 779
    where = {"images": str(folder / "images"), "annotations": str(folder / "alto")}
    data = lines_data(tmp_path, train=where, split_by="page")
    assert data.num_train_samples > 3000
    batch = next(data.train_batches(1, 64))
    assert 0.02 < batch.target.skeleton.mean() < 0.12


def test_a_real_page_is_cut_and_labelled(shared_data, tmp_path):
    folder = shared_data / "ink_lines"
    alto = folder / "alto" / "lettre-soeur-marie__01R_P1S3SS2P118_001.xml"
    where = {"images": str(folder / "images"), "annotations": str(alto)}
    data = lines_data(tmp_path, train=where)
    batch = next(data.val_batches(64))
    assert 0.02 < batch.target.skeleton.mean() < 0.12
    on = batch.target.skeleton > 0
    assert batch.images[on].min() > 0.29
    assert batch.images[on].mean() > 4 * batch.images[~on].mean()
    assert batch.target.key_points.sum(dim=(0, 2, 3))[:2].min() > 0
