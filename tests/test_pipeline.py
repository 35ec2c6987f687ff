"""Stages as a user runs them: YAML files of their own, one command, real processes."""

import json

import pytest
import yaml
from killed_parts import TRUST, assert_same_end, last, record
from stage_parts import RECORDED, UNTRACKED, write_stages

IN_FIRST = {"TROUBLE": "kill forward 11"}
BETWEEN = {"TROUBLE_LATER": "kill build 2"}  # each stage is built once before the first is trained
BEFORE_ANY_SAVE = {"TROUBLE_LATER": "kill losses 2"}
IN_SECOND = {"TROUBLE_LATER": "kill losses 12"}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return write_stages(tmp_path_factory.mktemp("stages"))


@pytest.fixture(scope="module")
def whole(warm_program, workplace):
    """Return the pipeline, uninterrupted: its run folder, and what it printed."""
    return workplace / "whole", warm_program.run(workplace, *RECORDED, "stage=both", "hydra.run.dir=whole")


def result(folder):
    return json.loads((folder / "result.json").read_text())


def composed(program, folder, *arguments):
    printed = program.run(folder, *arguments, "--cfg", "job", "--resolve")
    return yaml.safe_load(printed)


@pytest.mark.parametrize("name", ["shapes", "fine"])
def test_each_stage_trains_with_exactly_the_config_that_it_alone_composes(warm_program, workplace, whole, name):
    alone = composed(warm_program, workplace, *RECORDED, f"stage={name}", "hydra.run.dir=whole")
    trained = yaml.safe_load((whole[0] / name / "config.yaml").read_text())
    assert trained == alone
    assert last(whole[0] / name)["config"] == alone


def test_stages_differ_in_size_head_frozen_parts_and_schedule(whole):
    folder, printed = whole
    first, second = last(folder / "shapes"), last(folder / "fine")
    assert (first["config"]["data"]["image_size"], second["config"]["data"]["image_size"]) == (32, 64)
    assert (first["epoch"], second["epoch"]) == (2, 3)
    frozen = {name: value for name, value in best_of(folder / "shapes").items() if name.startswith("backbone")}
    assert frozen
    assert all(second["training_state_dict"][name].equal(value) for name, value in frozen.items())
    assert "frozen by '^backbone'" in printed


def best_of(folder):
    import torch

    return torch.load(folder / "checkpoints/best.pth", weights_only=True)["model_state_dict"]


def test_the_hand_over_is_reported_in_the_log_and_in_full_beside_the_run(whole):
    folder, printed = whole
    report = json.loads((folder / "fine/init_from.json").read_text())
    assert report["source"].endswith("whole/shapes/checkpoints/best.pth")
    assert (report["matched"], len(report["missing"]), report["reshaped"], report["unexpected"]) == (42, 8, [], [])
    assert f"weights of {report['source']}: 42 of 50 entries matched" in printed


def test_the_whole_and_each_stage_leave_a_result(whole):
    folder, _ = whole
    parts = {name: result(folder / name) for name in ("shapes", "fine")}
    total = result(folder)
    assert {name: part["objective"] for name, part in total["stages"].items()} == {
        name: part["objective"] for name, part in parts.items()
    }
    assert (total["status"], total["objective"]) == ("completed", parts["fine"]["objective"])
    assert (total["epochs"], total["steps"]) == (5, sum(part["steps"] for part in parts.values()))
    assert total["cost"]["images"] == 22 * 2 + 18 * 3


ALONE = ["training.resume={run}", TRUST]
SAME_COMMAND = ["stage=both", "hydra.run.dir={run}", "training.resume=auto"]


@pytest.mark.parametrize(("moment", "resumed"), [
    pytest.param(IN_FIRST, SAME_COMMAND, id="first"),
    pytest.param(IN_SECOND, ALONE, id="second"),
    pytest.param(IN_FIRST, ALONE, id="first_alone", marks=pytest.mark.promise),
    pytest.param(IN_SECOND, SAME_COMMAND, id="second_same", marks=pytest.mark.promise),
    pytest.param(BETWEEN, ALONE, id="between", marks=pytest.mark.promise),
    pytest.param(BEFORE_ANY_SAVE, ALONE, id="before_any_save", marks=pytest.mark.promise),
])  # fmt: skip
def test_a_killed_pipeline_goes_on_bit_for_bit(warm_program, workplace, whole, moment, resumed):
    run, before, printed = killed_and_resumed(warm_program, workplace, moment, resumed)
    assert ("stage shapes (" in printed) == (moment == IN_FIRST)
    assert ((run / "shapes/checkpoints/last.pth").read_bytes() != before) == (moment == IN_FIRST)
    assert_same_pipeline(whole[0], run)


def killed_and_resumed(program, workplace, moment, resumed, more=()):
    """Return the run's folder, the first stage's checkpoint as the kill left it, and what the resumed run printed."""
    run = workplace / f"killed_{len(list(workplace.iterdir()))}"
    started = program.start(workplace, *RECORDED, *more, "stage=both", f"hydra.run.dir={run.name}", **moment)
    assert started.wait() == -9, started.printed()
    before = (run / "shapes/checkpoints/last.pth").read_bytes()
    own = [*RECORDED, *more] if "stage=both" in resumed else RECORDED[:2]
    return run, before, program.run(workplace, *own, *[text.format(run=run) for text in resumed])


def assert_same_pipeline(whole, run):
    assert_same_end(whole / "fine", run / "fine")
    assert record(whole / "fine/outbox.jsonl") == record(run / "fine/outbox.jsonl")
    assert {**result(whole), **DIFFERS} == {**result(run), **DIFFERS}


@pytest.mark.promise
def test_a_pipeline_on_two_ranks_goes_on_bit_for_bit(warm_program, workplace):
    whole = workplace / "two_ranks"
    printed = warm_program.run(workplace, *RECORDED, *TWO_RANKS, "stage=both", f"hydra.run.dir={whole.name}")
    assert (printed.count("stage shapes (1 of 2)"), result(whole)["status"]) == (1, "completed")
    # Each stage of the whole took the steps of its doubled batch.
    assert result(whole)["steps"] == 2 * 2 + 3 * 2
    in_second = {"TROUBLE_LATER": "kill losses 5"}
    run, before, printed = killed_and_resumed(warm_program, workplace, in_second, ALONE, more=TWO_RANKS)
    assert "stage shapes (" not in printed
    assert (run / "shapes/checkpoints/last.pth").read_bytes() == before
    assert_same_pipeline(whole, run)


TWO_RANKS = ["training.num_ranks=2", "training.accumulate=1", "training.batch_size=6"]
DIFFERS = dict.fromkeys(("cost", "seconds", "stages", "checkpoint_best", "checkpoint_last"))


@pytest.mark.parametrize("moment", [
    pytest.param({"TROUBLE": "stop forward 3"}, id="first"),
    pytest.param({"TROUBLE_LATER": "stop build 2"}, id="between", marks=pytest.mark.promise),
])  # fmt: skip
def test_a_pipeline_that_is_told_to_stop_says_how_it_goes_on(warm_program, workplace, whole, moment):
    run = workplace / f"stopped_{len(list(workplace.iterdir()))}"
    printed = warm_program.run(workplace, *RECORDED, "stage=both", f"hydra.run.dir={run.name}", code=75, **moment)
    assert printed.count("go on with: training.resume=") == 1
    assert f"go on with: training.resume={run} {TRUST}\n" in printed
    assert (result(run)["status"], result(run)["objective"]) == ("interrupted", None)
    warm_program.run(workplace, f"training.resume={run}", TRUST)
    assert_same_end(whole[0] / "fine", run / "fine")


def test_a_finished_pipeline_says_so_and_changes_nothing(warm_program, workplace, whole):
    before = {path: path.read_bytes() for path in whole[0].glob("*/checkpoints/*")}
    printed = warm_program.run(workplace, "training.resume=whole", TRUST)
    assert "finished already: shapes, fine" in printed
    assert "this run is finished, nothing was changed" in printed
    assert {path: path.read_bytes() for path in whole[0].glob("*/checkpoints/*")} == before


def test_a_stage_alone_lies_in_its_own_folder_and_hands_over_to_the_next_one_there(warm_program, workplace, whole):
    arguments = [*RECORDED, "hydra.run.dir=apart"]
    error = warm_program.run(workplace, *arguments, "stage=fine", code=1)
    assert "stage=fine: training.init_from='shapes:best': there is no" in error
    assert "stage=shapes first with hydra.run.dir=" in error
    for name in ("shapes", "fine"):
        warm_program.run(workplace, *arguments, f"stage={name}")
    assert_same_end(whole[0] / "fine", workplace / "apart/fine")
    assert list(result(workplace / "apart")["stages"]) == ["shapes", "fine"]
    assert result(workplace / "apart")["objective"] == result(whole[0])["objective"]


@pytest.mark.promise
def test_one_stage_of_a_pipeline_is_trained_on_by_its_own_folder(warm_program, workplace, whole):
    warm_program.run(workplace, *RECORDED, "stage=shapes", "hydra.run.dir=longer")
    warm_program.run(workplace, "training.resume=longer/shapes", TRUST, "training.max_epochs=3")
    assert result(workplace / "longer/shapes")["epochs"] == 3


@pytest.mark.promise
def test_init_from_on_the_command_line_beats_the_files_and_leaves_hand_overs_alone(warm_program, workplace, whole):
    start = f"training.init_from={whole[0]}/shapes/checkpoints/last.pth"
    printed = warm_program.run(
        workplace, *UNTRACKED, "stage=fine", start, "training.max_epochs=1", "hydra.run.dir=from_path"
    )
    assert "weights of" in printed
    assert "shapes/checkpoints/last.pth: 42 of 50 entries matched" in printed
    printed = warm_program.run(
        workplace, *UNTRACKED, "stage=both", start, "training.max_epochs=1", "hydra.run.dir=both_from_path"
    )
    assert "whole/shapes/checkpoints/last.pth: 42 of 42 entries matched" in printed
    assert "both_from_path/shapes/checkpoints/best.pth: 42 of 50 entries matched" in printed
    printed = warm_program.run(
        workplace, *UNTRACKED, "stage=fine", "training.init_from=null", "training.max_epochs=1", "hydra.run.dir=random"
    )
    assert "entries matched" not in printed
