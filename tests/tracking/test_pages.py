"""Where tracked runs are to be seen: the address of their page, and the store that ``winnow ui`` serves."""

import os
import socket

import pytest

from winnow.errors import ConfigError
from winnow.process import ProcessStamp
from winnow.tracking.folder import RunState, TrackingFolder, UploadSettings
from winnow.tracking.pages import how_to_open, runs_page
from winnow.tracking.ui import free_port, store_of


def track(folder, uri, experiment_id="7", view=""):
    """Write what a tracked run in ``folder`` leaves behind."""
    tracking = TrackingFolder.of_run(folder)
    tracking.path.mkdir(parents=True)
    UploadSettings("key", 1, ProcessStamp.this_process(), uri, "winnow", "run").write(tracking.settings)
    shown = UploadSettings.read(tracking.settings).shown_uri
    RunState(uri=shown, run_id="r", experiment_id=experiment_id, view=view).write(tracking.state)
    return folder


def test_the_page_of_the_runs_names_the_kind_of_work_and_the_view():
    assert runs_page("http://h:1", "3") == "http://h:1/#/experiments/3/runs?workflowType=machine_learning"
    assert runs_page("http://h:1", "3", "winnow-map").endswith(
        "?workflowType=machine_learning&viewStateShareKey=winnow-map"
    )


def test_a_run_on_a_server_names_its_page_without_the_password(tmp_path):
    run = track(tmp_path / "run", "http://me:secret@host:5000/")
    assert how_to_open(run) == []  # recorded without its secret, nobody knows whether this is the address
    run = track(tmp_path / "other", "http://host:5000/")
    assert how_to_open(run) == ["the runs: http://host:5000/#/experiments/7/runs?workflowType=machine_learning"]


def test_a_run_in_a_file_names_the_command_that_shows_it(tmp_path):
    run = track(tmp_path / "a run", f"sqlite:///{tmp_path}/mlflow.db", view="winnow-map")
    command, page = how_to_open(run)
    assert command.endswith(f"winnow ui '{run}'")
    assert page.endswith("/#/experiments/7/runs?workflowType=machine_learning&viewStateShareKey=winnow-map")


def test_a_run_that_has_not_reached_its_server_names_no_page(tmp_path):
    assert how_to_open(tmp_path) == []
    assert how_to_open(track(tmp_path / "run", "http://host:5000", experiment_id=None)) == []


def test_a_state_of_earlier_code_is_read_and_names_no_page(tmp_path):
    run = track(tmp_path / "run", "http://host:5000")
    state = TrackingFolder.of_run(run).state
    state.write_text('{"uri": "http://host:5000", "run_id": "r", "sequence": 3, "artifacts": [], "is_finished": true}')
    assert RunState.read(state).sequence == 3
    assert how_to_open(run) == []


def test_the_store_is_the_runs_own_or_the_database_of_the_folder_or_of_the_newest_run_below(tmp_path):
    (tmp_path / "mlflow.db").touch()
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    run = track(tmp_path / "outputs/2026-01-01/run", uri, view="winnow-map")
    for folder in (run, tmp_path / "outputs"):
        store = store_of(folder)
        assert (store.uri, store.experiment, store.experiment_id, store.view) == (uri, "winnow", "7", "winnow-map")
    assert (store_of(tmp_path).uri, store_of(tmp_path).experiment_id) == (uri, None)
    assert store_of(track(tmp_path / "served", "http://host:5000/")).server == "http://host:5000"


def test_a_folder_without_a_store_is_refused_by_name(tmp_path):
    for folder, words in ((tmp_path, "neither mlflow.db nor"), (tmp_path / "none", "is no folder")):
        with pytest.raises(ConfigError, match=words):
            store_of(folder)
    with pytest.raises(ConfigError, match="there is no such file"):
        store_of(track(tmp_path / "run", f"sqlite:///{tmp_path}/gone.db"))
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    with pytest.raises(ConfigError, match="secret is not recorded"):
        store_of(track(tmp_path / "secret", "postgresql://me:pw@host/db"))


def test_a_port_that_is_taken_is_not_used():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=str(number)):
            free_port(number)
        assert free_port() != number
