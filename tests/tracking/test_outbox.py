from __future__ import annotations

import errno
import math
import os
from pathlib import Path

import pytest

from winnow.tracking.outbox import (
    Event,
    OutboxFile,
    decode_values,
    encode_values,
    read_events,
    read_last_event,
)


def metric(sequence: int, value: float = 1.0) -> Event:
    return Event(sequence, 1000 + sequence, "metrics", {"step": sequence, "values": encode_values({"loss": value})})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.jsonl"


@pytest.fixture
def outbox(path: Path):
    file = OutboxFile(path)
    yield file
    file.close()


ODD = [
    b'{"sequence":%s,"time_ms":1,"kind":"%s","payload":%s}\n' % line
    for line in [
        (b"2", b"metrics", b"{}"), (b"2", b"metrics", b'{"step":"1","values":{}}'),
        (b"2", b"metrics", b'{"step":1,"values":[]}'),
        (b"2", b"metrics", b'{"step":1,"values":{"a":"x"}}'), (b"2", b"metrics", b'{"step":1,"values":{"a":[1]}}'),
        (b"2", b"finish", b"{}"),
        (b"2", b"params", b'{"a":1}'), (b"2", b"tags", b'{"a":null}'), (b"2", b"artifact", b'{"path":"x"}'),
        (b"9" * 30, b"start", b"{}"),
        (b"2", b"metrics", b'{"step":%s,"values":{}}' % (b"9" * 400)), (b"2", b"zork", b"{}"), (b"0", b"start", b"{}"),
    ]
]  # fmt: skip


def sequences(path: Path) -> list[int]:
    return [event.sequence for event, _ in read_events(path)]


@pytest.mark.parametrize("value", [0.1 + 0.2, -0.0, math.inf, -math.inf, math.nan, 5e-324])
def test_a_value_comes_back_bit_by_bit(outbox: OutboxFile, path: Path, value: float):
    outbox.append(metric(1, value).encode())
    [(event, _)] = read_events(path)
    assert repr(decode_values(event.payload["values"])["loss"]) == repr(value)


@pytest.mark.parametrize("torn", [b'{"sequence":3,"ti', b"{" + b"x" * 3_000_000, b"\0\0\0\0"])
def test_a_line_torn_by_a_kill_is_cut_and_the_next_is_whole(outbox: OutboxFile, path: Path, torn: bytes):
    path.write_bytes(metric(1).encode() + metric(2).encode() + torn)
    assert sequences(path) == [1, 2]
    outbox.append(metric(3).encode())
    assert sequences(path) == [1, 2, 3]


def test_a_file_of_one_torn_line_becomes_empty(outbox: OutboxFile, path: Path):
    path.write_bytes(b'{"sequence":1')
    outbox.open()
    assert path.read_bytes() == b""


@pytest.mark.parametrize("damaged", [b"\xff\xfe\n", b"[]\n", b'{"sequence":2}\n', b"\n", *ODD])
def test_a_damaged_line_is_skipped_and_told(path: Path, damaged: bytes, caplog: pytest.LogCaptureFixture):
    path.write_bytes(metric(1).encode() + damaged + metric(3).encode())
    assert sequences(path) == [1, 3]
    assert "damaged line" in caplog.text


def test_reading_goes_on_where_it_stopped(outbox: OutboxFile, path: Path):
    outbox.append(metric(1).encode())
    [(_, offset)] = read_events(path)
    outbox.append(metric(2).encode())
    assert [event.sequence for event, _ in read_events(path, offset)] == [2]


def test_the_last_event_is_found_behind_a_torn_line(path: Path):
    path.write_bytes(b"".join(metric(n).encode() for n in range(1, 2000)) + b'{"seq')
    assert read_last_event(path) == metric(1999)


def test_no_file_holds_no_events(path: Path):
    assert read_last_event(path) is None
    assert sequences(path) == []


def test_what_a_full_disk_wrote_in_part_is_taken_back(outbox: OutboxFile, path: Path, monkeypatch: pytest.MonkeyPatch):
    outbox.append(metric(1).encode())
    write = os.write
    answers = [10, OSError(errno.ENOSPC, "no space left on device")]

    def write_little(descriptor: int, data: bytes) -> int:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return write(descriptor, bytes(data)[:answer])

    monkeypatch.setattr(os, "write", write_little)
    lines = metric(2).encode() + metric(3).encode()
    with pytest.raises(OSError, match="no space"):
        outbox.append(lines)
    monkeypatch.undo()
    outbox.append(lines)
    assert sequences(path) == [1, 2, 3]


def test_a_vanished_file_is_noticed_before_lines_go_nowhere(outbox: OutboxFile, path: Path):
    outbox.append(metric(1).encode())
    path.unlink()
    with pytest.raises(FileNotFoundError, match="vanished"):
        outbox.append(metric(2).encode())
    outbox.append(metric(2).encode())
    assert sequences(path) == [2]
