"""Who has to come again: refusals where nothing more may wait, most of them out of a request's head alone.

What comes too much must not cost what serving costs: it gets neither a thread nor a walk through Flask. What
is not HTTP never comes as far as Flask and is answered here too.
"""

import math
import re
import threading
import time
from collections import Counter
from email.utils import formatdate
from http import HTTPStatus

from flask import Flask, Response, current_app, g, request

from app.api import requests
from app.api.auth import may_enter
from app.api.body import discard_body
from app.api.context import Encoder, encoder
from app.api.errors import Busy, overloaded, unreadable
from app.engine.embeddings import Priority

REQUEST_LINE = re.compile(rb"POST (/[\w/.-]*) HTTP/1\.[01]\r\n")
NAME = re.compile(rb"[\w-]+")
LENGTH = re.compile(rb"[0-9]{1,9}")
# A body up to here is on its way already; a client must have sent a longer one before it listens.
SMALL_BODY = 1 << 16
# A larger body is hardly that of a question. What is let in costs Flask and the tokenizer before it can be
# refused.
QUESTION_BYTES = 1 << 9
# Heads with these have more to them than is looked at here.
UNUSUAL = {b"transfer-encoding", b"expect", b"origin", b"upgrade"}
MOST_BODIES = 256  # of refusals that are kept
# Views with a body that do not wait for the encoder.
QUICK = {"ollama.show", "ollama.pull", "ollama.generate", "tei.tokenize"}
# The share of all threads that requests of a class may have, so that neither keeps the other out.
SEATS: dict[Priority, float] = {"interactive": 11 / 16, "bulk": 13 / 16}


class Seats:
    """How many threads the requests of each class have, and for which there are no more."""

    def __init__(self) -> None:
        self.threads: float = math.inf
        self._taken = Counter[Priority]()
        self._lock = threading.Lock()

    @property
    def full(self) -> frozenset[Priority]:
        return frozenset(name for name, share in SEATS.items() if self._taken[name] >= share * self.threads)

    def take(self, priority: Priority) -> bool:
        """Whether there is one, which is taken then."""
        with self._lock:
            free = priority not in self.full
            self._taken[priority] += free
            return free

    def leave(self, priority: Priority | None) -> None:
        if priority:
            with self._lock:
                self._taken[priority] -= 1


def init_app(app: Flask) -> None:
    seats = app.extensions["seats"] = Seats()
    app.before_request(_refuse)
    app.teardown_request(lambda _: seats.leave(g.pop("seat", None)))


def _refuse() -> None:
    """Where nothing more may wait, a body is not worth parsing, checking and tokenising."""
    if request.method != "POST" or request.endpoint is None:
        return
    seats: Seats = current_app.extensions["seats"]
    priority = _priority_of(request.content_length)
    load = encoder().load_state
    # One of the last threads, which are there for others, is not held by reading either.
    if getattr(request.environ.get("gunicorn.socket"), "surplus", False) or not seats.take(priority):
        raise Busy(load.drain_seconds[priority])
    g.seat = priority
    if priority in load.full and request.endpoint not in QUICK:
        discard_body()
        raise Busy(load.drain_seconds[priority])


def _priority_of(size: int | None) -> Priority:
    """What a request with a body of so many bytes is most likely: a question is short."""
    return "interactive" if size is not None and size <= QUESTION_BYTES else "bulk"


class Admission:
    """What a worker asks about each head it has read, and about those that it cannot read."""

    def __init__(self, app: Flask, threads: float = math.inf) -> None:
        """`threads`: that requests may have."""
        self._app = app
        self._seats: Seats = app.extensions["seats"]
        self._seats.threads = threads
        self._encoder: Encoder = app.extensions["encoder"]
        self._keys: tuple[bytes, ...] = app.extensions["keys"]
        self._paths = {
            rule.rule
            for rule in app.url_map.iter_rules()
            if "POST" in (rule.methods or ()) and rule.endpoint not in QUICK and not rule.arguments
        }
        self._bodies: dict[tuple[str, int], bytes] = {}  # by path and the seconds that they tell to wait

    def refusal(self, head: bytes, surplus: bool = False) -> tuple[bytes, int] | None:
        """The whole answer to a request that must not wait, and the bytes of that; None if it may.

        `surplus`: no thread is left to wait in.
        """
        load = self._encoder.load_state
        full = load.full | self._seats.full
        if not (surplus or full):
            return None
        start = time.perf_counter()
        line = REQUEST_LINE.match(head)
        if not line:
            return None
        path, end = line[1].decode(), head.find(b"\r\n\r\n")
        if end < 0 or path not in self._paths:
            return None
        fields: dict[bytes, bytes] = {}
        for text in head[line.end() : end].split(b"\r\n"):
            name, colon, value = text.partition(b":")
            name = name.lower()
            if not colon or not NAME.fullmatch(name) or name in fields:
                return None  # folded, doubled or broken: for the parser
            fields[name] = value.strip(b" \t")
        length = fields.get(b"content-length", b"0")
        if UNUSUAL & fields.keys() or not LENGTH.fullmatch(length) or int(length) > SMALL_BODY:
            return None
        priority = _priority_of(int(length))
        if not surplus and priority not in full:
            return None
        if self._keys and not may_enter(fields.get(b"authorization", b"").decode("latin-1"), self._keys):
            return None
        request_id = requests.request_id(fields.get(b"x-request-id", b"").decode("latin-1"))
        answer = self._answer(path, request_id, load.drain_seconds[priority])
        requests.record("POST", path, 503, time.perf_counter() - start, request_id, load.waiting)
        return answer, end + 4 + int(length)

    def unreadable(self, error: Exception) -> bytes:
        """The whole answer to a request that the parser gave up on with this error."""
        start = time.perf_counter()
        request_id = requests.request_id("")
        with self._app.test_request_context("/none"):  # nobody knows which protocol it was
            response = unreadable(error)
            answer = _whole(response.status_code, request_id, _bytes(response))
        seconds = time.perf_counter() - start
        waiting = self._encoder.load_state.waiting
        requests.record("other", "none", response.status_code, seconds, request_id, waiting)
        return answer

    def _answer(self, path: str, request_id: str, seconds: int) -> bytes:
        if (path, seconds) not in self._bodies:
            if len(self._bodies) >= MOST_BODIES:
                self._bodies.clear()
            with self._app.test_request_context(path):
                self._bodies[path, seconds] = _bytes(overloaded(Busy(seconds)))
        return _whole(503, request_id, self._bodies[path, seconds])


def _whole(status: int, request_id: str, rest: bytes) -> bytes:
    line = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"
    return f"{line}\r\nDate: {formatdate(usegmt=True)}\r\nX-Request-ID: {request_id}\r\n".encode() + rest


def _bytes(response: Response) -> bytes:
    """The headers that do not change, and the body."""
    fields = {**requests.HEADERS, **response.headers, "Connection": "close"}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{head}\r\n".encode() + response.get_data()
