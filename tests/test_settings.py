from typing import Annotated

import pytest
from composed import compose_plain
from pydantic import Field

from winnow.builders import builder, check_arguments
from winnow.config.instantiate import check_node
from winnow.engine.settings import TrainingSettings
from winnow.errors import ConfigError
from winnow.settings import Settings, build_settings


class Inner(Settings):
    size: int = Field(gt=0)


class Outer(Settings):
    inner: Inner
    name: str = "x"


@pytest.mark.parametrize(("values", "message"), [
    ({"inner": {"size": 3}, "nam": 1}, r"^data.nam=1 is not a known key; allowed here: inner, name$"),
    ({"inner": {"size": 3, "sise": 4}}, r"^data.inner.sise=4 is not a known key; allowed here: size$"),
    ({"inner": {"size": 0}}, r"^data.inner.size=0: input should be greater than 0$"),
    ({"inner": {"size": "3"}}, r"^data.inner.size='3': input should be a valid integer$"),
    ({"inner": {"size": True}}, r"^data.inner.size=True: input should be a valid integer$"),
    ({}, r"^data.inner is missing$"),
])  # fmt: skip
def test_a_wrong_value_is_named_with_what_is_allowed(values, message):
    with pytest.raises(ConfigError, match=message):
        build_settings(Outer, values, "data")


def test_every_wrong_key_is_named_at_once():
    with pytest.raises(ConfigError) as error:
        build_settings(Outer, {"inner": {"size": -1}, "name": 3}, "data")
    assert len(str(error.value).splitlines()) == 2


def build(classes, *, width: Annotated[int, Field(ge=8)], pretrained: bool | str = False):
    return classes, width, pretrained


@pytest.mark.parametrize(("values", "message"), [
    ({"width": 4}, r"model.width=4: input should be greater than or equal to 8"),
    ({"width": 8, "depth": 2}, r"model.depth=2 is not a known key; allowed here: pretrained, width"),
    ({"width": 8, "classes": []}, r"model.classes=\[\] is not a known key"),
    ({}, "model.width is missing"),
])  # fmt: skip
def test_a_node_is_held_against_the_signature_of_what_it_builds(values, message):
    with pytest.raises(ConfigError, match=message):
        check_arguments(build, values, ["classes"], "model")


def test_a_right_node_passes():
    assert check_arguments(build, {"width": 8, "pretrained": "weights.pth"}, ["classes"], "model") is None


@pytest.mark.parametrize(("changes", "message"), [
    ({"amp": "fp8"}, r"training.amp='fp8': input should be 'auto', 'off', 'bf16' or 'fp16'"),
    ({"resize_schedule": [[5, 640]]}, r"training.resize_schedule=\[\[5, 640\]\]: the schedule must start at epoch 1"),
    ({"resize_schedule": [[1, 640], [1, 800]]}, "its epochs must rise"),
    ({"resize_schedule": [[1, 640], [2, 16385]]}, "its image sizes must be at most 16384"),
    ({"scheduler": {"name": "cosine", "milestones": [3]}}, "multistep, and only it, needs them"),
    ({"scheduler": {"name": "multistep", "milestones": [40]}}, "lie at or behind the last epoch"),
    ({"optimizer": {"_target_": "torch.optim.AdamW", "lr": "fast"}}, "lr must be a number above 0, got 'fast'"),
    ({"param_groups": [{"name": "a", "pattern": "("}]}, "is not a regular expression"),
    ({"param_groups": [{"name": "a", "pattern": "x", "lr": 1.0, "lr_scale": 0.1}]}, "sets both lr and lr_scale"),
    ({"device": "gpu"}, "training.device='gpu'"),
    ({"overfit": 20, "subset_size": 10}, "overfit=20 needs more samples"),
])  # fmt: skip
def test_contradictory_training_settings_are_refused(training_values, changes, message):
    with pytest.raises(ConfigError, match=message):
        build_settings(TrainingSettings, training_values | changes, "training")


@pytest.mark.parametrize(("value", "word"), [(True, "auto"), (False, "off"), ("bf16", "bf16")])
def test_amp_takes_a_truth_value(training_values, value, word):
    assert build_settings(TrainingSettings, training_values | {"amp": value}, "training").amp == word


@builder(Outer)
def build_outer(classes, **values):
    return classes, build_settings(Outer, values, "model")


def test_a_builder_may_say_its_keys_by_a_settings_class():
    check_arguments(build_outer, {"inner": {"size": 1}}, ["classes"], "model")
    with pytest.raises(ConfigError, match=r"model.depth=2 is not a known key; allowed here: inner, name"):
        check_arguments(build_outer, {"inner": {"size": 1}, "depth": 2}, ["classes"], "model")


@pytest.mark.parametrize("data", ["digits", "pairs_synthetic", "map_synthetic", "ink_strokes", "ink_lines"])
def test_images_that_no_model_in_use_would_take_are_refused_before_anything_is_read(data):
    config = compose_plain(f"data={data}", "data.image_size=16385")
    with pytest.raises(ConfigError, match=r"data.image_size=16385: input should be less than or equal to 16384"):
        check_node(config, "data", ["loading"])
