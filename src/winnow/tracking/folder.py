"""The folder ``<run>/tracking`` besides the outbox: who writes which file, and their contents as dataclasses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from winnow.masking import MASK, is_masked, masked, recorded, usable
from winnow.process import ProcessStamp
from winnow.reading import UnreadableError, as_record, parse_json, parse_record
from winnow.run_folder import write_whole

TRACKING = "tracking"
SECRETS = "WINNOW_TRACKING_SECRETS"
"""The environment variable by which an uploader gets what ``settings`` must not hold."""
_WITH_SECRETS = ("uri", "experiment", "run_name", "parent_run_id")


@dataclass(frozen=True)
class TrackingFolder:
    """Names of the files. The tracker alone writes ``settings`` and ``outbox``, the uploader alone ``state``."""

    path: Path

    @classmethod
    def of_run(cls, run_folder: Path) -> Self:
        return cls(Path(run_folder).absolute() / TRACKING)

    @property
    def outbox(self) -> Path:
        return self.path / "outbox.jsonl"

    @property
    def settings(self) -> Path:
        return self.path / "settings.json"

    @property
    def state(self) -> Path:
        return self.path / "run.json"

    @property
    def lock(self) -> Path:
        return self.path / "uploader.lock"

    @property
    def log(self) -> Path:
        return self.path / "uploader.log"


@dataclass(frozen=True)
class UploadSettings:
    """What the uploader must know: ``run_key`` names the run for ever, ``created_ms`` is its first start in Unix ms.

    The run becomes a child of ``parent_run_id``, or of the run that is tracked from ``parent_folder``, whose id may not be
    known yet. ``recorded_uri`` is how files hold ``uri``, where that is not what its mask alone makes of it.
    """

    run_key: str
    created_ms: int
    owner: ProcessStamp
    uri: str
    experiment: str
    run_name: str
    parent_run_id: str | None = None
    parent_folder: str | None = None
    system_metrics_seconds: float | None = None
    recorded_uri: str | None = None

    @property
    def shown_uri(self) -> str:
        """Return the server's address as files and logs hold it."""
        return self.recorded_uri or str(recorded(self.uri))

    @property
    def lacks_secret(self) -> bool:
        """Tell whether these are recorded settings whose secret nobody has given yet: nothing can be sent."""
        return is_masked(self.uri) or is_masked(self.experiment)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the settings. Raises FileNotFoundError if there are none, ValueError if the file is damaged."""
        try:
            fields = parse_json(path.read_bytes())
            return as_record(cls, {**fields, "owner": _read_owner(fields["owner"])})
        except (LookupError, TypeError, UnreadableError) as error:
            raise ValueError(f"{path} is no settings file of winnow's tracking: {error}") from None

    def write(self, path: Path) -> None:
        """Write the settings without their secrets. Raises OSError if the disk does not obey."""
        fields = {**asdict(self), **{name: recorded(getattr(self, name)) for name in _WITH_SECRETS}}
        del fields["recorded_uri"]
        write_json(path, {**fields, "uri": self.shown_uri})

    def secrets(self) -> str:
        """Return what ``write`` leaves out, for the environment of an uploader."""
        return json.dumps({name: getattr(self, name) for name in _WITH_SECRETS})

    def with_secrets(self, text: str | None) -> Self:
        """Return settings that were read, with what ``secrets`` gave."""
        return self if text is None else replace(self, **json.loads(text), recorded_uri=self.uri)

    def usable_at(self, uri: str | None, experiment: str | None, environment: Mapping[str, str]) -> Self:
        """Return settings that were read, with the address and experiment that a command names, or else, where theirs lack a
        secret, with what ``environment`` has for it. They may still lack it."""
        found = uri or usable(self.uri, environment.get("MLFLOW_TRACKING_URI", MASK), environment)
        is_another = uri is not None and self.uri not in (MASK, masked(uri))
        return replace(
            self,
            uri=found,
            experiment=experiment
            or usable(self.experiment, environment.get("MLFLOW_EXPERIMENT_NAME", MASK), environment),
            recorded_uri=self.uri if is_masked(self.uri) and not is_another else None,
        )


def _read_owner(fields: dict[str, Any]) -> ProcessStamp:
    if "started" in fields:  # earlier versions wrote no boot and no namespace, so nobody can tell which process it was
        return as_record(ProcessStamp, {**dict.fromkeys(("boot_id", "pid_namespace", "start_time"), ""), **fields})
    return as_record(ProcessStamp, fields)


@dataclass
class RunState:
    """How far the server knows the run: all events up to ``sequence`` but ``artifacts``, which wait as [path, folder].

    ``is_finished``: the last of them was the end of the run. ``is_deleted``: the run was deleted on the server.
    ``view`` is the key of the experiment's view that the run asked for, once the server has it.
    """

    uri: str = ""
    run_id: str | None = None
    sequence: int = 0
    artifacts: list[list[str]] = field(default_factory=list)
    is_finished: bool = False
    is_deleted: bool = False
    experiment_id: str | None = None
    view: str = ""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the state on disk; return a fresh one if it is missing or damaged, since the server can tell the rest."""
        try:
            state = parse_record(cls, path.read_bytes())
        except (OSError, UnreadableError):
            return cls()
        return state if all(len(pair) == 2 for pair in state.artifacts) else cls()

    def write(self, path: Path) -> None:
        write_json(path, asdict(self))


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replace the file in one act that survives a power cut. Raises OSError if the disk does not obey."""
    write_whole(path, json.dumps(content, indent=1), 0o644)
