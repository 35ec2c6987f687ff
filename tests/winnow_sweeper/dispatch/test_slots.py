"""Which slots a sweep gets, and the two kinds that are not our worker processes."""

import os
import sys
import time
from pathlib import Path

import pytest
from dispatch_parts import collect, compose_work, facts, is_alive, job, run_all, wait_for, wait_until

from hydra_plugins.winnow_sweeper._in_process import InProcessSlots
from hydra_plugins.winnow_sweeper._job import CLOSING_SECONDS
from hydra_plugins.winnow_sweeper._launchers import LauncherSlots
from hydra_plugins.winnow_sweeper._pool import PoolSlots
from hydra_plugins.winnow_sweeper._slots import open_slots
from winnow.errors import ConfigError

DEFAULTS = {"devices": None, "in_process": False, "recycle_after": None, "warm_up": ()}


@pytest.fixture
def open_any(tmp_path, hydra_as_before, monkeypatch):
    opened = []
    # Cluster jobs start in a Python of their own, which must find the task's module.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)]))

    def open_it(n_jobs, *overrides, **settings):
        opened.append(open_slots(compose_work(tmp_path, *overrides), n_jobs, **{**DEFAULTS, **settings}))
        return opened[-1]

    yield open_it
    for slots in opened:
        slots.close(at_once=True)


@pytest.mark.parametrize(("launcher", "settings", "kind"), [
    ("basic", {}, PoolSlots),
    ("basic", {"in_process": True}, InProcessSlots),
    ("submitit_local", {}, LauncherSlots),
])  # fmt: skip
def test_the_launcher_decides_what_the_slots_are(open_any, launcher, settings, kind):
    if launcher != "basic":
        pytest.importorskip("submitit")
    assert isinstance(open_any(1, f"hydra/launcher={launcher}", **settings), kind)


@pytest.mark.parametrize(("n_jobs", "launcher", "settings", "message"), [
    (0, "basic", {}, "n_jobs=0 must be at least 1"),
    (1, "basic", {"recycle_after": 0}, "recycle_after=0 must be at least 1"),
    (2, "basic", {"in_process": True}, "n_jobs=2 must be 1"),
    (1, "submitit_local", {"in_process": True}, "must be basic, got LocalLauncher"),
    (1, "submitit_slurm", {"devices": [0]}, "gpus_per_node=1"),
])  # fmt: skip
def test_settings_that_contradict_are_refused(open_any, n_jobs, launcher, settings, message):
    if launcher != "basic":
        pytest.importorskip("submitit")
    with pytest.raises(ConfigError, match=message):
        open_any(n_jobs, f"hydra/launcher={launcher}", **settings)


def test_in_process_a_job_runs_here_and_leaves_nothing_behind(tmp_path, open_any):
    slots, folder = open_any(1, in_process=True), os.getcwd()
    ended = run_all(slots, [job(0, "act=leak"), job(1), job(2, "act=raise"), job(3, "act=exit")])
    assert facts(tmp_path, 1)["pid"] == os.getpid()
    assert facts(tmp_path, 1)["leaked"] is None
    assert os.getcwd() == folder
    assert [finish.outcome and finish.outcome.status for finish in ended] == ["completed", "completed", "failed", None]
    assert ended[3].death == "exit code 3"


@pytest.fixture(params=["submitit_local", "ray"])
def launcher(request, tmp_path):
    pytest.importorskip(request.param.split("_")[0])
    return request.param


def start(launcher):
    overrides = [f"hydra/launcher={launcher}"]
    if launcher == "ray":
        overrides.append("+hydra.launcher.ray.init={num_cpus: 4, include_dashboard: false}")
    return overrides


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_a_launcher_is_fed_one_trial_at_a_time_and_each_comes_back_to_its_own_number(tmp_path, open_any, launcher):
    slots = open_any(2, *start(launcher))
    acts = {2: "act=raise", 3: "act=kill"}
    ended = {
        finish.job.number: finish
        for finish in run_all(slots, [job(number, *([acts[number]] if number in acts else [])) for number in range(6)])
    }
    for number in (0, 1, 4, 5):
        assert ended[number].outcome.values == (number,)
        assert facts(tmp_path, number)["job"] == number
        assert facts(tmp_path, number)["pid"] != os.getpid()
    assert (tmp_path / "multirun" / "study" / "0" / "output.log").exists()
    assert (ended[2].outcome.status, ended[3].outcome) == ("failed", None)
    assert ended[3].death


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_jobs_of_a_launcher_save_when_asked_and_none_outlives_the_sweep(tmp_path, open_any, launcher):
    slots = open_any(2, *start(launcher))
    slots.submit(job(0, "act=listen"))
    slots.submit(job(1, "act=stubborn"))
    study = tmp_path / "multirun" / "study"
    wait_until(slots, lambda: all((study / str(number) / "begun").exists() for number in range(2)))
    slots.interrupt({0})
    assert collect(slots, 1)[0].outcome.reason == "saved"
    (note,) = study.glob(".jobs-*/1-0.started")
    pid = int(note.read_text().split('"pid": ')[1].split(",")[0])
    begun = time.monotonic()
    slots.close(at_once=True)
    wait_for(lambda: not is_alive(pid))
    assert time.monotonic() - begun < CLOSING_SECONDS
    assert not list(study.glob(".jobs-*"))


@pytest.mark.slow
def test_a_local_cluster_job_sees_its_leased_device_only(tmp_path, open_any):
    pytest.importorskip("submitit")
    slots = LauncherSlots(compose_work(tmp_path, "hydra/launcher=submitit_local"), 1, [_Device()])
    run_all(slots, [job(0)])
    slots.close()
    assert facts(tmp_path, 0)["cuda"] == "GPU-leased"


class _Device:
    environment = {"CUDA_VISIBLE_DEVICES": "GPU-leased"}  # noqa: RUF012

    def release(self):
        pass
