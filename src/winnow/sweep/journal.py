"""The journal file of a study: Optuna's own format, one JSON record per line, written so that a killed writer harms nobody."""

from __future__ import annotations

import io
import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from optuna.exceptions import StorageInternalError
from optuna.storages.journal import BaseJournalBackend

from winnow.reading import UnreadableError, parse_json
from winnow.sweep.file_lock import locked
from winnow.sweep.journal_lock import exclude_optuna_writers

logger = logging.getLogger(__name__)

RECORD_START = re.compile(rb'\{\s*"op_code"')
BLOCK_BYTES = 1 << 16
# An attribute of a study that can't exist: every version of Optuna passes over it.
NOTHING: dict[str, Any] = {"op_code": 2, "worker_id": "-", "study_id": -1, "user_attr": {"": 0}}


class SturdyJournal(BaseJournalBackend):
    """Reads and appends the records of the journal at ``path``, which Optuna's ``JournalFileBackend`` can open too.

    A record counts once its line has ended; whatever follows the last newline was never acknowledged and is cut off before the
    next append. A line in the middle that does not parse is repaired in place, at its length, so that no reader loses its
    place. The lock is the operating system's (``flock`` on the journal) and ends with its holder: a network file system must
    offer it. Raises OSError if the disk is full or gone; the journal then ends with a whole line.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.path.abspath(path)
        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        os.close(os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o666))
        self._number, self._offset = 0, 0  # the next record to read, and where it begins

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        if log_number_from < self._number:
            self._number, self._offset = 0, 0
        with open(self._path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < self._offset:
                raise StorageInternalError(f"{self._path} shrank from {self._offset} to {size} bytes: was it replaced?")
            file.seek(self._offset)
            lines = io.BytesIO(file.read())
        for line in lines:
            if not line.endswith(b"\n"):
                return
            record = parse(line) or self._mend(self._number, self._offset, len(line))
            number = self._number
            # Before the record is handed out: Optuna raises out of this loop when it refuses one.
            self._number, self._offset = number + 1, self._offset + len(line)
            if number >= log_number_from:
                yield record

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        data = b"".join(json.dumps(record, separators=(",", ":")).encode() + b"\n" for record in logs)
        with self._locked(os.O_APPEND) as file:
            self._cut_torn_tail(file)
            try:
                write_all(file, data)
                os.fsync(file)
            except OSError:
                self._cut_torn_tail(file)
                raise

    @contextmanager
    def _locked(self, flags: int = 0) -> Iterator[int]:
        with locked(self._path, os.O_RDWR | flags) as file:
            if os.fstat(file).st_nlink == 0:
                raise FileNotFoundError(f"{self._path} was deleted")
            with exclude_optuna_writers(self._path):
                yield file

    def _cut_torn_tail(self, file: int) -> None:
        size = os.fstat(file).st_size
        end = size
        while end > 0:
            start = max(0, end - BLOCK_BYTES)
            newline = os.pread(file, end - start, start).rfind(b"\n")
            end = start + newline + 1
            if newline >= 0:
                break
        if end < size:
            os.ftruncate(file, end)
            logger.warning("%s: cut off %d bytes of a record that its writer did not finish", self._path, size - end)

    def _mend(self, number: int, offset: int, length: int) -> dict[str, Any]:
        """Return the record to take for a line that does not parse; write it in the line's place where it fits."""
        with self._locked() as file:
            line = os.pread(file, length, offset)
            if record := parse(line):
                return record  # mended by another process meanwhile
            record, mended = salvage(line)
            if len(mended) == length:
                os.pwrite(file, mended, offset)
                os.fsync(file)
        kept = "nothing of it could be read" if record is NOTHING else "the record glued to it was kept"
        place = (
            "repaired in the file"
            if len(mended) == length
            else "too short to be repaired: Optuna's own tools can't read on"
        )
        logger.warning("%s: record %d was torn by a killed writer; %s; %s", self._path, number, kept, place)
        return record


def parse(line: bytes) -> dict[str, Any] | None:
    """Return the record in ``line``; None if there is none."""
    try:
        record = parse_json(line)
    except UnreadableError:
        return None
    return record if isinstance(record, dict) and "op_code" in record else None


def salvage(line: bytes) -> tuple[dict[str, Any], bytes]:
    """Return what can be kept of a line glued from a torn record and a later whole one, and the line that holds just
    that.

    The new line is as long as the old one (blanks are no part of JSON) if what is kept fits. Of two whole records only
    the later is kept: the earlier one's writer died before its newline, so nobody was told that it was stored.
    """
    for start in RECORD_START.finditer(line):
        if record := parse(line[start.start() :]):
            return record, b" " * start.start() + line[start.start() :]
    return NOTHING, json.dumps(NOTHING, separators=(",", ":")).encode().ljust(len(line) - 1) + b"\n"


def write_all(file: int, data: bytes) -> None:
    """Write all of ``data``; a nearly full disk takes a part of it before it refuses the rest."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]
