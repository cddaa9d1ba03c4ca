"""The real server, as `gunicorn` starts it, on a free port."""

import base64
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson

ROOT = Path(__file__).parent.parent


def float32(vectors) -> list[bytes]:
    """What a client got, as the bytes of float32 numbers, to compare with `Server.bits`."""
    return [np.asarray(vector, "<f4").tobytes() for vector in vectors]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Server:
    """A running Gunicorn; `log` is what it has printed so far."""

    def __init__(self, log: Path, *flags: str, **environ: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = log
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("EMBED_", "GUNICORN_", "OMP_", "WEB_"))
        }
        command = [str(Path(sys.executable).with_name("gunicorn")), "--bind", f"127.0.0.1:{self.port}"]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, *flags],
                cwd=ROOT,
                env=kept | environ,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

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
        """What a direct POST /api/embed gives."""
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
def serving(log: Path, *flags: str, **environ: str) -> Iterator[Server]:
    server = Server(log, *flags, **environ)
    try:
        server.wait_until_ready()
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()
