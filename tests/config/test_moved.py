"""What was recorded before a name moved is read by today's names."""

import importlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from composed import REPOSITORY, compose_plain

from hydra_plugins.winnow_sweeper._definition import MAY_CHANGE, Definition, flattened
from winnow.config import moved
from winnow.config.instantiate import check_node, target_of, trusted
from winnow.config.moved import MOVED, MOVED_CHOICES, moved_target, with_moved_names
from winnow.config.recorded import resumed_config
from winnow.config.schema import RunSettings
from winnow.errors import ConfigError
from winnow.run.build import checked_evaluation
from winnow.run.pipeline_record import read_record
from winnow.settings import build_settings

RECORDS = Path(__file__).parent / "before_the_move"
BUILDERS = [
    "winnow.data.detection.bdd100k_data", "winnow.data.detection.coco_data", "winnow.data.detection.digits_data",
    "winnow.data.ink_lines.ink_lines", "winnow.data.ink_strokes.ink_strokes", "winnow.evaluation.boxes.box_evaluation",
    "winnow.evaluation.ink.ink_evaluation", "winnow.tasks.detection.deformable_detr.deformable_detr",
    "winnow.tasks.detection.deformable_detr.deformable_detr_tiny", "winnow.tasks.detection.faster_rcnn.faster_rcnn_r50_fpn",
    "winnow.tasks.detection.fcos_r50_fpn.fcos_r50_fpn", "winnow.tasks.detection.fcos_tiny.fcos_tiny",
    "winnow.tasks.ink.inktrace.inktrace",
]  # fmt: skip
"""Every ``_target_`` of conf/ before the move."""


@pytest.fixture
def run():
    return yaml.safe_load((RECORDS / "run.yaml").read_text())


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_each_row_leads_from_a_place_that_is_gone_to_one_that_is_there(old, new):
    assert importlib.util.find_spec(new) is not None
    place = REPOSITORY / "src" / old.replace(".", "/")
    assert not place.with_suffix(".py").exists()
    assert not (place / "__init__.py").exists()


@pytest.mark.parametrize("old", BUILDERS)
def test_each_builder_of_before_is_found(old):
    node = {"_target_": moved_target(old)}
    assert target_of(node, "model", trusted({"trusted_targets": []})).__name__ == old.rpartition(".")[2]


def test_each_choice_that_moved_is_a_file_of_today():
    for group, choices in MOVED_CHOICES.items():
        for old, new in choices.items():
            assert compose_plain(f"{group}={old}", "model=inktrace") == compose_plain(
                f"{group}={new}", "model=inktrace"
            )


def test_a_new_run_that_names_an_old_place_hears_where_it_is_now():
    config = compose_plain("model._target_=winnow.tasks.detection.fcos_tiny.fcos_tiny")
    with pytest.raises(
        ConfigError, match=r"has moved; name it winnow\.families\.detection\.models\.fcos_tiny\.fcos_tiny"
    ):
        checked_evaluation(config)


def test_a_run_of_before_goes_on(run):
    checkpoint = {"config": run, "metadata": {"choices": {"model": "fcos_tiny", "stage": "single"}}}
    assert_accepted(resumed_config(checkpoint, compose_plain(), ["training.max_epochs=9"]))


def test_an_override_of_before_goes_on_with_a_run(run):
    checkpoint = {"config": run, "metadata": {"choices": {"model": "fcos_tiny"}}}
    override = "model._target_=winnow.tasks.detection.fcos_tiny.fcos_tiny"
    assert_accepted(resumed_config(checkpoint, compose_plain(), [override]))


def test_the_choice_of_before_is_the_same_choice(run):
    run["model"] = {"_target_": "winnow.tasks.ink.inktrace.inktrace"}
    checkpoint = {"config": run, "metadata": {"choices": {"stage": "dense"}}}
    for choice in ("dense", "ink/dense"):
        resumed_config(checkpoint, compose_plain(), [f"stage={choice}"])
    with pytest.raises(ConfigError, match="stage=ink/all: the run began with stage=ink/dense"):
        resumed_config(checkpoint, compose_plain(), ["stage=ink/all"])


def test_a_stage_of_ones_own_that_has_the_name_of_a_moved_one_stays(run):
    assert moved.with_moved_choices({"stage": "all"}, run) == {"stage": "all"}
    moved.require_todays_choices(["stage=all"], {"stage": "all"})


def test_the_stages_of_a_pipeline_of_before_go_on():
    stages = read_record(RECORDS)
    assert [stage.choices["stage"] for stage in stages] == ["ink/structural", "ink/dense"]
    for stage in stages:
        checkpoint = {"config": stage.config, "metadata": {"choices": stage.choices}}
        assert_accepted(resumed_config(checkpoint, compose_plain("model=inktrace", "data=ink_strokes"), []))


def assert_accepted(config):
    build_settings(RunSettings, config, "")
    checked_evaluation(config)
    check_node(config, "data", ["loading"])
    check_node(config, "tracking", ["run_folder", "parent_folder"])


def definition_now(old, *overrides):
    base = compose_plain(*overrides)
    base["training"]["max_epochs"] = 2  # both stages' together
    return replace(old, base=flattened(base, (*MAY_CHANGE, *old.search_space)))


@pytest.mark.parametrize("said", ["as it was", "by today's names"])
def test_a_study_of_before_is_not_another_one(said):
    old = Definition.from_json((RECORDS / "definition.json").read_text())
    overrides = yaml.safe_load((RECORDS / "sweep.yaml").read_text())["overrides"]
    if said == "by today's names":
        overrides = with_moved_names(overrides, old.base)
        assert "stage=ink/all" in overrides
    now = definition_now(old, *overrides)
    assert old.differences(now) == []
    assert old.differences(definition_now(old, *overrides, "model.embed_dim=32")) != []


def test_a_key_that_came_later_changes_no_study(monkeypatch):
    monkeypatch.setitem(moved.ADDED, "training.ema.later", [])
    text = (RECORDS / "definition.json").read_text()
    old = Definition.from_json(text)
    assert old.base["training.ema.later"] == []
    another = json.dumps({**json.loads(text), "base": {"x": 1}})
    assert "training.ema.later" not in Definition.from_json(another).base


def test_a_key_that_came_later_is_in_a_resumed_config(monkeypatch, run):
    monkeypatch.setitem(moved.ADDED, "training.ema.later", [])
    assert moved.with_added_keys(run)["training"]["ema"]["later"] == []
    assert "later" not in run["training"]["ema"]


@pytest.mark.parametrize(("overrides", "key", "recorded", "now"), [
    (["model=deformable_detr"], "share_heads", False, True),
    (["model=deformable_detr", "model.with_box_refine=true"], "share_heads", True, True),  # it changes nothing there
    (["model=deformable_detr_tiny"], "share_heads", True, True),
    (["model=deformable_detr_tiny", "model.with_box_refine=false"], "share_heads", False, True),
    (["model=deformable_detr"], "attention", "pure", "auto"),
    (["model=deformable_detr_tiny", "model.attention=pure"], "attention", "pure", "pure"),
    (["model=faster_rcnn_r50_fpn"], "norm_eps", 1e-5, None),
    (["model=faster_rcnn_r50_fpn", "model.pretrained=false"], "norm_eps", None, None),
])  # fmt: skip
def test_a_model_recorded_before_it_had_a_key_goes_on_as_it_was(overrides, key, recorded, now):
    composed = compose_plain(*overrides)
    assert composed["model"][key] == now
    before = {**composed, "model": {name: value for name, value in composed["model"].items() if name != key}}
    assert moved.with_added_keys(before)["model"] == {**before["model"], key: recorded}
    resumed = resumed_config({"config": before, "metadata": {}}, compose_plain(), [f"model.{key}={json.dumps(now)}"])
    assert resumed["model"][key] == now
    flat_base = flattened(before)
    assert moved.added_keys(flat_base)[f"model.{key}"] == recorded
    assert moved.with_added_keys(composed) == composed, "what is said stays"


def test_other_models_have_no_key_added():
    assert "share_heads" not in moved.with_added_keys(compose_plain())["model"]
