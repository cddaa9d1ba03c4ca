"""What is written: JSON in pieces, and where the time went."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
from flask import Flask, Response, current_app, g
from flask.json.provider import JSONProvider

from app.api.context import encoder
from app.api.metrics import count_work
from app.engine.embeddings import Embeddings, Scores

# Numbers of an array that are written at a time, about 1 ms: no other thread runs meanwhile, as orjson does
# not give up the interpreter's lock.
PIECE_NUMBERS = 1 << 15
PIECE_ITEMS = 16  # of a list, such as vectors
PIECE_BYTES = 1 << 17  # at least, of what is sent at a time; questions go first before each


class OrjsonProvider(JSONProvider):
    """Flask's JSON by orjson: arrays go to the wire without Python floats, keys keep their order."""

    def dumps(self, obj: Any, **_: Any) -> str:
        return _dumps(obj).decode()

    def loads(self, s: str | bytes, **_: Any) -> Any:
        return orjson.loads(s)

    def response(self, *args: Any, **kwargs: Any) -> Any:
        pieces = []
        for piece in _joined(_pieces(self._prepare_response_obj(args, kwargs))):
            if len(piece) >= PIECE_BYTES:
                encoder().give_way()
            pieces.append(piece)
        response = Response(pieces, mimetype="application/json")
        response.content_length = sum(map(len, pieces))
        return response


def init_app(app: Flask) -> None:
    app.json = OrjsonProvider(app)


def answer(content: Any, done: Embeddings | Scores) -> Response:
    """A JSON answer that says in its Server-Timing header where the time went, in milliseconds.

    What was done goes to the metrics and to the request's line in the log.
    """
    start = time.perf_counter_ns()
    response: Response = current_app.json.response(content)  # type: ignore[assignment]
    spent = {
        "tokenize": done.timings.tokenize,
        "queue": done.timings.queue,
        "forward": done.timings.forward,
        "serialize": time.perf_counter_ns() - start,
    }
    g.done = done
    count_work(done, spent)
    response.headers["Server-Timing"] = ", ".join(f"{name};dur={ns / 1e6:.2f}" for name, ns in spent.items())
    return response


def _pieces(content: Any) -> Iterator[bytes]:
    """Content as JSON, a few items of a list or rows of an array at a time."""
    if isinstance(content, dict):
        yield b"{"
        for number, (key, value) in enumerate(content.items()):
            yield b"," * (number > 0) + orjson.dumps(key) + b":"
            yield from _pieces(value)
        yield b"}"
    elif isinstance(content, list):
        yield b"["
        for start in range(0, len(content), PIECE_ITEMS):
            yield b"," * (start > 0)
            yield from _items(content[start : start + PIECE_ITEMS])
        yield b"]"
    elif isinstance(content, np.ndarray) and content.ndim > 1 and content.size > PIECE_NUMBERS:
        rows = max(1, PIECE_NUMBERS * len(content) // content.size)
        yield b"["
        for start in range(0, len(content), rows):
            yield b"," * (start > 0) + _dumps(content[start : start + rows])[1:-1]
        yield b"]"
    else:
        yield _dumps(content)


def _items(items: list[Any]) -> Iterator[bytes]:
    """Items of a list as JSON, without its brackets."""
    if not any(isinstance(item, list) or getattr(item, "ndim", 1) > 1 for item in items):
        yield _dumps(items)[1:-1]
        return
    for number, item in enumerate(items):
        yield b"," * (number > 0)
        yield from _pieces(item)


def _dumps(content: Any) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def _joined(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in larger pieces."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= PIECE_BYTES:
            yield b"".join(held)
            held, size = [], 0
    yield b"".join(held)
