"""What the worker adds to Gunicorn's, where a real server would show it by chance only."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from app.worker import Worker
from app.worker.threads import Threads
from tests.server import wait_for


def test_it_can_be_told_to_quit_while_it_hands_out_a_request():
    worker = Worker.__new__(Worker)
    worker.cfg = SimpleNamespace(worker_int=lambda _: None)
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


def test_where_no_more_threads_are_to_be_had_it_makes_do_with_those_it_has(monkeypatch):
    leave, start, started = threading.Event(), threading.Thread.start, []
    most = 2

    def scarce(thread: threading.Thread) -> None:
        if len(started) == most:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", scarce)
    pool = Threads(8)
    futures = [pool.submit(lambda number=number: leave.wait(10) and number) for number in range(5)]
    leave.set()
    assert [future.result(10) for future in futures] == list(range(5))
    assert len(started) == 2
    most = 8
    leave.clear()
    futures = [pool.submit(leave.wait, 10) for _ in range(6)]
    wait_for(lambda: pool._work_queue.empty())  # with more threads at last, all of them run at a time
    assert not any(future.done() for future in futures)
    leave.set()
    most = len(started)
    with pytest.raises(RuntimeError, match="new thread"):
        Threads(8).submit(print)
    pool.shutdown()
