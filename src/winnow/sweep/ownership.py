"""Whether the process that answers for a running trial is alive, judged by heartbeats where it can't be seen."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from winnow.process import ProcessStamp

HEARTBEAT = "winnow:heartbeat:"
"""Begins the study attributes that count an owner's heartbeats; the rest of the name is his ``ProcessStamp.id``."""


class Liveness(enum.Enum):
    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"


def liveness(owner: ProcessStamp, heartbeats: Heartbeats) -> Liveness:
    """Return whether ``owner`` lives: looked up where this process can see it, else judged by ``heartbeats``."""
    is_alive = owner.is_alive()
    if is_alive is None:
        return heartbeats.liveness(owner.id)
    return Liveness.ALIVE if is_alive else Liveness.DEAD


class Heartbeats:
    """Judges owners by whether their counters change while we watch, on our own monotonic clock: no two clocks are compared.

    An owner is dead whose counter stood still for ``observation_seconds`` of watching. A long gap between two looks (this
    process was stopped, the storage was away) counts for a fifth of that at most: the cause may have stopped the owner too.
    """

    def __init__(self, observation_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._observation_seconds = observation_seconds
        self._clock = clock
        self._last_look: float | None = None
        self._pulses: dict[str, _Pulse] = {}

    def look(self, study_attributes: Mapping[str, Any]) -> None:
        now = self._clock()
        gap = 0.0 if self._last_look is None else min(now - self._last_look, self._observation_seconds / 5)
        self._last_look = now
        counts = {name.removeprefix(HEARTBEAT): n for name, n in study_attributes.items() if name.startswith(HEARTBEAT)}
        for owner_id, pulse in self._pulses.items():
            pulse.look(counts.get(owner_id), gap)
        for owner_id in counts.keys() - self._pulses.keys():
            self._pulses[owner_id] = _Pulse(counts[owner_id])

    def liveness(self, owner_id: str) -> Liveness:
        """Judge an owner: unknown until a counter changed, or stood still for long enough; an owner without one is watched from
        now on."""
        pulse = self._pulses.setdefault(owner_id, _Pulse(None))
        if pulse.still_seconds >= self._observation_seconds:
            return Liveness.DEAD
        return Liveness.ALIVE if pulse.has_changed else Liveness.UNKNOWN


@dataclass
class _Pulse:
    count: Any
    still_seconds: float = 0.0
    has_changed: bool = False

    def look(self, count: Any, gap_seconds: float) -> None:
        if count == self.count:
            self.still_seconds += gap_seconds
        else:
            self.count, self.still_seconds, self.has_changed = count, 0.0, True
