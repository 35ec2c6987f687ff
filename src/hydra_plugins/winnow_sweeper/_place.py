"""The pause of a sweep whose run folders are in trouble: what one process starts nothing in, and for how long."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from hydra_plugins.winnow_sweeper._job import Finished
from winnow.sweep.place import trouble_at

logger = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 2.0, 600.0
_LOOK_SECONDS = 5.0


class Place:
    """The study's ``folder``, where all slots of this process work.

    After a job that had trouble there nothing starts until the folder can be written again, and for twice as long as the time
    before where no other job has ended well since: it may be written, and still have no room for a run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._since: float | None = None
        self._until = 0.0
        self._pause_seconds = _FIRST_PAUSE_SECONDS

    def trouble_of(self, finished: Finished) -> str | None:
        """Return the trouble of the place that ended a job; None where it ended otherwise. A death and an error that do not tell
        of one count as such while nothing can be written."""
        outcome = finished.outcome
        if outcome is not None and outcome.is_of_place:
            return outcome.reason or "trouble of the place"
        if outcome is None or outcome.status == "failed":
            return trouble_at(self._folder)
        if outcome.status != "interrupted":
            self._pause_seconds = _FIRST_PAUSE_SECONDS
        return None

    def pause(self, job_name: str, why: str) -> None:
        """Start nothing more for a while; say so, once for all jobs that meet with the same trouble."""
        if self._since is not None:
            logger.info("trial %s is given back as well: %s", job_name, why)
            return
        self._since = time.monotonic()
        self._until = self._since + self._pause_seconds
        logger.warning(
            "trial %s is given back, and nothing starts here for %.0f s and until %s can be written; that is trouble of the "
            "place and not counted against the trial: %s", job_name, self._pause_seconds, self._folder, why,
        )  # fmt: skip
        self._pause_seconds = min(2 * self._pause_seconds, _LONGEST_PAUSE_SECONDS)

    def is_usable(self) -> bool:
        """Return whether jobs may start; look whether the place works again, now and then."""
        if self._since is None:
            return True
        if time.monotonic() < self._until:
            return False
        if trouble_at(self._folder) is not None:
            self._until = time.monotonic() + _LOOK_SECONDS
            return False
        logger.warning(
            "%s can be written, after %.0f s; trials start again", self._folder, time.monotonic() - self._since
        )
        self._since = None
        return True
