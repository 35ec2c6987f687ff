"""What a run has logged so far: numbers what training hands over as events, and leaves out what a resume replays."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from winnow.tracking.naming import TAG_LENGTH, chunks, cut
from winnow.tracking.outbox import Event, Kind, decode_values, encode_values, read_events

logger = logging.getLogger(__name__)

RECENT_VALUES = 1000  # per metric, to compare a replay with; older ones are skipped unseen
MEASURED = ("perf/", "cost/", "system/")  # timings differ in every replay
NAMES_PER_EVENT = 20  # params of 6,000 escaped characters then stay under a server's 1 MB per request
METRICS_PER_EVENT = 500
REWRITTEN_TAG = "winnow.rewritten_from_step"


class Entry(NamedTuple):
    """What training handed over, before it is known whether it is news; the payload as in ``Event``."""

    time_ms: int
    kind: Kind
    payload: Mapping[str, Any]


class History:
    """Params, the highest step of each metric, and the newest values that stood in the outbox at opening."""

    def __init__(self) -> None:
        self.last_sequence = 0
        self._last_time_ms = 0
        self._params: dict[str, str] = {}
        self._highest_step: dict[str, int] = {}
        self._recent: dict[str, dict[int, float]] = {}
        self._is_rewriting_told = False

    @classmethod
    def read(cls, outbox: Path) -> History:
        """Read what the outbox holds. Raises OSError if it exists but can't be read."""
        history = cls()
        for event, _ in read_events(outbox):
            history._add(event)
        return history

    def events(self, entry: Entry) -> list[Event]:
        """Return the entry as events, none earlier than the one before; none if all of it was logged before."""
        payloads: list[tuple[Kind, Mapping[str, Any]]] = [(entry.kind, entry.payload)]
        if entry.kind == "params":
            payloads = list(self._new_params(entry.payload))
        elif entry.kind == "tags":
            payloads = [("tags", chunk) for chunk in chunks(entry.payload, NAMES_PER_EVENT)]
        elif entry.kind == "metrics":
            payloads = list(self._new_metrics(entry.payload["values"], entry.payload["step"]))
        # A clock that is set back must not put a later event before an earlier one.
        self._last_time_ms = max(self._last_time_ms, entry.time_ms)
        events = []
        for kind, payload in payloads:
            self.last_sequence += 1
            events.append(Event(self.last_sequence, self._last_time_ms, kind, payload))
        return events

    def _new_params(self, params: Mapping[str, str]) -> Iterator[tuple[Kind, Mapping[str, Any]]]:
        unseen = {name: value for name, value in params.items() if name not in self._params}
        changed = {name: value for name, value in params.items() if self._params.get(name, value) != value}
        self._params |= unseen
        for chunk in chunks(unseen, NAMES_PER_EVENT):
            yield "params", chunk
        tags = {f"winnow.changed.{name}"[:250]: value for name, value in changed.items()}
        for chunk in chunks(cut(tags, TAG_LENGTH), NAMES_PER_EVENT):
            yield "tags", chunk

    def _new_metrics(self, values: Mapping[str, float], step: int) -> Iterator[tuple[Kind, Mapping[str, Any]]]:
        unseen = {name: value for name, value in values.items() if step > self._highest_step.get(name, step - 1)}
        self._highest_step.update(dict.fromkeys(unseen, step))
        for chunk in chunks(encode_values(unseen), METRICS_PER_EVENT):
            yield "metrics", {"step": step, "values": chunk}
        rewritten = [name for name in values if name not in unseen and self._differs(name, step, values[name])]
        if rewritten and not self._is_rewriting_told:
            self._is_rewriting_told = True
            logger.warning(
                "this run goes another way than before from step %s on (%s was %r, is %r): MLflow keeps the old values",
                *(step, rewritten[0], self._recent[rewritten[0]][step], values[rewritten[0]]),
            )
            yield "tags", {REWRITTEN_TAG: str(step)}

    def _differs(self, name: str, step: int, value: float) -> bool:
        before = self._recent.get(name, {}).get(step, value)
        if name.startswith(MEASURED) or (math.isnan(before) and math.isnan(value)):
            return False
        return not math.isclose(before, value, rel_tol=1e-6)

    def _add(self, event: Event) -> None:
        self.last_sequence = max(self.last_sequence, event.sequence)
        self._last_time_ms = max(self._last_time_ms, event.time_ms)
        if event.kind == "params":
            self._params |= event.payload
        elif event.kind == "metrics":
            step = event.payload["step"]
            for name, value in decode_values(event.payload["values"]).items():
                self._highest_step[name] = max(step, self._highest_step.get(name, step))
                recent = self._recent.setdefault(name, {})
                recent[step] = value
                if len(recent) > RECENT_VALUES:
                    del recent[next(iter(recent))]
