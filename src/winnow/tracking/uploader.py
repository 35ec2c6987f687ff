"""The process that sends a run's outbox to MLflow, in order, while the training lives and until all is sent:
``python -m winnow.tracking.uploader TRACKING_FOLDER TRAINING_PID``."""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from filelock import FileLock, Timeout
from mlflow.exceptions import MlflowException
from requests import RequestException
from sqlalchemy.exc import SQLAlchemyError

from winnow.masking import mask_output, masked
from winnow.tracking.folder import SECRETS, RunState, TrackingFolder, UploadSettings
from winnow.tracking.launcher import ALL_SENT, RUN_DELETED, SOME_UNSENT, prepare_environment
from winnow.tracking.outbox import Event, read_events, read_last_event
from winnow.tracking.remote import RemoteRun, RunDeletedError
from winnow.tracking.system_metrics import SystemSampler

logger = logging.getLogger("winnow.tracking.uploader")

POLL_SECONDS = 0.5
SEND_SECONDS = 5.0  # between two batches while training runs: each costs it some 10 ms of a core
PATIENCE_SECONDS = 60.0  # without any success, once training is over
LONGEST_RETRY_SECONDS = 8.0
COMPLAINT_SECONDS = 600.0
# Of one batch. MLflow's client quietly splits what is over 1,000 in all, and sends tags first: the tag that says how far the
# server knows the run would then be there before the last metrics.
MAX_METRICS, MAX_NAMES, MAX_BYTES = 800, 80, 800_000
MAX_SAMPLES = 1000
TROUBLES = (MlflowException, RequestException, SQLAlchemyError, OSError)


class Uploader:
    """Sends one outbox. With ``follows`` it waits for more while ``is_training_alive``; else what is there is all. ``settings``
    are those on disk, with their secrets."""

    def __init__(
        self,
        folder: TrackingFolder,
        is_training_alive: Callable[[], bool],
        patience_seconds: float = PATIENCE_SECONDS,
        follows: bool = True,
        settings: UploadSettings | None = None,
    ) -> None:
        self.folder = folder
        self.settings = settings or UploadSettings.read(folder.settings)
        self.state = RunState.read(folder.state)
        self.trouble: Exception | None = None
        self._is_training_alive = is_training_alive
        self._patience_seconds = patience_seconds
        self._follows = follows
        self._remote: RemoteRun | None = None
        self._offset = 0
        self._last_success = self._last_send = time.monotonic()
        self._retry_seconds = 0.5
        self._last_complaint = 0.0
        self._samples: deque[tuple[int, int, Mapping[str, float]]] = deque(maxlen=MAX_SAMPLES)
        self._sampler: SystemSampler | None = None
        self._next_sample = 0.0

    def watch(self, pid: int) -> None:
        """Sample the machine and process ``pid`` from now on, if the settings want it."""
        if self.settings.system_metrics_seconds:
            self._sampler = SystemSampler(pid)
            self._next_sample = time.monotonic() + self.settings.system_metrics_seconds

    def run(self) -> int:
        """Send until all is sent, or for ``patience_seconds`` without success after the training's end; return an exit code."""
        while True:
            is_alive = self._is_training_alive()  # asked before reading: what a dead process wrote is all there is
            is_over = not is_alive or not self._follows or self._is_finish_last()
            try:
                has_sent = self._advance(is_over)
                self._note_success()
                if is_over and not has_sent:
                    return self._conclude(is_alive)
            except RunDeletedError:
                self.state.is_deleted = True
                self._save_state()
                return RUN_DELETED
            except TROUBLES as error:
                self._note_trouble(error)
                if is_over and time.monotonic() - self._last_success > self._patience_seconds:
                    return SOME_UNSENT
                has_sent = False
            self._sample(is_alive)
            if not has_sent:
                time.sleep(self._pause())

    def _advance(self, is_over: bool) -> bool:
        """Send one thing, if there is one; False when there was nothing."""
        if self._remote is None:
            self._connect()
        assert self._remote is not None
        batch, offset = self._next_batch()
        is_due = is_over or time.monotonic() - self._last_send >= SEND_SECONDS or _is_full(batch)
        if batch and is_due:
            self._send(self._remote, batch, offset)
        elif self._samples:
            self._remote.send_samples(list(self._samples))
            self._samples.clear()
        elif self.state.artifacts:
            self._upload(self._remote)
        else:
            return False
        return not batch or is_due

    def _connect(self) -> None:
        state, uri = self.state, self.settings.shown_uri
        self._remote = RemoteRun.open(self.settings, state.run_id if masked(state.uri) == uri else None)
        if self._remote.sequence != state.sequence:
            self._offset = 0  # the server knows best what it has
        state.uri, state.run_id, state.sequence = uri, self._remote.run_id, self._remote.sequence
        state.experiment_id = self._remote.experiment_id
        state.is_deleted = False
        self._save_state()

    def _next_batch(self) -> tuple[list[Event], int]:
        """Return unsent events that fit into one request, with the offset behind them; a start or a finish travels alone."""
        batch: list[Event] = []
        end = self._offset
        num_metrics = num_names = 0
        for event, offset in read_events(self.folder.outbox, self._offset):
            if event.sequence > self.state.sequence:
                num_metrics += len(event.payload["values"]) if event.kind == "metrics" else 0
                num_names += len(event.payload) if event.kind in ("params", "tags") else 0
                is_too_much = num_metrics > MAX_METRICS or num_names >= MAX_NAMES or offset - self._offset > MAX_BYTES
                if batch and (is_too_much or event.kind in ("start", "finish") or _is_full(batch)):
                    break
                batch.append(event)
            elif not batch:
                self._offset = offset
            end = offset
        return batch, end

    def _send(self, remote: RemoteRun, batch: Sequence[Event], offset: int) -> None:
        with self.folder.outbox.open("rb") as outbox:
            os.fsync(outbox.fileno())  # the server must never know more than the disk after a power cut
        files = [[event.payload["path"], event.payload["folder"]] for event in batch if event.kind == "artifact"]
        new = [file for file in files if file not in self.state.artifacts]
        if new:
            self.state.artifacts += new
            self._save_state()  # before the server counts their events as done
        remote.send(batch)
        self._offset, self._last_send = offset, time.monotonic()
        self.state.sequence = batch[-1].sequence
        self.state.view = remote.view or self.state.view
        self.state.is_finished = batch[-1].kind == "finish"
        self._save_state()

    def _upload(self, remote: RemoteRun) -> None:
        path, folder = self.state.artifacts.pop(0)
        try:
            if os.path.exists(path):  # also false for a name that no file can have
                remote.upload(Path(path), folder)
            else:
                logger.error("%s is gone, so it is not uploaded", path)
        except TROUBLES:
            self.state.artifacts.append([path, folder])  # behind the others, which may fare better
            raise
        self._save_state()

    def _is_finish_last(self) -> bool:
        last = read_last_event(self.folder.outbox)
        return last is not None and last.kind == "finish"

    def _conclude(self, is_alive: bool) -> int:
        """Mark a run that ended without a word, now that all is sent, unless a new process has taken it over."""
        last = read_last_event(self.folder.outbox)
        has_new_owner = UploadSettings.read(self.folder.settings).owner != self.settings.owner
        if last is not None and last.kind != "finish" and not is_alive and not has_new_owner and self._remote:
            self._remote.end("killed", last.time_ms)
            logger.info("training ended without a word: marked the run as killed")
        self.state.is_finished = last is not None and last.kind == "finish"
        self._save_state()
        return ALL_SENT

    def _sample(self, is_alive: bool) -> None:
        if self._sampler is None or not is_alive or time.monotonic() < self._next_sample:
            return
        self._next_sample = time.monotonic() + (self.settings.system_metrics_seconds or 0)
        now = time.time_ns() // 1_000_000
        self._samples.append((now, max(0, now - self.settings.created_ms) // 1000, self._sampler.sample()))

    def _save_state(self) -> None:
        try:
            self.state.write(self.folder.state)
        except OSError as error:
            logger.error("can't write %s, going on: %s", self.folder.state, error)

    def _pause(self) -> float:
        return self._retry_seconds * random.uniform(0.7, 1.0) if self.trouble else POLL_SECONDS

    def _note_success(self) -> None:
        if self.trouble is not None:
            logger.info("%s answers again", self.settings.shown_uri)
        self.trouble, self._retry_seconds, self._last_success = None, 0.5, time.monotonic()

    def _note_trouble(self, error: Exception) -> None:
        if self.trouble is None or time.monotonic() - self._last_complaint > COMPLAINT_SECONDS:
            logger.warning("can't send, retrying: %s", error)
            self._last_complaint = time.monotonic()
        self.trouble, self._remote = error, None
        self._retry_seconds = min(2 * self._retry_seconds, LONGEST_RETRY_SECONDS)


def _is_full(batch: Sequence[Event]) -> bool:
    return bool(batch) and (batch[0].kind in ("start", "finish") or len(batch) >= MAX_METRICS)


def _upload_alone(folder: TrackingFolder, parent: int) -> int:
    def is_training_alive() -> bool:
        return os.getppid() == parent  # an orphan gets another parent at once; no clock and no zombie can deceive it

    while True:
        try:
            with FileLock(folder.lock, blocking=False):
                settings = UploadSettings.read(folder.settings).with_secrets(os.environ.get(SECRETS))
                uploader = Uploader(folder, is_training_alive, settings=settings)
                uploader.watch(parent)
                return uploader.run()
        except Timeout:  # that of an earlier, killed session, which sends our events too, or a `winnow sync`
            if not is_training_alive():
                return SOME_UNSENT
            time.sleep(POLL_SECONDS)


def main(arguments: Sequence[str]) -> int:
    """Run the uploader's process; it ends by itself, hence ignores the signals that end a training."""
    mask_output()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    for name in ("alembic", "mlflow", "urllib3"):  # each retry of theirs would be a line
        logging.getLogger(name).setLevel(logging.ERROR)
    prepare_environment(os.environ)
    os.nice(10)  # training first
    return _upload_alone(TrackingFolder(Path(arguments[0])), int(arguments[1]))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
