"""What our worker adds to Gunicorn's, tested where a real server would show it only by chance."""

import contextlib
import io
import select
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from gunicorn.arbiter import Arbiter
from gunicorn.workers.gthread import PollableMethodQueue
from werkzeug.wsgi import wrap_file

from app.server.connection import SEND_BYTES, Connection
from app.server.worker import LATE, Worker
from tests.server import wait_for


@pytest.fixture
def worker() -> Worker:
    made = Worker.__new__(Worker)
    made.cfg = SimpleNamespace(worker_int=lambda _: None, threads=8, workers=1)
    made.watched = set()
    made.alive = True
    return made


def test_it_can_be_told_to_quit_while_it_hands_out_a_request(worker):
    worker.tpool = ThreadPoolExecutor(1)
    ended = []

    def quits() -> None:
        with worker.tpool._shutdown_lock, pytest.raises(SystemExit):  # held by submit()
            worker.handle_quit(0, None)
        ended.append(not worker.alive)

    thread = threading.Thread(target=quits, daemon=True)
    thread.start()
    thread.join(10)
    assert ended == [True]


def test_where_no_more_threads_are_to_be_had_those_there_are_take_every_request(worker, monkeypatch):
    start, started = threading.Thread.start, []

    def scarce(thread: threading.Thread) -> None:
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", scarce)
    warned = []
    worker.service = SimpleNamespace(threads=8)
    worker.log = SimpleNamespace(error=lambda *line: warned.append(line[0] % line[1:]))
    worker.tpool = ThreadPoolExecutor(8)
    worker._start_threads()
    assert warned == ["only 2 threads of 8 can be had"]
    assert worker.service.threads == 2
    parser = SimpleNamespace(unreader=SimpleNamespace(unread=lambda _: None))
    monkeypatch.setattr("app.server.worker.get_parser", lambda *_: parser)
    leave, done, answered = threading.Event(), [], []
    worker.handle = lambda connection: leave.wait(10) and done.append(connection)
    worker.method_queue = SimpleNamespace(defer=lambda _end, connection: answered.append(connection))
    connections = [_connection() for _ in range(5)]
    for connection in connections:
        worker._begin(connection)
    leave.set()
    wait_for(lambda: len(answered) == 5)
    assert sorted(map(id, done)) == sorted(map(id, connections))


@pytest.mark.parametrize("handler", ["handle_exit", "handle_quit"])
def test_a_signal_while_threads_start_ends_it_after_they_have(worker, monkeypatch, handler):
    """An exit that is raised in the middle of a start, where locks are released and taken, can be lost."""
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        getattr(worker, handler)(0, None)

    worker.loading = worker.booted = False
    worker.method_queue = SimpleNamespace(defer=lambda _: None)
    worker.service = SimpleNamespace(threads=8)
    worker.tpool = ThreadPoolExecutor(8)
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    worker._start_threads()
    assert worker.service.threads == 8
    assert not worker.alive
    worker.tpool.shutdown()


@pytest.mark.parametrize("found", [True, False])
def test_a_signal_while_it_loads_is_not_lost_where_the_exit_is(worker, found):
    """For example, if it is raised in a condition's wait, a lock's RuntimeError comes out."""
    worker.method_queue = SimpleNamespace(defer=lambda _: None)

    def load() -> bool:
        with contextlib.suppress(SystemExit):
            worker.handle_exit(0, None)
        return found

    worker.service = SimpleNamespace(load=load)
    with pytest.raises(SystemExit) as ended:
        worker.load()
    assert ended.value.code == 0


def test_where_no_thread_is_to_be_had_at_all_it_does_not_begin(worker, monkeypatch):
    def none(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none)
    worker.tpool, worker.age = ThreadPoolExecutor(8), 1
    worker.log = SimpleNamespace(error=lambda *_: None)
    with pytest.raises(SystemExit) as end:
        worker._start_threads()
    assert end.value.code == Arbiter.WORKER_BOOT_ERROR


def _connection() -> Connection:
    connection = Connection.__new__(Connection)
    connection.head = bytearray(b"GET / HTTP/1.1\r\n\r\n")
    connection.sock = SimpleNamespace(deadline=0.0)
    connection.client = None
    return connection


def test_where_many_are_late_the_loop_does_not_sleep_until_all_are_closed(worker):
    worker.looked = 0.0
    worker._close = worker.watched.discard
    worker.method_queue = PollableMethodQueue()
    worker.method_queue.init()
    for _ in range(3 * LATE):
        connection = _connection()
        connection.head.clear()
        worker.watched.add(connection)
    for _ in range(2):
        worker.murder_pending()
        assert select.select([worker.method_queue.fileno()], [], [], 0)[0]
        worker.method_queue.run_callbacks(None)
    worker.murder_pending()
    assert not worker.watched
    worker.method_queue.close()


def test_a_file_is_sent_in_large_pieces(worker):
    worker.application = lambda environ, _: wrap_file(environ, io.BytesIO(bytes(3 * SEND_BYTES)))
    environ = {"gunicorn.socket": SimpleNamespace(), "wsgi.input": None}
    assert [len(piece) for piece in worker._answer(environ, None)] == 3 * [SEND_BYTES]


@pytest.mark.parametrize(
    ("head", "whole"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r", False),
        (b"GET / HTTP/1.1\nHost", True),
        (b"GET / HTTP/1.1\r\nHost: x\n", True),
        (b"\n", True),
        (b"\r\n", False),
        (b"\r\n\r\n", True),
        (b"", False),
        (b"\r\r\r", False),
    ],
)
def test_a_head_is_whole_when_the_parser_can_decide(head, whole):
    """In whatever pieces it arrives."""
    connection = _connection()
    for step in range(1, len(head) + 1):
        connection.head = bytearray()
        found = []
        for start in range(0, len(head), step):
            looked = len(connection.head)
            connection.head += head[start : start + step]
            found.append(connection.is_whole(looked))
        assert any(found) == whole
