"""Finite spaces: their points, and that each is run once, whoever proposes it and from however many processes."""

import multiprocessing
import random

import optuna
import pytest
from filelock import FileLock
from optuna.trial import TrialState, create_trial
from space_parts import space_of

from hydra_plugins.winnow_sweeper._points import Points
from hydra_plugins.winnow_sweeper._supply import Supply
from hydra_plugins.winnow_sweeper._unvisited import UnvisitedSampler
from winnow.process import ProcessStamp
from winnow.sweep.claims import Claims
from winnow.sweep.listed import enqueue_listed
from winnow.sweep.outcome import OWNER, outcome_of
from winnow.sweep.storage import create_study_once, open_storage

MIXED = {"a": "range(1,4)", "b": "choice([1,2],null,true,1,1.0,x)", "c": "range(0,0.5,0.1)", "d": "choice(only)"}


def points_of(**params):
    return Points.of(space_of(**params).distributions)


@pytest.mark.parametrize(("params", "num"), [
    (MIXED, 3 * 6 * 5), ({"a": "int(interval(1,8))"}, 8), ({"a": "tag(log,int(interval(1,8)))"}, 8), ({}, 1),
    ({"a": "choice(1)"}, 1), ({"a": "interval(2,2)"}, 1), ({"a": "range(3,10,3)"}, 3),
])  # fmt: skip
def test_points_are_all_combinations_each_once(params, num):
    points = points_of(**params)
    taken = set()
    rng = random.Random(0)
    for _ in range(num):
        point = points.free_point(taken, {}, rng)
        assert points.point_of(points.values_at(point)) == point
        taken.add(point)
    assert points.num == len(taken) == num
    assert points.free_point(taken, {}, rng) is None


def test_a_space_with_an_interval_has_no_end_of_points():
    assert points_of(a="choice(1,2)", b="interval(0,1)") is None
    assert points_of(b="tag(log,interval(0.1,1))") is None


def test_a_free_point_is_drawn_among_those_with_the_given_values_each_as_likely():
    points = points_of(a="range(0,4)", b="choice(x,y,z)")
    taken = {(1, 0), (0, 2)}
    rng = random.Random(0)
    drawn = [points.free_point(taken, {"a": 1}, rng) for _ in range(400)]
    assert set(drawn) == {(1, 1), (1, 2)}
    assert 150 < drawn.count((1, 1)) < 250
    assert len({points.free_point(taken, {}, rng) for _ in range(400)}) == points.num - 2


def test_values_that_left_the_space_take_no_point_of_it():
    points = points_of(a="range(0,4)")
    assert (
        points.taken(
            [create_trial(value=1.0, params={"a": 7}, distributions={"a": space_of(a="range(0,9)").distributions["a"]})]
        )
        == set()
    )
    assert points.num_free({(0,), (1,), (2,), (3,)}, {"a": 7}) == 1


def test_a_grid_is_taken_in_the_order_of_optunas_grid_sampler():
    space = space_of(b="choice(x,y,z)", a="range(0,4)", c="range(0,0.3,0.1)")
    points = Points.of(space.distributions)
    own = UnvisitedSampler(points, optuna.samplers.RandomSampler(), points.shuffled(5))
    grid = {"b": ["x", "y", "z"], "a": [0, 1, 2, 3], "c": [0.0, 0.1, 0.2]}
    theirs = optuna.samplers.GridSampler(grid, seed=5)
    asked = [
        [study.ask(space.distributions).params for _ in range(36)]
        for study in (optuna.create_study(sampler=own), optuna.create_study(sampler=theirs))
    ]
    assert asked[0] == asked[1]


def outcomes(study, points, num, distributions, state=TrialState.COMPLETE):
    found = []
    for _ in range(num):
        trial = study.ask(distributions)
        found.append(points.point_of(trial.params))
        study.tell(trial.number, 1.0 if state == TrialState.COMPLETE else None, state=state)
    return found


SAMPLERS = {
    "tpe": lambda: optuna.samplers.TPESampler(seed=0, n_startup_trials=3, multivariate=True, constant_liar=True),
    "random": lambda: optuna.samplers.RandomSampler(seed=0),
    "nsgaii": lambda: optuna.samplers.NSGAIISampler(seed=0, population_size=4),
    "qmc": lambda: optuna.samplers.QMCSampler(seed=0, scramble=True),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
@pytest.mark.parametrize("name", ["tpe", "random", "nsgaii", "qmc"])
def test_every_sampler_covers_the_space_and_repeats_no_point(name, state):
    space = space_of(a="range(0,4)", b="choice(x,y,z)")
    points = Points.of(space.distributions)
    study = optuna.create_study(sampler=UnvisitedSampler(points, SAMPLERS[name](), seed=0))
    assert len(set(outcomes(study, points, 12, space.distributions, state))) == 12


@pytest.mark.parametrize("name", ["tpe", "random"])
def test_what_a_sampler_proposes_first_stays_what_it_was(name):
    space = space_of(a="range(0,100)", b="choice(x,y,z)", c="range(0,1,0.001)", d="choice(1)")
    points = Points.of(space.distributions)
    own, bare = (
        optuna.create_study(sampler=UnvisitedSampler(points, SAMPLERS[name]())),
        optuna.create_study(sampler=SAMPLERS[name]()),
    )
    for study in (own, bare):
        study.enqueue_trial({"b": "y"})
        for value in range(12):
            study.tell(study.ask(space.distributions), float(value))
    assert [trial.params for trial in own.trials] == [trial.params for trial in bare.trials]


def supply(storage, folder, space, n_trials=20, sampler=None):
    stored, owner = (
        open_storage(storage, stamp={OWNER: ProcessStamp.this_process().to_json()}),
        ProcessStamp.this_process(),
    )
    points = Points.of(space.distributions)
    own = UnvisitedSampler(points, sampler or optuna.samplers.TPESampler(seed=0), seed=0)
    study = create_study_once(stored, "s", ["maximize"], sampler=own)
    return study, Supply(
        study, n_trials, space.distributions, space.overrides, None, Claims(study, stored, owner), None, None,
        lambda number: None, points, FileLock(folder / "turn.lock"),
    )  # fmt: skip


def run_all(study, supply):
    ran = []
    while (job := supply.next()) is not None:
        ran.append(job.overrides)
        study.tell(job.number, 1.0)
    return ran


SPACE = space_of(a="range(0,6)", b="choice(x,y,z)")


def work(storage, folder, results):
    study, own = supply(storage, folder, SPACE, n_trials=40)
    results.put(run_all(study, own))


def test_several_processes_on_one_study_share_the_points_exactly(tmp_path):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = f"{tmp_path}/study.journal"
    supply(storage, tmp_path, SPACE)
    forked = multiprocessing.get_context("fork")
    results = forked.Queue()
    processes = [forked.Process(target=work, args=(storage, tmp_path, results)) for _ in range(3)]
    for process in processes:
        process.start()
    ran = [overrides for _ in processes for overrides in results.get(timeout=60)]
    for process in processes:
        process.join()
    assert len(ran) == len(set(ran)) == 18


def test_listed_trials_and_the_sampler_cover_the_space_together_and_repeat_nothing(tmp_path):
    study, own = supply(f"{tmp_path}/study.journal", tmp_path, SPACE)
    partial, whole, apart = ({"a": 1}, ()), ({"a": 2, "b": "y"}, ()), ({"a": 2, "b": "y"}, ("epochs=9",))
    enqueue_listed(study, [partial, whole, partial, apart, partial])
    assert len(study.trials) + Points.of(SPACE.distributions).num_left(study.trials) == 19
    enqueue_listed(study, [partial, whole, partial, apart, partial, partial])
    ran = run_all(study, own)
    assert [overrides[0] for overrides in ran[:5]] == ["a=1", "a=2", "a=1", "a=2", "a=1"]
    assert ran[3] == ("a=2", "b=y", "epochs=9")
    assert len(ran) == len(set(ran)) == 19
    outcome = outcome_of(study.trials[5])
    assert (outcome.status, outcome.reason) == ("pruned", "never started: its point was taken already")


def test_n_trials_is_the_total_also_where_points_are_left_and_a_withdrawn_trial_does_not_count(tmp_path):
    study, own = supply(f"{tmp_path}/study.journal", tmp_path, space_of(a="range(0,9)"), n_trials=4)
    enqueue_listed(study, [({"a": 1}, ()), ({"a": 1}, ()), ({"a": 2}, ())])
    ran = run_all(study, own)
    assert len(ran) == len(set(ran)) == 4
    assert ran[:2] == [("a=1",), ("a=2",)]


def test_a_point_that_was_taken_off_the_list_before_it_began_is_run_all_the_same(tmp_path):
    study, own = supply(f"{tmp_path}/study.journal", tmp_path, space_of(a="range(0,3)"))
    enqueue_listed(study, [({"a": 1}, ())])
    enqueue_listed(study, [])
    assert sorted(run_all(study, own)) == [("a=0",), ("a=1",), ("a=2",)]


def test_a_running_trial_holds_its_point_and_one_that_was_given_back_is_run(tmp_path):
    space = space_of(a="choice(x,y)")
    _, own = supply(f"{tmp_path}/study.journal", tmp_path, space)
    first, second = own.next(), own.next()
    assert {first.overrides, second.overrides} == {("a=x",), ("a=y",)}
    assert own.next() is None
    own.put_back(first, counts=True)
    assert own.next().overrides == first.overrides
