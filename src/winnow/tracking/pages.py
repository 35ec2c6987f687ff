"""Where people see what is tracked: the address of MLflow's page of runs, from a run folder alone. Imports no MLflow."""

from __future__ import annotations

import shlex
from pathlib import Path
from urllib.parse import quote

from winnow.masking import masked
from winnow.tracking.folder import RunState, TrackingFolder, UploadSettings

PORT = 5000
"""That of ``winnow ui``, where it is free."""


def runs_page(server: str, experiment_id: str | None, view: str = "") -> str:
    """Return the address of the page that shows the runs of an experiment on ``server``, in its ``view`` where there is one.

    Without ``workflowType`` a fresh browser opens MLflow's page for language models, whatever the experiment's tags say.
    """
    if experiment_id is None:
        return f"{server}/#/experiments?workflowType=machine_learning"
    shared = f"&viewStateShareKey={quote(view)}" if view else ""
    return f"{server}/#/experiments/{experiment_id}/runs?workflowType=machine_learning{shared}"


def how_to_open(run_folder: Path) -> list[str]:
    """Return the lines that say where the tracked runs are to be seen; none where ``run_folder`` is not tracked, or nothing of
    it has reached the server yet."""
    folder = TrackingFolder.of_run(run_folder)
    state = RunState.read(folder.state)
    try:
        settings = UploadSettings.read(folder.settings)
    except (OSError, ValueError):
        return []
    if state.experiment_id is None or masked(state.uri) != settings.shown_uri or settings.lacks_secret:
        return []
    if settings.uri.startswith(("http://", "https://")):
        return [f"the runs: {runs_page(settings.shown_uri.rstrip('/'), state.experiment_id, state.view)}"]
    if settings.uri.startswith("databricks"):
        return []
    page = runs_page(f"http://127.0.0.1:{PORT}", state.experiment_id, state.view)
    place, here = Path(run_folder).absolute(), Path.cwd()
    shown = place.relative_to(here) if place.is_relative_to(here) else place
    return [f"the runs in the browser: winnow ui {shlex.quote(str(shown))}", f"which opens {page}"]
