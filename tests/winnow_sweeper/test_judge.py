"""What the outcomes of a trial's runs come to, and how the study is told."""

import statistics

import optuna
import pytest
from optuna.trial import TrialState

from hydra_plugins.winnow_sweeper._judge import STD, Judge
from winnow.sweep.outcome import OUTCOME, Outcome, outcome_of
from winnow.sweep.trial import outcome_key


def judged(*outcomes, seeds=None, directions=("maximize",), sampler=None):
    """Return what ``outcomes`` of one trial come to, and the trial as the study has it then."""
    study = optuna.create_study(directions=list(directions), sampler=sampler)
    study.ask()
    judge = Judge(study, seeds)
    for outcome in outcomes:
        assert judge.store(study.trials[0], outcome)
    return judge.settle(study.trials[0]), study.trials[0]


@pytest.mark.parametrize(("status", "state", "value"), [
    ("completed", TrialState.COMPLETE, 0.5),
    ("pruned", TrialState.PRUNED, None),
    ("diverged", TrialState.PRUNED, None),
    ("out_of_memory", TrialState.FAIL, None),
    ("failed", TrialState.FAIL, None),
])  # fmt: skip
def test_the_study_is_told_how_the_run_ended(status, state, value):
    outcome, trial = judged(Outcome(status, (0.5,), reason="why"))
    assert outcome == Outcome(status, (0.5,), reason="why")
    assert (trial.state, trial.value) == (state, value)


def test_a_trial_without_an_outcome_runs_on():
    outcome, trial = judged()
    assert (outcome, trial.state) == (None, TrialState.RUNNING)
    outcome, trial = judged(seeds=[3, 4])
    assert (outcome, trial.state) == (None, TrialState.RUNNING)


def test_an_outcome_that_the_job_itself_stored_is_not_stored_again():
    study = optuna.create_study()
    trial, outcome = study.ask(), Outcome("failed", seed=3)
    trial.set_user_attr(outcome_key(3), outcome.to_json())
    assert not Judge(study, [3, 4]).store(study.trials[0], outcome)
    assert Judge(study, [3, 4]).store(study.trials[0], Outcome("completed", (1.0,), seed=3))
    assert outcome_of(study.trials[0], outcome_key(3)).status == "completed"


def test_several_seeds_are_judged_by_their_mean():
    outcome, trial = judged(
        Outcome("completed", (0.4,), epochs=3, seconds=10.0, cost={"images": 5}, final_objective=0.3, final_loss=2.0, seed=3,
                run_folder="/study/0/seed_3"),
        Outcome("completed", (0.6,), epochs=4, seconds=20.0, cost={"images": 7, "images_640": 1.5}, final_objective=0.5, seed=4,
                run_folder="/study/0/seed_4"),
        Outcome("completed", (1.1,), epochs=5, seconds=30.0, final_map=0.9, final_loss=4.0, seed=5),
        seeds=[3, 4, 5],
    )  # fmt: skip
    assert trial.value == pytest.approx(0.7)
    assert trial.user_attrs[STD] == [pytest.approx(statistics.stdev([0.4, 0.6, 1.1]))]
    assert outcome.values == (pytest.approx(0.7),)
    assert (outcome.epochs, outcome.seconds, outcome.cost) == (12, 60.0, {"images": 12, "images_640": 1.5})
    assert (outcome.final_objective, outcome.final_map, outcome.final_loss) == (pytest.approx(0.4), 0.9, 3.0)
    assert (outcome.seed, outcome.run_folder) == (None, "/study/0")
    assert outcome_of(trial) == outcome


def test_costs_of_the_seeds_are_added_by_name_in_one_order():
    names = ["seconds", "images", "boxes", "images_640", "energy", "memory"]
    found = [Outcome("completed", (0.5,), cost={name: 1.5}, seed=seed) for seed, name in enumerate([*names, "images"])]
    outcome, _ = judged(*found, seeds=range(7))
    assert list(outcome.cost) == sorted(names)
    assert outcome.cost == dict.fromkeys(names, 1.5) | {"images": 3.0}


def test_each_objective_has_its_own_mean_and_deviation():
    outcome, trial = judged(
        Outcome("completed", (1.0, 10.0), seed=0), Outcome("completed", (3.0, 10.0), seed=1),
        seeds=[0, 1], directions=("maximize", "minimize"),
    )  # fmt: skip
    assert trial.values == list(outcome.values) == [2.0, 10.0]
    assert trial.user_attrs[STD] == [pytest.approx(2**0.5), 0.0]


def test_completed_seeds_wait_for_the_others():
    outcome, trial = judged(Outcome("completed", (0.4,), seed=3), seeds=[3, 4])
    assert (outcome, trial.state) == (None, TrialState.RUNNING)
    assert OUTCOME not in trial.user_attrs


@pytest.mark.parametrize(("others", "worst", "state"), [
    ([], "pruned", TrialState.PRUNED),
    (["completed"], "diverged", TrialState.PRUNED),
    (["diverged", "pruned"], "out_of_memory", TrialState.FAIL),
    (["out_of_memory", "completed"], "failed", TrialState.FAIL),
])  # fmt: skip
def test_the_worst_seed_ends_the_trial_though_others_are_missing(others, worst, state):
    found = [Outcome(status, (0.5,), epochs=2, seed=seed) for seed, status in enumerate([*others, worst])]
    outcome, trial = judged(*found, seeds=range(4))
    assert (outcome.status, outcome.seed, outcome.epochs) == (worst, len(others), 2 * len(found))
    assert (trial.state, trial.value) == (state, None)
    assert STD not in trial.user_attrs


@pytest.mark.parametrize(("run", "folder"), [(None, None), ("/study/0/seed_7", "/study/0")])
def test_one_seed_alone_has_no_deviation(run, folder):
    outcome, trial = judged(Outcome("completed", (0.4,), seed=7, run_folder=run), seeds=[7])
    assert (trial.value, outcome.run_folder) == (0.4, folder)
    assert STD not in trial.user_attrs


def test_a_grid_that_is_used_up_ends_no_sweep():
    study = optuna.create_study(sampler=optuna.samplers.GridSampler({"x": [0.5]}))
    study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    judge = Judge(study, None)
    judge.store(study.trials[0], Outcome("completed", (0.4,)))
    assert judge.settle(study.trials[0]).status == "completed"
    assert study.trials[0].value == 0.4


class Failing(optuna.samplers.RandomSampler):
    def after_trial(self, study, trial, state, values):
        raise RuntimeError("a sampler's own trouble")


def test_other_errors_of_a_sampler_are_not_hidden():
    with pytest.raises(RuntimeError, match="a sampler's own trouble"):
        judged(Outcome("completed", (0.4,)), sampler=Failing())


def test_a_trial_that_somebody_told_already_keeps_what_was_told():
    study = optuna.create_study()
    judge, running = Judge(study, None), study.ask()
    judge.store(study.trials[0], Outcome("completed", (0.4,)))
    trial = study.trials[0]
    study.tell(running, 0.2)
    assert judge.settle(trial).values == (0.4,)
    assert study.trials[0].value == 0.2
