"""The tracker for runs that are tracked nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from winnow.builders import builder
from winnow.settings import Settings, build_settings


class NullTrackerSettings(Settings):
    """``tracking=off`` has no key of its own."""


@builder()
class NullTracker:
    """Obeys winnow.protocols.Tracker by doing nothing. Raises ConfigError if given a setting."""

    run_id: str | None = None
    log_checkpoints = False

    def __init__(self, run_folder: Path, parent_folder: Path | None = None, **settings: Any) -> None:
        del parent_folder
        build_settings(NullTrackerSettings, settings, "tracking")
        self.run_folder = Path(run_folder)

    def log_params(self, params: Mapping[str, Any]) -> None:
        pass

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        pass

    def log_artifact(self, path: Path, folder: str = "") -> None:
        pass

    def set_tags(self, tags: Mapping[str, str]) -> None:
        pass

    def flush(self, seconds: float = 0.0) -> bool:
        """Return True: nothing is ever waiting to be written."""
        return True

    def finish(self, status: str) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass
