"""Fixtures of the tracking tests: trackers whose uploaders don't outlive the test, a ready database, a real server."""

from __future__ import annotations

import contextlib
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tracking_parts import DEFAULTS, Server, kill_uploaders, mlflow_client

from winnow.tracking.mlflow_tracker import MlflowTracker


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an MLflow database without runs; a copy of it saves a test two seconds."""
    path = tmp_path_factory.mktemp("database") / "mlflow.db"
    mlflow_client(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def database_uri(empty_database: Path, tmp_path: Path) -> str:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


@pytest.fixture
def new_tracker(run_folder: Path) -> Iterator[Callable[..., MlflowTracker]]:
    """Build trackers; afterwards end the uploaders that they left behind."""

    def build(uri: str, **settings: Any) -> MlflowTracker:
        return MlflowTracker(run_folder, uri=uri, **{**DEFAULTS, **settings})

    yield build
    kill_uploaders(run_folder)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_database, folder / "mlflow.db")
    server = Server(folder)
    server.start()
    yield server
    with contextlib.suppress(ProcessLookupError):
        server.signal(signal.SIGCONT)
        server.kill()
