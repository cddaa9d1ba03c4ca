"""Starts the real server with `gunicorn` on a free port."""

import base64
import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import orjson

ROOT = Path(__file__).parent.parent


def head(length: int, path: str = "/api/embed") -> bytes:
    """The head of a request whose body has `length` bytes."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


def more_config(folder: Path, lines: str) -> tuple[str, str]:
    """Flags for a server with these lines added to its configuration."""
    path = folder / "gunicorn.conf.py"
    path.write_text(f"{(ROOT / 'gunicorn.conf.py').read_text()}\n{lines}\n")
    return "--config", str(path)


def float32(vectors) -> list[bytes]:
    """A client's vectors as the bytes of float32 numbers, to compare with `Server.bits`."""
    return [np.asarray(vector, "<f4").tobytes() for vector in vectors]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Server:
    """A running Gunicorn; `log` is what it has printed so far.

    `under` is a command that starts it, such as a shell that limits it first.
    """

    def __init__(self, log: Path, *flags: str, under: tuple[str, ...] = (), **environ: str) -> None:
        self.longest = 0.0  # seconds, the longest request of a crowd
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = log
        self._connections = contextlib.ExitStack()
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("EMBED_", "GUNICORN_", "OMP_", "WEB_"))
        }
        command = [str(Path(sys.executable).with_name("gunicorn")), "--bind", f"127.0.0.1:{self.port}"]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [*under, *command, *flags],
                cwd=ROOT,
                env=kept | environ,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def workers(self) -> set[int]:
        """The worker processes, including those that are loading."""
        pid = self.process.pid
        return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}

    def connect(self, data: bytes = b"") -> socket.socket:
        """A connection on which these bytes were sent; it is closed with the server at the latest."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        self._connections.enter_context(connection)
        connection.sendall(data)
        return connection

    def ask(self, texts: str | list[str], timeout: float = 60) -> int | str:
        """The status of one request, or the name of what went wrong with its connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            body = orjson.dumps({"input": texts})
            connection.request("POST", "/api/embed", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = orjson.loads(answer.read())
            if answer.status == 200:
                assert len(content["embeddings"]) == (1 if isinstance(texts, str) else len(texts))
            return answer.status
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__
        finally:
            connection.close()

    def health_ms(self) -> float:
        """How long a health check took; it must succeed."""
        start = time.perf_counter()
        with urllib.request.urlopen(f"{self.url}/healthz", timeout=120) as answer:
            assert answer.status == 200
        return 1e3 * (time.perf_counter() - start)

    @contextlib.contextmanager
    def crowded(self, clients: int, texts: str | list[str]) -> Iterator[Counter]:
        """Run this many clients that ask all the time; yields a count of what they get."""
        seen: Counter = Counter()
        self.longest = 0.0
        stop = threading.Event()

        def client() -> None:
            while not stop.is_set():
                start = time.monotonic()
                seen[self.ask(texts)] += 1
                self.longest = max(self.longest, time.monotonic() - start)

        threads = [threading.Thread(target=client) for _ in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield seen
        finally:
            stop.set()
            for thread in threads:
                thread.join(90)
            assert not any(thread.is_alive() for thread in threads), "a client hangs"

    def wait_until_ready(self, seconds: float = 90) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/readyz", timeout=5):
                return
            time.sleep(0.1)
        raise AssertionError(f"the server did not become ready:\n{self.log}")

    def post(self, path: str, body: bytes | dict, **headers: str) -> tuple[int, dict]:
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        headers = {"Content-Type": "application/json"} | headers
        request = urllib.request.Request(f"{self.url}{path}", data, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, orjson.loads(response.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, orjson.loads(error.read())

    def vectors(self, **fields) -> list:
        """The vectors that a direct POST /api/embed gives."""
        status, answer = self.post("/api/embed", fields)
        assert status == 200, answer
        return answer["embeddings"]

    def bits(self, **fields) -> list[bytes]:
        """The same vectors as the bytes of their float32 numbers."""
        return [base64.b64decode(row) for row in self.vectors(encoding_format="base64", **fields)]

    def stop(self, sign: int = signal.SIGTERM, seconds: float = 30) -> int:
        self.process.send_signal(sign)
        return self.process.wait(seconds)


@contextlib.contextmanager
def serving(log: Path, *flags: str, under: tuple[str, ...] = (), **environ: str) -> Iterator[Server]:
    """A server that is ready; it is always stopped at the end."""
    with starting(log, *flags, under=under, **environ) as server:
        server.wait_until_ready()
        yield server


@contextlib.contextmanager
def starting(log: Path, *flags: str, under: tuple[str, ...] = (), **environ: str) -> Iterator[Server]:
    """A server that may not be ready yet."""
    server = Server(log, *flags, under=under, **environ)
    try:
        yield server
    finally:
        server._connections.close()
        if server.process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):  # a kill would leave its metrics behind
                server.stop(signal.SIGINT, 10)
        server.process.kill()
        server.process.wait()


def wait_for(what: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.1)
