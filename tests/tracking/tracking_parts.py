"""Parts of the tracking tests: what outbox and server hold, uploader processes, a real server."""

from __future__ import annotations

import contextlib
import http.server
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from winnow.tracking.folder import RunState, TrackingFolder
from winnow.tracking.outbox import decode_values, read_events

DEFAULTS: dict[str, Any] = {
    "experiment": "winnow",
    "run_name": None,
    "parent_run_id": None,
    "tags": {},
    "drain_seconds": 120,
    "system_metrics_seconds": None,
    "log_checkpoints": True,
}


def wait_for(condition: Callable[[], Any], seconds: float = 180.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.05)
    raise AssertionError(f"not so within {seconds} s")


def outbox_points(run: Path) -> dict[str, list[tuple[int, int, float]]]:
    """Return metric → its (step, time, value) in order, as the outbox has them."""
    points: dict[str, list[tuple[int, int, float]]] = {}
    for event, _ in read_events(TrackingFolder.of_run(run).outbox):
        if event.kind == "metrics":
            for name, value in decode_values(event.payload["values"]).items():
                points.setdefault(name, []).append((event.payload["step"], event.time_ms, value))
    return points


def mlflow_client(uri: str) -> Any:
    """Return a client; MLflow's own use of what SQLAlchemy 2.1 deprecates is none of our errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401 — warns when first imported
        from mlflow.tracking import MlflowClient

        return MlflowClient(uri)


@contextlib.contextmanager
def patient_requests() -> Iterator[None]:
    """Set MLflow's own limits for requests, whatever a test has set for its uploaders."""
    limits = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("MLFLOW_HTTP_REQUEST_")}
    try:
        yield
    finally:
        os.environ.update(limits)


def server_points(uri: str, run: Path) -> dict[str, list[tuple[int, int, float]]]:
    """Return the same as the server has them; infinite values come back as the largest double."""
    client, run_id = mlflow_client(uri), RunState.read(TrackingFolder.of_run(run).state).run_id
    with patient_requests():
        names = [name for name in client.get_run(run_id).data.metrics if not name.startswith("system/")]
        histories = {name: client.get_metric_history(run_id, name) for name in names}
    return {name: sorted((m.step, m.timestamp, m.value) for m in points) for name, points in histories.items()}


def assert_server_equals_outbox(uri: str, run: Path) -> None:
    expected, found = outbox_points(run), server_points(uri, run)
    assert found.keys() == expected.keys()
    for name, points in expected.items():
        assert len(found[name]) == len(points), name
        for (step, time_ms, value), (found_step, found_ms, found_value) in zip(points, found[name], strict=True):
            assert (step, time_ms) == (found_step, found_ms)
            assert found_value == value or (math.isnan(value) and math.isnan(found_value))


def uploaders(run: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if "winnow.tracking.uploader" in process.cmdline() and str(run / "tracking") in process.cmdline():
                found.append(process)
    return found


def kill_uploaders(run: Path) -> None:
    for process in uploaders(run):
        process.kill()


class _AlwaysBroken(http.server.BaseHTTPRequestHandler):
    def _answer(self) -> None:
        self.send_error(500)

    do_GET = do_POST = _answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


class Server:
    """A real MLflow server that can be stopped, paused and brought back on the same port and database."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        with (self.folder / "server.log").open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        wait_for(self._answers, 180)

    @contextlib.contextmanager
    def broken(self) -> Iterator[None]:
        """Answer while this server is down: another answers every request at its address with status 500."""
        stand_in = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), _AlwaysBroken)
        threading.Thread(target=stand_in.serve_forever, daemon=True).start()
        yield
        stand_in.shutdown()
        stand_in.server_close()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False
