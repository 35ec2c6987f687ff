import pytest
from composed import compose_plain
from pair_model_parts import pair_batch, persons, tiny_task
from PIL import Image

from winnow.families.pairs.evaluation import pair_evaluation


@pytest.fixture
def evaluation():
    values = compose_plain("model=pair_faster_rcnn_tiny", "data=pairs_synthetic")["evaluation"]
    values.pop("_target_")
    return pair_evaluation(**values)


def test_objects_are_drawn_per_epoch_as_macl_projects_them(evaluation, tmp_path):
    batches = [pair_batch(persons([10, 5, 24, 33], [40, 20, 60, 60])), pair_batch(persons(image_id=2))]
    aligned = tiny_task(macl={"weight": 0.2})
    aligned.model.eval()
    first, second = (evaluation.draw_epoch(aligned, iter(batches), tmp_path, epoch) for epoch in (1, 2))
    assert (first.name, second.name) == ("alignment_epoch_1.png", "alignment_epoch_2.png")
    with Image.open(first) as picture:
        assert len(picture.convert("RGB").getcolors(10**6)) > 10
    assert evaluation.draw_epoch(aligned, iter(batches[1:]), tmp_path, 3) is None, "no object to draw"
    assert evaluation.draw_epoch(tiny_task(), iter(batches), tmp_path, 4) is None, "without MACL"
    assert sorted(path.name for path in tmp_path.iterdir()) == [first.name, second.name]


def test_a_miss_rate_is_better_the_lower_and_an_average_precision_the_higher(evaluation):
    modes = evaluation.metric_modes
    assert {name for name, mode in modes.items() if mode == "min"} == {
        "miss_rate", "miss_rate_day", "miss_rate_night", "macl",
    }  # fmt: skip
    assert "macl_chance" not in modes, "what chance gives is nothing to search by"
    assert modes["map_50"] == modes["map_class/*"] == modes["mar_100"] == "max"
