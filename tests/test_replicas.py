"""Two servers behind nginx with deploy/nginx.conf, except for addresses: what clients see if one fails."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import numpy as np
import orjson
import pytest

from tests.server import ROOT, Server, free_port, wait_for

# Debian puts it into a folder that is not on every user's path.
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(
        NGINX is None,
        reason="nginx is not installed (Debian: apt-get install nginx-light)",
    ),
]


class Proxy:
    """A running nginx in front of `servers`."""

    def __init__(self, folder: Path, servers: list[Server]) -> None:
        folder.mkdir()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._access, self._errors = folder / "access.log", folder / "error.log"
        conf = (ROOT / "deploy" / "nginx.conf").read_text()
        places = {
            "listen 8080;": f"listen 127.0.0.1:{self.port};",
            "/tmp/": f"{folder}/",
            "/dev/stdout": str(self._access),
            "/dev/stderr": str(self._errors),
        }
        places |= {
            f"embed-{number}:8000": f"127.0.0.1:{one.port}" for number, one in enumerate(servers, start=1)
        }
        for place, own in places.items():
            assert place in conf
            conf = conf.replace(place, own)
        (folder / "nginx.conf").write_text(conf)
        # Started by root, it would switch to a user who cannot enter the folder.
        user = " user root;" if os.geteuid() == 0 else ""
        command = [NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(self._errors)]
        self.process = subprocess.Popen([*command, "-g", f"daemon off;{user}"])
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        raise AssertionError(f"nginx did not start:\n{self._errors.read_text()}")

    def ask(self, path: str, body: object = None, **headers: str) -> tuple[int, bytes, Message]:
        data = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
        request = urllib.request.Request(
            f"{self.url}{path}", data, {"Content-Type": "application/json"} | headers
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, response.read(), response.headers
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read(), error.headers

    @property
    def lines(self) -> list[dict]:
        """One log line per request, written after the answer; while nginx runs, the last may be missing."""
        return [json.loads(line) for line in self._access.read_text().splitlines()]

    @property
    def errors(self) -> str:
        return self._errors.read_text()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)


@contextlib.contextmanager
def replicas(folder: Path, model: Path, *environs: dict[str, str]) -> Iterator[tuple[Proxy, list[Server]]]:
    """A server for each of `environs`, and nginx in front of them."""
    servers = [
        Server(folder / f"{number}.log", EMBED_MODEL_PATH=str(model), EMBED_PRECISION="fp32", **environ)
        for number, environ in enumerate(environs)
    ]
    proxy = None
    try:
        for server in servers:
            server.wait_until_ready()
        proxy = Proxy(folder / "nginx", servers)
        yield proxy, servers
    finally:
        if proxy:
            proxy.stop()
        for server in servers:
            kill(server)


def kill(server: Server) -> None:
    """Send SIGKILL to the master and its workers at once, as if the machine failed."""
    if server.process.poll() is not None:
        return
    pid = server.process.pid
    workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for process in (pid, *map(int, workers)):
        os.kill(process, signal.SIGKILL)
    server.process.wait()


@pytest.fixture(scope="module")
def pair(tmp_path_factory, tiny_folder):
    with replicas(tmp_path_factory.mktemp("pair"), tiny_folder, {}, {}) as (proxy, servers):
        yield proxy, servers


def test_a_killed_replica_costs_no_client_an_error(tmp_path, tiny_folder, reference):
    """Except for an answer whose headers were sent already: Gunicorn sends the body a moment later."""
    texts = [f"text {number} " + "word " * (number * 37 % 900) for number in range(24)]
    bodies = [orjson.dumps({"input": text}) for text in texts]
    expected = reference.encode(texts).dense
    clients, rounds = 12, 40
    with replicas(tmp_path, tiny_folder, {}, {}) as (proxy, (first, second)):
        seen: list[tuple[int, int, bytes]] = []
        cut: list[int] = []
        third = threading.Event()

        def client(number: int) -> None:
            for turn in range(rounds):
                text = (number * rounds + turn) % len(texts)
                try:
                    status, answer, _ = proxy.ask("/api/embed", bodies[text])
                except (http.client.IncompleteRead, http.client.RemoteDisconnected):
                    cut.append(text)
                    continue
                seen.append((text, status, answer))
                if len(seen) >= clients * rounds / 3:
                    third.set()

        threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        assert third.wait(120)
        kill(first)
        for thread in threads:
            thread.join(120)

    assert {status for _, status, _ in seen} == {200}
    assert len(seen) + len(cut) == clients * rounds
    for text, _, answer in seen:
        np.testing.assert_allclose(orjson.loads(answer)["embeddings"][0], expected[text], atol=1e-5)
    asked = Counter(line["replicas"] for line in proxy.lines)
    one, other = (f"127.0.0.1:{server.port}" for server in (first, second))
    assert asked[one] > 10
    assert asked[other] > 10
    # Requests that the killed one was working on, and a few that came later.
    again = asked[f"{one}, {other}"]
    assert 1 <= again <= 3 * clients
    assert len(cut) <= clients
    assert set(asked) == {one, other, f"{one}, {other}"}
    print(f"{again} requests were asked again, {len(cut)} answers were cut")


def test_a_replica_that_comes_back_is_used_again(tmp_path, tiny_folder):
    with replicas(tmp_path, tiny_folder, {}, {}) as (proxy, (first, _)):
        kill(first)
        for _ in range(4):
            assert proxy.ask("/api/embed", {"input": "a"})[0] == 200
        place = f"127.0.0.1:{first.port}"
        again = Server(tmp_path / "again.log", "--bind", place, EMBED_MODEL_PATH=str(tiny_folder))
        again.port, again.url = first.port, first.url
        try:
            again.wait_until_ready()
            before = len(proxy.lines) + 1
            end = time.monotonic() + 20
            back = False
            while not back and time.monotonic() < end:
                assert proxy.ask("/api/embed", {"input": "a"})[0] == 200
                time.sleep(0.1)
                back = any(line["replicas"] == place for line in proxy.lines[before:])
            assert back
        finally:
            kill(again)


def crowd(proxy: Proxy, clients: int = 8, rounds: int = 12) -> list[tuple[int, bytes, Message]]:
    """The answers to `clients` clients that send texts of about 2000 tokens at the same time."""
    answers = []
    body = orjson.dumps({"input": "word " * 2000})

    def client() -> None:
        answers.extend(proxy.ask("/api/embed", body) for _ in range(rounds))

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return answers


def test_a_stopped_replica_finishes_what_it_has(tmp_path, tiny_folder):
    with replicas(tmp_path, tiny_folder, {}, {}) as (proxy, (first, _)):

        def stop() -> None:
            wait_for(lambda: len(proxy.lines) > 20)
            first.process.send_signal(signal.SIGTERM)

        stopper = threading.Thread(target=stop)
        stopper.start()
        answers = crowd(proxy)
        stopper.join()
        assert first.process.wait(60) == 0
    assert Counter(status for status, _, _ in answers) == {200: 8 * 12}


def test_what_a_full_replica_refuses_another_takes(tmp_path, tiny_folder):
    """On the first, only one token may wait, so it refuses requests while anything waits."""
    with replicas(tmp_path, tiny_folder, {"EMBED_QUEUE_TOKENS": "1"}, {}) as (proxy, _):
        answers = crowd(proxy)
    assert Counter(status for status, _, _ in answers) == {200: 8 * 12}
    assert any("503" in line["replica_statuses"] for line in proxy.lines)


def test_where_all_are_full_the_client_hears_it_and_none_is_left_alone(tmp_path, tiny_folder):
    full = {"EMBED_QUEUE_TOKENS": "1"}
    with replicas(tmp_path, tiny_folder, full, full) as (proxy, servers):
        answers = crowd(proxy, clients=16)
        refused = [(json.loads(body), headers) for status, body, headers in answers if status == 503]
        assert refused
        assert {status for status, _, _ in answers} == {200, 503}
        for body, headers in refused:
            assert "wait" in body["error"]
            assert int(headers["Retry-After"]) >= 1
        for _ in range(6):
            assert proxy.ask("/api/embed", {"input": "a"}, **{"X-Request-ID": "later"})[0] == 200
    later = {line["replicas"] for line in proxy.lines if line["request_id"] == "later"}
    assert later == {f"127.0.0.1:{server.port}" for server in servers}


def test_where_none_is_there_the_error_is_json(tmp_path, tiny_folder):
    with replicas(tmp_path, tiny_folder, {}, {}) as (proxy, servers):
        for server in servers:
            kill(server)
        for _ in range(3):  # the first request finds them dead, the next ones find them marked as failed
            status, body, headers = proxy.ask("/api/embed", {"input": "a"}, **{"X-Request-ID": "id-9"})
            assert status == 502
            assert json.loads(body) == {"error": "no replica of the server can be reached", "details": {}}
            assert headers["X-Request-ID"] == "id-9"
            assert headers["Content-Type"] == "application/json"
        status, body, _ = proxy.ask("/v1/embeddings", {"input": "a", "model": "tiny"})
        assert status == 502
        assert "replica" in json.loads(body)["error"]["message"]


def test_a_request_id_goes_through_and_comes_back(pair):
    proxy, servers = pair
    _, _, headers = proxy.ask("/api/embed", {"input": "a"}, **{"X-Request-ID": "from-the-client"})
    assert headers["X-Request-ID"] == "from-the-client"
    for sent in ("", "not harmless", "x" * 200):
        _, _, headers = proxy.ask("/api/embed", {"input": "a"}, **{"X-Request-ID": sent})
        assert re.fullmatch("[0-9a-f]{32}", headers["X-Request-ID"])
    logs = "".join(server.log for server in servers)
    assert "from-the-client" in logs
    assert headers["X-Request-ID"] in logs


def test_a_body_as_large_as_the_server_takes_gets_through(pair):
    proxy, _ = pair
    room = 32 * 2**20
    start, end = b'{"input": "', b'"}'
    body = start + b"a " * ((room - len(start) - len(end)) // 2) + end
    status, answer, _ = proxy.ask("/api/embed", body)
    assert status == 422, answer  # it was read: a text may not have that many characters
    assert "characters" in json.loads(answer)["error"]


@pytest.mark.parametrize("size", [32 * 2**20 + 1, 80 * 2**20])
def test_a_larger_body_is_413_and_the_client_hears_it(pair, size):
    proxy, _ = pair
    status, answer, headers = proxy.ask("/api/embed", b'{"input": "' + b"a" * (size - 13) + b'"}')
    assert status == 413
    assert "fewer texts" in json.loads(answer)["error"]
    assert re.fullmatch("[0-9a-f]{32}", headers["X-Request-ID"])


def test_a_large_answer_to_a_slow_reader_is_whole(pair):
    """Tens of megabytes, which nginx never writes to a file."""
    proxy, _ = pair
    asked = {"input": ["word " * 8000, "other " * 8000, "third " * 8000], "return_colbert_vecs": True}
    request = urllib.request.Request(
        f"{proxy.url}/api/embed", orjson.dumps(asked), {"Content-Type": "application/json"}
    )
    pieces = []
    with urllib.request.urlopen(request, timeout=60) as response:
        while piece := response.read(2**20):
            pieces.append(piece)
            time.sleep(0.05)
    answer = orjson.loads(b"".join(pieces))
    assert len(b"".join(pieces)) > 15 * 2**20
    assert [len(rows) for rows in answer["colbert_vecs"]] == [8001] * 3
    assert "response is buffered to a temporary file" not in proxy.errors


def test_the_rest_of_the_server_is_there_but_for_metrics(pair):
    proxy, _ = pair
    for path in ("/readyz", "/healthz", "/apidocs/", "/apispec_1.json"):
        assert proxy.ask(path)[0] == 200
    status, body, _ = proxy.ask("/metrics")
    assert status == 404
    assert "each replica" in json.loads(body)["error"]
