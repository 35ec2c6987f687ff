import numpy as np
import pytest
from composed import REPOSITORY
from pairs_parts import pair_values, synthetic_values, write_llvip, write_voc
from PIL import Image

from winnow.families.pairs.check import check_kaist, check_llvip, check_synthetic
from winnow.families.pairs.exchanged import exchanged
from winnow.families.pairs.settings import CameraNode, SyntheticNode
from winnow.settings import build_settings

SHARED = REPOSITORY.parent / "shared/data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data")


def silent(*_):
    pass


@pytest.fixture
def root(tmp_path):
    return write_llvip(tmp_path, train=[f"01000{n}" for n in range(1, 7)] + ["020001"])


def findings(root, **changes):
    report = check_llvip(
        build_settings(CameraNode, pair_values("llvip", llvip_root=str(root), **changes), "data"), silent
    )
    return [(split, finding.kind, finding.file, finding.detail) for split, finding in report.findings()]


def exchange(one, other):
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(kept)


def test_whole_pairs_are_clean_and_counted(root):
    told = []
    report = check_llvip(
        build_settings(CameraNode, pair_values("llvip", llvip_root=str(root)), "data"), lambda *args: told.append(args)
    )
    assert not report.findings()
    assert {split: (part.num_images, part.num_annotations) for split, part in report.splits.items()} == {
        "train": (6, 6),
        "val": (1, 1),
    }
    assert told[-1] == ("val", 1, 1)
    assert report.objects == {"train": {"person": 6}, "val": {"person": 1}}


def test_classes_without_objects_and_odd_pictures_are_named_as_a_detector_s(root):
    Image.fromarray(np.full((48, 64), 3000, np.uint16)).save(root / "infrared/train/010003.png")
    turned = Image.Exif()
    turned[0x0112] = 3
    with Image.open(root / "visible/train/010005.png") as picture:
        picture.save(root / "visible/train/010005.png", exif=turned)
    (root / "Annotations/020001.xml").unlink()
    write_voc(root / "Annotations/020001.xml", [])
    found = {(split, kind, file) for split, kind, file, _ in findings(root)}
    train = root / "infrared/train", root / "visible/train"
    assert ("train", "16 bits", str(train[0] / "010003.png")) in found
    assert ("train", "EXIF orientation of the same size", str(train[1] / "010005.png")) in found
    assert ("val", "class without an object", "") in found
    details = [detail for _, kind, _, detail in findings(root, exif="never") if kind.startswith("EXIF")]
    assert details == ["orientation 3: not turned (data.exif=never)"]


def test_a_missing_partner_and_different_sizes_are_found(root):
    (root / "visible/train/010002.png").unlink()
    Image.new("L", (32, 24), 9).save(root / "infrared/train/010003.png")
    write_voc(root / "Annotations/010004.xml", [(1, 1, 9, 9)], size=(640, 480))
    assert findings(root) == [
        ("train", "missing partner", "010002", "there is no visible image"),
        ("train", "different sizes", "010003", "visible 64×48, infrared 32×24"),
        ("train", "size mismatch", "010004", "64×48, annotated as 640×480"),
    ]


def test_the_same_file_twice_is_found_in_a_split_and_between_splits(root):
    files = [root / f"{part}/train/{name}.png" for part, name in (("infrared", "010002"), ("infrared", "010005"))]
    files[1].write_bytes(files[0].read_bytes())
    (root / "visible/train/020001.png").write_bytes((root / "visible/train/010001.png").read_bytes())
    found = findings(root)
    assert ("train", "same file twice", "010005 (infrared)", "same content as 010002 (infrared)") in found
    assert (
        "both",
        "same image in train and val",
        "020001 (visible)",
        "same content as 010001 (visible) in train",
    ) in found
    assert len(found) == 2


def test_exchanged_frames_are_found_by_what_is_on_them(root):
    exchange(root / "infrared/train/010002.png", root / "infrared/train/010004.png")
    detail = "its infrared image fits 010004, and the reverse"
    assert findings(root) == [("train", "frames exchanged", "010002", detail)]


def test_what_a_standing_camera_always_sees_does_not_hide_an_exchange():
    rng = np.random.default_rng(0)
    scene, own = rng.normal(0, 10, (24, 32)), rng.normal(0, 1, (6, 24, 32))
    visible, infrared = scene + own + rng.normal(0, 1, own.shape), scene + own + rng.normal(0, 1, own.shape)
    assert exchanged(list(visible), list(infrared)) == []
    assert exchanged(list(visible), list(infrared[[0, 4, 2, 3, 1, 5]])) == [(1, 4)]


def test_exchanged_modalities_are_found_by_their_colours(root):
    exchange(root / "infrared/train/010002.png", root / "visible/train/010002.png")
    assert findings(root) == [
        ("train", "modalities exchanged", "010002", "the infrared image is coloured, the visible grey")
    ]


def test_what_is_wrong_with_labels_and_files_is_found(root):
    (root / "Annotations/010001.xml").write_text("<annotation/>")
    (root / "Annotations/010002.xml").unlink()
    write_voc(root / "Annotations/010003.xml", [(-4, 4, 24, 40), (90, 1, 99, 9)])
    write_voc(root / "Annotations/010004.xml", [])
    (root / "infrared/train/010005.png").write_bytes(b"no picture")
    found = [(kind, file) for _, kind, file, _ in findings(root)]
    assert found == [
        ("malformed annotation", "010001"), ("pair without annotation", "010002"),
        ("boxes outside of it or without area", "010003"), ("boxes clipped to the image", "010003"),
        ("pair without objects", "010004"), ("unreadable image", str(root / "infrared/train/010005.png")),
    ]  # fmt: skip
    report = check_llvip(build_settings(CameraNode, pair_values("llvip", llvip_root=str(root)), "data"), silent)
    notes = {finding.kind for _, finding in report.findings() if not finding.is_problem}
    assert notes == {"pair without annotation", "pair without objects"}


def test_drawn_pairs_are_clean_and_exchanged_ones_are_found(tmp_path):
    values = synthetic_values(tmp_path, num_train=12)
    assert not check_synthetic(build_settings(SyntheticNode, values, "data"), silent).findings()
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    exchange(folder / "infrared/train/000003.png", folder / "infrared/train/000009.png")
    report = check_synthetic(build_settings(SyntheticNode, values, "data"), silent)
    assert [(finding.kind, finding.file) for _, finding in report.findings()] == [("frames exchanged", "000003")]


@needs_shared
def test_the_excerpts_are_clean_but_for_what_is_not_labelled():
    split = {"train": ["19"], "val": ["20"]}
    report = check_llvip(
        build_settings(
            CameraNode, pair_values("llvip", llvip_root=str(SHARED / "llvip_mini"), llvip_split=split), "data"
        ),
        silent,
    )
    assert {name: (part.num_images, part.num_annotations, part.counts) for name, part in report.splits.items()} == {
        "train": (9, 0, {"pair without annotation": 9, "class without an object": 1}),
        "val": (6, 0, {"pair without annotation": 6, "class without an object": 1}),
    }  # fmt: skip
    assert not report.between
    split = {"train": ["set06", "set08"], "val": ["set09", "set10", "set11"]}
    report = check_kaist(
        build_settings(
            CameraNode, pair_values("kaist", kaist_root=str(SHARED / "kaist_mini"), kaist_split=split), "data"
        ),
        silent,
    )
    assert {name: (part.num_images, part.num_annotations) for name, part in report.splits.items()} == {
        "train": (4, 32), "val": (5, 27),
    }  # fmt: skip
    assert not report.findings()


@needs_shared
def test_exchanged_frames_of_a_real_recording_are_found(tmp_path):
    for modality in ("visible", "infrared"):
        for part in ("train", "test"):
            (tmp_path / modality / part).mkdir(parents=True)
            names = [f"01000{n}" for n in range(1, 10)] if part == "train" else ["190001", "190002"]
            for name in names:
                with Image.open(SHARED / f"llvip_mini/{modality}/{part}/{name}.jpg") as image:
                    small = image.reduce(4)
                Image.fromarray(np.asarray(small)).save(tmp_path / modality / part / f"{name}.png")
    for name in [f"01000{n}" for n in range(1, 10)] + ["190001", "190002"]:
        write_voc(tmp_path / "Annotations" / f"{name}.xml", [(4, 4, 24, 40)], size=(320, 256))
    split = {"train": ["01"], "val": ["19"]}
    assert findings(tmp_path, llvip_split=split) == []
    exchange(tmp_path / "infrared/train/010003.png", tmp_path / "infrared/train/010006.png")
    assert [(kind, file) for _, kind, file, _ in findings(tmp_path, llvip_split=split)] == [
        ("frames exchanged", "010003")
    ]
