"""Trouble of the place where trials run is counted against none of them: they are given back, and go on when it is over."""

import contextlib
import errno
import os
import time

import optuna
import pytest
from dispatch.dispatch_parts import compose_work
from hydra.core.global_hydra import GlobalHydra
from optuna.distributions import FloatDistribution
from small_disk import fill, small_disk
from sweep_parts import finished, read_until, start, statuses, sweep, write_app

from hydra_plugins.winnow_sweeper import _place
from hydra_plugins.winnow_sweeper._in_process import InProcessSlots
from hydra_plugins.winnow_sweeper._job import Finished, Job
from hydra_plugins.winnow_sweeper._judge import Judge
from hydra_plugins.winnow_sweeper._limits import Limits
from hydra_plugins.winnow_sweeper._loop import SweepLoop
from hydra_plugins.winnow_sweeper._place import Place
from hydra_plugins.winnow_sweeper._supply import Supply
from winnow.process import ProcessStamp
from winnow.sweep.claims import Claims
from winnow.sweep.outcome import OWNER, Outcome, interrupted_by_place
from winnow.sweep.storage import create_study_once, open_storage

JOB = Job(3, (), "3")


@pytest.fixture
def app(tmp_path):
    return write_app(tmp_path / "app")


def test_a_full_disk_under_the_runs_costs_no_trial_and_the_sweep_goes_on(app, tmp_path):
    with small_disk(tmp_path / "small") as place:
        elsewhere = [f"hydra.sweep.dir={place}/study", f"hydra.sweeper.storage={app}/elsewhere.journal"]
        process = start(app, *elsewhere, "hydra.sweeper.n_trials=6", "sleep=0.1")
        read_until(process, "completed after")
        filler = fill(place)
        printed = read_until(process, "is given back, and nothing starts")
        assert "No space left on device" in printed
        time.sleep(1)  # its neighbour meets with the same
        filler.unlink()
        printed += finished(process)
        assert statuses(place) == ["completed"] * 6
        assert "failed" not in printed
        assert printed.count("nothing starts here for") == 1
        assert "can be written, after" in printed


def test_an_error_of_the_place_is_no_failure_and_no_try_of_the_trial(app):
    output = sweep(app, "mode=full_once", "hydra.sweeper.n_trials=2")
    assert statuses(app) == ["completed"] * 2  # max_retries is 0 in this app
    assert [(app / "study" / str(number) / "starts").read_text() for number in range(2)] == ["xx"] * 2
    assert "OSError: [Errno 28] No space left on device: 'best.pth'" in output


@pytest.mark.parametrize("storage", ["app/study/x.journal"])
def test_a_sweep_does_not_begin_on_a_full_disk_and_says_why(app, tmp_path, storage):
    with small_disk(tmp_path / "small") as place:
        fill(place)
        output = sweep(app, f"hydra.sweep.dir={place}/study", f"hydra.sweeper.storage={tmp_path}/{storage}", code=1)
        assert f"hydra.sweep.dir={place}/study can't be" in output
        assert "No space left on device" in output


def test_what_the_disk_refuses_before_a_job_begins_is_the_places_too(tmp_path, hydra_is_restored):
    with small_disk(tmp_path / "small") as place:
        slots = InProcessSlots(compose_work(tmp_path, f"hydra.sweep.dir={place}/study/deep"))
        fill(place)
        slots.submit(Job(0, ("x=0", "hydra.output_subdir=.hydra"), "0/" + "/".join(map(str, range(300)))))
        (ended,) = slots.wait(0)
        slots.close()
    assert ended.outcome.is_of_place
    assert ended.outcome.status == "interrupted"


@pytest.fixture
def hydra_is_restored():
    yield
    GlobalHydra.instance().clear()


@pytest.fixture
def quick_pauses(monkeypatch):
    monkeypatch.setattr(_place, "_FIRST_PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(_place, "_LOOK_SECONDS", 0.1)


def until_usable(place):
    began = time.monotonic()
    while not place.is_usable():
        assert time.monotonic() - began < 60
        time.sleep(0.01)
    return time.monotonic() - began


def test_a_death_while_nothing_can_be_written_is_the_places(tmp_path):
    ends = [Finished(JOB, death="killed by SIGBUS"), Finished(JOB, Outcome("failed", reason="a bug"))]
    with small_disk(tmp_path / "small") as folder:
        place = Place(folder)
        assert [place.trouble_of(end) for end in ends] == [None, None]
        fill(folder)
        assert all("No space left on device" in place.trouble_of(end) for end in ends)
        assert place.trouble_of(Finished(JOB, Outcome("completed", values=(1.0,)))) is None


def test_nothing_starts_until_the_place_can_be_written_again(tmp_path, quick_pauses, caplog):
    with small_disk(tmp_path / "small") as folder:
        place = Place(folder)
        filler = fill(folder)
        for name in ("3", "4"):
            place.pause(name, "No space left on device")
        time.sleep(0.3)
        assert not place.is_usable()
        filler.unlink()
        until_usable(place)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 2
    assert "trial 3 is given back" in warnings[0]
    assert "can be written, after" in warnings[1]


def test_pauses_grow_while_no_job_ends_well(tmp_path, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(_place, "time", clock)
    place = Place(tmp_path)
    for ends_well, seconds in ((False, 2.0), (False, 4.0), (False, 8.0), (True, 2.0)):
        if ends_well:
            place.trouble_of(Finished(JOB, Outcome("completed", values=(1.0,))))
        assert place.trouble_of(Finished(JOB, interrupted_by_place("full"))) == "full"
        place.pause("3", "full")
        clock.now += seconds - 0.5
        assert not place.is_usable()
        clock.now += 0.5
        assert place.is_usable()


class Clock:
    """Stands in for ``time``: moves only when it is told to."""

    now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def open_supply(tmp_path):
    def open_it(is_spent=False):
        storage = open_storage(str(tmp_path / "study.journal"), stamp={OWNER: ProcessStamp.this_process().to_json()})
        sampler = optuna.samplers.RandomSampler(seed=0)
        study = create_study_once(storage, "s", ["maximize"], sampler=sampler)
        claims = Claims(study, storage, ProcessStamp.this_process())
        space = {"x": FloatDistribution(0, 1)}
        supply = Supply(
            study, 20, space, lambda params: (), None, claims, None, None, lambda number: None, None,
            contextlib.nullcontext(), lambda: is_spent,
        )  # fmt: skip
        return study, supply

    return open_it


def next_job(supply):
    """Return the number of the job that starts next, as the sweep's loop would: it looks for orphans first."""
    for _ in range(2):
        supply.adopt_orphans(set(), lambda trial: False)
        if (job := supply.next()) is not None:
            return job
    return None


def started(study, supply, num, troubled):
    """Return the numbers of the next ``num`` jobs; those of ``troubled`` are given back, the others complete."""
    numbers = []
    for _ in range(num):
        job = next_job(supply)
        numbers.append(job.number)
        if job.number in troubled:
            supply.give_back(job)
        else:
            study.tell(job.number, 1.0)
    return numbers


def test_a_trial_that_alone_has_trouble_lets_more_and_more_others_go_before_it(open_supply):
    assert started(*open_supply(), 11, troubled={0}) == [0, 0, 1, 0, 2, 3, 4, 0, 5, 6, 7]


def test_nothing_new_starts_before_trials_that_have_trouble_together(open_supply):
    numbers = started(*open_supply(), 12, troubled=set(range(20)))
    assert set(numbers) == {0, 1}


def test_whoever_comes_first_goes_on_with_a_trial_that_was_given_back(open_supply):
    _, here = open_supply()
    here.give_back(next_job(here))
    _, elsewhere = open_supply()
    assert next_job(elsewhere).number == 0
    assert next_job(here).number == 1


def test_no_trial_starts_that_was_proposed_when_the_cost_was_spent(open_supply):
    study, supply = open_supply(is_spent=True)
    assert next_job(supply) is None
    assert [trial.state.name for trial in study.trials] == ["WAITING"]


def test_pages_that_cannot_be_written_are_said_once_each_and_change_no_exit_code(app):
    study = app / "study"
    for name in ("trials.csv", "optimization_results.yaml", "plots"):
        (study / name).mkdir(parents=True)
    for name in ("optimization_history.png", "study.html"):
        (study / "plots" / name).mkdir()
    output = sweep(app, "hydra.sweeper.n_trials=1", "hydra.sweeper.plots=true")
    assert "all trials are done; 1/1: 1 completed" in output
    for name in ("optimization_results.yaml: not written", "plot optimization_history", "plot study.html"):
        assert output.count(name) == 1, output
    assert "trials.csv was not written" in output
    assert (study / "plots" / "timeline.png").is_file()


@pytest.mark.slow
def test_seeds_of_one_trial_that_have_trouble_together_are_run_once_more_each(app):
    arguments = ["mode=full_once", "hydra.sweeper.seeds=[3,4,5]", "hydra.sweeper.n_trials=1"]
    finished(start(app, *arguments, "hydra.sweeper.n_jobs=2", "sleep=0.1"))
    assert statuses(app) == ["completed"]
    assert [(app / "study" / "0" / f"seed_{seed}" / "starts").read_text() for seed in (3, 4, 5)] == ["xx"] * 3


class RefusingSlots:
    """Slots of one job at a time, each of which completes at once; the first is not taken, for want of room."""

    size = 1

    def __init__(self):
        self.submitted, self._finished = [], []

    def num_free(self):
        return 1 - len(self._finished)

    def submit(self, job):
        self.submitted.append(job.number)
        if len(self.submitted) == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "8-0.submitted")
        self._finished.append(Finished(job, Outcome("completed", values=(1.0,))))

    def wait(self, seconds):
        ended, self._finished = self._finished, []
        return ended


class Silence:
    def started(self, name, overrides): ...
    def finished(self, number, outcome): ...
    def tick(self, running, elsewhere): ...


def test_a_job_that_could_not_be_handed_over_is_given_back(open_supply, tmp_path, quick_pauses):
    study, supply = open_supply()
    slots, limits = RefusingSlots(), Limits(None, 1.0, 1, None, None, study.get_trials)
    loop = SweepLoop(supply, slots, Judge(study, None), limits, supply._claims, Silence(), 0, tmp_path)
    assert loop.run() is None
    assert slots.submitted == [0, *range(20)]
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 20
