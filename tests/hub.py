"""A stand-in for the Hugging Face hub: one repository at one revision, served on 127.0.0.1."""

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: Message


class Hub:
    """Serves `files` as the hub does; tests change the fields to make it misbehave."""

    def __init__(self, repository: str, revision: str, files: dict[str, bytes]) -> None:
        self.files = dict(files)
        self.requests: list[Request] = []
        self.status = 200  # with any other, every request gets it
        self.redirect_to = ""  # to another server, which has the bytes
        self.knows_ranges = True
        self.stop_at = 0  # drop the connection once, at this byte of a file
        self.at_stop: Callable[[], object] = lambda: None  # called before the connection is dropped
        self.prefix = f"/{repository}/resolve/{revision}/"
        self.revision = revision
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.hub = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def asked(self, method: str = "GET") -> list[str]:
        """Names of the files that were asked for, and other paths as they are."""
        return [r.path.removeprefix(self.prefix) for r in self.requests if r.method == method]

    def ranges(self, name: str) -> list[str | None]:
        """The Range header of every download of a file, in order."""
        path = self.prefix + name
        return [r.headers["Range"] for r in self.requests if (r.method, r.path) == ("GET", path)]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: Hub

    def handle_error(self, *_: object) -> None:
        """Log nothing if a client went away."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        hub = self.server.hub
        if self.path != "/api/agent-harnesses":  # the library itself asks for this, to make its user agent
            hub.requests.append(Request(self.command, self.path, self.headers))
        content = hub.files.get(self.path.removeprefix(hub.prefix))
        if hub.status != 200:
            self._head(hub.status, {"Content-Length": "0"})
        elif content is None:
            self._head(404, {"Content-Length": "0", "X-Error-Code": "EntryNotFound"})
        elif hub.redirect_to:
            facts = self._facts(content) | {"X-Linked-Size": str(len(content)), "Content-Length": "0"}
            self._head(302, facts | {"Location": hub.redirect_to + self.path})
        else:
            self._send(content)

    def _facts(self, content: bytes) -> dict[str, str]:
        return {
            "X-Repo-Commit": self.server.hub.revision,
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
        }

    def _send(self, content: bytes) -> None:
        hub = self.server.hub
        start, status, headers = 0, 200, self._facts(content)
        if hub.knows_ranges and (wanted := self.headers["Range"]):
            start, status = int(wanted.removeprefix("bytes=").removesuffix("-")), 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._head(status, headers | {"Content-Length": str(len(content) - start)})
        if self.command == "HEAD":
            return
        if start < hub.stop_at < len(content):
            self.wfile.write(content[start : hub.stop_at])
            hub.stop_at = 0
            hub.at_stop()
            self.close_connection = True
        else:
            self.wfile.write(content[start:])

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
