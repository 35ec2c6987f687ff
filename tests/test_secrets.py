"""A sweep in a database with a password, tracked by a server with a password: both are used, and stand nowhere afterwards."""

from __future__ import annotations

import os
import sys

import pytest
from composed import REPOSITORY
from guarded_server import GuardedServer, files_with, watched_arguments
from postgresql_cluster import Cluster, binaries
from sweep_parts import end_all_started, finished, start_python, table
from warm_program import warm_program

sys.path.append(str(REPOSITORY / "tests/tracking"))
from tracking_parts import Server, kill_uploaders, mlflow_client, outbox_points, uploaders, wait_for

from winnow.tracking.folder import RunState, TrackingFolder

pytestmark = pytest.mark.promise

STORED, TRACKED = "Stor4ge-Secret", "Tr4cking-Secret"
SECRETS = [STORED, TRACKED]
TINY = [
    "data.num_train=8", "data.num_val=4", "data.size=64", "data.image_size=64", "training.num_workers=1", "training.max_epochs=1",
    "training.batch_size=4", "model.channels=[8,8,16,16]", "model.head_channels=32", "tracking.system_metrics_seconds=null",
]  # fmt: skip
SWEEP = [
    "-m", "hydra/sweeper=winnow", *TINY, "training.optimizer.lr=choice(0.001,0.002,0.003)", "hydra.sweeper.study_name=search",
    "hydra.sweeper.direction=maximize", "hydra.sweeper.n_jobs=1", "hydra.sweeper.plots=false",
]  # fmt: skip
COMMAND = "from winnow.commands.cli import main; raise SystemExit(main())"


def winnow(folder, *arguments, code=0, **environment):
    return finished(start_python(folder, "-c", COMMAND, *arguments, **environment), code, seconds=120)


@pytest.fixture(scope="module")
def database():
    if binaries() is None:
        pytest.skip("no PostgreSQL here: apt-get install postgresql")
    cluster = Cluster(password=STORED)
    yield cluster
    cluster.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Return a real MLflow server, and the guard before it."""
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    guard = GuardedServer(server.port, TRACKED)
    yield server, guard
    guard.close()
    server.kill()


@pytest.fixture
def folder(tmp_path):
    for name in ("train.py", "conf"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    yield tmp_path
    end_all_started()
    for run in tmp_path.rglob("tracking"):
        kill_uploaders(run.parent)


def spelled(database, server, spelling):
    """Return the addresses of an empty database and of the server in one of three spellings, and the environment that they
    need."""
    url, address = database.new_database(), server[1].address
    place = url.partition("postgres@")[2]
    storage, uri = {
        "user and password": (f"postgresql+psycopg://postgres:{STORED}@{place}", f"http://me:{TRACKED}@{address}"),
        "no user": (f"'postgresql+psycopg://:{STORED}@{place}?user=postgres'", f"http://:{TRACKED}@{address}"),
        "query": (f"'postgresql+psycopg://postgres@{place}?password={STORED}'", f"'http://{address}/?token={TRACKED}'"),
    }[spelling]
    return url, [f"hydra.sweeper.storage={storage}", f"tracking.uri={uri}"]


def on_server(server, run):
    """Return what the server holds of the run in this folder."""
    return mlflow_client(server[0].uri).get_run(RunState.read(TrackingFolder.of_run(run).state).run_id)


@pytest.mark.parametrize(("spelling", "launcher"), [
    ("user and password", "basic"), ("no user", "submitit_local"), ("query", "basic"),
])  # fmt: skip
def test_a_sweeps_passwords_are_used_and_stand_nowhere(spelling, launcher, database, server, folder):
    url, places = spelled(database, server, spelling)
    drain = "tracking.drain_seconds=60" if spelling != "query" else "tracking.drain_seconds=0"
    with watched_arguments(SECRETS) as seen:
        printed = warm_program().run(
            folder, *SWEEP, *places, drain, f"hydra/launcher={launcher}", "hydra.sweeper.n_trials=2", HYDRA_FULL_ERROR="1"
        )  # fmt: skip
    assert seen == set()
    assert [row["status"] for row in table(folder / "multirun", "search")] == ["completed"] * 2, printed
    study = folder / "multirun/search"
    for run in (study, study / "0", study / "1"):
        if spelling == "query":  # MLflow can't use such an address
            kill_uploaders(run)
        wait_for(lambda run=run: not uploaders(run))
    assert not any(secret in printed for secret in SECRETS)
    assert files_with(SECRETS, folder) == []
    assert files_with(SECRETS, server[0].folder) == []
    assert not any(secret in database.texts(url) for secret in SECRETS)
    for name in ("sweep.yaml", "0/.hydra/overrides.yaml", "0/config.yaml", "0/tracking/settings.json"):
        assert "***" in (study / name).read_text(), name
    if spelling != "query":
        runs = [on_server(server, run) for run in (study, study / "0", study / "1")]
        assert all(run.info.status == "FINISHED" for run in runs)
        assert all("***" in run.data.params["tracking.uri"] for run in runs[1:])
        assert not any(secret in str(run.to_dictionary()) for run in runs for secret in SECRETS)


def test_what_goes_on_takes_them_from_its_own_command_or_environment(database, server, folder):
    url, places = spelled(database, server, "user and password")
    bare = [f"hydra.sweeper.storage={url}", f"tracking.uri=http://{server[1].address}"]
    by_environment = {
        "PGPASSWORD": STORED, "MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": TRACKED,
    }  # fmt: skip
    program, study = warm_program(), folder / "multirun/search"
    with watched_arguments(SECRETS) as seen:
        printed = program.run(folder, *SWEEP, *places, "hydra.sweeper.n_trials=1")
        for environment in ({"PGPASSWORD": STORED}, {"OPTUNA_STORAGE": places[0].partition("=")[2]}):
            listed = winnow(folder, "study", str(study), **environment)
            assert listed.count("completed") == 1
            printed += listed
        refused = winnow(folder, "study", str(study), code=2)
        assert "give it whole by --storage or OPTUNA_STORAGE, or set PGPASSWORD" in refused
        promote = ["promote", str(study), "--top", "1", "training.max_epochs=2"]
        refused = winnow(folder, *promote, code=2, PGPASSWORD=STORED)
        assert "the study began with tracking.uri=http://me:***@" in refused
        printed += refused + winnow(folder, *promote, **by_environment)
        printed += program.run(folder, *SWEEP, *bare, "hydra.sweeper.n_trials=2", **by_environment)
        assert [row["status"] for row in table(folder / "multirun", "search")] == ["completed"] * 2
        refused = winnow(folder, "study", str(study), code=2)
        assert "no password supplied" in refused
    assert seen == set()
    assert [row["status"] for row in table(folder / "multirun", "search-promoted")] == ["completed"]
    assert not any(secret in printed for secret in SECRETS)
    assert files_with(SECRETS, folder) == files_with(SECRETS, server[0].folder) == []


def test_a_run_resumed_with_neither_trains_on_and_says_how_to_send_its_outbox(server, folder):
    uri = f"http://me:{TRACKED}@{server[1].address}"
    program, run = warm_program(), folder / "run"
    own = folder / "own/tracking"
    own.mkdir(parents=True)
    own.joinpath("private.yaml").write_text(
        "defaults: [mlflow, _self_]\nuri: ${oc.env:PRIVATE}\ntags: {team: '${oc.env:TEAM}'}\n"
    )
    private = ["--config-dir", "own", *TINY, "tracking=private", "hydra.run.dir=run"]
    program.run(folder, *private, PRIVATE=uri, TEAM="falcons")
    wait_for(lambda: not uploaders(run))
    num_sent = sum(map(len, outbox_points(run).values()))
    printed = program.run(folder, *private, "training.resume=run", "training.max_epochs=2")
    (line,) = [line for line in printed.splitlines() if "its secret is neither in this command" in line]
    assert "tracking.uri=***" in line
    assert f"`winnow sync {run} --uri ADDRESS` sends" in line
    assert not uploaders(run)
    assert sum(map(len, outbox_points(run).values())) > num_sent
    environment = {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": TRACKED}
    assert "whose secret is not recorded" in winnow(folder, "sync", str(run), code=1, **environment)
    sent = winnow(folder, "sync", str(run), MLFLOW_TRACKING_URI=f"http://{server[1].address}", **environment)
    assert "0 events and 0 files left" in sent
    assert files_with([*SECRETS, "falcons", server[1].address], folder) == []
    found = on_server(server, run)
    assert (found.data.params["tracking.uri"], found.data.tags["team"]) == ("***", "***")
    assert found.info.status == "FINISHED"
    assert os.environ.get("PRIVATE") is None
