"""Clients that are slow, silent, gone or broken do not affect others: `make test-faults`."""

import contextlib
import random
import resource
import socket
import threading
import time
from collections import Counter

import orjson
import pytest

from tests.server import Server, head, more_config, serving, wait_for

pytestmark = pytest.mark.faults

IDLE = 10_000


@pytest.fixture
def environ(tiny_folder) -> dict[str, str]:
    return {"EMBED_MODEL_PATH": str(tiny_folder), "EMBED_PRECISION": "fp32"}


@pytest.fixture
def server(tmp_path, environ):
    with serving(tmp_path / "log", **environ) as server:
        yield server


@pytest.fixture
def hasty(tmp_path) -> tuple[str, str]:
    """The flags of a server that waits at most two seconds for bodies and for readers."""
    return more_config(
        tmp_path,
        "import app.server.worker, app.server.connection\n"
        "app.server.worker.BODY_SECONDS = app.server.connection.SEND_SECONDS = 2.0",
    )


@contextlib.contextmanager
def idle_connections(server: Server, count: int):
    """Open connections and send nothing."""
    opened = []
    try:
        for number in range(count):
            connection = socket.socket()
            opened.append(connection)
            connection.setblocking(False)
            connection.connect_ex(("127.0.0.1", server.port))
            if number % 1000 == 0:
                time.sleep(0.05)
        yield opened
    finally:
        for connection in opened:
            connection.close()


def test_ten_thousand_connections_opened_and_left_idle(server):
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if most < IDLE + 1000:
        pytest.skip(f"only {most} files may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with idle_connections(server, IDLE) as opened:
        waits = [server.health_ms() for _ in range(20)]
        assert server.ask("a busy one") == 200
        held = sum(_is_open(connection) for connection in opened)
        time.sleep(12)
        left = sum(_is_open(connection) for connection in opened)
    print(
        f"{IDLE} idle connections: {held} held at a time, others' health checks within {max(waits):.0f} ms, "
        f"half within {sorted(waits)[10]:.0f} ms; {left} left after 12 s"
    )
    assert max(waits) < 5000
    assert held > 0.9 * IDLE
    assert left == 0
    assert "Traceback" not in server.log


def _is_open(connection: socket.socket) -> bool:
    try:
        return connection.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def test_more_idle_connections_than_files_may_be_open(tmp_path, environ):
    """Those that have waited longest are closed."""
    with serving(tmp_path / "log", under=("prlimit", "--nofile=1024:1024"), **environ) as server:
        with idle_connections(server, 3000):
            waits = [server.health_ms() for _ in range(20)]
            assert server.ask("a busy one") == 200
        print(f"3000 idle connections where 1024 files may be open: others within {max(waits):.0f} ms")
        assert max(waits) < 5000
        assert "Traceback" not in server.log


def test_more_busy_connections_than_files_may_be_open(tmp_path, environ):
    """A connection that is closed for this may have sent something just then."""
    with serving(tmp_path / "log", under=("prlimit", "--nofile=1024:1024"), **environ) as server:
        (worker,) = server.workers
        for number in range(6):
            with idle_connections(server, 1000) as opened:
                for _ in range(20):
                    for connection in random.Random(number).sample(opened, 500):
                        with contextlib.suppress(OSError):
                            connection.send(b"P")
                assert server.ask("a busy one") == 200
        assert server.workers == {worker}
        assert "Traceback" not in server.log


def test_slow_heads_take_no_threads(server):
    starts = 300 * [b"POST /api/embed HTTP/1.1\r\nHost:", b"1"]
    slow = [server.connect(start) for start in starts]
    waits = []
    for _ in range(5):
        for connection in slow:
            connection.sendall(b" x")
        waits.append(server.health_ms())
    assert server.ask("a quick one") == 200
    time.sleep(12)
    heard = Counter()
    for connection in slow:
        connection.setblocking(False)
        with connection.makefile("rb") as file:  # to its end
            heard[file.read()[9:12]] += 1
    print(f"600 slow heads: others within {max(waits):.0f} ms, after 12 s {heard}")
    assert max(waits) < 2000
    assert heard == {b"408": 600}


def test_a_head_in_pieces_is_read_whole(server):
    body = orjson.dumps({"input": "in pieces"})
    with server.connect() as connection:
        data = head(len(body)) + body
        for start in range(0, len(data), 7):
            connection.sendall(data[start : start + 7])
            time.sleep(0.01)
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")


def test_slow_bodies_are_refused_after_a_time(tmp_path, environ, hasty):
    with serving(tmp_path / "log", *hasty, **environ) as server:
        slow = [server.connect(head(1000) + b'{"input"') for _ in range(200)]
        time.sleep(0.5)
        wait = server.health_ms()
        assert server.ask("a quick one") == 200
        start = time.monotonic()
        with contextlib.suppress(OSError):  # sending a byte now and then does not help
            while time.monotonic() < start + 4:
                slow[0].sendall(b" ")
                time.sleep(0.2)
        answers = [connection.recv(100) for connection in slow[1:]]
        print(f"200 slow bodies: others within {wait:.0f} ms, then {answers[0].splitlines()[0].decode()}")
        assert wait < 2000
        assert all(answer.startswith(b"HTTP/1.1 408 ") for answer in answers)
        assert server.log.count(" 408, ") == 200
        assert "Traceback" not in server.log


@pytest.mark.parametrize(
    ("sent", "threads", "question"),
    [
        pytest.param(head(500), 176, 503, id="small"),
        pytest.param(head(1 << 20), 208, 200, id="large"),
        pytest.param(head(500, "/tokenize"), 176, 503, id="quick"),
    ],
)
def test_slow_bodies_leave_threads_to_questions_and_health_checks(tmp_path, environ, sent, threads, question):
    flags = more_config(tmp_path, "import app.server.worker\napp.server.worker.BODY_SECONDS = 30.0")
    with serving(tmp_path / "log", *flags, **environ) as server:
        slow = [server.connect(sent + b'{"input"') for _ in range(400)]
        waits = [server.health_ms() for _ in range(5)]
        asked = server.ask("one more")
        answers = Counter(connection.recv(100)[9:12] for connection in slow)
        print(f"400 slow bodies: health within {max(waits):.0f} ms, a question gets {asked}; {answers}")
        assert max(waits) < 3000
        assert asked == question
        assert answers == {b"408": threads, b"503": 400 - threads}
        assert server.ask("afterwards") == 200
        assert "Traceback" not in server.log


def test_who_does_not_read_the_answer_loses_it(tmp_path, environ, hasty):
    """Such a client keeps the only thread until the time for its answer is up."""
    body = orjson.dumps({"input": ["word " * 8000] * 4, "return_colbert_vecs": True})
    with serving(tmp_path / "log", *hasty, "--threads", "1", **environ) as server:
        connection = server.connect(head(len(body)) + body)
        wait_for(lambda: " 200, 4 texts" in server.log)
        wait = server.health_ms()
        print(f"one thread, an answer that nobody reads: others within {wait:.0f} ms")
        assert wait < 25_000  # two seconds, and one per 256 KiB that the kernel buffers: 4 MiB at most
        with connection.makefile("rb") as file:
            assert len(file.read()) < 10_000_000, "it was not cut, so nothing was held"
        assert "Traceback" not in server.log


def test_who_reads_a_little_now_and_then_loses_the_answer_too(tmp_path, environ, hasty):
    """The time is for the whole answer: a second more for each 256 KiB that the client takes."""
    body = orjson.dumps({"input": ["word " * 8000] * 4, "return_colbert_vecs": True})
    with serving(tmp_path / "log", *hasty, "--threads", "1", **environ) as server:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(30)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(head(len(body)) + body)
        start, read = time.monotonic(), 0
        with contextlib.suppress(OSError):
            while time.monotonic() < start + 40 and (piece := connection.recv(200)):
                read += len(piece)
                time.sleep(0.1)
        wait = server.health_ms()  # answered by the only thread, while this client would go on
        print(f"200 bytes at a time, for 40 s: others within {wait:.0f} ms then")
        connection.close()
        assert wait < 5000
        assert read < 10_000_000
        assert "Traceback" not in server.log


def test_who_does_not_close_after_the_answer_delays_nobody(server):
    waiting = [server.connect(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") for _ in range(300)]
    for connection in waiting:
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
    waits = [server.health_ms() for _ in range(10)]
    print(f"300 clients that keep their side open: others within {max(waits):.0f} ms")
    assert max(waits) < 1000


def test_clients_that_vanish_by_the_hundred(server):
    body = orjson.dumps({"input": ["a " * 500] * 20})
    for number in range(300):
        server.connect(head(len(body)) + body[: random.Random(number).randint(0, len(body))]).close()
    end = time.monotonic() + 60
    while server.ask("still there") != 200 and time.monotonic() < end:
        time.sleep(0.2)
    assert server.ask("still there") == 200
    assert "Traceback" not in server.log


def test_a_half_closed_connection_does_no_harm(server):
    body = orjson.dumps({"input": "half"})
    with server.connect(head(len(body)) + body) as connection:
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100).startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 499 "))
    assert server.ask("whole") == 200


@pytest.mark.parametrize(
    "chunks", [b"zz\r\nabc", b"5\r\nabc", b"3\r\nabcdefg\r\n0\r\n\r\n", b"3;\x00\r\nabc\r\n"]
)
def test_broken_chunks_are_the_clients_fault(server, chunks):
    start = (
        b"POST /api/embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    with server.connect(start + chunks) as connection:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
    assert "Traceback" not in server.log


def test_one_giant_request_does_not_starve_small_ones(server):
    """Even if it is larger than everything that may wait."""

    giant = threading.Thread(
        target=server.ask, args=([f"{'a ' * 2000}{number}" for number in range(150)], 300)
    )
    giant.start()
    time.sleep(1)
    waits = []
    while giant.is_alive() and len(waits) < 20:
        start = time.perf_counter()
        assert server.ask("a short one") == 200
        waits.append(time.perf_counter() - start)
    giant.join()
    print(f"beside a request of 300 000 tokens a short one took at most {max(waits):.2f} s")
    assert len(waits) > 3
