"""``winnow preflight``, from arguments to exit code, on runs as users compose them."""

import json
import shutil

import pytest
import torch
from composed import REPOSITORY
from killed_parts import TRUST
from stage_parts import UNTRACKED, write_stages
from test_train import TINY, WRONG

from winnow.commands.cli import main
from winnow.config.compose import compose_command_line
from winnow.engine.seeding import make_deterministic

OWN = ["trusted_targets=[untrained]"]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return tmp_path_factory.mktemp("digits")


@pytest.fixture
def preflight(tmp_path, digits, monkeypatch, capsys):
    """Return (exit code, the JSON, what people read)."""
    monkeypatch.chdir(tmp_path)

    def run(*overrides):
        fixed = ["--config-path", str(REPOSITORY / "conf"), "--seconds", "0.1", "--json", "-"]
        code = main(["preflight", *fixed, *TINY, f"data.root={digits}", *overrides])
        printed = capsys.readouterr()
        return code, json.loads(printed.out), printed.err

    return run


def messages(report, kind="errors"):
    found = [*report.get(kind, []), *(finding for stage in report["stages"] for finding in stage[kind])]
    return [finding["message"] for finding in found]


def test_a_sound_run_is_all_clear_and_leaves_only_its_picture(preflight, tmp_path):
    code, report, text = preflight("training.param_groups=[{name: head, pattern: '^head', lr_scale: 0.5}]")
    assert (code, report["is_fine"], messages(report)) == (0, True, [])
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()] == [
        (tmp_path / "preflight/single_train_batch.png").relative_to(tmp_path)
    ]
    stage = report["stages"][0]
    head, default = stage["groups"]
    assert (head["name"], head["lr"], head["weights"]) == ("head", 0.0015, {"random": head["num_tensors"]})
    assert default["gradient_norm"] > 0
    assert set(stage["losses"]) == {"loss_class", "loss_box", "loss_centerness"}
    assert stage["estimate"]["num_steps"] == 18
    assert stage["estimate"]["seconds"] > 0
    assert stage["disk"]["needed_bytes"] < stage["disk"]["free_bytes"]
    assert "preflight: all clear" in text


def test_data_that_loses_most_of_its_boxes_is_not_all_clear(preflight, tmp_path):
    small = ["data.object_scale=[0.05,0.1]", "data.objects=[3,3]", "data.image_size=16", f"data.root={tmp_path}/small"]
    code, report, text = preflight(*small, "evaluation.max_detections=2")
    (lost,) = [message for message in messages(report, "warnings") if "are trainable" in message]
    assert lost.startswith("at image size 16 only ")
    assert any(
        "hold more objects than evaluation.max_detections=2" in message for message in messages(report, "warnings")
    )
    assert (code, "all clear" in text) == (0, False)
    assert "preflight: no errors, " in text


def test_each_size_of_a_schedule_is_timed(preflight):
    _, report, _ = preflight("training.resize_schedule=[[1,32],[2,64]]")
    timed = [(size["image_size"], size["largest"][1] <= size["image_size"]) for size in report["stages"][0]["steps"]]
    assert timed == [(32, True), (64, True)]
    assert [size["num_epochs"] for size in report["stages"][0]["estimate"]["sizes"]] == [1, 2]


@pytest.mark.parametrize(
    ("overrides", "message"), WRONG, ids=lambda value: value[-1] if isinstance(value, list) else ""
)
def test_what_a_user_got_wrong_is_said_as_train_py_says_it(tmp_path, digits, monkeypatch, capsys, overrides, message):
    monkeypatch.chdir(tmp_path)
    chosen = [override for override in overrides if not override.startswith("data")]
    own = TINY if chosen == overrides else [override for override in TINY if not override.startswith("data")]
    root = [] if chosen != overrides else [f"data.root={digits}"]
    code = main(["preflight", "--config-path", str(REPOSITORY / "conf"), *own, *root, *overrides])
    assert code == 1
    assert message in capsys.readouterr().out
    assert not list(tmp_path.rglob("*.png"))


def test_a_folder_that_holds_a_run_is_refused_as_by_train_py(preflight, tmp_path):
    (tmp_path / "mine/checkpoints").mkdir(parents=True)
    code, report, _ = preflight("hydra.run.dir=mine")
    assert code == 1
    assert "mine already holds a run (checkpoints)" in messages(report)[0]


def test_outside_of_a_project_it_says_where_to_go(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["preflight"]) == 2
    assert (
        f"{tmp_path}/conf/config.yaml does not exist; run this in the folder that holds train.py"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(("model", "overrides", "error"), [
    ("unused_head", ["training.param_groups=[{name: spare, pattern: '^spare'}]"], "parameter group 'spare' gets no gradient"),
    ("unused_head", [], "module 'spare' gets no gradient: the loss depends on none of its 4 parameters (spare.inner.weight"),
    ("thawed", ["training.freeze=['^backbone']"], "frozen parameters got a gradient: backbone.stages.0.0.0.weight"),
])  # fmt: skip
def test_what_does_not_train_as_it_looks_is_an_error(preflight, model, overrides, error):
    code, report, text = preflight(f"model._target_=untrained.{model}", *OWN, *overrides)
    assert (code, report["is_fine"]) == (1, False)
    assert any(error in message for message in messages(report))
    assert "ERROR gradients: " in text


def test_operations_without_a_deterministic_kernel_are_an_error_where_that_is_asked_for(preflight):
    try:
        code, report, text = preflight("model._target_=untrained.undetermined", *OWN, "training.deterministic=true")
    finally:
        make_deterministic(False)
    assert code == 1
    assert "1 operation in step 1 on cpu has no deterministic kernel: put_; set training.deterministic" in text
    assert [error["check"] for error in report["stages"][0]["errors"]] == ["steps"]


def test_single_parameters_without_gradient_are_a_warning(preflight):
    code, report, _ = preflight("model._target_=untrained.half_used_head", *OWN)
    assert code == 0
    (warning,) = messages(report, "warnings")
    assert "3 of" in warning
    assert "no gradient and stay as they are: spare.inner.weight, spare.inner.bias, spare.outer.weight" in warning


def test_a_head_behind_a_gate_that_starts_at_0_is_no_error(preflight):
    groups = "training.param_groups=[{name: inner, pattern: '^spare.inner'}]"
    code, report, _ = preflight("model._target_=untrained.gated_head", *OWN, groups)
    assert (code, messages(report), messages(report, "warnings")) == (0, [], [])


def test_weights_that_were_loaded_are_told_by_their_source(preflight, tmp_path, digits):
    config = compose_command_line(REPOSITORY / "conf", [*TINY, f"data.root={digits}"]).config
    from winnow.families.detection.models.fcos_tiny import fcos_tiny

    values = {key: value for key, value in config["model"].items() if key != "_target_"}
    state = fcos_tiny(["x"] * 10, None, 1, 0.5, **values).model.state_dict()
    torch.save({name: value for name, value in state.items() if name.startswith("backbone")}, tmp_path / "start.pth")
    _, report, _ = preflight("training.init_from=start.pth", "training.param_groups=[{name: head, pattern: '^head'}]")
    head, rest = report["stages"][0]["groups"]
    assert set(head["weights"]) == {"random"}
    assert rest["weights"] == {"start.pth": rest["num_tensors"]}


def test_a_disk_that_is_too_small_is_an_error(preflight):
    kept = ["training.max_epochs=100000", "training.keep_last_n=100000", "training.save_interval=1"]
    code, report, _ = preflight(*kept, "model.channels=[32,64,128,256]", "model.head_channels=256")
    assert code == 1
    assert any("checkpoints of" in message and "are free at" in message for message in messages(report))


def test_of_a_run_on_many_ranks_one_is_tried_with_its_share(preflight):
    code, report, _ = preflight("training.num_ranks=2")
    stage = report["stages"][0]
    assert (code, stage["num_ranks"], stage["estimate"]["num_steps"]) == (0, 2, 9)
    assert stage["steps"][0]["largest"][0] == 4


def test_the_report_can_go_to_a_file(tmp_path, digits, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(REPOSITORY / "conf", "conf", symlinks=False)
    assert main(["preflight", "--json", "report.json", "--out", "seen", "training.amp=fp8"]) == 1
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["errors"][0]["check"] == "config"
    assert "ERROR config: ConfigError: training.amp='fp8'" in capsys.readouterr().out
    assert not (tmp_path / "seen").exists()


def test_where_the_report_can_not_go_is_said_before_anything_is_tried(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["preflight", "--json", "nowhere/report.json"]) == 2
    assert "--json nowhere/report.json: there is no folder nowhere" in capsys.readouterr().err


def test_of_a_resumed_run_the_rest_is_foretold_and_nothing_is_touched(preflight, warm_program, tmp_path, digits):
    warm_program.run(
        tmp_path, *TINY, f"data.root={digits}", "tracking=off", "hydra.run.dir=half", "training.max_epochs=1"
    )
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "half").rglob("*")}
    code, report, _ = preflight("training.resume=half/checkpoints/last.pth", TRUST, "training.max_epochs=4")
    stage = report["stages"][0]
    assert (code, stage["run_folder"], stage["estimate"]["num_steps"]) == (0, "half", 18)
    assert list(stage["groups"][0]["weights"]) == ["half/checkpoints/last.pth"]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "half").rglob("*")} == before


SPARE = ["model._target_=untrained.unused_head", *OWN, "training.param_groups=[{name: spare, pattern: '^spare'}]"]


@pytest.mark.parametrize(("overrides", "code", "status"), [
    ([], 1, "failed"), (["training.require_gradients=false"], 0, "completed"),
])  # fmt: skip
def test_a_training_looks_at_its_first_gradients(warm_program, tmp_path, digits, overrides, code, status):
    own = [*TINY, f"data.root={digits}", "tracking=off", "hydra.run.dir=run", "training.max_epochs=1"]
    printed = warm_program.run(tmp_path, *own, *SPARE, *overrides, code=code)
    assert ("UntrainedError: " if code else "WARNING ") + "parameter group 'spare' gets no gradient" in printed
    assert json.loads((tmp_path / "run/result.json").read_text())["status"] == status
    assert "Traceback" not in printed


def test_a_pipelines_stages_are_checked_one_by_one_with_what_they_hand_over(preflight, tmp_path):
    write_stages(tmp_path)
    pipeline = ["--config-dir", "own", "stage=both", "trusted_targets=[troubled]"]
    code, report, _ = preflight(*pipeline)
    assert code == 0, report
    shapes, fine = report["stages"]
    assert (shapes["stage"], fine["stage"]) == ("shapes", "fine")
    assert {size["image_size"] for size in fine["steps"]} == {64}
    weights = {source for group in fine["groups"] for source in group["weights"]}
    assert weights == {"shapes:best", "not known"}  # of a builder from outside of winnow nobody knows what it drew
    code, report, _ = preflight(*pipeline, "stage.init_allow_missing=[]")
    assert code == 1
    assert "stage=fine" in report["stages"][1]["errors"][0]["message"]
    assert "init_allow_missing=[] does not allow it" in report["stages"][1]["errors"][0]["message"]


def test_of_a_resumed_pipeline_only_what_is_left_is_tried_with_the_command_lines_values(
    preflight, warm_program, tmp_path, capsys
):
    write_stages(tmp_path)
    warm_program.run(tmp_path, *UNTRACKED, "stage=shapes", "hydra.run.dir=half", "training.max_epochs=1")

    def tried(*overrides):
        fixed = ["--config-path", str(REPOSITORY / "conf"), "--seconds", "0.1", "--json", "-"]
        assert main(["preflight", *fixed, *overrides]) == 0
        (stage,) = json.loads(capsys.readouterr().out)["stages"]
        return stage["stage"], stage["run_folder"], stage["estimate"]["num_steps"]

    same_command = [*UNTRACKED, "stage=both", "hydra.run.dir=half", "training.resume=auto", "training.max_epochs=4"]
    assert tried(*same_command) == ("fine", "half/fine", 12)
    assert tried("training.resume=half/shapes", TRUST, "training.max_epochs=3") == ("shapes", "half/shapes", 6)


def test_a_folder_that_is_to_be_added_and_is_not_there_is_said(preflight, capsys):
    _, report, _ = preflight("--config-dir", "nowhere")
    assert messages({**report, "stages": [{"errors": []}]}) == [
        "ConfigError: --config-dir nowhere: there is no such folder"
    ]
