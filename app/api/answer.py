"""Writes answers: JSON in pieces, with a bound on memory, and headers about its vectors and its time."""

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import orjson
from flask import Flask, Response, current_app, g
from flask.json.provider import JSONProvider

from app.api import tracing
from app.api.context import encoder, settings
from app.api.errors import Busy
from app.api.metrics import count_work
from app.api.room import Room, open_room, until_sent
from app.api.space import tell_space
from app.engine.embeddings import CROSS_ENCODER, Embeddings, Scores
from app.engine.errors import TooMuchOutput

# How many numbers of an array are written at a time. That takes about 1 ms, in which no other thread runs:
# orjson does not release the interpreter's lock.
PIECE_NUMBERS = 1 << 15
PIECE_ITEMS = 16  # of a list, such as vectors
PIECE_BYTES = 1 << 17  # the least that is sent at a time; before each piece waiting questions go first
# An answer with more numbers is written while it is sent, so that its JSON (11 bytes a number) is never in
# memory as a whole. Its arrays are, for at most MOST_ANSWERS answers of the largest size.
SMALL_ANSWER = 1 << 17
MOST_ANSWERS = 4


class OrjsonProvider(JSONProvider):
    """Flask's JSON by orjson: arrays go to the wire without Python floats, keys keep their order."""

    def dumps(self, obj: Any, **_: Any) -> str:
        return _dumps(obj).decode()

    def loads(self, s: str | bytes, **_: Any) -> Any:
        return orjson.loads(s)

    def response(self, *args: Any, **kwargs: Any) -> Any:
        written = list(in_pieces(self._prepare_response_obj(args, kwargs), encoder().give_way))
        response = Response(written, mimetype="application/json")
        response.content_length = sum(map(len, written))
        return response


def init_app(app: Flask) -> None:
    app.json = OrjsonProvider(app)
    open_room(app, "answers", 4 * MOST_ANSWERS * app.config["EMBED"].max_output_numbers)


def keep_room(size: int) -> None:
    """Reserve memory for this request's answer; raises Busy while other answers hold too much of it."""
    room: Room = current_app.extensions["answers"]
    if not room.hold(size):
        raise Busy(encoder().load_state.drain_seconds["bulk"])
    g.answers = size


def expect(numbers: int) -> None:
    """Reserve memory for the numbers in this request's answer; a small answer needs no reservation.

    Raises TooMuchOutput if they are too many for one answer, Busy while other answers hold too many.
    """
    most = settings().max_output_numbers
    if numbers > most:
        raise TooMuchOutput("numbers", numbers, most)
    if numbers > SMALL_ANSWER:
        keep_room(4 * numbers)


def answer(content: Any, done: Embeddings | Scores) -> Response:
    """A JSON answer whose headers name the space of its vectors, and where the time went in milliseconds.

    What was done goes to the metrics and to the request's line in the log. Content holds numbers in arrays,
    and iterators where a list would take more memory than those.
    """
    start = time.perf_counter_ns()
    spent = {
        "tokenize": done.timings.tokenize,
        "queue": done.timings.queue,
        "forward": done.timings.forward,
    }
    g.done = len(done.token_counts), done.tokens
    span = g.get("span")
    pairs = _pairs(done)

    def count(stages: dict[str, int]) -> None:
        count_work(len(done.token_counts) - pairs, pairs, done.tokens, done.cut, done.cached, stages)
        tracing.stages(stages, span)

    response: Response
    if g.get("answers"):
        response = Response(in_pieces(content, encoder().give_way), mimetype="application/json")
        until_sent(response, "answers")
        response.call_on_close(lambda: count(spent | {"serialize": time.perf_counter_ns() - start}))
        shown = spent
    else:
        response = current_app.json.response(content)  # type: ignore[assignment]
        shown = spent | {"serialize": time.perf_counter_ns() - start}
        count(shown)
    response.headers["Server-Timing"] = ", ".join(f"{name};dur={ns / 1e6:.2f}" for name, ns in shown.items())
    tell_space(response)
    return response


def _pairs(done: Embeddings | Scores) -> int:
    """How many of the encoded passages a cross-encoder read; the others were only compared by vectors."""
    if isinstance(done, Embeddings) or CROSS_ENCODER not in done.by_name:
        return 0
    return int(np.isfinite(done.by_name[CROSS_ENCODER]).sum())


def in_pieces(content: Any, give_way: Callable[[], None]) -> Iterator[bytes]:
    """Content as JSON in pieces; questions go first before each."""
    for piece in _joined(_pieces(content)):
        if len(piece) >= PIECE_BYTES:
            give_way()
        yield piece


def _pieces(content: Any) -> Iterator[bytes]:
    """Content as JSON, a few items of a list or rows of an array at a time."""
    if isinstance(content, dict):
        yield b"{"
        for number, (key, value) in enumerate(content.items()):
            yield b"," * (number > 0) + orjson.dumps(key) + b":"
            yield from _pieces(value)
        yield b"}"
    elif isinstance(content, list | Iterator):
        rest = iter(content)
        yield b"["
        for number, items in enumerate(iter(lambda: list(itertools.islice(rest, PIECE_ITEMS)), [])):
            yield b"," * (number > 0)
            yield from _items(items)
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
    if not any(map(_is_large, items)):
        yield _dumps(items)[1:-1]
        return
    for number, item in enumerate(items):
        yield b"," * (number > 0)
        yield from _pieces(item)


def _is_large(item: Any) -> bool:
    """Whether an item is large enough to be written by itself."""
    if isinstance(item, str):
        return len(item) > PIECE_BYTES
    if isinstance(item, dict):
        return any(map(_is_large, item.values()))
    return isinstance(item, list) or getattr(item, "ndim", 1) > 1


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
