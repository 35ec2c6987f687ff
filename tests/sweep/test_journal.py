"""A journal survives its writers' deaths, and stays Optuna's."""

import json
import os
import random
import resource
import time

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from processes import CONTEXT, kill, run_at_once, start

from winnow.errors import ConfigError
from winnow.sweep.journal import SturdyJournal
from winnow.sweep.journal_lock import GRACE_SECONDS


@pytest.fixture
def path(tmp_path):
    return tmp_path / "study.log"


def write_study(path, num_trials=3):
    study = optuna.create_study(storage=JournalStorage(SturdyJournal(path)), study_name="s")
    for value in range(num_trials):
        study.tell(study.ask(), value)
    return study


def values_by_optuna(path):
    """Return every trial's value, as Optuna's own backend reads them."""
    study = optuna.load_study(study_name="s", storage=JournalStorage(JournalFileBackend(str(path))))
    return [trial.value for trial in study.get_trials() if trial.state == TrialState.COMPLETE]


@pytest.mark.parametrize(
    "torn", [b'{"op_code":4,"wor', b"\0" * 5000, b'{"op_code":4,"worker_id":"x","study_id":0}', b"{" * 200_000]
)
def test_a_torn_last_line_is_cut_off_before_the_next_append(path, torn, caplog):
    write_study(path)
    with path.open("ab") as file:
        file.write(torn)
    study = optuna.load_study(study_name="s", storage=JournalStorage(SturdyJournal(path)))
    study.tell(study.ask(), 3.0)
    assert values_by_optuna(path) == [0, 1, 2, 3]
    assert f"cut off {len(torn)} bytes" in caplog.text


WHOLE = b'{"op_code":4,"worker_id":"x","study_id":0,"datetime_start":"2026-01-01T00:00:00+00:00"}'


@pytest.mark.parametrize(("glued", "num_kept"), [
    (b'{"op_code":8,"worker_id":"y","trial_id":0,"user_attr":{"a' + WHOLE, 1),
    (WHOLE + WHOLE, 1),
    (b"\0" * 4096 + WHOLE, 1),
    (b'{"op_code":8,"worker_id":"y","trial_id":0,"user_attr":{"a":"\xff\xfe' + b"x" * 40, 0),
])  # fmt: skip
def test_a_torn_record_in_the_middle_loses_nothing_else(path, glued, num_kept, caplog):
    study = write_study(path)
    with path.open("ab") as file:
        file.write(glued + b"\n")
    size = path.stat().st_size
    reopened = JournalStorage(SturdyJournal(path))
    assert path.stat().st_size == size, "other readers would lose their place"
    assert len(reopened.get_all_trials(0)) == 3 + num_kept
    study.tell(study.ask(), 3.0)  # a process that had read up to the torn record goes on too
    assert values_by_optuna(path) == [0, 1, 2, 3]
    assert caplog.text.count("was torn by a killed writer") == 1


def test_a_torn_record_too_short_to_repair_is_passed_over(path, caplog):
    write_study(path)
    with path.open("ab") as file:
        file.write(b'{"op\n')
    study = optuna.load_study(study_name="s", storage=JournalStorage(SturdyJournal(path)))
    study.tell(study.ask(), 3.0)
    assert [trial.value for trial in study.trials] == [0, 1, 2, 3]
    assert "Optuna's own tools can't read on" in caplog.text


def append_for_ever(path, acknowledged):
    journal, number = SturdyJournal(path), 0
    while True:
        journal.append_logs([{"op_code": 2, "worker_id": "w", "study_id": 0, "user_attr": {"a" * 3_000_000: number}}])
        acknowledged.value, number = number, number + 1


def test_writers_killed_in_mid_append_lose_nothing_and_hold_up_nobody(path, caplog):
    study, rng, num_torn = write_study(path, 0), random.Random(1), 0
    for round_number in range(12):
        acknowledged = CONTEXT.Value("q", -1)
        writer = start(append_for_ever, path, acknowledged)
        while acknowledged.value < 0:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.02))
        kill(writer)
        num_torn += not path.read_bytes().endswith(b"\n")
        study.tell(study.ask(), round_number)
        assert study.user_attrs["a" * 3_000_000] >= acknowledged.value
    assert values_by_optuna(path) == list(range(12))
    assert caplog.text.count("cut off") == num_torn
    assert "dead holder" not in caplog.text, "it waited for a lock that nobody held"


def hold_the_lock(path, is_held):
    with SturdyJournal(path)._locked():
        is_held.set()
        time.sleep(60)


def test_a_killed_lock_holder_delays_nobody(path, caplog):
    study, is_held = write_study(path), CONTEXT.Event()
    holder = start(hold_the_lock, path, is_held)
    assert is_held.wait(120)
    assert os.path.lexists(f"{path}.lock")
    kill(holder)
    study.tell(study.ask(), 3.0)
    assert "dead holder" not in caplog.text, "it waited"
    assert not os.path.lexists(f"{path}.lock")


def test_a_lock_that_optuna_left_behind_is_taken_after_a_grace(path, caplog):
    study = write_study(path)
    os.symlink(path, f"{path}.lock")
    began = time.monotonic()
    study.tell(study.ask(), 3.0)
    assert GRACE_SECONDS <= time.monotonic() - began < 30, "Optuna's own grace"
    assert caplog.text.count("taken from its dead holder") == 1


def add_trials(barrier, index, path, count):
    # Every other process writes by Optuna's own backend.
    backend = SturdyJournal(path) if index % 2 else JournalFileBackend(str(path))
    study = optuna.load_study(study_name="s", storage=JournalStorage(backend))
    barrier.wait()
    for number in range(count):
        study.tell(study.ask(), 1000 * index + number)


def test_our_writers_and_optunas_share_a_journal(path):
    write_study(path, 0)
    run_at_once(4, add_trials, path, 15)
    expected = sorted(1000 * index + number for index in range(4) for number in range(15))
    assert sorted(values_by_optuna(path)) == expected
    assert [path.name] == [entry.name for entry in path.parent.iterdir()]


def fill_the_disk(barrier, index, path):
    study = optuna.load_study(study_name="s", storage=JournalStorage(SturdyJournal(path)))
    size = os.path.getsize(path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, size + 100))
    try:
        study.set_user_attr("big", "x" * 1000)
    except OSError as error:
        return error.strerror, os.path.getsize(path) - size
    return None


def test_a_half_written_record_is_taken_back_when_the_disk_is_full(path):
    study = write_study(path)
    assert run_at_once(1, fill_the_disk, path) == [("File too large", 0)]
    study.tell(study.ask(), 3.0)
    assert values_by_optuna(path) == [0, 1, 2, 3]


def test_a_refused_record_does_not_stop_the_reader(path):
    study = write_study(path)
    with pytest.raises(optuna.exceptions.DuplicatedStudyError):
        optuna.create_study(storage=study._storage, study_name="s")
    study.tell(study.ask(), 3.0)
    assert values_by_optuna(path) == [0, 1, 2, 3]


def test_a_replaced_journal_is_noticed(path):
    study = write_study(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(StorageInternalError, match="was it replaced"):
        study.get_trials()


def test_a_deleted_journal_is_not_begun_anew(path):
    study = write_study(path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        study.ask()
    assert not path.exists()


def test_the_record_is_one_line_of_json_that_begins_with_its_kind(path):
    write_study(path, 1)
    for line in path.read_bytes().splitlines():
        assert next(iter(json.loads(line))) == "op_code"


def changed_record(path, operation, **changes):
    """Write what ``changes`` say into the last record of this kind."""
    records = [json.loads(line) for line in path.read_bytes().splitlines()]
    at = max(index for index, record in enumerate(records) if record["op_code"] == operation)
    records[at] |= changes
    path.write_bytes(b"".join(json.dumps(record).encode() + b"\n" for record in records))
    return at + 1


@pytest.mark.parametrize(("operation", "changes", "what"), [
    (0, {"op_code": 77}, "op_code is 77"), (0, {"op_code": [0]}, r"op_code is \[0\]"),
    (0, {"directions": [9]}, r"directions is \[9\]"),
    (0, {"study_name": []}, r"study_name is \[\]"), (2, {"user_attr": {}}, r"user_attr is \{\}"),
    (2, {"study_id": "0"}, "study_id is '0'"),
    (4, {"datetime_start": 3}, "datetime_start is 3"), (4, {"worker_id": None}, "worker_id is None"),
    (4, {"distributions": {"x": "{"}, "params": {"x": 1}}, "its parameter 'x' is 1"),
    (4, {"state": 1}, "it is complete and has no value"),
    (4, {"intermediate_values": {"a": 1}}, "intermediate_values is"),
    (5, {"distribution": "[" * 10**5}, "distribution is"), (5, {"param_value_internal": None}, "param_value_internal is None"),
    (5, {"param_value_internal": 7}, "param_value_internal is 7, which is not in"),
    (5, {"trial_id": [0]}, r"trial_id is \[0\]"),
    (6, {"state": 9}, "state is 9"), (6, {"values": ["x"]}, "values is"), (6, {"values": None}, "values are missing"),
    (6, {"datetime_complete": "x"}, "datetime_complete is 'x'"), (7, {"intermediate_value": "x"}, "intermediate_value is 'x'"),
    (7, {"intermediate_value": 10**400}, "intermediate_value is 1000"), (7, {"step": 10**400}, "step is 1000"),
    (8, {"user_attr": 3}, "user_attr is 3"),
])  # fmt: skip
def test_a_record_that_optuna_can_not_replay_is_named(path, operation, changes, what):
    study = write_study(path, 1)
    study.set_user_attr("a", 1)
    trial = study.ask({"x": optuna.distributions.CategoricalDistribution(["a", "b"])})
    trial.report(0.5, 1)
    trial.set_user_attr("a", 1)
    study.tell(trial, 1.0)
    line = changed_record(path, operation, **changes)
    with pytest.raises(ConfigError, match=rf"study.log, line {line}: no record of a journal of Optuna's: {what}"):
        optuna.load_study(study_name="s", storage=JournalStorage(SturdyJournal(path)))


def test_records_of_every_kind_are_read(path):
    study = write_study(path)
    space = {
        "x": optuna.distributions.FloatDistribution(0, 1), "i": optuna.distributions.IntDistribution(1, 9, log=True),
        "c": optuna.distributions.CategoricalDistribution([None, "a", True]),
    }  # fmt: skip
    study.enqueue_trial({"x": 7.0, "i": 3})  # out of bounds: Optuna warns, and takes it
    study.add_trial(
        optuna.trial.create_trial(
            value=1.0, params={"x": 0.5}, distributions={"x": space["x"]}, intermediate_values={1: 0.5}
        )
    )
    with pytest.warns(UserWarning, match="out of range"):
        study.tell(study.ask(space), state=TrialState.FAIL)
    study.tell(study.ask(), state=TrialState.PRUNED)
    study.ask().report(float("nan"), 1)
    study.set_user_attr("a", [1])
    again = optuna.load_study(study_name="s", storage=JournalStorage(SturdyJournal(path)))
    assert [trial.state.name for trial in again.trials] == ["COMPLETE"] * 3 + ["FAIL", "COMPLETE", "PRUNED", "RUNNING"]
