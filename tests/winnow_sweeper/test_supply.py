"""Which job a free slot gets next: put back, left by a dead process, listed, or new."""

from contextlib import nullcontext

import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from hydra_plugins.winnow_sweeper._supply import RESUME, Supply
from winnow.checkpoints.file import write_checkpoint
from winnow.config.moved import moved_target
from winnow.errors import ConfigError
from winnow.process import ProcessStamp
from winnow.sweep.claims import Claims
from winnow.sweep.outcome import OVERRIDES, OWNER, STARTED, Outcome
from winnow.sweep.storage import create_study_once, open_storage
from winnow.sweep.trial import outcome_key


class Hurried:
    """Stands before a study in which another process takes a trial between the look and the asking."""

    def __init__(self, study):
        self._study = study

    def __getattr__(self, name):
        return getattr(self._study, name)

    def ask(self, distributions):
        self._study.ask(distributions)
        return self._study.ask(distributions)


class Opened:
    """A supply of its own process' stamp; ``recalled`` are the trials whose folders were told to go on."""

    def __init__(self, url, host, n_trials=3, seeds=None, folder=None, extend=None, hurried=False, **more):
        owner = ProcessStamp(host, "boot", "namespace", 1, "now")
        storage = open_storage(url, stamp={OWNER: owner.to_json()})
        self.study = create_study_once(storage, "s", ["maximize"])
        self.claims = Claims(self.study, storage, owner, grace_seconds=0.0)
        self.recalled = []
        study = Hurried(self.study) if hurried else self.study
        self.supply = Supply(
            study, n_trials, {"x": FloatDistribution(0, 1)}, lambda params: tuple(f"{k}={v}" for k, v in params.items()),
            extend, self.claims, seeds, folder, self.recalled.append, None, nullcontext(), **more,
        )  # fmt: skip

    def adopt(self, running=(), settled=()):
        self.supply.adopt_orphans(set(running), lambda trial: trial.number in settled)

    def states(self):
        return [trial.state for trial in self.study.trials]


@pytest.fixture
def opened(tmp_path):
    def open_one(host="one", **settings):
        return Opened(str(tmp_path / "study.log"), host, **settings)

    return open_one


def drained(supply):
    """Return all that it gives until nothing is left."""
    jobs = []
    while (job := supply.next()) is not None:
        jobs.append(job)
    return jobs


def test_new_jobs_up_to_the_number_of_trials(opened):
    one = opened()
    jobs = drained(one.supply)
    assert [(job.number, job.subdir, job.seed, job.attempt) for job in jobs] == [(n, str(n), None, 0) for n in range(3)]
    assert [job.overrides for job in jobs] == [(f"x={trial.params['x']}",) for trial in one.study.trials]
    assert all(trial.user_attrs[STARTED] for trial in one.study.trials)
    assert all(trial.user_attrs[OWNER] for trial in one.study.trials)


def test_a_trial_that_waits_is_given_out_though_all_numbers_are_taken(opened):
    one = opened(n_trials=1)
    one.study.enqueue_trial({"x": 0.25})
    assert [job.overrides for job in drained(one.supply)] == [("x=0.25",)]


def test_a_trial_past_the_number_of_trials_is_left_waiting(opened):
    whole, one = opened(n_trials=2), opened("other", n_trials=1)
    for value in (0.25, 0.5):
        whole.study.enqueue_trial({"x": value})
    assert [job.number for job in drained(one.supply)] == [0]
    assert one.states() == [TrialState.RUNNING, TrialState.WAITING]


def test_a_trial_past_the_number_that_was_asked_for_at_once_with_others_is_given_back(opened):
    one = opened(n_trials=1, hurried=True)
    assert one.supply.next() is None
    assert one.states() == [TrialState.RUNNING, TrialState.WAITING]
    assert one.study.trials[1].user_attrs[OWNER] is None


def test_what_a_search_space_of_ones_own_suggests_is_part_of_the_job(opened):
    one = opened(n_trials=1, extend=lambda trial: trial.suggest_categorical("y", [7]))
    assert one.supply.next().overrides == (f"x={one.study.trials[0].params['x']}", "y=7")


def test_overrides_of_a_listed_trial_come_last_and_under_todays_names(opened):
    one = opened(n_trials=1)
    old = "data._target_=winnow.data.detection.data.coco_data"
    one.study.enqueue_trial({"x": 0.5}, user_attrs={OVERRIDES: ["training.batch_size=4", old]})
    moved = moved_target(old.partition("=")[2])
    assert one.supply.next().overrides == ("x=0.5", "training.batch_size=4", f"data._target_={moved}")


def test_a_listed_trial_may_not_decide_what_runs(opened):
    one = opened()
    one.study.enqueue_trial({"x": 0.5}, user_attrs={OVERRIDES: ["trusted_targets=[tests]"]})
    with pytest.raises(ConfigError, match=r"trial 0 of the study 's' holds 'trusted_targets"):
        one.supply.next()


def test_the_first_seed_runs_alone_and_the_others_follow_it(opened):
    one = opened(n_trials=1, seeds=[3, 4, 5])
    first = one.supply.next()
    assert (first.seed, first.subdir, first.overrides[1:]) == (3, "0/seed_3", ("training.seed=3",))
    assert one.supply.next() is None
    one.study._storage.set_trial_user_attr(0, outcome_key(3), Outcome("completed", (1.0,), seed=3).to_json())
    one.supply.queue_other_seeds(first)
    one.supply.queue_other_seeds(first)  # what waits already is not queued again
    others = drained(one.supply)
    assert [(job.seed, job.subdir, job.overrides[1:]) for job in others] == [
        (4, "0/seed_4", ("training.seed=4",)), (5, "0/seed_5", ("training.seed=5",)),
    ]  # fmt: skip
    one.supply.queue_other_seeds(others[0])  # only the first seed's end begins others
    assert one.supply.next() is None


def test_what_is_repeated_over_folds_says_which_fold(opened):
    one = opened(n_trials=1, seeds=[0, 1], repeated_key="data.fold")
    first = one.supply.next()
    assert (first.seed, first.subdir, first.overrides[1:]) == (0, "0/fold_0", ("data.fold=0",))
    one.study._storage.set_trial_user_attr(0, outcome_key(0), Outcome("completed", (1.0,), seed=0).to_json())
    one.supply.queue_other_seeds(first)
    assert [(job.subdir, job.overrides[1:]) for job in drained(one.supply)] == [("0/fold_1", ("data.fold=1",))]


def test_seeds_of_one_trial_do_not_stand_for_those_of_another(opened):
    one = opened(n_trials=2, seeds=[3, 4])
    firsts = drained(one.supply)
    for job in firsts:
        text = Outcome("completed", (1.0,), seed=3).to_json()
        one.study._storage.set_trial_user_attr(one.study.trials[job.number]._trial_id, outcome_key(3), text)
        one.supply.queue_other_seeds(job)
    assert [(job.number, job.seed) for job in drained(one.supply)] == [(0, 4), (1, 4)]


def test_of_one_run_no_other_seeds_follow(opened):
    one = opened(n_trials=1)
    one.supply.queue_other_seeds(one.supply.next())
    assert one.supply.next() is None


def test_an_adopted_trial_of_several_seeds_runs_those_that_have_no_outcome(opened, tmp_path):
    one, other = opened(n_trials=1, seeds=[3, 4, 5]), opened("other", n_trials=1, seeds=[3, 4, 5], folder=tmp_path)
    one.supply.next()
    for seed in (3, 4):
        one.study._storage.set_trial_user_attr(0, outcome_key(seed), Outcome("completed", (1.0,), seed=seed).to_json())
    one.supply.release({0})
    other.adopt()
    assert [(job.seed, job.overrides[1:]) for job in drained(other.supply)] == [(5, ("training.seed=5", RESUME))]


def test_a_job_that_is_put_back_comes_before_all_and_resumes(opened, tmp_path):
    one = opened(folder=tmp_path)
    first, second = one.supply.next(), one.supply.next()
    one.supply.put_back(first, counts=True)
    one.supply.put_back(second, counts=False)
    again = [one.supply.next(), one.supply.next()]
    assert [(job.number, job.attempt) for job in again] == [(1, 0), (0, 1)]
    assert again[1].overrides == (*first.overrides, RESUME)
    one.supply.put_back(again[1], counts=True)
    assert one.supply.next().overrides == again[1].overrides
    assert one.supply.next().number == 2


def test_a_program_that_is_no_run_of_winnows_is_not_told_to_resume(opened):
    one = opened()
    first = one.supply.next()
    one.supply.put_back(first, counts=True)
    assert one.supply.next().overrides == first.overrides


def test_a_trial_that_began_from_another_checkpoint_does_so_until_it_has_its_own(opened, tmp_path):
    one = opened(n_trials=1, folder=tmp_path)
    one.study.enqueue_trial({"x": 0.5}, user_attrs={OVERRIDES: ["training.resume=/elsewhere/last.pth"]})
    job = one.supply.next()
    one.supply.put_back(job, counts=False)
    job = one.supply.next()
    assert job.overrides == ("x=0.5", "training.resume=/elsewhere/last.pth")
    (tmp_path / "0" / "checkpoints").mkdir(parents=True)
    write_checkpoint(tmp_path / "0" / "checkpoints" / "last.pth", {"epoch": 1})
    one.supply.put_back(job, counts=False)
    assert one.supply.next().overrides == ("x=0.5", "training.resume=/elsewhere/last.pth", RESUME)


def test_released_trials_go_on_elsewhere(opened, tmp_path):
    one, other = opened(folder=tmp_path), opened("other", folder=tmp_path)
    running, waiting = one.supply.next(), one.supply.next()
    one.supply.put_back(waiting, counts=False)
    assert other.supply.num_waiting_elsewhere(set()) == 2
    assert other.supply.num_waiting_elsewhere({0}) == 1
    one.supply.release({running.number})
    assert one.supply.next().number == 2  # nothing waits here any more
    other.adopt()
    assert other.recalled == [0, 1]
    assert [(job.number, job.overrides[-1]) for job in drained(other.supply)] == [(0, RESUME), (1, RESUME)]
    assert other.states() == [TrialState.RUNNING] * 3


def test_what_runs_or_waits_here_is_not_adopted(opened):
    one = opened(n_trials=2)
    running, waiting = one.supply.next(), one.supply.next()
    one.supply.put_back(waiting, counts=False)
    for number in (0, 1):
        one.claims.release(number)
    one.adopt(running={running.number})
    assert one.recalled == []
    assert len(drained(one.supply)) == 1


def test_an_adopted_trial_that_had_ended_is_only_settled(opened):
    one, other = opened(n_trials=2), opened("other", n_trials=2)
    drained(one.supply)
    one.supply.release({0, 1})
    other.adopt(settled={0})
    assert other.recalled == [1]
    assert [job.number for job in drained(other.supply)] == [1]


def test_an_adopted_trial_whose_values_were_not_all_chosen_is_asked_for_again(opened):
    one, other = opened(n_trials=2), opened("other", n_trials=2)
    for number in range(2):
        one.study.ask({"x": FloatDistribution(0, 1)})
        one.claims.release(number)
    other.adopt()
    assert other.states() == [TrialState.WAITING, TrialState.WAITING]
    assert other.recalled == []
    jobs = drained(other.supply)
    assert [(job.number, job.overrides) for job in jobs] == [
        (n, (f"x={one.study.trials[n].params['x']}",)) for n in range(2)
    ]


def test_an_adopted_trial_that_reported_goes_on_though_it_bears_no_mark(opened):
    one, other = opened(n_trials=1), opened("other", n_trials=1)
    one.study.ask({"x": FloatDistribution(0, 1)}).report(0.5, 1)
    one.claims.release(0)
    other.adopt()
    assert other.states() == [TrialState.RUNNING]
    assert other.recalled == [0]
