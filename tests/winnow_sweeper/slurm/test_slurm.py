"""Whole sweeps on a real SLURM of one node, which loses, preempts and requeues their jobs."""

import itertools
import json
import os
import signal

import pytest
from composed import REPOSITORY
from sweep_parts import (
    finished,
    read_until,
    start,
    start_program,
    statuses,
    sweep_by_worker,
    table,
    wait_until,
    write_app,
)

from winnow.sweep.stored_study import StoredStudy

pytestmark = pytest.mark.promise

SLURM = ["hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1", "hydra.sweeper.n_jobs=2"]
TRAINING = [
    "+sweep=lr_bs", "data.num_train=24", "data.num_val=6", "data.size=64", "data.image_size=64", "training.num_workers=0",
    "training.max_epochs=40", "model.channels=[8,8,16,16]", "model.head_channels=32", "tracking=off",
    "hydra.sweeper.n_trials=1", "hydra/sweeper/pruner=none", "hydra.sweeper.plots=false", "hydra.sweeper.n_jobs=1",
]  # fmt: skip


@pytest.fixture
def app(tmp_path, slurm):
    return write_app(tmp_path / "app")


def beats(app, number):
    path = app / "study" / str(number) / "beats"
    return path.read_text().split() if path.exists() else []


def test_a_freed_place_gets_the_next_trial_and_no_job_is_left(app, slurm):
    trials = [{"x": 0.5, "sleep": 8}, *({"x": x / 10} for x in range(4))]
    (app / "trials.json").write_text(json.dumps(trials))
    sweep_by_worker(app, *SLURM, "hydra.sweeper.trials_file=trials.json", "hydra.sweeper.n_trials=5", "epochs=2")
    assert statuses(app) == ["completed"] * 5
    assert [(app / "study" / str(number) / "starts").read_text() for number in range(5)] == ["x"] * 5
    first_ended = (app / "study" / "0" / "beats").stat().st_mtime
    assert (app / "study" / "3" / "starts").stat().st_mtime < first_ended
    assert slurm.jobs_after(20) == []
    assert not list((app / "study").glob(".jobs-*"))


def test_ctrl_c_leaves_no_job_running_or_queued_and_the_same_command_goes_on(app, slurm):
    arguments = [*SLURM, "hydra.sweeper.n_trials=6", "hydra.sweeper.n_jobs=6"]
    process = start(app, *arguments, "sleep=0.2", "epochs=400")
    wait_until(lambda: beats(app, 0) and len(slurm.jobs()) == 6)
    assert {state for *_, state in slurm.jobs()} == {"PENDING", "RUNNING"}
    os.kill(process.pid, signal.SIGINT)
    finished(process, 75)
    assert all(state == "COMPLETING" for *_, state in slurm.jobs())
    assert set(statuses(app)) == {"interrupted"}
    sweep_by_worker(app, *arguments, "sleep=0.2", "epochs=2", "hydra.sweeper.accept_changes=true")
    assert statuses(app) == ["completed"] * 6


def test_a_second_ctrl_c_leaves_no_job_either(app, slurm):
    process = start(app, *SLURM, "hydra.sweeper.n_jobs=6", "hydra.sweeper.n_trials=6", "sleep=0.2", "epochs=400")
    wait_until(lambda: beats(app, 0) and len(slurm.jobs()) == 6)
    os.kill(process.pid, signal.SIGINT)
    read_until(process, "Ctrl-C again: at once")
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode not in (0, 75), output
    assert slurm.jobs_after(20) == []
    assert not list((app / "study").glob(".jobs-*"))


def test_a_killed_sweeps_jobs_give_way_to_the_next_starts(app, slurm):
    arguments = [*SLURM, "hydra.sweeper.n_trials=6", "hydra.sweeper.n_jobs=6", "sleep=0.2", "epochs=60"]
    process = start(app, *arguments)
    wait_until(lambda: beats(app, 0) and len(slurm.jobs()) == 6)
    process.kill()
    process.communicate()
    sweep_by_worker(app, *arguments)
    assert statuses(app) == ["completed"] * 6
    assert len(StoredStudy.open(app / "study").study.trials) == 6
    for number in range(6):
        runs = [pid for pid, _ in itertools.groupby(beats(app, number))]
        assert len(runs) == len(set(runs)), f"trial {number} ran twice at once"
    assert slurm.jobs_after(20) == []
    assert not list((app / "study").glob(".jobs-*"))


def test_a_trial_that_is_preempted_requeued_or_killed_goes_on_as_if_nothing_had_been(tmp_path, slurm):
    (tmp_path / "whole").mkdir()
    (tmp_path / "troubled").mkdir()
    process = start_program(REPOSITORY / "train.py", tmp_path / "whole", *TRAINING)
    finished(process)

    process = start_program(REPOSITORY / "train.py", tmp_path / "troubled", *TRAINING, *SLURM)
    run = tmp_path / "troubled/multirun/lr_bs/0"
    for troubles, trouble in enumerate((preempt, run_out_of_time, requeue, kill), start=1):
        wait_until(lambda: resumptions(run) == troubles - 1 and (run / "checkpoints/last.pth").exists(), 120, "a start")  # noqa: B023
        saved = (run / "checkpoints/last.pth").stat().st_mtime_ns
        wait_until(lambda: (run / "checkpoints/last.pth").stat().st_mtime_ns != saved, 60, "a save")  # noqa: B023
        trouble(slurm)
    output = finished(process)
    assert resumptions(run) == 4
    assert "was interrupted; it goes on from its checkpoint" in output
    (whole,), (troubled,) = (table(tmp_path / name / "multirun", "lr_bs") for name in ("whole", "troubled"))
    for name in ("status", "final_map", "final_loss", "epochs", "param_training.optimizer.lr"):
        assert troubled[name] == whole[name]
    (trial,) = StoredStudy.open(tmp_path / "troubled/multirun/lr_bs").study.trials
    assert list(trial.intermediate_values) == list(range(1, 41))
    assert slurm.jobs_after(20) == []


def resumptions(run):
    log = run / "train.log"
    return log.read_text().count("resumed from") if log.exists() else 0


def preempt(slurm):
    slurm.run("scancel", "--signal=USR1", running(slurm))


def run_out_of_time(slurm):
    slurm.run("scancel", "--signal=USR2", running(slurm))  # what submitit has SLURM send before the time is over


def requeue(slurm):
    slurm.run("scontrol", "requeue", running(slurm))  # SIGTERM, and in the queue again


def kill(slurm):
    slurm.run("scancel", "--signal=KILL", running(slurm))


def running(slurm):
    (job,) = [job for job, _, state in slurm.jobs() if state == "RUNNING"]
    return job


def test_a_trial_whose_node_was_lost_goes_on_from_its_own_checkpoint(tmp_path, slurm):
    process = start_program(REPOSITORY / "train.py", tmp_path, *TRAINING, *SLURM)
    run = tmp_path / "multirun/lr_bs/0"
    wait_until(lambda: (run / "checkpoints/last.pth").exists(), 120)
    job = running(slurm)
    slurm.lose_node()
    wait_until(lambda: [state for *_, state in slurm.jobs()] == ["PENDING"], 30)
    slurm.find_node()
    slurm.run("scontrol", "update", f"JobId={job}", "StartTime=now")  # else SLURM waits two minutes
    wait_until(lambda: resumptions(run) == 1, 120, "the second start")
    assert running(slurm) == job, "SLURM's own second start of it, not another submission of the sweep's"
    output = finished(process)
    assert "it goes on from its checkpoint" not in output
    assert resumptions(run) == 1
    (row,) = table(tmp_path / "multirun", "lr_bs")
    assert (row["trial_id"], row["status"], row["epochs"]) == ("0", "completed", "40")
    (trial,) = StoredStudy.open(tmp_path / "multirun/lr_bs").study.trials
    assert list(trial.intermediate_values) == list(range(1, 41))


def test_jobs_that_slurm_refuses_cost_no_trial(app, slurm):
    output = sweep_by_worker(app, *SLURM, "hydra.launcher.partition=nosuch", "hydra.sweeper.n_trials=2", code=1)
    assert "end before they start" in output
    assert "invalid partition" in output
    sweep_by_worker(app, *SLURM, "hydra.sweeper.n_trials=2")
    assert statuses(app) == ["completed"] * 2
