"""What ``@builder`` says, and what a builder that gives something else than it should ends in."""

import pytest
from composed import compose_plain
from torch import nn

from winnow.builders import builder, check_arguments, family_of, mark_of, members, require_one_family
from winnow.config.instantiate import check_node, instantiate
from winnow.errors import ConfigError
from winnow.families.detection.data import digits_data
from winnow.families.ink.evaluation import ink_evaluation
from winnow.protocols import Data, Task
from winnow.settings import Settings, build_settings

HERE = __name__


class Keys(Settings):
    """One key."""

    size: int = 1


class Detector(nn.Module):
    """What torchvision gives: a module that is no task."""


@builder(Keys)
def lacks_new_metric(classes, max_detections, score_threshold, size=1):
    return None


@builder(Keys)
def needs_more(tokenizer, **values):
    return None


@builder(Keys)
def gives_none(**values):
    return None


@builder(Keys)
def says_none(**values) -> None: ...


@builder(Keys)
def gives_module(**values):
    return Detector()


@builder(Keys)
def says_module(**values) -> Detector:
    return Detector()


@builder(Keys)
def forgets_a_method(*, loading, **values):
    class Half:
        classes, fingerprint, image_size, num_train_samples = (), "", 1, 0

    return Half()


@builder(Keys)
def without_loading(size=1):
    return None


@builder(family="marks")
def of_marks(): ...


@builder()
def of_any(): ...


def config_of(key, target):
    return {key: {"_target_": f"{HERE}.{target}"}, "trusted_targets": [HERE]}


TOLD = ["classes", "new_metric", "max_detections", "score_threshold"]


@pytest.mark.parametrize(("target", "message"), [
    ("lacks_new_metric", r"model\._target_=.*lacks_new_metric: it has no parameter new_metric; .*is given classes, max_det"),
    ("needs_more", r"model\._target_=.*needs_more needs tokenizer, which is no key of model"),
    ("says_none", r"model\._target_=.*says_none returns None; .*winnow\.protocols\.Task"),
    ("says_module", r"gives a Detector, a torch module without a task around it, which lacks loss_count, losses, predictions"),
])  # fmt: skip
def test_what_the_signature_shows_is_refused_before_anything_is_built(target, message):
    with pytest.raises(ConfigError, match=message):
        check_node(config_of("model", target), "model", TOLD)


@pytest.mark.parametrize(("key", "target", "message"), [
    ("model", "gives_none", r"model\._target_=.*gives_none returned None; .*winnow\.protocols\.Task"),
    ("model", "gives_module", r"model\._target_=.*returned a Detector, a torch module without a task around it"),
    ("evaluation", "gives_none", r"evaluation\._target_=.*returned None; .*winnow\.protocols\.Evaluation"),
    ("tracking", "gives_module", r"tracking\._target_=.*which lacks log_params"),
])  # fmt: skip
def test_what_was_built_must_obey_its_protocol(key, target, message):
    with pytest.raises(ConfigError, match=message):
        instantiate(config_of(key, target), key)


def test_data_names_the_methods_that_it_lacks():
    with pytest.raises(
        ConfigError, match=r"data\._target_=.*returned a Half, which lacks num_train_batches, train_batches, "
    ):
        instantiate(config_of("data", "forgets_a_method"), "data", loading=None)
    with pytest.raises(ConfigError, match=r"data\._target_=.*without_loading: it has no parameter loading"):
        check_node(config_of("data", "without_loading"), "data", ["loading"])


def test_a_torchvision_model_is_refused_by_the_models_key():
    config = {
        "trusted_targets": ["torchvision"],
        "model": {"_target_": "torchvision.models.detection.fcos_resnet50_fpn"},
    }
    with pytest.raises(
        ConfigError, match=r"model\._target_=torchvision\..* gives a FCOS, a torch module without a task"
    ):
        check_node(config, "model", TOLD)


def test_the_family_is_the_folder_and_outside_of_winnow_what_a_builder_names():
    assert family_of(digits_data) == "detection"
    assert family_of(ink_evaluation) == "ink"
    assert family_of(of_marks) == "marks"
    assert family_of(of_any) is None
    require_one_family({"data": digits_data, "model": of_any})
    with pytest.raises(ConfigError, match="data=digits_data is of detection, model=of_marks is of marks"):
        require_one_family({"data": digits_data, "model": of_marks})


def test_what_has_no_mark_is_nothing_that_a_config_may_build():
    config = compose_plain()
    config["data"] = {"_target_": "winnow.families.detection.check.check_digits"}
    with pytest.raises(ConfigError, match="is nothing that a config may build"):
        instantiate(config, "data", loading=None)
    assert mark_of(digits_data).check is not None


def test_code_may_give_more_to_those_who_take_it():
    def tracker(run_folder): ...

    check_arguments(tracker, {}, ["run_folder"], "tracking", optional=["parent_folder"])
    with pytest.raises(ConfigError, match=r"tracking\.parent_folder"):
        check_arguments(tracker, {"parent_folder": 1}, ["run_folder"], "tracking", optional=["parent_folder"])


def test_protocols_name_their_members():
    assert {"model", "classes", "loss_count", "losses", "new_metric"} <= set(members(Task))
    assert {"classes", "fingerprint", "train_batches", "preview"} <= set(members(Data))
    assert not [name for name in members(Task) if name.startswith("_")]


def test_settings_are_what_the_mark_says():
    assert build_settings(mark_of(gives_none).settings_class, {"size": 3}, "model").size == 3
