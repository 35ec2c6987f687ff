"""Starts the uploader process of a run, and starts it again when it dies. Imports nothing of MLflow."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import MutableMapping

from winnow.tracking.folder import SECRETS, TrackingFolder, UploadSettings
from winnow.tracking.spawned import Spawned

logger = logging.getLogger(__name__)

ALL_SENT, SOME_UNSENT, RUN_DELETED = 0, 1, 3  # exit codes of the uploader
LONGEST_RETRY_SECONDS = 60.0


def prepare_environment(environment: MutableMapping[str, str]) -> None:
    """Make MLflow's client give up a request soon, since the retries are ours, and keep it away from other runs.

    A time limit that the user set stays.
    """
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        environment.pop(name, None)  # they hijack every run started below them
    environment.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    environment.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    environment.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    environment.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    environment.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")


class UploaderProcess:
    """One child process in a session of its own, so that the terminal's Ctrl-C does not reach it. There is none where the
    ``settings`` lack their secret."""

    def __init__(self, folder: TrackingFolder, settings: UploadSettings) -> None:
        self._folder = folder
        self._settings = settings
        self._process: Spawned | None = None
        self._is_over = settings.lacks_secret
        self._retry_seconds = 0.5
        self._next_start = 0.0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def keep_alive(self) -> None:
        """Start it if it does not run, unless nothing is left for it to do. Raises OSError if it can't start."""
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                return
            self._process = None
            self._note_end(code)
        if not self._is_over and time.monotonic() >= self._next_start:
            self._next_start = time.monotonic() + self._retry_seconds
            self._process = self._start()

    def release(self) -> None:
        """Leave it to itself: it ends when all is sent, or after a while in which the server does not answer."""
        self._is_over = True
        if self._process is not None and self._process.poll() is None:
            threading.Thread(target=self._process.wait, daemon=True).start()  # reaps it in processes that live on

    def _note_end(self, code: int) -> None:
        if code in (ALL_SENT, RUN_DELETED):
            self._is_over = True
        if code == RUN_DELETED:
            logger.error("the run was deleted on the tracking server: tracking goes on in %s only", self._folder.outbox)
        elif code != ALL_SENT:
            logger.warning(
                "the tracking uploader ended with code %s (see %s): starting it again", code, self._folder.log
            )
            self._retry_seconds = min(2 * self._retry_seconds, LONGEST_RETRY_SECONDS)

    def _start(self) -> Spawned:
        environment = dict(os.environ)
        prepare_environment(environment)
        environment[SECRETS] = self._settings.secrets()
        # -P: a file called types.py in the working folder must not stand in for Python's
        command = [sys.executable, "-P", "-m", "winnow.tracking.uploader", str(self._folder.path), str(os.getpid())]
        return Spawned(command, environment, self._folder.log)
