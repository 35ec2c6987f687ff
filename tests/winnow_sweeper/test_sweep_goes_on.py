"""Sweeps that were cut short in ways of their own, and what the next start makes of it."""

import itertools
import json
import os
import shutil
import signal
import time
from pathlib import Path

import psutil
import pytest
from composed import REPOSITORY
from postgresql_cluster import Cluster, binaries
from sweep_parts import (
    alive_after,
    finished,
    kill_with_children,
    read_until,
    start,
    start_program,
    statuses,
    sweep,
    sweep_by_worker,
    table,
    wait_until,
    write_app,
)

from hydra_plugins.winnow_sweeper._job import CLOSING_SECONDS
from winnow.sweep.cost import StudyCost
from winnow.sweep.outcome import OWNER, RELEASED, STARTED
from winnow.sweep.ownership import HEARTBEAT
from winnow.sweep.storage import open_storage
from winnow.sweep.stored_study import StoredStudy

TINY = [
    "data.num_train=24", "data.num_val=6", "data.size=64", "data.image_size=64", "training.num_workers=0",
    "model.channels=[8,8,16,16]", "model.head_channels=32", "tracking=off",
]  # fmt: skip


@pytest.fixture
def app(tmp_path):
    return write_app(tmp_path / "app")


@pytest.fixture
def own_postgresql():
    """Return a server that a test may stop."""
    if binaries() is None:
        pytest.skip("no PostgreSQL here: apt-get install postgresql")
    cluster = Cluster()
    yield cluster
    cluster.close()


def ended_by_two_ctrl_c(process):
    """Return how long it took after the second, pressed when the first was noticed (two at once would be one), and what it
    printed."""
    os.kill(process.pid, signal.SIGINT)
    read_until(process, "Ctrl-C again: at once")
    os.kill(process.pid, signal.SIGINT)
    began = time.monotonic()
    output, _ = process.communicate(timeout=60)
    return time.monotonic() - began, output


def trials_of(app):
    return StoredStudy.open(app / "study").study.trials


def test_a_trial_without_values_whose_process_died_gets_them_at_the_next_start(app):
    sweep(app, "hydra.sweeper.n_trials=1")
    storage = open_storage(str(app / "study" / "study.journal"), stamp={OWNER: RELEASED})
    storage.create_new_trial(storage.get_study_id_from_name("study"))
    sweep(app, "hydra.sweeper.n_trials=3")
    assert statuses(app) == ["completed"] * 3
    assert [set(trial.params) for trial in trials_of(app)] == [{"x"}] * 3
    assert (app / "study" / "1" / "starts").read_text() == "x"


def test_a_second_ctrl_c_ends_at_once_and_leaves_no_process_and_all_goes_on(app):
    process = start(app, "sleep=0.3", "epochs=200", "hydra.sweeper.n_trials=3")
    wait_until(lambda: all((app / "study" / str(number) / "starts").exists() for number in range(2)))
    workers = psutil.Process(process.pid).children(recursive=True)
    seconds, output = ended_by_two_ctrl_c(process)
    assert seconds < CLOSING_SECONDS / 2, "it gave them time to save"
    assert process.returncode not in (0, 75), output
    assert not alive_after(20, workers)
    sweep(app, "sleep=0", "epochs=2", "hydra.sweeper.n_trials=3", "hydra.sweeper.accept_changes=true")
    assert statuses(app) == ["completed"] * 3
    assert [(app / "study" / str(number) / "starts").read_text() for number in range(3)] == ["xx", "xx", "x"]


def test_spent_cost_ends_the_search_and_the_next_start_adds_none(app):
    arguments = ["mode=costly", "hydra.sweeper.max_cost={images:250}", "hydra.sweeper.n_trials=20"]
    for _ in range(2):
        output = sweep(app, *arguments)
        assert "max_cost.images=250 is spent (300)" in output
        assert statuses(app) == ["completed"] * 3


def test_a_search_that_did_all_its_trials_did_not_end_for_its_cost(app):
    output = sweep(app, "mode=costly", "hydra.sweeper.max_cost={images:300}", "hydra.sweeper.n_trials=3")
    assert statuses(app) == ["completed"] * 3
    assert "all trials are done; 3/3" in output
    assert "is spent" not in output


@pytest.mark.slow
def test_the_cost_of_a_study_holds_over_three_processes(app):
    arguments = ["mode=costly", "sleep=0.1", "hydra.sweeper.max_cost={images:500}", "hydra.sweeper.n_trials=40"]
    processes = [start(app, *arguments, "hydra.sweeper.n_jobs=1") for _ in range(3)]
    assert all("max_cost.images=500 is spent" in finished(process) for process in processes)
    trials = trials_of(app)
    assert 500 <= StudyCost().of(trials)["images"] <= 700  # passed by what the two others ran
    assert 3 <= len([trial for trial in trials if STARTED in trial.user_attrs]) <= 7


def heartbeats(app):
    (count,) = [n for name, n in StoredStudy.open(app / "study").study.user_attrs.items() if name.startswith(HEARTBEAT)]
    return count


@pytest.mark.slow
def test_a_trial_in_the_sweeps_own_process_keeps_its_heartbeat(app):
    sweep(app, "sleep=6", "hydra.sweeper.n_trials=1")
    assert heartbeats(app) >= 4  # in 18 s


@pytest.mark.slow
def test_a_sweep_that_waits_for_its_last_trial_to_end_keeps_its_heartbeat(app):
    process = start(app, "mode=deaf", "sleep=6", "hydra.sweeper.n_trials=1", "hydra.sweeper.n_jobs=1")
    wait_until(lambda: beats(app, 0))
    os.kill(process.pid, signal.SIGINT)
    before = heartbeats(app)
    finished(process, code=75)
    assert heartbeats(app) >= before + 2  # in 12 s


def test_a_conditional_space_is_searched_and_each_run_gets_its_own_parameters(app):
    sweep(app, "hydra.sweeper.custom_search_space=spaces.conditional", "hydra.sweeper.n_trials=6")
    seen = set()
    for trial, row in zip(trials_of(app), table(app), strict=True):
        config = (app / "study" / str(trial.number) / ".hydra" / "overrides.yaml").read_text()
        seen.add(row["param_choice"])
        assert ("group.a=" in config) == ("group.a" in trial.params) == (row["param_choice"] == "grouped")
        assert f"choice={row['param_choice']}" in config
    assert seen == {"plain", "grouped"}
    assert statuses(app) == ["completed"] * 6


@pytest.mark.promise
def test_a_run_from_another_ones_checkpoint_that_dies_before_its_first_save_begins_there_again(tmp_path):
    common = ["hydra/sweeper=winnow", *TINY, "hydra.sweeper.direction=maximize", "hydra.sweeper.plots=false"]
    finished(start_program(REPOSITORY / "train.py", tmp_path, *common, "training.max_epochs=2", "hydra.sweeper.n_trials=1",
                           "training.batch_size=4,8", "hydra.sweeper.study_name=first"))  # fmt: skip
    begin = tmp_path / "multirun/first/0/checkpoints/last.pth"
    values = {"training.resume": str(begin), "training.max_epochs": 4}
    (tmp_path / "trials.json").write_text(json.dumps([values]))
    second = [
        *common,
        "hydra.sweeper.trials_file=trials.json",
        "hydra.sweeper.n_trials=1",
        "hydra.sweeper.study_name=second",
    ]
    process = start_program(REPOSITORY / "train.py", tmp_path, *second)
    run = tmp_path / "multirun/second/0"
    wait_until(lambda: resumed_from(run) == 1)
    kill_with_children(process)
    shutil.rmtree(run / "checkpoints", ignore_errors=True)  # were it quicker than we are
    finished(start_program(REPOSITORY / "train.py", tmp_path, *second))
    assert resumed_from(run) == 2
    assert json.loads((run / "result.json").read_text())["epochs"] == 4
    assert list(StoredStudy.open(run.parent).study.trials[0].intermediate_values) == [
        2,
        3,
        4,
    ]  # 2: as the first run left it


def resumed_from(run):
    log = run / "train.log"
    return log.read_text().count("resumed from") if log.exists() else 0


@pytest.mark.promise
def test_a_failed_trial_whose_second_try_was_cut_short_is_tried_again(app):
    arguments = ["mode=raise_once", "sleep=0.3", "hydra.sweeper.n_trials=1", "hydra.sweeper.max_retries=1"]
    process = start(app, *arguments, "hydra.sweeper.n_jobs=1")
    starts = app / "study" / "0" / "starts"
    wait_until(lambda: starts.exists() and starts.read_text() == "xx")
    kill_with_children(process)
    sweep_by_worker(app, *arguments)
    assert statuses(app) == ["completed"]
    assert starts.read_text() == "xxx"


@pytest.mark.promise
def test_a_second_ctrl_c_waits_for_no_storage_that_is_gone(app, own_postgresql):
    process = start(app, f"hydra.sweeper.storage={own_postgresql.new_database()}", "sleep=0.3", "epochs=200")
    wait_until(lambda: all(beats(app, number) for number in range(2)))
    workers = psutil.Process(process.pid).children(recursive=True)
    own_postgresql.stop()
    time.sleep(6)  # it waits for the storage in the middle of its housekeeping
    seconds, output = ended_by_two_ctrl_c(process)
    assert seconds < CLOSING_SECONDS / 2, "it waited for the storage"
    assert process.returncode not in (0, 75), output
    assert not alive_after(20, workers)


@pytest.mark.promise
def test_two_sweeps_on_one_server_outlive_its_restart(app, own_postgresql):
    arguments = [
        f"hydra.sweeper.storage={own_postgresql.new_database()}",
        "sleep=0.5",
        "epochs=8",
        "hydra.sweeper.n_trials=9",
    ]
    processes = [start(app, *arguments) for _ in range(2)]
    wait_until(lambda: all(beats(app, number) > 1 for number in range(4)))
    own_postgresql.stop()
    before = [beats(app, number) for number in range(4)]
    time.sleep(15)
    assert any(beats(app, number) > before[number] + 1 for number in range(4))
    own_postgresql.start()
    outputs = [finished(process) for process in processes]
    assert statuses(app) == ["completed"] * 9
    assert [(app / "study" / str(number) / "starts").read_text() for number in range(9)] == ["x"] * 9
    assert any("does not answer" in output and "is back after" in output for output in outputs)
    values = [list(trial.intermediate_values) for trial in StoredStudy.open(app / "study").study.trials]
    assert values == [list(range(1, 9))] * 9


@pytest.mark.promise
def test_a_killed_sweeps_jobs_give_way_to_the_next_start_and_its_notes_go(app):
    pytest.importorskip("submitit")
    arguments = ["hydra/launcher=submitit_local", "hydra.sweeper.n_trials=2", "sleep=0.2", "epochs=60"]
    process = start(app, *arguments)
    wait_until(lambda: all(beats(app, number) for number in range(2)))
    process.kill()
    process.wait()
    (left,) = (app / "study").glob(".jobs-*")
    sweep_by_worker(app, *arguments)
    assert statuses(app) == ["completed"] * 2
    assert [(app / "study" / str(number) / "starts").read_text() for number in range(2)] == ["xx"] * 2
    for number in range(2):
        runs = [pid for pid, _ in itertools.groupby((app / "study" / str(number) / "beats").read_text().split())]
        assert len(runs) == 2, f"both of trial {number}'s jobs ran at once"
    assert not list((app / "study").glob(".jobs-*")), left


def beats(app, number):
    path = Path(app) / "study" / str(number) / "beats"
    return len(path.read_text().split()) if path.exists() else 0
