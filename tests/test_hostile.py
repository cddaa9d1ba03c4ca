"""Hundreds of hostile clients neither stop other clients nor exhaust the memory: `make test-faults`."""

import contextlib
import http.client
import multiprocessing
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest

from tests.server import Server, head, serving, wait_for

pytestmark = pytest.mark.faults

CLIENTS = 300
HEALTH_MS, LONGEST_MS = 100.0, 5000.0  # the median, and the longest during the flood
MORE_MIB = 1000.0
WATCHED_SECONDS = 15.0
START = b"GET / HTTP/1.1\r\nHost: h\r\n"
GROWS = "\ufdfa"  # 18 characters under NFKC


def post(path: str, **content: object) -> bytes:
    body = orjson.dumps(content)
    return head(len(body), path) + body


def send(data: bytes) -> Callable[[socket.socket], None]:
    def attack(connection: socket.socket) -> None:
        connection.sendall(data)

    return attack


def out_of_band(connection: socket.socket) -> None:
    connection.sendall(START)
    connection.send(b"x", socket.MSG_OOB)


def dribble(connection: socket.socket) -> None:
    connection.sendall(START)
    for _ in range(100):
        connection.sendall(b"a")
        time.sleep(0.1)


ATTACKS: dict[str, Callable[[socket.socket], None]] = {
    "40 KB of a head without an end": send(START + 8000 * b"a: b\r\n"),
    "a head that comes byte by byte": dribble,
    "a byte out of band": out_of_band,
    "bare line feeds": send(b"GET / HTTP/1.1\nHost: h\n\n"),
    "a body that does not come": send(head(1 << 20) + b'{"input"'),
    "1 MB to /tokenize": send(post("/tokenize", inputs=500_000 * "a ")),
    "3 MB that grow": send(post("/api/embed", input=1_000_000 * GROWS)),
    "3 MB that grow and may not be cut": send(post("/api/embed", input=1_000_000 * GROWS, truncate=False)),
    "3 MB that grow, cut into passages": send(post("/api/embed", input=1_000_000 * GROWS, chunk=True)),
    "3 MB that grow, to /tokenize": send(post("/tokenize", inputs=1_000_000 * GROWS)),
    "100 pairs of 8000 tokens": send(
        post("/rerank", query="a " * 8000, texts=[f"{'b ' * 8000}{number % 3}" for number in range(100)])
    ),
    "large answers that are not read": send(
        post("/api/embed", input=2000 * ["word " * 240], return_colbert_vecs=True)
    ),
    "files that are not read": send(
        b"GET /assets/vendor/swagger-ui/swagger-ui-bundle.js HTTP/1.1\r\nHost: h\r\n\r\n"
    ),
}


@pytest.fixture
def server(tmp_path, tiny_folder) -> Iterator[Server]:
    environ = {"EMBED_MODEL_PATH": str(tiny_folder), "EMBED_PRECISION": "fp32", "OMP_NUM_THREADS": "1"}
    with serving(tmp_path / "log", **environ) as server:
        yield server


def resident_mib(server: Server) -> float:
    (worker,) = server.workers
    lines = Path(f"/proc/{worker}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def health_ms(server: Server) -> float:
    start = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", "/healthz")
    assert connection.getresponse().status == 200
    connection.close()
    return 1e3 * (time.perf_counter() - start)


def attackers(port: int, names: list[str]) -> None:
    """Run a client for each name; it repeats that attack until this process ends."""

    def client(attack: Callable[[socket.socket], None]) -> None:
        while True:
            with contextlib.suppress(OSError), socket.socket() as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                connection.settimeout(60)
                connection.connect(("127.0.0.1", port))
                attack(connection)
                time.sleep(WATCHED_SECONDS)

    for name in names:
        threading.Thread(target=client, args=(ATTACKS[name],), daemon=True).start()
    time.sleep(3600)


@contextlib.contextmanager
def attacked(server: Server, names: list[str]) -> Iterator[None]:
    """Attack from a separate process, so that its clients do not delay our health checks."""
    process = multiprocessing.get_context("spawn").Process(target=attackers, args=(server.port, names))
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


@pytest.mark.parametrize("attack", [*ATTACKS, "all at once"])
def test_health_checks_are_answered_and_memory_is_bounded(server, attack):
    (worker,) = server.workers
    chosen = list(ATTACKS) if attack == "all at once" else [attack]
    before = resident_mib(server)
    waits, memory = [], 0.0
    with attacked(server, [chosen[number % len(chosen)] for number in range(CLIENTS)]):
        time.sleep(1)  # until it has started its clients
        end = time.monotonic() + WATCHED_SECONDS
        while time.monotonic() < end:
            waits.append(health_ms(server))
            memory = max(memory, resident_mib(server))
            time.sleep(0.05)
    waits.sort()
    wait_for(lambda: server.ask("afterwards") == 200)
    with contextlib.suppress(AssertionError):  # requests that were admitted may still be computed
        wait_for(lambda: resident_mib(server) < before + 200)
    after = resident_mib(server)
    print(
        f"{CLIENTS} times {attack}: health checks {waits[len(waits) // 2]:.0f} ms, "
        f"p95 {waits[int(0.95 * len(waits))]:.0f} ms, longest {waits[-1]:.0f} ms; "
        f"memory {before:.0f} MiB, at most {memory:.0f}, afterwards {after:.0f}"
    )
    assert server.workers == {worker}
    assert "Traceback" not in server.log
    assert waits[len(waits) // 2] < HEALTH_MS
    assert waits[-1] < LONGEST_MS
    assert memory < before + MORE_MIB
