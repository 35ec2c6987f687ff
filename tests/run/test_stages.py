"""What is wrong with a pipeline is said before anything is trained."""

import re

import pytest
from composed import REPOSITORY
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict
from stage_parts import UNTRACKED, write_stages

from winnow.config.compose import compose_command_line, job_command
from winnow.errors import ConfigError, WinnowError
from winnow.run.pipeline import prepare
from winnow.run.resolve import resolve

HEADER = "# @package _global_\n"
OTHERS = {
    "unknown": "stage: {name: unknown, stages: [shapes, nowhere]}",
    "nested": "stage: {name: nested, stages: [shapes, both]}",
    "backwards": "stage: {name: backwards, stages: [fine, shapes]}",
    "twice": "stage: {name: twice, stages: [shapes, shapes]}",
    "itself": "stage: {name: itself, init_from: 'itself:last'}",
    "misnamed": "stage: {name: other}",
    "with_misnamed": "stage: {name: with_misnamed, stages: [shapes, misnamed]}",
    "wrong_value": "training: {amp: fp8}\nstage: {name: wrong_value}",
    "wrong_key": "model: {depth: 3}\nstage: {name: wrong_key}",
    "no_file": "stage: {name: no_file, init_from: nowhere.pth}",
    "no_parameter": "training: {freeze: [nothing]}\nstage: {name: no_parameter}",
    "strict": "defaults: [fine, _self_]\nstage: {name: strict, init_allow_missing: [head.regression_head]}",
    "begins_somewhere": "stage: {name: begins_somewhere, init_from: 'shapes:best', stages: [shapes]}",
}
PAIRS = ("itself", "wrong_value", "wrong_key", "no_file", "no_parameter", "strict")
OTHERS |= {f"with_{name}": f"stage: {{name: with_{name}, stages: [shapes, {name}]}}" for name in PAIRS}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return write_stages(tmp_path_factory.mktemp("checked"), **{name: HEADER + text for name, text in OTHERS.items()})


@pytest.fixture
def prepared(workplace, tmp_path, monkeypatch):
    """Return the first thing that ``train.py`` does with a pipeline, without the process."""
    monkeypatch.chdir(workplace)

    def prepare_in_process(*arguments):
        overrides = [f"hydra.searchpath=[file://{workplace}/own]", *UNTRACKED[2:], *arguments]
        with initialize_config_dir(str(REPOSITORY / "conf")):
            config = compose("config", overrides=overrides, return_hydra_config=True)
            with open_dict(config):
                config.hydra.runtime.output_dir = str(tmp_path)
            HydraConfig.instance().set_config(config)
            with open_dict(config):
                del config["hydra"]
            return prepare(resolve(job_command(config)), tmp_path)

    yield prepare_in_process
    HydraConfig.instance().cfg = None


@pytest.mark.parametrize(("arguments", "message"), [
    (["stage=unknown"], "stage=nowhere can't be composed: In 'winnow': Could not find 'stage/nowhere'"),
    (["stage=nested"], "stage.stages names 'both', which is a pipeline itself; name its stages ['shapes', 'fine']"),
    (["stage=backwards"], "stage=fine: init_from='shapes:best': shapes is not trained before fine; stages before it: none"),
    (["stage=with_itself"], "itself is not trained before itself; stages before it: shapes:best"),
    (["stage=twice"], "names a stage twice"),
    (["stage=misnamed"], "stage=misnamed: its file sets stage.name='other', and it must be the file's own name"),
    (["stage=with_misnamed"], "stage=misnamed: its file sets stage.name='other'"),
    (["stage=with_wrong_value"], "stage=wrong_value: training.amp='fp8': input should be"),
    (["stage=with_wrong_key"], "stage=wrong_key: model.depth=3 is not a known key"),
    (["stage=with_no_file"], "stage=no_file: training.init_from='nowhere.pth': there is no file"),
    (["stage=with_no_parameter"], "stage=no_parameter: training.freeze='nothing' matches none of"),
    (["stage=with_strict"], "4 missing (in the model only): head.classification_head.conv.3.bias"),
    (["stage=begins_somewhere"], "a pipeline itself starts from nothing: init_from='shapes:best' belongs into its stages"),
    (["stage=both", "+model.depth=3"], "stage=shapes: model.depth=3 is not a known key"),
    (["stage=both", "training.resume=elsewhere"], "a pipeline goes on by its own run folder, training.resume="),
], ids=lambda value: value[0] if isinstance(value, list) else "")  # fmt: skip
def test_what_is_wrong_with_a_pipeline_is_said_before_anything_is_trained(prepared, tmp_path, arguments, message):
    with pytest.raises(WinnowError, match=re.escape(message)):
        prepared(*arguments)
    assert not list(tmp_path.rglob("*.pth"))


def test_the_program_says_it_in_one_message_and_trains_nothing(warm_program, workplace):
    printed = warm_program.run(workplace, *UNTRACKED, "stage=with_strict", "hydra.run.dir=wrong", code=1)
    assert "WeightsError: stage=strict: training.init_from=shapes:best for strict" in printed
    assert "4 missing (in the model only): head.classification_head.conv.3.bias" in printed
    assert "Traceback" not in printed
    assert not list((workplace / "wrong").rglob("*.pth"))


def test_an_init_from_that_names_a_stage_is_for_stages(warm_program, workplace):
    printed = warm_program.run(workplace, *UNTRACKED, "training.init_from=shapes:best", "hydra.run.dir=alone", code=1)
    assert "'shapes:best' names a stage, but stage=single has none; give a path" in printed


def test_torchrun_is_told_to_run_stages_one_by_one(warm_program, workplace):
    ranks = {"RANK": "0", "WORLD_SIZE": "2"}
    printed = warm_program.run(workplace, *UNTRACKED, "stage=both", "hydra.run.dir=ranks", code=1, **ranks)
    assert "ConfigError: torchrun can't run a pipeline (2 stages)" in printed


def test_a_run_folder_holds_one_run_or_stages(warm_program, workplace):
    arguments = [*UNTRACKED, "training.max_epochs=1", "data.num_train=8"]
    warm_program.run(workplace, *arguments, "stage=shapes", "hydra.run.dir=stages")
    again = warm_program.run(workplace, *arguments, "stage=shapes", "hydra.run.dir=stages", code=1)
    assert "stages/shapes already holds a run (checkpoints); go on with it by training.resume=auto" in again
    single = warm_program.run(workplace, *arguments, "hydra.run.dir=stages", code=1)
    assert "stages already holds a run (pipeline.yaml); go on with it by training.resume=auto" in single
    warm_program.run(workplace, *arguments, "hydra.run.dir=single")
    other = warm_program.run(workplace, *arguments, "stage=shapes", "hydra.run.dir=single", code=1)
    assert "single already holds a single run; choose another hydra.run.dir for stages" in other


@pytest.mark.parametrize(("arguments", "message"), [
    (["stage=all", "model=inktrace", "data=ink_strokes"], "stage=all is now stage=ink/all"),
    (["stage=all", "model=inktrace", "data=ink_strokes", "training.resume=auto"], "stage=all is now stage=ink/all"),
    (["stage=ink/all"], "stage=ink/structural is for models of the family ink, but model=fcos_tiny is of detection"),
    (["stage=ink/dense"], "stage=ink/dense is for models of the family ink, but model=fcos_tiny is of detection"),
])  # fmt: skip
def test_a_stage_that_moved_or_is_of_another_family_is_refused(tmp_path, arguments, message):
    with pytest.raises(ConfigError, match=message):
        resolve(compose_command_line(REPOSITORY / "conf", [*arguments, "tracking=off", f"hydra.run.dir={tmp_path}"]))
