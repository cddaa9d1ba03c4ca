"""Rejecting a request must be much cheaper than serving it.

A WSGI layer in front of Flask limits how many threads each kind of request may use. It refuses a request at
once when no thread or no room in the queue is left: a refusal by Flask costs three times as much.
"""

import re
import threading
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Literal

from flask import Flask, request
from werkzeug.wsgi import ClosingIterator

from app.api import request_log, tracing
from app.api.auth import Keys
from app.api.body import discard_body
from app.api.context import Encoder
from app.api.errors import Busy, overloaded
from app.api.protocol import is_open, registered
from app.engine.embeddings import Priority

# A body of up to this size is on its way already; a client sends all of a longer one before it listens.
SMALL_BODY = 1 << 16
# A larger body is hardly a question. Flask and the tokenizer work on what is let in before it can be refused.
QUESTION_BYTES = 1 << 9
MOST_ANSWERS = 256  # how many refusals are kept, to be sent again
Kind = Literal[
    "interactive", "bulk", "other"
]  # a POST's priority class, or everything else except health checks
# The share of all threads that each kind may use, so that no kind locks out the others.
SHARES: dict[Kind, float] = {"interactive": 11 / 16, "bulk": 13 / 16, "other": 8 / 16}
SPARE = 16  # one thread in so many is kept for health checks and refusals
SLASHES = re.compile("//+")


class Seats:
    """How many threads each kind of request uses."""

    def __init__(self) -> None:
        self.threads = 1 << 30  # until the worker says how many there are
        self._taken = Counter[Kind]()
        self._lock = threading.Lock()

    def take(self, kind: Kind) -> bool:
        """Take a thread for this kind of request; False if none is left for it."""
        most = max(1, self.threads - max(1, self.threads // SPARE))
        with self._lock:
            free = self._taken[kind] < SHARES[kind] * self.threads and self._taken.total() < most
            self._taken[kind] += free
            return free

    def leave(self, kind: Kind, seat: bool) -> None:
        with self._lock:
            self._taken[kind] -= seat


def init_app(app: Flask) -> None:
    """Call it after all endpoints are registered."""
    app.extensions["seats"] = Seats()
    app.wsgi_app = Admission(app)  # type: ignore[method-assign]
    app.before_request(_refuse)


def _refuse() -> None:
    """Whether a refusal needs more than the stored one, such as CORS headers for a page on another host."""
    busy: Busy | None = request.environ.get("embed.busy")
    if busy:
        if request.environ["embed.seat"]:  # else no thread may wait for the rest of a body
            discard_body()
        raise busy


class Admission:
    """Call the application if a thread and room in the queue are left for this request, else refuse it."""

    def __init__(self, app: Flask) -> None:
        self._app, self._next = app, app.wsgi_app
        self._seats: Seats = app.extensions["seats"]
        self._encoder: Encoder = app.extensions["encoder"]
        self._keys: Keys = app.extensions["keys"]
        rules = [rule for rule in app.url_map.iter_rules() if not rule.arguments]
        posted = {rule.rule: rule.endpoint for rule in rules if "POST" in (rule.methods or ())}
        quick = {view for protocol in registered(app) for view in protocol.quick}
        self._health = {
            rule.rule for rule in rules if rule.endpoint.startswith("health.") or is_open(app, rule.endpoint)
        }
        self._posted = set(posted)
        self._costly = {path for path, view in posted.items() if view not in quick}
        self._answers: dict[tuple[str, int], tuple[list[tuple[str, str]], bytes]] = {}

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start = time.perf_counter()
        # Clients given a base URL that ends with a slash send two.
        path = environ["PATH_INFO"] = SLASHES.sub("/", environ["PATH_INFO"])
        path = path.rstrip("/") or "/"
        if path in self._health:
            return self._next(environ, start_response)
        size = _size(environ)
        priority: Priority = "interactive" if size is not None and size <= QUESTION_BYTES else "bulk"
        kind: Kind = priority if environ["REQUEST_METHOD"] == "POST" else "other"
        load = self._encoder.load_state
        seat = environ["embed.seat"] = self._seats.take(kind)
        waits = kind != "other" and path in self._costly
        if not seat or (waits and priority in load.full):
            busy = environ["embed.busy"] = Busy(load.drain_seconds[priority])
            if self._is_plain(environ, path, size):
                self._seats.leave(kind, seat)
                return self._answer(environ, start_response, path, busy.seconds, start)
        try:
            answer = self._next(environ, start_response)
        except BaseException:
            self._seats.leave(kind, seat)
            raise
        # A client that reads its answer slowly keeps its thread until it has read it.
        return ClosingIterator(answer, partial(self._seats.leave, kind, seat))

    def _is_plain(self, environ: dict[str, Any], path: str, size: int | None) -> bool:
        """Whether a refusal needs nothing that only Flask knows; without a key it is another one."""
        return (
            path in self._posted
            and environ["REQUEST_METHOD"] == "POST"
            and size is not None
            and size <= SMALL_BODY
            and "HTTP_ORIGIN" not in environ
            and (not self._keys or self._keys.match(environ))
        )

    def _answer(
        self, environ: dict[str, Any], start_response: Any, path: str, seconds: int, start: float
    ) -> list[bytes]:
        found = self._answers.get((path, seconds))
        if found is None:
            if len(self._answers) >= MOST_ANSWERS:
                self._answers.clear()
            with self._app.test_request_context(path):
                response = overloaded(Busy(seconds))
            response.headers.update(request_log.HEADERS)
            found = self._answers[path, seconds] = list(response.headers), response.get_data()
        headers, body = found
        number = request_log.request_id(environ.get("HTTP_X_REQUEST_ID", ""))
        start_response("503 SERVICE UNAVAILABLE", [*headers, ("X-Request-ID", number)])
        waiting = self._encoder.load_state.waiting
        trace = tracing.trace_id(environ)
        spent = time.perf_counter() - start
        request_log.record("POST", path, 503, spent, number, waiting, trace_id=trace)
        return [body]


def _size(environ: dict[str, Any]) -> int | None:
    """Of the body, if the head tells it."""
    if "HTTP_TRANSFER_ENCODING" in environ:
        return None
    with suppress(ValueError):
        return int(environ.get("CONTENT_LENGTH") or 0)
    return None
