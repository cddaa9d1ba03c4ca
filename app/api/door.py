"""Answers at the door, without a walk through Flask: to what comes too much, and to what is not HTTP.

Where nothing more may wait, a refusal out of a request's head alone must not cost what serving costs.
"""

import logging
import re
import ssl
import time
from email.utils import formatdate
from http import HTTPStatus

from flask import Flask, Response
from gunicorn.http.errors import (
    ExpectationFailed,
    ForbiddenProxyRequest,
    InvalidResponseHeader,
    InvalidResponseHeaderName,
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
    UnsupportedTransferCoding,
)

from app.api import requests
from app.api.auth import may_enter
from app.api.context import Encoder
from app.api.encode import QUICK
from app.api.errors import SENTENCES, Busy, overloaded, refusal

REQUEST_LINE = re.compile(rb"POST (/[\w/.-]*) HTTP/1\.[01]\r\n")
FIELD = re.compile(rb"([\w-]+):[ \t]*(.*?)[ \t]*\Z", re.DOTALL)
LENGTH = re.compile(rb"[0-9]{1,9}")
# A body up to here is on its way already; a client must have sent a longer one before it listens.
SMALL_BODY = 1 << 16
# Heads with these have more to them than is looked at here.
UNUSUAL = {b"transfer-encoding", b"expect", b"origin", b"upgrade"}
# By what the parser says, the first that fits; two of them are said of an answer of ours.
UNREADABLE: dict[type[Exception], int] = {
    InvalidResponseHeader: 500,
    InvalidResponseHeaderName: 500,
    LimitRequestLine: 414,
    LimitRequestHeaders: 431,
    ExpectationFailed: 417,
    UnsupportedTransferCoding: 501,
    ForbiddenProxyRequest: 403,
    ssl.SSLError: 400,
    ParseException: 400,
}
log = logging.getLogger(__name__)


class Door:
    """What a worker asks about each head it has read, and about those that it cannot read."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._encoder: Encoder = app.extensions["encoder"]
        self._keys = app.config["EMBED"].keys
        self._paths = {
            rule.rule
            for rule in app.url_map.iter_rules()
            if "POST" in (rule.methods or ()) and rule.endpoint not in QUICK and not rule.arguments
        }
        self._seconds = 0  # those that the bodies below tell to wait
        self._bodies: dict[str, bytes] = {}

    def refusal(self, head: bytes, surplus: bool = False) -> tuple[bytes, int] | None:
        """The whole answer to a request that must not wait, and the bytes of that; None if it may.

        `surplus`: no thread is left to wait in.
        """
        if not (surplus or self._encoder.full):
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
            field = FIELD.match(text)
            if not field or field[1].lower() in fields:
                return None  # folded, doubled or broken: for the parser
            fields[field[1].lower()] = field[2]
        length = fields.get(b"content-length", b"0")
        if UNUSUAL & fields.keys() or not LENGTH.fullmatch(length) or int(length) > SMALL_BODY:
            return None
        if self._keys and not may_enter(fields.get(b"authorization", b"").decode("latin-1"), self._keys):
            return None
        request_id = requests.request_id(fields.get(b"x-request-id", b"").decode("latin-1"))
        answer = self._answer(path, request_id)
        requests.record("POST", path, 503, time.perf_counter() - start, request_id, self._encoder.waiting)
        return answer, end + 4 + int(length)

    def unreadable(self, error: Exception) -> bytes:
        """The whole answer to a request that the parser gave up on with this error."""
        start = time.perf_counter()
        status = next((status for kind, status in UNREADABLE.items() if isinstance(error, kind)), 500)
        if status == 500:
            log.error("a request failed outside of Flask", exc_info=error)
            sentence = SENTENCES[500]
        else:
            sentence = f"the request is not HTTP as it is read here: {type(error).__name__}"
        request_id = requests.request_id("")
        with self._app.test_request_context("/none"):  # nobody knows which protocol it was
            answer = _whole(status, request_id, _bytes(refusal(status, sentence)))
        requests.record(
            "other", "none", status, time.perf_counter() - start, request_id, self._encoder.waiting
        )
        return answer

    def _answer(self, path: str, request_id: str) -> bytes:
        seconds = self._encoder.drain_seconds
        if seconds != self._seconds:
            self._bodies, self._seconds = {}, seconds
        if path not in self._bodies:
            with self._app.test_request_context(path):
                self._bodies[path] = _bytes(overloaded(Busy(seconds)))
        return _whole(503, request_id, self._bodies[path])


def _whole(status: int, request_id: str, rest: bytes) -> bytes:
    line = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"
    return f"{line}\r\nDate: {formatdate(usegmt=True)}\r\nX-Request-ID: {request_id}\r\n".encode() + rest


def _bytes(response: Response) -> bytes:
    """The headers that do not change, and the body."""
    fields = {**requests.HEADERS, **response.headers, "Connection": "close"}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{head}\r\n".encode() + response.get_data()
