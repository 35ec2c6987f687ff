"""A server in front of another that lets nobody through without the password; and who on this machine shows a secret."""

from __future__ import annotations

import base64
import contextlib
import http.client
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

_NOT_PASSED_ON = ("authorization", "connection", "host", "transfer-encoding", "content-length")


class GuardedServer:
    """Passes requests with HTTP's basic authentication on to ``port`` of this machine, and answers all others with 401."""

    def __init__(self, port: int, password: str) -> None:
        self.num_refused = self.num_passed = 0
        guard = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                kind, _, given = self.headers.get("Authorization", "").partition(" ")
                if kind != "Basic" or base64.b64decode(given).decode().partition(":")[2] != password:
                    guard.num_refused += 1
                    self._send(401, [("WWW-Authenticate", "Basic")], b"who are you?")
                    return
                guard.num_passed += 1
                headers = {name: value for name, value in self.headers.items() if name.lower() not in _NOT_PASSED_ON}
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                connection.request(self.command, self.path, body, headers)
                answer = connection.getresponse()
                kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in _NOT_PASSED_ON]
                self._send(answer.status, kept, answer.read())
                connection.close()

            def _send(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
                self.send_response(status)
                for name, value in [*headers, ("Content-Length", str(len(body)))]:
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def watched_arguments(secrets: list[str]) -> Iterator[set[str]]:
    """Look at the argument lists of all processes of the machine again and again; give those that hold one of ``secrets``."""
    words, found, is_over = [secret.encode() for secret in secrets], set(), threading.Event()

    def look() -> None:
        while not is_over.wait(0.02):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    if any(word in (arguments := path.read_bytes()) for word in words):
                        found.add(arguments.replace(b"\0", b" ").decode())

    watch = threading.Thread(target=look, daemon=True)
    watch.start()
    try:
        yield found
    finally:
        is_over.set()
        watch.join()


def files_with(secrets: list[str], folder: Path) -> list[str]:
    """Return the files below ``folder`` that hold one of ``secrets``, or have it in their name."""
    words = [secret.encode() for secret in secrets]
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if any(word in str(path).encode() or (path.is_file() and word in path.read_bytes()) for word in words)
    ]
