"""Sends what a run could not send while it ran: ``winnow sync RUN_FOLDER``. Imports MLflow, which training must not."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from winnow.errors import WinnowError
from winnow.masking import masked_output
from winnow.process import ProcessStamp
from winnow.run_folder import PIPELINE_RECORD
from winnow.tracking.folder import TrackingFolder, UploadSettings
from winnow.tracking.launcher import prepare_environment
from winnow.tracking.outbox import read_last_event
from winnow.tracking.uploader import Uploader

WAYS_TO_GIVE = (
    "give --uri ADDRESS (and --experiment NAME where that is *** too), or set MLFLOW_TRACKING_URI, MLFLOW_TRACKING_USERNAME and "
    "MLFLOW_TRACKING_PASSWORD, or PGPASSWORD"
)
QUIET_SECONDS = 600.0  # an outbox this old, of a process on another host, is taken for abandoned


@dataclass(frozen=True)
class SyncReport:
    """``sent`` and ``unsent`` count events, ``waiting_files`` artifacts not uploaded; ``trouble`` says why, if any."""

    run_id: str | None
    sent: int
    unsent: int
    waiting_files: int
    trouble: str | None


def tracked_folders(run_folder: Path) -> list[Path]:
    """Return ``run_folder`` and, after it, those of its stages' folders that were tracked: they are children of its run."""
    stages = run_folder.glob("*/tracking") if (run_folder / PIPELINE_RECORD).exists() else ()
    return [run_folder, *sorted(path.parent for path in stages)]


def sync(
    run_folder: Path, patience_seconds: float = 60.0, uri: str | None = None, experiment: str | None = None
) -> SyncReport:
    """Send all of a run's outbox, and mark the run as killed when its process died without a word.

    Gives up after ``patience_seconds`` without success. ``uri`` and ``experiment`` say where to, in the place of what the run
    recorded. Raises WinnowError if the folder was never tracked, where the recorded address lacks its secret and neither ``uri``
    nor the environment has it, or when another uploader keeps working on it.
    """
    folder = TrackingFolder.of_run(run_folder)
    if not folder.outbox.exists() or not folder.settings.exists():
        raise WinnowError(f"{run_folder} holds no tracked run: {folder.outbox} and {folder.settings} must exist")
    try:
        settings = UploadSettings.read(folder.settings).usable_at(uri, experiment, os.environ)
    except ValueError as error:
        raise WinnowError(str(error)) from None
    if settings.lacks_secret:
        raise WinnowError(
            f"{run_folder} is tracked at {settings.shown_uri}, whose secret is not recorded: {WAYS_TO_GIVE}"
        )
    prepare_environment(os.environ)
    try:
        with FileLock(folder.lock, timeout=patience_seconds):
            return _sync(folder, patience_seconds, settings)
    except Timeout:
        raise WinnowError(f"another uploader is at work on {run_folder}; its log is {folder.log}") from None


def _sync(folder: TrackingFolder, patience_seconds: float, settings: UploadSettings) -> SyncReport:
    uploader = Uploader(
        folder, lambda: _is_alive(settings.owner, folder), patience_seconds, follows=False, settings=settings
    )
    before = uploader.state.sequence
    uploader.run()
    last = read_last_event(folder.outbox)
    return SyncReport(
        run_id=uploader.state.run_id,
        sent=uploader.state.sequence - before,
        unsent=max(0, (last.sequence if last else 0) - uploader.state.sequence),
        waiting_files=len(uploader.state.artifacts),
        trouble=masked_output(str(uploader.trouble)) if uploader.trouble else None,
    )


def _is_alive(owner: ProcessStamp, folder: TrackingFolder) -> bool:
    is_alive = owner.is_alive()
    if is_alive is None:
        # A clock that was set back makes the file younger than now; that says as little as a file that is old.
        return abs(time.time() - folder.outbox.stat().st_mtime) < QUIET_SECONDS
    return is_alive
