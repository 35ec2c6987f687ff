"""The page of a run of each family has that family's own sections, made of a real run's stored arrays."""

import re

import numpy as np
import pytest

from winnow.families.pairs.evaluation import pair_evaluation
from winnow.reading import read_arrays

SHORT = ["tracking=off", "training.max_iter=2", "training.batch_size=4", "training.num_workers=0"]
DETECTION = [
    "Classes", "Precision and recall", "Confusions", "Kinds of errors", "Images", "Suspected label errors",
]  # fmt: skip
FAMILIES = {
    "detection": (
        ["model=fcos_tiny", "data.num_train=8", "data.num_val=6", "evaluation.score_threshold=0"], DETECTION, 4,
    ),
    "ink": (
        ["model=inktrace", "model.channels=[8,8,8]", "model.depths=[1,1,1]", "data=ink_strokes",
            "data.num_train=8", "data.num_val=6",
            "data.image_size=32",],
        ["Skeletons", "Key points", "Tiles"], 6,
    ),
    "pairs": (
        ["model=pair_faster_rcnn_tiny", "data=pairs_synthetic", "data.num_train=8", "data.num_val=4", "data.image_size=64",
         "model.channels=[8,8,16,16]", "model.pyramid_channels=16", "model.head_channels=16", "model.anchor_sizes=[8,12,20]",
         "model.macl.weight=0.2"],
        [*DETECTION, "Loss against chance"], 4,
    ),
    "maps": (
        ["model=map_qformer_tiny", "data=map_synthetic", "data.image_size=32", "model.channels=[8,16]", "model.width=16",
         "model.num_instances=6", "model.qformer.tokens_per_camera=3", "model.qformer.width=16", "model.qformer.num_heads=2",
         "model.qformer.ffn_width=32", "model.decoder.num_heads=2", "model.decoder.ffn_width=32", "data.num_train=8",
         "data.num_val=3"],
        ["Classes", "Precision and recall", "Lines from above and in the front camera"], 3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_s_page_has_its_family_s_sections_and_pictures(warm_program, tmp_path, family):
    arguments, sections, num_pictures = FAMILIES[family]
    warm_program.run(tmp_path, *arguments, *SHORT, "hydra.run.dir=run")
    page = (tmp_path / "run" / "report.html").read_text()
    expected = ["Overview", "Curves", *sections, "Speed and cost", "What to do next"]
    assert re.findall(r"<h2>([^<]*)</h2>", page) == expected
    assert page.count("data:image/jpeg;base64,") >= num_pictures
    assert "can&#39;t be read here" not in page
    arrays = read_arrays(tmp_path / "run" / "val_detections.npz", ValueError)
    assert not [name for name, values in arrays.items() if values.dtype == object]


def test_pairs_of_kaist_have_curves_of_the_miss_rate_by_day_and_night():
    """A person at day is found, one at night is missed, and there is a false positive at night."""
    box = [100.0, 100.0, 140.0, 200.0]
    arrays = {
        "classes": np.array(["person"]), "category_ids": np.array([1]), "epoch": np.int64(1), "step": np.int64(1),
        "image_ids": np.array(["set00/V000/I00001", "set03/V000/I00001"]), "image_sizes": np.array([[512, 640]] * 2),
        "true_boxes": np.array([box, box]), "true_labels": np.array([0, 0]), "true_areas": np.array([4000.0] * 2),
        "true_crowd": np.array([False, False]), "true_image": np.array([0, 1]), "boxes": np.array([box, [300.0, 100, 340, 200]]),
        "has_text_id": np.array([True, True]), "scores": np.array([0.9, 0.8]), "labels": np.array([0, 0]),
        "found_image": np.array([0, 1]),
    }  # fmt: skip
    evaluation = pair_evaluation(score_threshold=0.001, max_detections=1000, ap_detections=100)
    (section,) = [one for one in evaluation.report(arrays, None, None) if one.title == "Miss rate"]
    table, curves = section.blocks[1], section.blocks[2]
    rates = {row[0]: row[2] for row in table.rows}
    assert rates["night"] == pytest.approx(100)
    assert rates["day"] == pytest.approx(0, abs=1e-6)
    assert [one.name for one in curves.series] == ["day and night", "day", "night"]
    assert curves.series[2].y == [100.0]
    assert curves.series[0].y == [50.0]
