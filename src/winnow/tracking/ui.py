"""MLflow's pages for a store that no server serves: one on this machine only, that ends with this process. Imports no MLflow."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from winnow.errors import ConfigError, WinnowError
from winnow.masking import masked_output
from winnow.tracking.folder import RunState, TrackingFolder, UploadSettings
from winnow.tracking.launcher import prepare_environment
from winnow.tracking.pages import PORT, runs_page

HOST = "127.0.0.1"
START_SECONDS = 300.0  # of MLflow's imports on a busy machine, and of bringing an old database up to date
END_SECONDS = 10.0
_TAIL = 2000


@dataclass(frozen=True)
class Store:
    """Where runs are kept. ``experiment`` is the name of theirs, ``experiment_id`` and ``view`` what the run that was asked about
    knows of it."""

    uri: str
    experiment: str | None = None
    experiment_id: str | None = None
    view: str = ""

    @property
    def server(self) -> str | None:
        """Return the address of the server that serves it already; None for a database."""
        return self.uri.rstrip("/") if self.uri.startswith(("http://", "https://")) else None


def store_of(folder: Path) -> Store:
    """Return the store of the run, pipeline or sweep in ``folder``, of ``mlflow.db`` there, or of the newest run below it.

    Raises ConfigError where there is none, or where its address lacks a secret that the environment does not hold either.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder")
    here = TrackingFolder.of_run(folder)
    if here.settings.exists():
        return _store_of_run(here)
    if (folder / "mlflow.db").exists():
        return Store(f"sqlite:///{(folder / 'mlflow.db').absolute()}")
    below = [path for depth in (1, 2, 3) for path in folder.glob("*/" * depth + "tracking/settings.json")]
    if not below:
        raise ConfigError(
            f"{folder} holds neither mlflow.db nor a tracked run; give a run folder, a sweep's, or the folder of mlflow.db"
        )
    return _store_of_run(TrackingFolder(max(below).parent))


def _store_of_run(folder: TrackingFolder) -> Store:
    try:
        settings = UploadSettings.read(folder.settings).usable_at(None, None, os.environ)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if settings.lacks_secret:
        raise ConfigError(
            f"{folder.path.parent} is tracked at {settings.shown_uri}, whose secret is not recorded: set MLFLOW_TRACKING_URI"
        )
    state = RunState.read(folder.state)
    if settings.uri.startswith("sqlite:///") and not Path(settings.uri.removeprefix("sqlite:///")).exists():
        raise ConfigError(f"{folder.path.parent} is tracked in {settings.uri}, and there is no such file")
    if settings.uri.startswith("databricks"):
        raise ConfigError(f"{folder.path.parent} is tracked at Databricks, which has pages of its own")
    return Store(settings.uri, settings.experiment, state.experiment_id, state.view)


def free_port(wanted: int | None = None) -> int:
    """Return ``wanted``, else 5000 where it is free, else any that is. Raises ConfigError where ``wanted`` is taken."""
    for port in (PORT, 0) if wanted is None else (wanted,):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return int(probe.getsockname()[1])
    raise ConfigError(f"--port {wanted} is taken or not allowed; without --port a free one is chosen")


@contextlib.contextmanager
def serving(store: Store, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Serve ``store`` on ``port`` of this machine inside; on every way out the server and all that it has started are ended.
    Raises WinnowError with its last words where it does not start."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_SERVER")}
    prepare_environment(environment)
    environment |= {
        "MLFLOW_BACKEND_STORE_URI": store.uri,  # not as an argument, which every user of the machine can read
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # processes for language models
    }
    # -P: a file called types.py in the working folder must not stand in for Python's
    command = [sys.executable, "-P", "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    with tempfile.TemporaryDirectory(prefix="winnow-ui-") as place:
        log = Path(place) / "mlflow.log"
        with log.open("wb") as output:
            # In a session of its own, so that the terminal's Ctrl-C reaches this process alone, which ends all in order.
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, cwd=place,
                start_new_session=True,
            )  # fmt: skip
        try:
            _wait_until_it_answers(process, port, log)
            yield process
        finally:
            _end(process)


def address_of(store: Store, server: str) -> str:
    """Return the address of the page that shows the store's runs on ``server``, which answers."""
    experiment_id = store.experiment_id
    if experiment_id is None:
        with contextlib.suppress(OSError, ValueError, LookupError):
            experiment_id = _newest_experiment(server, store.experiment)
    return runs_page(server, experiment_id, store.view)


def _newest_experiment(server: str, name: str | None) -> str | None:
    body = json.dumps({"max_results": 1000, "order_by": ["last_update_time DESC"]}).encode()
    request = urllib.request.Request(
        f"{server}/api/2.0/mlflow/experiments/search", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: list[dict[str, Any]] = json.load(answer).get("experiments", [])
    wanted = [each for each in found if each["name"] == name] or [each for each in found if each["name"] != "Default"]
    return str((wanted or found)[0]["experiment_id"])


def _wait_until_it_answers(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with (
            contextlib.suppress(urllib.error.URLError, OSError),
            urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=5) as answer,
        ):
            if answer.status == 200:
                return
        time.sleep(0.2)
    last_words = masked_output(log.read_text(errors="replace")[-_TAIL:].strip())
    raise WinnowError(f"MLflow's server did not start:\n{last_words}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the server's process and all below it, by force what does not end by itself."""
    try:
        root = psutil.Process(process.pid)
        every = [root, *root.children(recursive=True)]
    except psutil.Error:
        every = []
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    _, left = psutil.wait_procs(every, timeout=END_SECONDS)
    for one in left:
        with contextlib.suppress(psutil.Error):
            one.kill()
    process.wait()
