"""Limits that end a sweep before its last trial: time or cost spent, or too many failures."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from optuna.trial import FrozenTrial, TrialState

from winnow.errors import WinnowError
from winnow.sweep.cost import StudyCost
from winnow.sweep.outcome import Outcome

_FAIL_FAST = 3
_FAIL_LATER = 10


class SweepFailedError(WinnowError):
    """The sweep stopped itself because trials kept failing; the message says how the last one did."""


class Limits:
    """``max_failures`` in a row (None: three while no trial of the study has ever completed, ten from then on),
    ``max_failure_rate`` of the last ``n_jobs``, ``timeout`` in seconds from now, ``max_cost`` per name (``images``,
    ``images_640``, ``seconds``) over the study, whose ``trials`` are read for it, whoever runs them.
    """

    def __init__(
        self, max_failures: int | None, max_failure_rate: float, n_jobs: int, timeout: float | None,
        max_cost: Mapping[str, float] | None, trials: Callable[[], Sequence[FrozenTrial]],
    ) -> None:  # fmt: skip
        self._max_failures = max_failures
        self._max_failure_rate = max_failure_rate
        self._recent: deque[bool] = deque(maxlen=n_jobs)
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._timeout = timeout
        self._max_cost = dict(max_cost or {})
        self._cost = StudyCost()
        self._trials = trials
        self._in_a_row = 0

    def count(self, outcome: Outcome, is_new: bool = True) -> None:
        """Take note of an ended trial; ``is_new`` is False for those of an earlier start, whose failures are forgiven."""
        if outcome.status in ("completed", "pruned"):
            self._in_a_row = 0
            self._recent.append(False)
        elif is_new and outcome.status in ("failed", "out_of_memory"):
            self._in_a_row += 1
            self._recent.append(True)

    def spent(self) -> str | None:
        """Return why nothing more should start, or None."""
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return f"timeout={self._timeout:g} seconds are over"
        if self._max_cost:
            cost = self._cost.of(self._trials())
            for name, limit in self._max_cost.items():
                if cost.get(name, 0.0) >= limit:
                    return f"max_cost.{name}={limit:g} is spent ({cost[name]:g})"
        return None

    def require_health(self, last: Outcome) -> None:
        """Raise SweepFailedError if too many trials have failed."""
        limit = self._max_failures or self._default_limit()
        if self._in_a_row >= limit:
            raise SweepFailedError(
                f"{self._in_a_row} trials in a row have failed (hydra.sweeper.max_failures={limit}), the last one with: "
                f"{last.reason}; its log is in {last.run_folder}"
            )
        rate = sum(self._recent) / len(self._recent) if self._recent else 0.0
        if len(self._recent) == self._recent.maxlen and rate > self._max_failure_rate:
            raise SweepFailedError(
                f"{sum(self._recent)} of the last {len(self._recent)} trials have failed "
                f"(hydra.sweeper.max_failure_rate={self._max_failure_rate:g}), the last one with: {last.reason}; "
                f"its log is in {last.run_folder}"
            )

    def _default_limit(self) -> int:
        if self._in_a_row < _FAIL_FAST:  # far from both: the study need not be read
            return _FAIL_LATER
        has_completed = any(trial.state == TrialState.COMPLETE for trial in self._trials())
        return _FAIL_LATER if has_completed else _FAIL_FAST
