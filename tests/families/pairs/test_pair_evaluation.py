from composed import compose_plain

from winnow.families.pairs.evaluation import pair_evaluation


def test_a_miss_rate_is_better_the_lower_and_an_average_precision_the_higher():
    values = compose_plain("model=pair_faster_rcnn_tiny", "data=pairs_synthetic")["evaluation"]
    values.pop("_target_")
    modes = pair_evaluation(**values).metric_modes
    assert {name for name, mode in modes.items() if mode == "min"} == {"miss_rate", "miss_rate_day", "miss_rate_night"}
    assert modes["map_50"] == modes["map_class/*"] == modes["mar_100"] == "max"
