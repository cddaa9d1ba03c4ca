"""Reads a request's body within limits of size and time, and the JSON object in it."""

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from typing import Any

import orjson
from flask import Flask, Request, current_app, g, request
from werkzeug.exceptions import (
    BadRequest,
    ClientDisconnected,
    Forbidden,
    RequestEntityTooLarge,
    RequestTimeout,
    UnsupportedMediaType,
)
from werkzeug.sansio.multipart import Data, Epilogue, Field, MultipartDecoder, NeedData, State
from werkzeug.sansio.multipart import File as FormFile

from app.api.context import client, encoder, settings
from app.api.errors import Busy
from app.api.room import Room, open_room

# JSON is also accepted with no content type, and with the one that curl sends by default.
NO_TYPES = {"", "application/x-www-form-urlencoded"}
CHUNK = 1 << 16
# How much of a refused body is still read: closing a connection with unread bytes resets it, and the client
# would lose the answer.
DRAIN = 1 << 26
# How many bodies of the largest size fit in memory. Texts stay there until their request is answered.
MOST_BODIES = 8
# JSON values in a body: orjson makes an object of each, and nobody else's Python runs until it is done. Texts
# are seldom more than a few thousand; what has more is token ids, or an attack.
MOST_VALUES = 100_000
SMALL_BODY = 1 << 16  # has too few to count them
# Bytes that are read, or looked at, before a question under way may go first: it needs every processor.
SLICE = 1 << 20
# One large body at a time: each holds the interpreter's lock for milliseconds, and whoever waits for that
# competes with all others.
PARSING = threading.Lock()
FORM_BYTES = 1 << 20  # how much of a form is held in memory at a time
FORM_PARTS = 16
FIELD_BYTES = 1 << 12
FIELD_CHARACTERS = 64  # of a field's name, where an error repeats it
# What is wrong with a form of which more than FORM_BYTES cannot be told apart.
ENDLESS = {
    State.PREAMBLE: "its boundary does not come",
    State.PART: "the headers of a part are too large",
    State.EPILOGUE: "too much follows its end",
}
PLAIN = bytes(set(range(256)) - set(b'",:[{'))


def init_app(app: Flask) -> None:
    open_room(app, "bodies", MOST_BODIES * app.config["EMBED"].max_body_bytes)


def read_json() -> dict[str, Any]:
    """The request's JSON object; raises the HTTP error that says why there is none."""
    if not request.is_json and (request.mimetype not in NO_TYPES or _comes_from_a_page()):
        sent = f"not {request.mimetype!r}" if request.mimetype else "and none was sent"
        raise UnsupportedMediaType(f"the content type must be application/json, {sent}")
    _check_encoding()
    body = _read_body(request, settings().max_body_bytes)
    with PARSING if len(body) > SMALL_BODY else nullcontext():
        content = _parse(body)
    if not isinstance(content, dict):
        raise BadRequest('the body must be a JSON object such as {"input": "a text"}')
    return content


def _check_encoding() -> None:
    """Raise UnsupportedMediaType if the body is compressed."""
    if request.content_encoding not in (None, "", "identity"):
        raise UnsupportedMediaType(
            f"the body must be sent plain, content encoding {request.content_encoding!r} is not read"
        )


def _comes_from_a_page() -> bool:
    """Whether a browser sent this request.

    It sends a page's JSON to another site only after it has asked that site, and other types without asking:
    any page could have this server compute. So what is not called JSON is read as such from programs only;
    with each POST a browser sends one of these headers at least.
    """
    return "Origin" in request.headers or "Sec-Fetch-Site" in request.headers


def _parse(body: bytearray) -> Any:
    if len(body) > SMALL_BODY and has_more_values(body, MOST_VALUES, encoder().give_way):
        raise BadRequest(
            f"the body holds more than {MOST_VALUES} JSON values: send texts as strings, fewer in one request"
        )
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not valid JSON: {error}") from None


def has_more_values(body: bytes | bytearray, most: int, give_way: Callable[[], None]) -> bool:
    """Whether JSON has more values than that, as its commas, colons and brackets outside strings tell.

    It lets others go first between two slices.
    """
    values, inside, rest = 0, False, b""
    for start in range(0, len(body), SLICE):
        give_way()
        part = rest + body[start : start + SLICE]
        escapes = len(part) - len(part.rstrip(b"\\"))
        rest = b"\\" * (escapes % 2)  # of an escape that is cut in two
        part = part[: len(part) - len(rest)].replace(b"\\\\", b"").replace(b'\\"', b"")
        pieces = part.translate(None, PLAIN).split(b'"')
        values += sum(map(len, pieces[inside::2]))
        inside ^= len(pieces) % 2 == 0
        if values > most:
            return True
    return False


def read_form() -> Iterator[tuple[str, str | None, bytes]]:
    """A multipart form by and by: a part's name, its file's name if it has one, and some of its bytes.

    No two parts have the same name. Nothing is kept, so neither its size nor what it holds is bounded here.
    """
    boundary = request.mimetype_params.get("boundary")
    if request.mimetype != "multipart/form-data" or not boundary:
        raise UnsupportedMediaType("the content type must be multipart/form-data, with a boundary")
    _check_encoding()
    if _comes_from_a_page() and not {"*", request.headers.get("Origin")} & {*settings().cors_origins}:
        raise Forbidden("files are taken from programs, and from pages whose origin EMBED_CORS_ORIGINS names")
    return _parts(MultipartDecoder(boundary.encode(), FORM_BYTES, max_parts=FORM_PARTS))


def _parts(decoder: MultipartDecoder) -> Iterator[tuple[str, str | None, bytes]]:
    part: Field | FormFile | None = None
    held = bytearray()  # of a field, which is told whole
    names: set[str] = set()
    try:
        for chunk in itertools.chain(iter(lambda: request.stream.read(CHUNK), b""), [None]):
            encoder().give_way()
            decoder.receive_data(chunk)
            while not isinstance(event := decoder.next_event(), NeedData | Epilogue):
                if isinstance(event, Field | FormFile):
                    part = event
                    if not part.name:
                        raise BadRequest("a part of the form has no name")
                    if part.name in names:
                        name = part.name[:FIELD_CHARACTERS]
                        raise BadRequest(f"the form has more than one part named {name!r}")
                    names.add(part.name)
                elif isinstance(event, Data) and isinstance(part, FormFile):
                    yield part.name, part.filename, event.data
                elif isinstance(event, Data) and part:
                    held += event.data
                    if len(held) > FIELD_BYTES:
                        raise BadRequest(f"a field of the form is longer than {FIELD_BYTES} bytes")
                    if not event.more_data:
                        yield part.name, None, bytes(held)
                        held.clear()
    except RequestEntityTooLarge:
        wrong = ENDLESS.get(decoder.state, f"it has more than {FORM_PARTS} parts")
        raise RequestEntityTooLarge(f"the form cannot be read: {wrong}") from None
    except (ValueError, ClientDisconnected, OSError) as error:
        if (connection := client()) and connection.late:
            raise RequestTimeout from None
        if isinstance(error, ValueError) and not decoder.complete:
            raise BadRequest(f"the form cannot be read: {error}") from None
        raise BadRequest("the form ended early") from None


def discard_body() -> None:
    """Read what is left of a refused request's body, up to DRAIN."""
    size = 0
    with suppress(ClientDisconnected, OSError):
        while size <= DRAIN and (chunk := request.stream.read(CHUNK)):
            size += len(chunk)


def _read_body(request: Request, limit: int) -> bytearray:
    """The whole body, whether its length was announced or it came in chunks. 413 over `limit`.

    Werkzeug's own MAX_CONTENT_LENGTH cuts a chunked body at the limit without a word.
    """
    bodies: Room = current_app.extensions["bodies"]
    announced = request.content_length or 0
    body = bytearray()
    size = g.bodies = 0
    room = whole = True
    try:
        while chunk := request.stream.read(CHUNK):
            size += len(chunk)
            if size % SLICE < len(chunk):
                encoder().give_way()
            if size > DRAIN + limit:
                break
            if max(size, announced) > limit or not room:
                continue
            room = bodies.hold(len(chunk))
            if room:
                g.bodies += len(chunk)
                body += chunk
            else:
                body.clear()
                bodies.release(g.pop("bodies"))
    except (ClientDisconnected, OSError):
        whole = False
    if max(size, announced) > limit:
        raise RequestEntityTooLarge(f"the body is larger than {limit} bytes: send fewer texts in one request")
    if not whole or size < announced:
        if (connection := client()) and connection.late:
            raise RequestTimeout
        raise BadRequest("the body ended early, or its chunks are not well formed")
    if not room:
        raise Busy(encoder().load_state.drain_seconds["bulk"])
    return body
