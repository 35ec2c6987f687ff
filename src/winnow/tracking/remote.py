"""One run on an MLflow server or database: found or made, and fed in order. Only the uploader process imports this."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from filelock import FileLock
from mlflow.entities import Dataset, DatasetInput, InputTag, LifecycleStage, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.engine import make_url

from winnow.masking import is_masked, masked
from winnow.tracking.experiment_view import SHARED_VIEW, VIEW_TAG, data_set_in, experiment_tag, rank_of
from winnow.tracking.folder import RunState, TrackingFolder, UploadSettings
from winnow.tracking.outbox import Event, decode_values

logger = logging.getLogger(__name__)

KEY_TAG = "winnow.run_key"
STATUS_TAG = "winnow.status"
SEQUENCE_TAG = "winnow.last_sequence"
MLFLOW_STATUS = {"completed": "FINISHED", "early_stopped": "FINISHED", "interrupted": "KILLED", "killed": "KILLED"}
# Without it MLflow 3's pages take the experiment for one about language models, and hide the curves.
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "MALFORMED_REQUEST")
NOT_OFFERED = (*REFUSALS, "ENDPOINT_NOT_FOUND", "NOT_IMPLEMENTED", "PERMISSION_DENIED")  # of what only decorates
DATABASE_LOCK_SECONDS = 60
ARTIFACT_TIMEOUT_SECONDS = 120  # for one answer; a server may first write the file elsewhere


class RunDeletedError(Exception):
    """The run was deleted on the server: by a person, so it is not made again."""


class RemoteRun:
    """``sequence`` is the newest event the server holds. Methods raise MlflowException while it can't be reached.

    Sending an event again is harmless: SQL stores keep a metric point (name, step, time, value) once, and ``sequence``,
    which lives in a tag of the run, tells where to go on for stores that would not.
    """

    def __init__(self, client: MlflowClient, run: Run) -> None:
        self._client = client
        self.run_id: str = run.info.run_id
        self.experiment_id: str = run.info.experiment_id
        self.view = ""
        self.sequence = int(run.data.tags.get(SEQUENCE_TAG, 0))

    @classmethod
    def open(cls, settings: UploadSettings, run_id: str | None) -> RemoteRun:
        """Find the run ``run_id``, else the one that bears the settings' key, else create one. Raises RunDeletedError
        if it was deleted.
        """
        with _lone_creator(settings.uri):
            client = MlflowClient(tracking_uri=settings.uri)
            experiment_id = _experiment_id(client, settings)
        run = _run_by_id(client, run_id) if run_id else None
        run = run or _run_by_key(client, experiment_id, settings.run_key) or _new_run(client, experiment_id, settings)
        if run.info.lifecycle_stage == LifecycleStage.DELETED:
            raise RunDeletedError(run.info.run_id)
        return cls(client, run)

    def send(self, events: Sequence[Event]) -> None:
        """Log the events; what the server refuses for good is named in the log and left out."""
        try:
            self._send(events)
        except MlflowException as error:
            if error.error_code not in REFUSALS:
                raise
            if len(events) > 1:
                for event in events:
                    self.send([event])
                return
            self._raise_if_deleted()
            logger.error("the server refuses event %s, left out: %s", events[0], error)
        self.sequence = events[-1].sequence

    def send_samples(self, samples: Sequence[tuple[int, int, Mapping[str, float]]]) -> None:
        """Send system metrics, each as (time in ms, step, name → value)."""
        points = [Metric(name, value, time, step) for time, step, values in samples for name, value in values.items()]
        for start in range(0, len(points), 1000):
            self._client.log_batch(self.run_id, metrics=points[start : start + 1000])

    def upload(self, path: Path, folder: str) -> None:
        with _patient_requests():
            self._client.log_artifact(self.run_id, str(path), folder or None)

    def end(self, status: str, time_ms: int) -> None:
        """Set MLflow's status from winnow's word, which goes to a tag."""
        self._client.set_terminated(self.run_id, MLFLOW_STATUS.get(status, "FAILED"), time_ms)
        self._client.log_batch(self.run_id, tags=[RunTag(STATUS_TAG, status)])

    def _send(self, events: Sequence[Event]) -> None:
        metrics: list[Metric] = []
        params: dict[str, str] = {}
        tags: dict[str, str] = {}
        for event in events:
            if event.kind == "metrics":
                values, step = decode_values(event.payload["values"]), event.payload["step"]
                metrics += [Metric(name, value, event.time_ms, step) for name, value in values.items()]
            elif event.kind == "params":
                params |= event.payload
            elif event.kind == "tags":
                tags |= event.payload
            elif event.kind == "start":
                self._client.update_run(self.run_id, status="RUNNING")
            elif event.kind == "finish":
                self.end(event.payload["status"], event.time_ms)
        self._decorate(tags)
        tags[SEQUENCE_TAG] = str(events[-1].sequence)
        self._client.log_batch(
            self.run_id,
            metrics=sorted(metrics, key=lambda metric: rank_of(metric.key)),  # stable: steps of a name keep their order
            params=[Param(name, value) for name, value in params.items()],
            tags=[RunTag(name, value) for name, value in tags.items()],
        )

    def _decorate(self, tags: dict[str, str]) -> None:
        """Log the data set that ``tags`` name as the run's input, and make the view of the experiment that they ask for; done
        again it changes nothing. Servers that have neither do without."""
        data, view = data_set_in(tags), tags.pop(VIEW_TAG, None)
        try:
            if data is not None:
                context = InputTag("mlflow.data.context", "training")
                self._client.log_inputs(self.run_id, [DatasetInput(Dataset(**data), [context])])
            if view is not None and (found := experiment_tag(view)) is not None:
                self._client.set_experiment_tag(self.experiment_id, SHARED_VIEW + found[0], found[1])
                self.view = found[0]
        except MlflowException as error:
            if error.error_code not in NOT_OFFERED:
                raise
            logger.warning("the server takes no data set or view of the experiment: %s", error)

    def _raise_if_deleted(self) -> None:
        if self._client.get_run(self.run_id).info.lifecycle_stage == LifecycleStage.DELETED:
            raise RunDeletedError(self.run_id)


def _lone_creator(uri: str) -> FileLock | nullcontext[None]:
    """Hold a lock for SQLite files: processes that open a fresh one at once break it."""
    if not uri.startswith("sqlite"):
        return nullcontext()
    database = _database_path(uri)
    database.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{database}.lock", timeout=DATABASE_LOCK_SECONDS)


def _database_path(uri: str) -> Path:
    return Path(make_url(uri).database or "")


def _experiment_id(client: MlflowClient, settings: UploadSettings) -> str:
    experiment = client.get_experiment_by_name(settings.experiment)
    if experiment is None:
        try:
            return client.create_experiment(settings.experiment, _artifact_location(settings.uri), EXPERIMENT_TAGS)
        except MlflowException:
            experiment = client.get_experiment_by_name(settings.experiment)  # another run may have been faster
            if experiment is None:
                raise
    if experiment.lifecycle_stage == LifecycleStage.DELETED:
        raise MlflowException(
            f"experiment {settings.experiment!r} is deleted: restore it by `mlflow experiments restore -x "
            f"{experiment.experiment_id}` or choose another tracking.experiment"
        )
    return experiment.experiment_id


def _artifact_location(uri: str) -> str | None:
    """Return None if a server decides; for a bare database a folder beside it, where MLflow takes the working folder."""
    if uri.startswith(("http", "databricks")):
        return None
    folder = _database_path(uri).parent if uri.startswith("sqlite") else Path.cwd()
    return str(folder / "mlartifacts")


def _run_by_id(client: MlflowClient, run_id: str) -> Run | None:
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        logger.error("the server does not know run %s any more: all is sent again to a new one", run_id)
        return None


def _run_by_key(client: MlflowClient, experiment_id: str, run_key: str) -> Run | None:
    found = client.search_runs([experiment_id], f"tags.`{KEY_TAG}` = '{run_key}'", max_results=1)
    return found[0] if found else None


def _new_run(client: MlflowClient, experiment_id: str, settings: UploadSettings) -> Run:
    tags = {KEY_TAG: settings.run_key}
    parent = settings.parent_run_id or _parent_in_folder(client, settings)
    if parent:
        tags["mlflow.parentRunId"] = parent
    return client.create_run(experiment_id, settings.created_ms, tags, settings.run_name)


def _parent_in_folder(client: MlflowClient, settings: UploadSettings) -> str | None:
    """Return the id of the run that is tracked from ``parent_folder``. Raises MlflowException if it was not made yet."""
    if settings.parent_folder is None:
        return None
    folder = TrackingFolder.of_run(Path(settings.parent_folder))
    state = RunState.read(folder.state)
    if state.run_id and masked(state.uri) == settings.shown_uri:
        return state.run_id
    try:
        parent = UploadSettings.read(folder.settings)
    except (FileNotFoundError, ValueError):
        return None
    if masked(parent.uri) != settings.shown_uri:
        return None
    parent = parent.usable_at(settings.uri, settings.experiment if is_masked(parent.experiment) else None, {})
    found = _run_by_key(client, _experiment_id(client, parent), parent.run_key)
    if found is None:
        raise MlflowException(f"the parent run of {settings.parent_folder} is not there yet")
    return found.info.run_id


@contextmanager
def _patient_requests() -> Iterator[None]:
    """Raise MLflow's time limit inside: it is read from the environment at each request, and a file needs more of it
    than a number.
    """
    name = "MLFLOW_HTTP_REQUEST_TIMEOUT"
    before = os.environ.get(name, "0")
    os.environ[name] = str(max(ARTIFACT_TIMEOUT_SECONDS, int(before)))
    try:
        yield
    finally:
        os.environ[name] = before
