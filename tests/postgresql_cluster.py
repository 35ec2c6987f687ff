"""A PostgreSQL cluster of our own, on loopback, that can be restarted and killed; and a proxy that loses its answers."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

import psutil


def binaries() -> Path | None:
    """Return the folder of initdb and pg_ctl, newest version first; None where PostgreSQL is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Cluster:
    """Starts at once; ``close`` leaves neither process nor file behind.

    Without ``is_durable`` it does not wait for the disk: it survives being killed, not the machine's end. With a ``password`` it
    lets nobody in without it.
    """

    def __init__(self, is_durable: bool = False, password: str | None = None) -> None:
        self._is_durable = is_durable
        self._password = password
        # Not pytest's folder, which the unprivileged user may not enter.
        self.folder = Path(tempfile.mkdtemp(prefix="winnow-postgresql-"))
        self.port = free_port()
        self._num_databases = 0
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
        options = ["--auth=trust"]
        if password is not None:
            kept = self.folder / "password"
            kept.write_text(password)
            kept.chmod(0o644)
            options = ["--auth=scram-sha-256", f"--pwfile={kept}"]
        self._run("initdb", *options, "--username=postgres", "--locale=C", "--encoding=UTF8", "--no-sync")
        self.start()

    def new_database(self) -> str:
        """Return the URL of an empty database."""
        self._num_databases += 1
        name = f"study_{self._num_databases}"
        import psycopg  # conftest.py imports this module also where the driver is not installed: on the GPU machine

        with psycopg.connect(self.address("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def url(self, name: str, port: int | None = None) -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{port or self.port}/{name}"

    def address(self, name: str) -> str:
        password = f" password={self._password}" if self._password is not None else ""
        return f"host=127.0.0.1 port={self.port} user=postgres dbname={name}{password}"

    def texts(self, url: str) -> str:
        """Return all rows of all tables of a database, as text."""
        import psycopg

        with psycopg.connect(self.address(url.rpartition("/")[2])) as connection:
            tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
            rows = [connection.execute(f'SELECT t::text FROM "{table}" t').fetchall() for (table,) in tables]  # type: ignore[arg-type]
        return "\n".join(text for found in rows for (text,) in found)

    def start(self) -> None:
        options = f"-h 127.0.0.1 -p {self.port} -k {self.folder}{'' if self._is_durable else ' -F'}"
        self._run("pg_ctl", "start", "--wait", "--options", options, "--log", str(self.folder / "server.log"))

    def stop(self, mode: str = "immediate") -> None:
        """Stop the cluster: ``immediate`` ends it as a crash would, ``fast`` cuts off its clients."""
        self._run("pg_ctl", "stop", "--wait", "--mode", mode)

    def kill(self) -> None:
        """Send SIGKILL to each of its processes."""
        server = psutil.Process(int((self.folder / "data" / "postmaster.pid").read_text().split()[0]))
        for process in [server, *server.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs([server], timeout=10)

    def close(self) -> None:
        with suppress(subprocess.CalledProcessError):
            self.stop()
        shutil.rmtree(self.folder)

    def _run(self, program: str, *arguments: str) -> None:
        folder = binaries()
        assert folder is not None
        user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []  # initdb refuses root
        command = [*user, str(folder / program), "--pgdata", str(self.folder / "data"), *arguments]
        subprocess.run(command, check=True, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


class LossyProxy:
    """Passes a server's traffic on; once ``arm``-ed, the next COMMIT of a change arrives, but its answer never comes back."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._is_armed = threading.Event()
        self.num_lost = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def arm(self) -> None:
        self._is_armed.set()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                is_losing = threading.Event()
                for ends in ((client, server), (server, client)):
                    threading.Thread(
                        target=self._pass_on, args=(*ends, is_losing, ends[0] is client), daemon=True
                    ).start()

    def _pass_on(
        self, source: socket.socket, sink: socket.socket, is_losing: threading.Event, is_request: bool
    ) -> None:
        has_written = False
        with suppress(OSError):
            while data := source.recv(65536):
                has_written |= any(word in data for word in (b"INSERT ", b"UPDATE ", b"DELETE "))
                if is_request and b"COMMIT" in data and has_written and self._is_armed.is_set():
                    self._is_armed.clear()
                    is_losing.set()
                    self.num_lost += 1
                has_written &= b"COMMIT" not in data
                if not is_request and is_losing.is_set():
                    break  # the server has answered, so it has committed
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        source.close()  # the thread of the other direction closes the other end
