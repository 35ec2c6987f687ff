"""A storage is opened by its URL, created once, and waited for while it is away."""

import os
import pickle
import sqlite3
import threading
import time
from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from postgresql_cluster import LossyProxy
from processes import run_at_once
from small_disk import fill, small_disk

from winnow.errors import ConfigError
from winnow.sweep.address import network_file_system, parse_storage_url
from winnow.sweep.outage import is_away
from winnow.sweep.storage import create_study_once, open_storage

SPACE = {"lr": FloatDistribution(1e-5, 1e-1, log=True)}


@pytest.mark.parametrize(("url", "kind", "shown"), [
    ("journal:///tmp/a/study.log", "journal", "/tmp/a/study.log"),
    ("a/study.journal", "journal", f"{os.getcwd()}/a/study.journal"),
    ("sqlite:///a/study.db", "sqlite", f"sqlite:///{os.getcwd()}/a/study.db"),
    ("sqlite:////tmp/study.db", "sqlite", "sqlite:////tmp/study.db"),
    ("postgresql+psycopg://me:secret@host/db", "postgresql", "postgresql+psycopg://me:***@host/db"),
])  # fmt: skip
def test_a_url_names_a_storage_wherever_a_process_stands(url, kind, shown):
    address = parse_storage_url(url)
    assert (address.kind, str(address)) == (kind, shown)


@pytest.mark.parametrize(("url", "message"), [
    ("study.txt", "storage 'study.txt' is unknown; allowed: a path ending in .log or .journal"),
    ("journal://study.log", "must be journal:///absolute/path.log"),
    ("redis://localhost", "unknown kind 'redis'"),
    ("postgres://me:secret@host/db", r"'postgres://me:\*\*\*@host/db': unknown kind 'postgres'; allowed: .*postgresql\+psycopg"),
    ("postgresql+nothing://host/db", "unknown driver"),
    ("mysql+pymysql://me:secret@host/db", r"'mysql\+pymysql://me:\*\*\*@host/db' needs .*: pip install pymysql"),
    ("sqlite:///:memory:", "must name a file"),
    ("postgresql+psycopg://host:port/db", "storage is no URL"),
])  # fmt: skip
def test_a_url_that_cannot_be_is_refused_with_what_to_do(url, message):
    with pytest.raises(ConfigError, match=message) as refused:
        open_storage(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(("path", "kind"), [
    ("/mnt/team/study.db", "nfs4"),
    ("/mnt/team/local/study.db", None),
    ("/mnt/teams/study.db", None),
    ("/mnt/my disk/study.db", "cifs"),
])  # fmt: skip
def test_a_network_file_system_is_recognised_by_the_deepest_mount(tmp_path, path, kind):
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/a / ext4 rw 0 0\nhost:/x /mnt/team nfs4 rw 0 0\n/dev/b /mnt/team/local xfs rw 0 0\n//h/d /mnt/my\\040disk cifs rw\n"
    )
    assert network_file_system(Path(path), mounts) == kind


def open_and_add(barrier, index, url):
    storage = open_storage(url)
    barrier.wait()
    study = create_study_once(storage, "s", ["maximize"])
    for _ in range(3):
        trial = study.ask(SPACE)
        study.tell(trial, index + trial.params["lr"])
    return study.study_name


def test_several_processes_create_a_study_at_once_and_lose_nothing(storage_url):
    assert run_at_once(4, open_and_add, storage_url) == ["s"] * 4
    study = create_study_once(open_storage(storage_url), "s", ["maximize"])
    assert sorted(int(trial.value) for trial in study.trials) == sorted(3 * list(range(4)))
    assert [trial.number for trial in study.trials] == list(range(12))


def test_a_study_with_other_directions_is_refused(storage_url):
    storage = open_storage(storage_url)
    create_study_once(storage, "s", ["maximize"])
    with pytest.raises(ConfigError, match=r"has directions \['maximize'\], the sweep \['minimize'\]"):
        create_study_once(storage, "s", ["minimize"])


def test_errors_of_logic_pass_at_once(storage_url):
    storage = open_storage(storage_url)
    study = create_study_once(storage, "s", ["maximize"])
    number = study.tell(study.ask(), 1.0).number
    trial_id = storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    began = time.monotonic()
    with pytest.raises(UpdateFinishedTrialError):
        storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [1.0])
    with pytest.raises(DuplicatedStudyError):
        storage.create_new_study(study.directions, "s")
    with pytest.raises(KeyError):
        storage.get_study_id_from_name("other")
    assert time.monotonic() - began < 20, "it was repeated for a minute at least"


def test_a_storage_can_be_sent_to_another_process_and_stamps_what_it_creates(storage_url):
    study = create_study_once(open_storage(storage_url, stamp={"who": "me"}), "s", ["maximize"])
    sent = pickle.loads(pickle.dumps(study._storage))
    trial = create_study_once(sent, "s", ["maximize"]).ask(SPACE)
    study.enqueue_trial({"lr": 0.01})
    waiting, running = study.get_trials(states=(TrialState.WAITING,)), study.get_trials(states=(TrialState.RUNNING,))
    assert [(found.number, found.user_attrs) for found in running] == [(trial.number, {"who": "me"})]
    assert [found.user_attrs for found in waiting] == [{}]


def test_a_forked_child_opens_connections_of_its_own(storage_url):
    study = create_study_once(open_storage(storage_url), "s", ["maximize"])
    pid = os.fork()
    if pid == 0:
        try:
            study.tell(study.ask(), 1.0)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    study.tell(study.ask(), 2.0)
    assert [trial.value for trial in study.trials] == [1.0, 2.0]


def test_a_locked_sqlite_database_is_waited_for(tmp_path, caplog):
    path = tmp_path / "study.db"
    storage = open_storage(f"sqlite:///{path}")
    study = create_study_once(storage, "s", ["maximize"])
    blocker = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    blocker.execute("BEGIN EXCLUSIVE")
    began = time.monotonic()
    threading.Timer(2.0, lambda: blocker.execute("COMMIT")).start()
    study.tell(study.ask(SPACE), 1.0)
    assert time.monotonic() - began >= 2.0
    assert [trial.value for trial in study.trials] == [1.0]
    blocker.close()


def test_waiting_ends_when_the_patience_does(tmp_path, caplog):
    study = create_study_once(open_storage(str(tmp_path / "study.log"), patience_seconds=0.5), "s", ["maximize"])
    (tmp_path / "study.log").unlink()
    with pytest.raises(FileNotFoundError):
        study.ask()
    assert caplog.text.count("does not answer, trying again for up to 0 s") == 1
    assert caplog.text.count("stayed away") == 1


def test_a_journal_whose_folder_was_gone_for_a_while_is_gone_on_with(tmp_path, caplog):
    study = create_study_once(open_storage(str(tmp_path / "share" / "study.log")), "s", ["maximize"])
    (tmp_path / "share").rename(tmp_path / "gone")
    threading.Timer(0.7, lambda: (tmp_path / "gone").rename(tmp_path / "share")).start()
    study.tell(study.ask(), 1.0)
    assert [trial.value for trial in study.trials] == [1.0]
    assert caplog.text.count("does not answer") == caplog.text.count("is back after") == 1


def test_a_sweep_waits_for_room_for_its_journal_however_long_it_takes(tmp_path, caplog):
    with small_disk(tmp_path / "small") as place:
        url = str(place / "study.journal")
        study = create_study_once(open_storage(url, patience_seconds=0.2, waits_for_place=True), "s", ["maximize"])
        filler = fill(place)
        threading.Timer(1.0, filler.unlink).start()
        study.set_user_attr("key", "value" * 2000)  # more than the file's last page has room for
        assert study.user_attrs == {"key": "value" * 2000}
    assert "trying again until it does: [Errno 28]" in caplog.text


@pytest.mark.parametrize(("address", "message"), [
    ("postgresql+psycopg://postgres@127.0.0.1:{port}/missing", 'database "missing" does not exist'),
    ("sqlite:///{file}/study.db", "File exists"),
    ("{file}/study.log", "File exists"),
])  # fmt: skip
def test_what_waiting_cannot_mend_is_raised_at_once(postgresql, tmp_path, address, message):
    (tmp_path / "file").touch()
    began = time.monotonic()
    with pytest.raises(Exception, match=message) as raised:
        create_study_once(open_storage(address.format(port=postgresql.port, file=tmp_path / "file")), "s", ["maximize"])
    assert not is_away(raised.value)
    assert time.monotonic() - began < 60


def work(barrier, index, url, num_trials):
    study = create_study_once(open_storage(url), "s", ["maximize"])
    barrier.wait()
    numbers = []
    for _ in range(num_trials):
        trial = study.ask(SPACE)
        for step in range(3):
            trial.report(trial.params["lr"], step)
            time.sleep(0.005)
        study.tell(trial, index)
        numbers.append(trial.number)
    return numbers


@pytest.mark.promise
@pytest.mark.parametrize("mode", ["immediate", "fast"])
def test_postgresql_restarted_in_mid_work_loses_and_doubles_nothing(postgresql, mode):
    url = postgresql.new_database()
    numbers = []
    thread = threading.Thread(target=lambda: numbers.extend(run_at_once(3, work, url, 12)))
    thread.start()
    study = create_study_once(open_storage(url), "s", ["maximize"])
    while sum(trial.state.is_finished() for trial in study.trials) < 6:
        time.sleep(0.02)
    postgresql.stop(mode)
    time.sleep(0.5)
    postgresql.start()
    thread.join()
    assert sorted(number for own in numbers for number in own) == list(range(36))
    assert [(trial.number, trial.state.name, len(trial.intermediate_values)) for trial in study.trials] == [
        (number, "COMPLETE", 3) for number in range(36)
    ]


@pytest.fixture
def lossy(postgresql):
    """Return a study behind a proxy, and the proxy."""
    name = postgresql.new_database().rpartition("/")[2]
    proxy = LossyProxy(postgresql.port)
    study = create_study_once(open_storage(postgresql.url(name, proxy.port)), "s", ["maximize"])
    yield study, proxy
    proxy.close()


def test_a_trial_whose_creation_was_not_answered_is_not_doubled(lossy):
    study, proxy = lossy
    study.ask()
    proxy.arm()
    assert study.ask(SPACE).number == 1
    assert proxy.num_lost == 1
    # Optuna repeats a creation by itself, so that the number is taken: the next to ask gets it.
    assert [trial.state.name for trial in study.trials] == ["RUNNING", "RUNNING", "WAITING"]
    assert study.ask(SPACE).number == 2


def test_a_result_whose_storing_was_not_answered_is_told_once(lossy):
    study, proxy = lossy
    trial = study.ask()
    proxy.arm()
    study.tell(trial, 0.25)
    assert proxy.num_lost == 1
    assert [(found.state.name, found.value) for found in study.trials] == [("COMPLETE", 0.25)]


def test_a_trial_given_back_without_an_answer_is_not_taken_from_its_next_owner(lossy):
    study, proxy = lossy
    trial = study.ask()
    proxy.arm()
    assert study._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
    assert proxy.num_lost == 1
    assert study.ask().number == trial.number


def test_a_waiting_trial_taken_without_an_answer_is_nobodys(lossy):
    study, proxy = lossy
    study.enqueue_trial({"lr": 0.01})
    proxy.arm()
    assert study.ask(SPACE).number == 1
    assert proxy.num_lost == 1
    assert (study.trials[0].state.name, study.trials[0].params) == ("RUNNING", {})


def test_a_study_deleted_without_an_answer_is_deleted(lossy):
    study, proxy = lossy
    proxy.arm()
    optuna.delete_study(study_name="s", storage=study._storage)
    assert proxy.num_lost == 1
    assert study._storage.get_all_studies() == []


def test_optuna_itself_opens_what_we_wrote(tmp_path):
    create_study_once(open_storage(f"sqlite:///{tmp_path}/study.db"), "s", ["maximize"])
    assert optuna.get_all_study_names(RDBStorage(f"sqlite:///{tmp_path}/study.db")) == ["s"]
