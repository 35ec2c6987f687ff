from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pytest

from winnow.tracking.history import METRICS_PER_EVENT, RECENT_VALUES, REWRITTEN_TAG, Entry, History
from winnow.tracking.outbox import Event, decode_values, read_events


def metrics(step: int, **values: float) -> Entry:
    return Entry(1000, "metrics", {"step": step, "values": values})


def reopened(path: Path, entries: list[Entry]) -> History:
    """Return the history of a run that logged ``entries`` and was then killed."""
    history = History()
    path.write_bytes(b"".join(event.encode() for entry in entries for event in history.events(entry)))
    return History.read(path)


def logged(events: list[Event]) -> Mapping[str, float]:
    return {name: value for event in events for name, value in decode_values(event.payload["values"]).items()}


def test_sequence_numbers_go_on_after_reopening(tmp_path: Path):
    history = reopened(tmp_path / "outbox", [metrics(1, a=1.0), metrics(2, a=1.0)])
    assert [event.sequence for event in history.events(metrics(3, a=1.0))] == [3]


def test_a_clock_set_back_puts_no_event_before_an_earlier_one(tmp_path: Path):
    times = [5000, 2000, 2500, 6000]
    entries = [Entry(time, "metrics", {"step": step, "values": {"a": 1.0}}) for step, time in enumerate(times)]
    history = reopened(tmp_path / "outbox", entries)
    assert [event.time_ms for event, _ in read_events(tmp_path / "outbox")] == [5000, 5000, 5000, 6000]
    assert [event.time_ms for event in history.events(metrics(9, a=1.0))] == [6000]


def test_replayed_steps_are_left_out_metric_by_metric(tmp_path: Path):
    history = reopened(tmp_path / "outbox", [metrics(1, a=1.0, b=2.0), metrics(2, a=3.0)])
    assert history.events(metrics(1, a=1.0, b=2.0)) == []
    assert logged(history.events(metrics(2, a=3.0, b=4.0))) == {"b": 4.0}
    assert logged(history.events(metrics(3, a=5.0, b=6.0))) == {"a": 5.0, "b": 6.0}


def test_a_replay_with_another_value_is_tagged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    history = reopened(tmp_path / "outbox", [metrics(step, a=1.0) for step in range(5)])
    assert history.events(metrics(1, a=1.0)) == []
    [event] = history.events(metrics(2, a=7.0))
    assert (event.kind, event.payload) == ("tags", {REWRITTEN_TAG: "2"})
    assert history.events(metrics(3, a=7.0)) == []
    assert caplog.text.count("differs from its earlier part") == 1


@pytest.mark.parametrize(
    ("name", "before", "now"),
    [
        ("a", math.nan, math.nan),
        ("a", math.inf, math.inf),
        ("a", 1.0, 1.0 + 1e-9),
        ("perf/images_per_second", 1.0, 2.0),
    ],
)
def test_equal_or_measured_values_are_no_rewriting(tmp_path: Path, name: str, before: float, now: float):
    history = reopened(tmp_path / "outbox", [metrics(1, **{name: before})])
    assert history.events(metrics(1, **{name: now})) == []


def test_memory_of_values_is_bounded_but_steps_are_not_forgotten(tmp_path: Path):
    history = reopened(tmp_path / "outbox", [metrics(step, a=1.0) for step in range(RECENT_VALUES + 50)])
    assert history.events(metrics(10, a=2.0)) == []
    assert len(history._recent["a"]) == RECENT_VALUES


def test_a_param_keeps_its_first_value_and_a_change_becomes_a_tag(tmp_path: Path):
    history = reopened(tmp_path / "outbox", [Entry(1, "params", {"lr": "0.1", "seed": "1"})])
    [params, tags] = history.events(Entry(2, "params", {"lr": "0.2", "seed": "1", "new": "3"}))
    assert (params.kind, params.payload) == ("params", {"new": "3"})
    assert (tags.kind, tags.payload) == ("tags", {"winnow.changed.lr": "0.2"})


def test_more_metrics_than_a_request_may_hold_are_split():
    values = {f"val/map_class/{n}": float(n) for n in range(METRICS_PER_EVENT + 1)}
    events = History().events(metrics(1, **values))
    assert [len(event.payload["values"]) for event in events] == [METRICS_PER_EVENT, 1]
    assert logged(events) == values
