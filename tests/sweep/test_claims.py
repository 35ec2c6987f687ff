"""Each running trial has one owner, and a dead owner's trials get exactly one new one."""

import subprocess
import sys
import time
from dataclasses import replace

import pytest
from optuna.trial import TrialState
from processes import CONTEXT, kill, run_at_once, start

from winnow.process import ProcessStamp
from winnow.sweep.claims import Claims
from winnow.sweep.outcome import OUTCOME, OWNER
from winnow.sweep.ownership import HEARTBEAT
from winnow.sweep.storage import create_study_once, open_storage

QUICK = {"observation_seconds": 1.0, "beat_seconds": 0.1, "grace_seconds": 0.3}


def open_claims(url, owner=None, is_stamping=True, **settings):
    owner = owner or ProcessStamp.this_process()
    storage = open_storage(url, stamp={OWNER: owner.to_json()} if is_stamping else None)
    study = create_study_once(storage, "s", ["maximize"])
    return study, Claims(study, storage, owner, **{**QUICK, **settings})


@pytest.fixture(scope="module")
def dead():
    """Return the stamp of a process that has ended."""
    code = "from winnow.process import ProcessStamp; print(ProcessStamp.this_process().to_json())"
    return ProcessStamp.from_json(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    )


@pytest.fixture
def url(tmp_path):
    return str(tmp_path / "study.log")


def numbers(trials):
    return [trial.number for trial in trials]


def orphans_within(claims, seconds, *also_beating):
    """Return the first orphans that are seen; none after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (found := claims.orphans()) and time.monotonic() < deadline:
        for other in also_beating:
            other.beat()
        time.sleep(0.05)
    return numbers(found)


def take_trials_and_wait(url, is_taken):
    study, claims = open_claims(url)
    claims.claim(study.ask())
    study.ask()  # dies before it claims this one
    is_taken.set()
    while True:
        claims.beat()
        time.sleep(0.1)


def test_trials_of_a_killed_process_are_orphans_at_once(url):
    is_taken = CONTEXT.Event()
    owner = start(take_trials_and_wait, url, is_taken)
    assert is_taken.wait(120)
    _, claims = open_claims(url)
    assert claims.orphans() == []
    kill(owner)
    found = claims.orphans()
    assert numbers(found) == [0, 1]
    assert [claims.adopt(trial) for trial in found] == [True, True]
    assert claims.orphans() == []


def test_a_running_trial_without_a_stamp_is_an_orphan_after_a_grace(url):
    study, claims = open_claims(url, is_stamping=False)
    study.ask()
    assert claims.orphans() == []
    assert orphans_within(claims, 30) == [0]


def test_a_trial_of_ours_that_was_never_claimed_is_an_orphan_after_a_grace(url):
    study, claims = open_claims(url)
    claims.claim(study.ask())
    study.ask()
    assert claims.orphans() == []
    assert orphans_within(claims, 30) == [1]


def test_trials_of_another_host_are_orphans_when_its_heart_stops(url):
    study, far = open_claims(url, owner=replace(ProcessStamp.this_process(), host="far"))
    _, near = open_claims(url)
    far.claim(study.ask())
    assert orphans_within(near, 2.0, far) == []
    began = time.monotonic()
    assert orphans_within(near, 60) == [0]
    assert time.monotonic() - began > 0.9


def test_a_finished_trial_is_not_adopted(url, dead):
    study, _ = open_claims(url, owner=dead)
    trial = study.ask()
    _, claims = open_claims(url)
    (orphan,) = claims.orphans()
    study.tell(trial, 1.0)
    assert not claims.adopt(orphan)


def adopt_in_rounds(barrier, index, url, num_rounds):
    study, claims = open_claims(url)
    won = []
    for number in range(num_rounds):
        trial = study.trials[number]
        barrier.wait()
        if claims.adopt(trial):
            won.append(number)
    barrier.wait()  # as long as all live, nobody is an orphan of anybody
    return won


def test_of_several_processes_that_adopt_a_trial_exactly_one_wins(storage_url, dead):
    num_rounds = 100 if storage_url.endswith(".log") else 8
    study, _ = open_claims(storage_url, owner=dead)
    for _ in range(num_rounds):
        study.ask()
    won = run_at_once(4, adopt_in_rounds, storage_url, num_rounds)
    assert sorted(number for own in won for number in own) == list(range(num_rounds))


def work_until_the_quota(barrier, index, url, num_trials):
    study, claims = open_claims(url)
    told = []
    barrier.wait()
    while True:
        trial = study.ask()
        if trial.number >= num_trials:
            claims.give_back(trial)
            return told
        claims.claim(trial)
        study.tell(trial, index)
        told.append(trial.number)


def test_several_processes_share_a_quota_exactly(storage_url):
    told = run_at_once(4, work_until_the_quota, storage_url, 16)
    assert sorted(number for own in told for number in own) == list(range(16))
    study, _ = open_claims(storage_url)
    states = [trial.state for trial in study.trials]
    assert states[:16] == [TrialState.COMPLETE] * 16
    assert set(states[16:]) == {TrialState.WAITING}


def test_a_trial_given_back_goes_to_the_next_who_asks_with_its_parameters(storage_url):
    study, claims = open_claims(storage_url)
    study.enqueue_trial({"x": 7.0})
    trial = study.ask()
    claims.claim(trial)
    claims.give_back(trial)
    assert study.trials[0].state == TrialState.WAITING
    again = study.ask()
    assert (again.number, again.suggest_float("x", 0, 10)) == (0, 7.0)
    assert again.user_attrs[OWNER] is None


@pytest.mark.parametrize("trace", ["value", "outcome"])
def test_a_trial_that_started_is_not_given_back(url, trace):
    study, claims = open_claims(url)
    trial = study.ask()
    claims.claim(trial)
    if trace == "value":
        trial.report(0.5, 1)
    else:
        trial.set_user_attr(OUTCOME, "{}")
    with pytest.raises(ValueError, match="trial 0 has started"):
        claims.give_back(trial)


def test_a_trial_of_somebody_else_is_not_given_back(url):
    study, _ = open_claims(url, owner=replace(ProcessStamp.this_process(), pid=1))
    _, claims = open_claims(url)
    with pytest.raises(ValueError, match="belongs to"):
        claims.give_back(study.ask())


@pytest.mark.parametrize("stamp", ["{", 3, [1], '{"pid": 1}', {"_target_": "os.mkdir"}])
def test_a_trial_whose_stamp_names_nobody_is_an_orphan(url, stamp, caplog):
    study, claims = open_claims(url)
    study.ask().set_user_attr(OWNER, stamp)
    assert numbers(claims.orphans()) == [0]
    assert "names no process" in caplog.text
    assert claims.adopt(study.get_trials()[0])


def test_a_process_beats_while_its_main_thread_does_something_else(url):
    study, claims = open_claims(url)
    with claims.beating():
        time.sleep(1.5)
    (counted,) = [n for name, n in study.user_attrs.items() if name.startswith(HEARTBEAT)]
    assert counted >= 5  # one in 0.1 s
    time.sleep(0.5)
    assert [n for name, n in study.user_attrs.items() if name.startswith(HEARTBEAT)] == [counted]


def test_a_storage_that_is_gone_ends_no_heart_and_keeps_nobody_waiting(tmp_path):
    url = tmp_path / "there" / "study.journal"
    study, claims = open_claims(str(url))
    with claims.beating():
        url.parent.rename(tmp_path / "away")
        time.sleep(0.5)
        began = time.monotonic()
    assert time.monotonic() - began < 10  # it would wait for ten minutes
    (tmp_path / "away").rename(url.parent)
    assert study.trials == []
