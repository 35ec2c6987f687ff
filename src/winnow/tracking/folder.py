"""The folder ``<run>/tracking`` besides the outbox: who writes which file, and their contents as dataclasses."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from winnow.process import ProcessStamp
from winnow.reading import UnreadableError, as_record, parse_json, parse_record
from winnow.run_folder import write_whole

TRACKING = "tracking"


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
    known yet.
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

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the settings. Raises FileNotFoundError if there are none, ValueError if the file is damaged."""
        try:
            fields = parse_json(path.read_bytes())
            return as_record(cls, {**fields, "owner": _read_owner(fields["owner"])})
        except (LookupError, TypeError, UnreadableError) as error:
            raise ValueError(f"{path} is no settings file of winnow's tracking: {error}") from None

    def write(self, path: Path) -> None:
        write_json(path, asdict(self), mode=0o600)  # the uri may hold a password


def _read_owner(fields: dict[str, Any]) -> ProcessStamp:
    if "started" in fields:  # earlier versions wrote no boot and no namespace, so nobody can tell which process it was
        return ProcessStamp(fields["host"], "", "", fields["pid"], "")
    return ProcessStamp(**fields)


@dataclass
class RunState:
    """How far the server knows the run: all events up to ``sequence`` but ``artifacts``, which wait as [path, folder].

    ``is_finished``: the last of them was the end of the run. ``is_deleted``: the run was deleted on the server.
    """

    uri: str = ""
    run_id: str | None = None
    sequence: int = 0
    artifacts: list[list[str]] = field(default_factory=list)
    is_finished: bool = False
    is_deleted: bool = False

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the state on disk; return a fresh one if it is missing or damaged, since the server can tell the rest."""
        try:
            return parse_record(cls, path.read_bytes())
        except (OSError, UnreadableError):
            return cls()

    def write(self, path: Path) -> None:
        write_json(path, asdict(self))


def write_json(path: Path, content: dict[str, Any], mode: int = 0o644) -> None:
    """Replace the file in one act that survives a power cut. Raises OSError if the disk does not obey."""
    write_whole(path, json.dumps(content, indent=1), mode)
