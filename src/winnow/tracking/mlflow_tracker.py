"""The tracker that ends in MLflow: writes events to an outbox for another process to send. Never imports MLflow."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field

from winnow.builders import builder
from winnow.masking import MASK, is_masked, masked, masked_output, recorded
from winnow.process import ProcessStamp
from winnow.settings import Settings, build_settings
from winnow.tracking.folder import RunState, TrackingFolder, UploadSettings
from winnow.tracking.naming import PARAM_LENGTH, TAG_LENGTH, cut, flatten, is_allowed_name
from winnow.tracking.writer import OutboxWriter

logger = logging.getLogger(__name__)

SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https", "databricks")


def _absolute_uri(uri: str) -> str:
    if uri == MASK:  # recorded: a resumed run that was given none keeps its outbox
        return uri
    match = re.match(r"(?P<scheme>[a-z]+)(\+\w+)?://(?P<rest>.*)", uri)
    scheme = match["scheme"] if match else uri
    if scheme not in SCHEMES or (match is None and uri != "databricks"):
        allowed = ", ".join(f"{name}://" for name in SCHEMES)
        raise ValueError(f"must be sqlite:///FILE or the address of a server or database; allowed: {allowed}")
    if match is None or scheme != "sqlite":
        return uri
    if len(match["rest"]) < 2 or not match["rest"].startswith("/"):
        raise ValueError("names no file; write sqlite:///mlflow.db")
    return f"{uri[: match.start('rest')]}/{Path(match['rest'][1:]).expanduser().absolute()}"


class MlflowSettings(Settings):
    """The keys of ``conf/tracking/mlflow.yaml``."""

    uri: Annotated[str, AfterValidator(_absolute_uri)]
    experiment: Annotated[str, Field(min_length=1, max_length=500)]
    run_name: str | None
    parent_run_id: str | None
    tags: dict[str, str]
    drain_seconds: Annotated[float, Field(ge=0)]
    system_metrics_seconds: Annotated[float, Field(gt=0)] | None
    log_checkpoints: bool


@builder()
class MlflowTracker:
    """Obeys winnow.protocols.Tracker.

    ``settings`` are the keys of ``MlflowSettings``; a wrong one raises ConfigError. ``run_folder`` must exist on enter. The run
    is a child of the one tracked from ``parent_folder``, where there is one (the study of a trial).
    Entered on a folder that was tracked before, it goes on with the same MLflow run. Metrics of one name must come with
    rising steps: a step that is not higher than the last is taken for a replay and is not logged again.
    """

    def __init__(self, run_folder: Path, parent_folder: Path | None = None, **settings: Any) -> None:
        self.run_folder = Path(run_folder).absolute()
        self._parent_folder = parent_folder
        self._settings = build_settings(MlflowSettings, settings, "tracking")
        self._folder = TrackingFolder.of_run(self.run_folder)
        self._writer: OutboxWriter | None = None
        self._is_finished = False
        self._known_names: dict[Any, bool] = {}
        self._run_id: str | None = None

    @property
    def log_checkpoints(self) -> bool:
        return self._settings.log_checkpoints

    @property
    def run_id(self) -> str | None:
        """Return MLflow's id of the run; None until the server has been reached."""
        if self._run_id is None:
            state = RunState.read(self._folder.state)
            self._run_id = state.run_id if masked(state.uri) == recorded(self._settings.uri) else None
        return self._run_id

    @property
    def uploader_pid(self) -> int | None:
        return self._writer.uploader.pid if self._writer else None

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log params, nested ones under dotted names. A param that had another value before keeps it; the new one
        becomes a tag.
        """
        flat = {name: masked_output(value) for name, value in flatten(params).items() if self._is_allowed(name)}
        if flat:
            self._put("params", cut(flat, PARAM_LENGTH))

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        values: dict[str, float] = {}
        for name, value in metrics.items():
            try:
                number = float(value)
            except (TypeError, ValueError) as error:
                if self._known_names.get((name, "value"), True):
                    logger.error("metric %s is no number and is not tracked: %s", name, error)
                self._known_names[name, "value"] = False
                continue
            if self._known_names.get(name) or self._is_allowed(name):
                values[name] = number
        if values:
            self._put("metrics", {"step": int(step), "values": values})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        allowed = {name: masked_output(str(value)) for name, value in tags.items() if self._is_allowed(name)}
        if allowed:
            self._put("tags", cut(allowed, TAG_LENGTH))

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Send the file as it is when its turn comes; one that is replaced in the meantime is sent once, as it is then."""
        self._put("artifact", {"path": str(Path(path).absolute()), "folder": folder})

    def flush(self, seconds: float = 5.0) -> bool:
        """Wait until all that was logged would survive a kill of this process; False when that took longer.

        To be called before a checkpoint is put in place: a resume replays only what comes after the checkpoint.
        """
        is_flushed = self._writer is None or self._writer.flush(seconds)
        if not is_flushed:
            logger.error("the record is not on disk yet: a kill between now and then loses what was logged last")
        return is_flushed

    def finish(self, status: str) -> None:
        """End the run, and wait up to ``drain_seconds`` for the server to have it all. A second call does nothing."""
        writer = self._writer
        if writer is None or self._is_finished:
            return
        self._is_finished = True
        deadline = time.monotonic() + self._settings.drain_seconds
        writer.put("finish", {"status": status})
        writer.flush(max(1.0, self._settings.drain_seconds))
        state = self._wait_until_sent(writer, deadline)
        writer.stop(max(1.0, deadline - time.monotonic()))
        unsent = max(0, writer.last_sequence - state.sequence)
        if unsent or state.artifacts:
            logger.warning(
                "%s events and %s files are not with %s yet: `winnow sync %s%s` sends them",
                *(unsent, len(state.artifacts), recorded(self._settings.uri), self.run_folder, self._how_to_address()),
            )

    def __enter__(self) -> Self:
        self._is_finished = False
        settings = self._upload_settings()
        if settings.lacks_secret:
            logger.warning(
                "tracking.uri=%s: its secret is neither in this command nor in its environment; the run trains on and keeps its "
                "outbox, which `winnow sync %s%s` sends",
                *(settings.shown_uri, self.run_folder, self._how_to_address()),
            )
        self._writer = OutboxWriter(self._folder, settings)
        self._writer.put("start", {})
        own = {name: str(recorded(value)) for name, value in self._settings.tags.items()}
        self._put("tags", {"winnow.status": "running", **own})
        self._writer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.finish("completed")
        else:
            self.finish("interrupted" if issubclass(kind, KeyboardInterrupt) else "failed")

    def _put(self, kind: Any, payload: Mapping[str, Any]) -> None:
        if self._writer is None or self._is_finished:
            if self._known_names.setdefault((kind, "closed"), True):
                logger.error("%s logged outside of the tracked run are not kept", kind)
            self._known_names[kind, "closed"] = False
            return
        self._writer.put(kind, payload)

    def _is_allowed(self, name: Any) -> bool:
        if name not in self._known_names:
            self._known_names[name] = is_allowed_name(name)
            if not self._known_names[name]:
                logger.error(
                    "%r can't be a name in MLflow and is not tracked; allowed: letters, digits, _ - . / and space", name
                )
        return self._known_names[name]

    def _upload_settings(self) -> UploadSettings:
        run_key, created_ms = uuid.uuid4().hex, time.time_ns() // 1_000_000
        try:
            before = UploadSettings.read(self._folder.settings)
            run_key, created_ms = before.run_key, before.created_ms
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            logger.error("the tracked run can't be found again, starting a new one: %s", error)
        return UploadSettings(
            run_key=run_key,
            created_ms=created_ms,
            owner=ProcessStamp.this_process(),
            uri=self._settings.uri,
            experiment=self._settings.experiment,
            run_name=self._settings.run_name or self.run_folder.name,
            parent_run_id=self._settings.parent_run_id,
            parent_folder=str(self._parent_folder.absolute()) if self._parent_folder is not None else None,
            system_metrics_seconds=self._settings.system_metrics_seconds,
        )

    def _how_to_address(self) -> str:
        """Return what ``winnow sync`` needs besides the folder: the address, where that is recorded without its secret."""
        return " --uri ADDRESS" if is_masked(recorded(self._settings.uri)) else ""

    def _wait_until_sent(self, writer: OutboxWriter, deadline: float) -> RunState:
        while True:
            state = RunState.read(self._folder.state)
            if is_masked(self._settings.uri) or is_masked(self._settings.experiment):
                return state  # nobody sends it
            is_sent = state.is_finished and state.sequence >= writer.last_sequence and not state.artifacts
            if is_sent or state.is_deleted or time.monotonic() >= deadline:
                return state
            time.sleep(0.05)
