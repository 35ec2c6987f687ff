"""What a run reports to its study, and what is left of it when the storage or the run is gone."""

import random
from dataclasses import replace

import optuna
import pytest

from winnow.sweep.storage import create_study_once, open_storage
from winnow.sweep.trial import StoredTrial, StudyRef


@pytest.fixture
def study(tmp_path):
    return create_study_once(open_storage(str(tmp_path / "study.journal")), "s", ["maximize"])


@pytest.fixture
def ref(tmp_path, study):
    study.ask()
    return StudyRef("s", str(tmp_path / "study.journal"), str(tmp_path), None)


@pytest.fixture
def away(tmp_path, ref):
    """Return the same study where it can't be reached."""
    (tmp_path / "away.journal").mkdir()
    return replace(ref, storage=str(tmp_path / "away.journal"))


def test_what_a_killed_run_could_not_report_its_next_life_does(tmp_path, study, ref, away):
    killed = StoredTrial(away, 0, folder=tmp_path)
    for epoch in (1, 2, 3):
        killed.report(epoch / 10, epoch)
    resumed = StoredTrial(ref, 0, folder=tmp_path)
    resumed.report(0.2, 2)  # it goes on from the checkpoint of epoch 2
    assert study.trials[0].intermediate_values == {1: 0.1, 2: 0.2}
    resumed.report(0.35, 3)
    assert study.trials[0].intermediate_values == {1: 0.1, 2: 0.2, 3: 0.35}


def test_what_was_not_reported_at_the_end_is_caught_up_with(tmp_path, study, ref, away):
    trial = StoredTrial(away, 0, folder=tmp_path)
    trial.report(0.5, 1)
    assert not trial.should_prune()
    trial.ref = ref
    trial.catch_up()
    assert study.trials[0].intermediate_values == {1: 0.5}


def test_waiting_for_a_storage_draws_nobodys_random_numbers(tmp_path):
    storage = open_storage(str(tmp_path / "study.journal"), patience_seconds=0.3)
    study = optuna.create_study(storage=storage)
    (tmp_path / "study.journal").unlink()
    before = random.getstate()
    with pytest.raises(FileNotFoundError):
        study.ask()
    assert random.getstate() == before
