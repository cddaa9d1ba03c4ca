"""Clients that send a corpus to a server, and a meter of how fast it is computed."""

import contextlib
import http.client
import re
import threading
import time
import urllib.request

from benchmarks import load
from benchmarks.load import Request
from benchmarks.services import Server

LOOK = 0.1  # how often, in seconds, to check how much was computed


class Ingestion:
    """Clients that send a corpus during a `with` block; each waits for an answer before its next request."""

    def __init__(self, port: int, requests: list[Request], clients: int) -> None:
        self._port, self._requests = port, requests
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(number, clients)) for number in range(clients)
        ]
        self._connections: set[http.client.HTTPConnection] = set()

    def __enter__(self) -> "Ingestion":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for connection in list(self._connections):
            with contextlib.suppress(OSError, AttributeError):
                connection.sock.shutdown(2)
        for thread in self._threads:
            thread.join()

    def _run(self, number: int, clients: int) -> None:
        while not self._stop.is_set():
            request = self._requests[number % len(self._requests)]
            number += clients
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=load.PATIENCE)
            self._connections.add(connection)
            try:
                connection.request("POST", "/api/embed", request.body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200 and not self._stop.is_set():
                    raise load.WrongAnswer(f"status {answer.status}")
            except (OSError, http.client.HTTPException):
                if not self._stop.is_set():
                    raise
            finally:
                self._connections.discard(connection)
                connection.close()


def computed(server: Server) -> int:
    """The tokens of all of the corpus's batches so far."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=60) as answer:
        found = re.search(
            r'^embed_batch_tokens_sum{priority="bulk"} (\S+)', answer.read().decode(), re.MULTILINE
        )
    return int(float(found[1])) if found else 0


class Meter:
    """Tokens per second between the first and the last batch that began during a `with` block."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._stop = threading.Event()
        self._seen: list[tuple[float, int]] = []
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.wait(LOOK):
            tokens = computed(self._server)
            if not self._seen or tokens != self._seen[-1][1]:
                self._seen.append((time.monotonic(), tokens))

    def __enter__(self) -> "Meter":
        self._seen = []
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def rate(self) -> float:
        (start, first), *_, (end, last) = self._seen[1:]  # the first was seen some time after its start
        return (last - first) / (end - start)
