"""Addresses of studies: reads a storage URL, opens what it names, and excludes other processes from it for a moment."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, get_storage
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import NullPool

from winnow.errors import ConfigError
from winnow.masking import is_masked, masked, remember
from winnow.sweep.file_lock import locked_file
from winnow.sweep.journal import SturdyJournal

logger = logging.getLogger(__name__)

JOURNAL_SUFFIXES = (".log", ".journal")
ALLOWED = (
    "a path ending in .log or .journal, journal:///absolute/path.log, sqlite:///path.db, "
    "postgresql+psycopg://user:password@host/database or mysql+pymysql://user:password@host/database"
)
SERVERS = ("postgresql", "mysql", "mariadb")
PACKAGES = {
    "psycopg": "-e '.[postgresql]'",
    "MySQLdb": "mysqlclient",
}  # module → what to install, where the names differ
SQLITE_TIMEOUT_SECONDS = 60
LOCK_TIMEOUT_SECONDS = 60
NETWORK_FILE_SYSTEMS = {
    "9p",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "fuse.glusterfs",
    "fuse.sshfs",
    "gpfs",
    "lustre",
    "nfs",
    "nfs4",
    "smb3",
}


class Opened:
    """A storage as this process has it open, with its ``engine`` where it is a database.

    ``num_errors`` counts what the database refused or left unanswered, also where Optuna went on by itself.
    """

    def __init__(self, storage: BaseStorage, engine: sqlalchemy.Engine | None = None) -> None:
        self.storage = storage
        self.num_errors = 0
        self._engine, self._pid = engine, os.getpid()
        if engine is not None:
            sqlalchemy.event.listen(engine, "handle_error", self._count)

    def close(self) -> None:
        # A forked child that closed what it inherited would say goodbye to the server in its parent's name.
        if self._engine is not None and self._pid == os.getpid():
            self._engine.dispose()

    def _count(self, context: object) -> None:
        self.num_errors += 1


@dataclass(frozen=True)
class Address:
    """``kind`` is ``journal``, ``sqlite`` or a server's (``postgresql`` …); ``url`` is a journal's path, or SQLAlchemy's
    URL."""

    kind: str
    url: str = field(repr=False)
    path: Path | None = None

    def __str__(self) -> str:
        return str(self.path) if self.kind == "journal" else masked(self.url)

    def open(self) -> Opened:
        """Open Optuna's storage at this address; create what is missing, one process at a time.

        Raises ConfigError if a driver is missing or the database is of another version of Optuna.
        """
        if self.kind == "journal":
            return Opened(JournalStorage(SturdyJournal(self.url)))  # creating an empty file needs no lock
        options: dict[str, object] = {"pool_pre_ping": True}
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            options = {"connect_args": {"timeout": SQLITE_TIMEOUT_SECONDS}}
        try:
            with self.exclusive("opening"):
                storage = RDBStorage(self.url, engine_kwargs=options)
            return Opened(get_storage(storage), storage.engine)
        except RuntimeError as error:  # the schema is not this Optuna's
            raise ConfigError(f"storage {self}: {error}") from error

    @contextmanager
    def exclusive(self, purpose: str) -> Iterator[None]:
        """Let one process at a time in here per ``purpose``, over all machines that share the storage; ends with its holder.

        A lock file beside a file; a lock of the server's own otherwise, bound to a transaction, so that poolers keep it. A
        server that is restarted meanwhile drops the lock: then leaving raises OperationalError.
        """
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with locked_file(f"{self.path}.{purpose}.lock"):
                yield
            return
        engine = sqlalchemy.create_engine(self.url, poolclass=NullPool)
        with engine.begin() as connection:
            _lock_server(connection, self.kind, f"winnow:{purpose}")
            yield
            connection.execute(sqlalchemy.text("SELECT 1"))


def _lock_server(connection: sqlalchemy.Connection, kind: str, name: str) -> None:
    if kind == "postgresql":
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
        connection.execute(sqlalchemy.text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'"))
        connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:number)"), {"number": number})
        return
    # Names are the server's, not the database's, in MySQL.
    query = sqlalchemy.text("SELECT GET_LOCK(CONCAT(:name, ':', DATABASE()), :seconds)")
    if connection.scalar(query, {"name": name, "seconds": LOCK_TIMEOUT_SECONDS}) != 1:
        raise TimeoutError(f"another process has held the lock {name} for {LOCK_TIMEOUT_SECONDS} s")


def parse_storage_url(url: str) -> Address:
    """Return the address that ``url`` names; relative paths become absolute ones. Raises ConfigError if ``url`` names none, or
    lacks its secret."""
    if is_masked(url):
        raise ConfigError(
            f"storage {url} stands without its secret, as it is recorded; give it whole, or set PGPASSWORD or PGPASSFILE "
            "and leave the password out"
        )
    remember(url)
    if url.startswith("journal:"):
        path = url.removeprefix("journal://")
        if not path.startswith("/") or len(path) < 2:
            raise ConfigError(
                f"storage {masked(url)!r} must be journal:///absolute/path.log, or a plain path ending in .log or .journal"
            )
        return _journal(path)
    if "://" not in url:
        if not url.endswith(JOURNAL_SUFFIXES):
            raise ConfigError(f"storage {masked(url)!r} is unknown; allowed: {ALLOWED}")
        return _journal(url)
    try:
        parsed = make_url(url)
        kind = parsed.get_backend_name()
        if kind not in ("sqlite", *SERVERS):
            raise ConfigError(f"storage {_shown(parsed)!r}: unknown kind {kind!r}; allowed: {ALLOWED}")
        sqlalchemy.create_engine(parsed, poolclass=NullPool)
    except (ArgumentError, ValueError) as error:
        if isinstance(error, NoSuchModuleError):
            raise ConfigError(f"storage {_shown(parsed)!r}: unknown driver; allowed: {ALLOWED}") from error
        raise ConfigError(f"storage is no URL ({masked(str(error))}); allowed: {ALLOWED}") from error
    except ModuleNotFoundError as error:
        package = PACKAGES.get(error.name or "", error.name)
        raise ConfigError(
            f"storage {_shown(parsed)!r} needs a driver that is not installed: pip install {package}"
        ) from error
    return _sqlite(parsed) if kind == "sqlite" else Address(kind, parsed.render_as_string(hide_password=False))


def _journal(path: str) -> Address:
    absolute = os.path.abspath(os.path.expanduser(path))
    return Address("journal", absolute, Path(absolute))


def _sqlite(url: URL) -> Address:
    name = url.database
    if not name or name == ":memory:" or name.startswith("file:"):
        raise ConfigError(
            f"storage {_shown(url)!r} must name a file, as sqlite:///path.db does: every process opens it for itself"
        )
    path = Path(name).expanduser().absolute()
    if kind := network_file_system(path, Path("/proc/mounts")):
        logger.warning(
            "SQLite at %s is on a network file system (%s), where its locks fail: use a journal or a server", path, kind
        )
    return Address("sqlite", url.set(database=str(path)).render_as_string(hide_password=False), path)


def network_file_system(path: Path, mounts: Path) -> str | None:
    """Return the kind of network file system that holds ``path`` by the table ``mounts`` (of /proc); None for a local one."""
    if not mounts.exists():
        return None
    rows = [line.split() for line in mounts.read_text().splitlines()]
    found = [
        (row[1], row[2]) for row in rows if len(row) > 2 and path.resolve().is_relative_to(row[1].replace("\\040", " "))
    ]
    kind = max(found, key=lambda entry: len(entry[0]), default=("", ""))[1]
    return kind if kind in NETWORK_FILE_SYSTEMS else None


def _shown(url: URL) -> str:
    return masked(url.render_as_string(hide_password=False))
