"""Whole sweeps of a small Hydra program, in real processes."""

import json
import os
import signal
from pathlib import Path

import optuna
import pytest
import yaml
from sweep_parts import (
    alive_after,
    finished,
    kill_with_children,
    session_of,
    start,
    start_python,
    statuses,
    sweep,
    sweep_by_worker,
    table,
    wait_until,
    write_app,
)

from winnow.sweep.outcome import OVERRIDES
from winnow.sweep.storage import open_storage


@pytest.fixture
def app(tmp_path):
    return write_app(tmp_path / "app")


def stored(app, study="study"):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.load_study(study_name=study, storage=open_storage(str(app / study / "study.journal")))


def test_a_sweep_fills_its_quota_and_leaves_its_files(app):
    output = finished(start_python(app, "app.py", "-m"))
    rows = table(app)
    assert [row["trial_id"] for row in rows] == ["0", "1", "2", "3"]
    assert list(rows[0])[:5] == ["trial_id", "status", "final_map", "final_loss", "param_x"]
    best = yaml.safe_load((app / "study" / "optimization_results.yaml").read_text())
    assert best["best_value"] == max(float(row["final_map"]) for row in rows)
    assert all((app / "study" / str(number) / ".hydra" / "overrides.yaml").exists() for number in range(4))
    assert "all trials are done" in output
    assert "ranking" in output


def test_the_same_command_goes_on_and_proposes_nothing_twice(app):
    sweep(app)
    first = {row["param_x"] for row in table(app)}
    sweep(app, "hydra.sweeper.n_trials=7")
    rows = table(app)
    assert len(rows) == 7
    assert len({row["param_x"] for row in rows}) == 7
    assert first <= {row["param_x"] for row in rows}
    assert all((app / "study" / str(number) / "starts").read_text() == "x" for number in range(7))
    assert "all trials are done" in sweep(app, "hydra.sweeper.n_trials=7")
    assert len(stored(app).trials) == 7


def test_a_killed_sweep_goes_on_with_the_same_trials(app):
    process = start(app, "mode=wait", "hydra.sweeper.n_trials=3")
    wait_until(lambda: all((app / "study" / str(number) / "starts").exists() for number in range(2)))
    kill_with_children(process)
    (app / "go").touch()
    sweep_by_worker(app, "mode=wait", "hydra.sweeper.n_trials=3")
    assert statuses(app) == ["completed"] * 3
    assert len(stored(app).trials) == 3
    assert [(app / "study" / str(number) / "starts").read_text() for number in range(2)] == ["xx"] * 2


@pytest.mark.promise
def test_a_worker_that_outlives_its_sweep_is_waited_for_and_not_doubled(app):
    process = start(app, "sleep=2", "hydra.sweeper.n_trials=2")
    wait_until(lambda: (app / "study" / "0" / "starts").exists())
    process.kill()
    sweep_by_worker(app, "sleep=2", "hydra.sweeper.n_trials=2")
    process.communicate()
    assert statuses(app) == ["completed"] * 2
    assert len(stored(app).trials) == 2


def test_ctrl_c_gives_running_trials_back_and_leaves_no_process(app):
    process = start(app, "sleep=0.3", "epochs=200", "hydra.sweeper.n_trials=3")
    wait_until(lambda: (app / "study" / "0" / "starts").exists())
    os.kill(process.pid, signal.SIGINT)
    output = finished(process, 75)
    assert "goes on with study" in output
    assert set(statuses(app)) == {"interrupted"}
    assert not alive_after(20, session_of(process))


def test_a_bug_stops_the_sweep_after_three_and_names_the_log(app):
    output = sweep(app, "mode=raise", "hydra.sweeper.n_trials=10", code=1)
    assert "trials in a row have failed" in output
    assert "a bug of the user's" in output
    assert len(table(app)) < 7
    failed = [row for row in table(app) if row["status"] == "failed"]
    assert len(failed) >= 3
    assert {row["reason"] for row in failed} == {"RuntimeError: a bug of the user's"}
    assert all(
        "Traceback" in "".join(path.read_text() for path in Path(row["run_folder"]).glob("*.log")) for row in failed
    )


DYING = {
    1: [("kill_once", "completed", "xx"), ("kill", "failed", "xx"), ("'.nan'", "completed", "x"), ("text", "failed", "x")],
    0: [("exit", "failed", "x"), ("ok", "completed", "x"), ("kill", "failed", "x")],
}  # fmt: skip


@pytest.mark.parametrize("retries", DYING)
def test_a_trial_that_dies_is_tried_again_and_spoils_no_other(app, retries):
    modes, expected, starts = zip(*DYING[retries], strict=True)
    (app / "trials.json").write_text(json.dumps([{"x": 0.1 * n, "mode": mode} for n, mode in enumerate(modes)]))
    arguments = ["hydra.sweeper.trials_file=trials.json", f"hydra.sweeper.n_trials={len(modes)}"]
    sweep_by_worker(app, *arguments, f"hydra.sweeper.max_retries={retries}")
    assert statuses(app) == list(expected)
    assert [(app / "study" / str(n) / "starts").read_text() for n in range(len(modes))] == list(starts)


def test_listed_trials_come_first_with_overrides_of_their_own(app):
    trials = [{"x": 0.25}, {"x": 0.75, "epochs": 2}, {"choice": "a=b, 'c' \"d\"", "x": 0.5}]
    (app / "trials.json").write_text(json.dumps(trials))
    sweep(app, "hydra.sweeper.trials_file=trials.json")
    rows = table(app)
    assert [row["param_x"] for row in rows[:3]] == ["0.25", "0.75", "0.5"]
    assert [float(row["final_map"]) for row in rows[:3]] == [0.75, 1.5, 1.5]
    config = yaml.safe_load((app / "study" / "2" / ".hydra" / "config.yaml").read_text())
    assert config["choice"] == trials[2]["choice"]


def test_a_finite_space_is_covered_over_starts_samplers_and_listed_trials_and_then_done(app):
    space = ["x=choice(0.25,0.5,0.75)", "choice=choice(a,b)"]
    output = sweep(app, *space, "hydra.sweeper.n_trials=2")
    assert "points of the space: 6, done: 0; trials in all: 2 " in output
    done = {(row["param_x"], row["param_choice"]) for row in table(app)}
    listed = [{"x": 0.5, "choice": "a"}, {"x": 0.5, "choice": "b", "epochs": 1}, {"x": 0.75, "choice": "b"}]
    (app / "trials.json").write_text(json.dumps(listed))
    more = [*space, "hydra/sweeper/sampler=grid", "hydra.sweeper.trials_file=trials.json", "hydra.sweeper.n_trials=20"]
    output = sweep(app, *more)
    assert "all 6 points of the space are done, below n_trials=20; 7/7: 7 completed" in output
    rows = table(app)
    points = [(row["param_x"], row["param_choice"]) for row in rows if not row["param_epochs"]]
    assert len(points) == len(set(points)) == 6
    assert done <= set(points)
    assert "points of the space: 6, done: 6; trials in all: 7 " in sweep(app, *more)
    assert len(table(app)) == 7


def test_a_sweep_that_varies_nothing_is_refused_but_a_repeated_one_is_not(app):
    for override in ("x=1.0", "x=choice(1.0)"):
        assert "the sweep varies nothing: " in sweep(app, override, code=1)
        assert not (app / "study").exists()
        repeated = [override, "hydra.sweeper.seeds=[1,2]", "epochs=1", "hydra.sweeper.dry_run=true"]
        assert "points of the space: 1, done: 0; trials in all: 1 " in sweep(app, *repeated)
    assert "; 1/1: 1 completed" in sweep(app, *repeated[:-1])


def test_a_bad_list_of_trials_names_each_mistake_and_starts_nothing(app):
    (app / "trials.json").write_text('[\n {"x": 0.5},\n {"x": 7},\n {"y": 1},\n {"x": "0.5"}\n]\n')
    output = sweep(app, "hydra.sweeper.trials_file=trials.json", code=1)
    for line in (3, 4, 5):
        assert f"trials.json, line {line}:" in output
    assert not (app / "study" / "0").exists()


def test_each_configuration_is_run_with_every_seed_and_judged_by_the_mean(app):
    sweep(app, "hydra.sweeper.seeds=[3,4,5]", "hydra.sweeper.n_trials=2", "mode=seeded")
    rows = table(app)
    assert len(rows) == 2
    for row in rows:
        x = float(row["param_x"])
        assert float(row["final_map"]) == pytest.approx(x + 4)
    trial = stored(app).trials[0]
    assert trial.user_attrs["winnow:std"] == [pytest.approx(1.0)]
    assert sorted(path.name for path in (app / "study" / "0").iterdir() if path.is_dir()) == [
        "seed_3",
        "seed_4",
        "seed_5",
    ]


def test_each_configuration_is_run_on_every_fold_and_judged_by_the_mean(app):
    folds = ["hydra.sweeper.repeat_over=data.fold", "+data.folds=3", "+data.fold=0"]
    sweep(app, *folds, "hydra.sweeper.n_trials=1", "mode=folds")
    (row,) = table(app)
    assert float(row["final_map"]) == pytest.approx(float(row["param_x"]) + 1)
    assert stored(app).trials[0].user_attrs["winnow:std"] == [pytest.approx(1.0)]
    assert sorted(path.name for path in (app / "study" / "0").iterdir() if path.is_dir()) == [
        "fold_0",
        "fold_1",
        "fold_2",
    ]


@pytest.mark.parametrize(("overrides", "message"), [
    (["hydra.sweeper.repeat_over=data.fold", "+data.fold=0"], "repeat_over=data.fold needs the number of folds: data.folds=5"),
    (["hydra.sweeper.repeat_over=data.fold", "+data.fold=0", "+data.folds=3", "hydra.sweeper.seeds=[0,3]"], "3 is no fold of"),
    (["hydra.sweeper.repeat_over=no.key"], "repeat_over=no.key: the config has no such key"),
    (["hydra.sweeper.repeat_over=x", "hydra.sweeper.seeds=[0,1]"], "repeat_over=x: this key is searched too"),
    (["hydra.sweeper.repeat_over=epochs"], "needs the numbers that it is to go through: hydra.sweeper.seeds="),
])  # fmt: skip
def test_what_cannot_be_repeated_is_refused(app, overrides, message):
    assert message in sweep(app, *overrides, code=1)


def test_a_configuration_that_one_seed_ended_takes_no_harm_of_a_seed_that_runs_on(app):
    seeds = ["hydra.sweeper.seeds=[3,4,5]", "hydra.sweeper.n_trials=1", "mode=one_seed_fails"]
    sweep_by_worker(app, *seeds, "hydra.sweeper.n_jobs=2")
    (row,) = table(app)
    assert (row["status"], row["reason"]) == ("failed", "RuntimeError: only with this seed")


def test_a_hopeless_trial_is_pruned_and_its_saving_shown(app):
    (app / "trials.json").write_text(json.dumps([{"x": 1.0}, {"x": 0.9}, {"x": 0.95}, {"x": 0.1}]))
    output = sweep(
        app, "hydra/sweeper/pruner=median", "hydra.sweeper.pruner.n_startup_trials=3", "hydra.sweeper.n_jobs=1",
        "hydra.sweeper.trials_file=trials.json", "epochs=5",
    )  # fmt: skip
    assert statuses(app) == ["completed"] * 3 + ["pruned"]
    assert (app / "study" / "3" / "pruned").read_text() == "1"
    assert "1 pruned" in output


def test_two_directions_work_and_refuse_a_pruner(app):
    arguments = ["mode=two", "hydra.sweeper.direction=[maximize,minimize]", "hydra.sweeper.n_trials=3"]
    output = sweep(app, *arguments, "hydra/sweeper/pruner=median", code=1)
    assert "can't judge 2 objectives" in output
    output = sweep(app, *arguments)
    assert "Pareto front, by value 0" in output
    assert "value 0 -" not in output
    assert len(yaml.safe_load((app / "study" / "optimization_results.yaml").read_text())["solutions"]) >= 1
    assert stored(app).metric_names == ["value 0", "value 1"]
    front = {str(trial.number) for trial in stored(app).best_trials}
    for row in table(app):
        assert float(row["objective_value 0"]) == -float(row["objective_value 1"])
        assert row["pareto_front"] == str(int(row["trial_id"] in front))


def test_a_changed_definition_is_refused_accepted_on_demand_or_begun_afresh(app):
    sweep(app, "hydra.sweeper.n_trials=2")
    output = sweep(app, "hydra.sweeper.n_trials=3", "epochs=4", code=1)
    assert "epochs: 3 in the study, 4 now" in output
    sweep(app, "hydra.sweeper.n_trials=3", "epochs=4", "hydra.sweeper.accept_changes=true")
    assert stored(app).user_attrs["winnow:changes"] == [["epochs: 3 in the study, 4 now"]]
    sweep(app, "hydra.sweeper.n_trials=1", "epochs=5", "hydra.sweeper.fresh=true")
    assert len(table(app, "study-2")) == 1
    assert len(table(app)) == 3


def test_a_dry_run_shows_and_starts_nothing(app):
    output = sweep(app, "hydra.sweeper.dry_run=true", "group=choice({a:1},{a:2})")
    assert "what would run" in output
    assert "nothing was started" in output
    assert not (app / "study").exists()


@pytest.mark.parametrize(("override", "message"), [
    ("hydra.sweeper.n_trials=0", "hydra.sweeper.n_trials=0"),
    ("hydra.sweeper.direction=up", "hydra.sweeper.direction"),
    ("hydra.sweeper.max_cost={dollars:3}", "allowed: images, images_640, seconds"),
    ("hydra.sweeper.storage=nonsense://x", "nonsense"),
    ("x=interval(1,0)", "x=interval(1,0)"),
])  # fmt: skip
def test_bad_settings_are_refused_before_anything_starts(app, override, message):
    assert message in sweep(app, override, code=1)
    assert not (app / "study" / "0").exists()


def test_time_that_is_over_ends_the_search_and_the_same_command_goes_on(app):
    output = sweep(app, "sleep=0.2", "hydra.sweeper.timeout=4", "hydra.sweeper.n_trials=100")
    assert "timeout=4 seconds are over" in output
    assert 0 < len(table(app)) < 100
    assert set(statuses(app)) <= {"completed", "interrupted"}


def test_two_sweeps_on_one_study_share_the_quota_exactly(app):
    processes = [start(app, "sleep=0.05", "hydra.sweeper.n_trials=9", "hydra.sweeper.n_jobs=1") for _ in range(2)]
    for process in processes:
        finished(process)
    assert statuses(app) == ["completed"] * 9
    assert all((app / "study" / str(number) / "starts").read_text() == "x" for number in range(9))


def test_a_study_can_not_have_more_executed_than_the_sweeps_command_does(app):
    (app / "study").mkdir()
    storage = open_storage(str(app / "study" / "study.journal"))
    study = optuna.create_study(study_name="study", storage=storage, direction="maximize")
    study.enqueue_trial({"x": 0.5}, user_attrs={OVERRIDES: ["+hydra.callbacks.own._target_=os.system"]})
    output = sweep(app, "hydra.sweeper.n_trials=2", code=1)
    assert "trial 0 of the study 'study' holds '+hydra.callbacks.own._target_=os.system'" in output
    assert not list((app / "study").glob("*/starts"))
