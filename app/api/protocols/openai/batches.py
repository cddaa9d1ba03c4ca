"""OpenAI's Files and Batches for /v1/embeddings: a corpus as a file, worked off when nobody else asks."""

import itertools
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import orjson
from flask import Flask, Response, current_app, request, send_file
from marshmallow import Schema, ValidationError, fields, validate

from app.api.answer import in_pieces
from app.api.ask import check_width, served_name, shaped
from app.api.body import read_form, read_json
from app.api.context import encoder, settings
from app.api.documented import documented
from app.api.errors import UnknownModel, refusal
from app.api.fields import Choice, Request, Text, required
from app.api.protocol import Protocol
from app.api.protocols.openai import STATUSES, EmbeddingsRequest, OpenAIError, error, written
from app.api.request_log import request_id
from app.bulk.batches import FileTooLarge, InUse, Result, Runner, Store, Unknown
from app.engine.embeddings import Embeddings
from app.engine.errors import NotFinite, TextTooLong

log = logging.getLogger(__name__)

ENDPOINT = "/v1/embeddings"
PURPOSES = ("batch", "batch_output")
MOST_FILE_BYTES = 200 << 20  # OpenAI's limit
MOST_LISTED = 10_000  # of files in one answer, OpenAI's limit; of batches it is 100
NAME_CHARACTERS = 255  # of a file's name
METADATA = 16, 64, 512  # pairs, and characters of a key and of a value, OpenAI's limits


class Off(Exception):
    """This server keeps no files."""


class BatchRequest(Request):
    input_file_id = Text(**required("the id of a file with `purpose` batch"))
    endpoint = Choice(ENDPOINT, **required(ENDPOINT))
    completion_window = Choice("24h", load_default="24h", metadata={"description": "Then the rest expires."})
    metadata = fields.Dict(
        keys=fields.String(validate=validate.Length(max=METADATA[1])),
        values=fields.String(validate=validate.Length(max=METADATA[2])),
        load_default=None,
        allow_none=True,
        validate=validate.Length(max=METADATA[0]),
        metadata={"description": "Up to 16 pairs of strings to find it again by."},
    )


class File(Schema):
    id = fields.String(required=True, metadata={"example": "file-18a3f0c2d7e94b5f9b1c2d3e4f5a6b7c"})
    object = fields.String(required=True, metadata={"example": "file"})
    bytes = fields.Integer(required=True)
    created_at = fields.Integer(required=True, metadata={"description": "Seconds since 1970."})
    filename = fields.String(required=True, metadata={"example": "corpus.jsonl"})
    purpose = fields.String(required=True, metadata={"example": "batch"})
    status = fields.String(required=True, metadata={"example": "processed"})


class Batch(Schema):
    id = fields.String(required=True, metadata={"example": "batch_18a3f0c2d7e94b5f9b1c2d3e4f5a6b7c"})
    object = fields.String(required=True, metadata={"example": "batch"})
    endpoint = fields.String(required=True, metadata={"example": ENDPOINT})
    errors = fields.Dict(required=True, allow_none=True)
    input_file_id = fields.String(required=True)
    completion_window = fields.String(required=True, metadata={"example": "24h"})
    status = fields.String(required=True, metadata={"example": "in_progress"})
    output_file_id = fields.String(allow_none=True)
    error_file_id = fields.String(allow_none=True)
    created_at = fields.Integer(required=True)
    in_progress_at = fields.Integer(allow_none=True)
    expires_at = fields.Integer(allow_none=True)
    finalizing_at = fields.Integer(allow_none=True)
    completed_at = fields.Integer(allow_none=True)
    failed_at = fields.Integer(allow_none=True)
    expired_at = fields.Integer(allow_none=True)
    cancelling_at = fields.Integer(allow_none=True)
    cancelled_at = fields.Integer(allow_none=True)
    request_counts = fields.Dict(
        required=True, metadata={"example": {"total": 20000, "completed": 4096, "failed": 0}}
    )
    metadata = fields.Dict(allow_none=True)


class Deleted(Schema):
    id = fields.String(required=True)
    object = fields.String(required=True, metadata={"example": "file"})
    deleted = fields.Boolean(required=True)


class _List(Schema):
    object = fields.String(required=True, metadata={"example": "list"})
    first_id = fields.String(allow_none=True)
    last_id = fields.String(allow_none=True)
    has_more = fields.Boolean(required=True)


class Files(_List):
    data = fields.List(fields.Nested(File), required=True)


class Batches(_List):
    data = fields.List(fields.Nested(Batch), required=True)


def _begin(app: Flask) -> Callable[[], None] | None:
    """Work batches off from here on, where a setting says where they are; what ends that."""
    if app.config["EMBED"].batch_dir is None:
        return None
    with app.app_context():
        runner = Runner(_store(), _Answers(app))
    runner.start()
    return runner.stop


batches = Protocol(
    "openai_batches", __name__, error=error, schema=OpenAIError, statuses=STATUSES, begin=_begin
)
MISSING = {404: (OpenAIError, "there is none with this id, or files and batches are off")}
TAG = "OpenAI batches"


def _store() -> Store:
    """The folder of this server's files and batches; Off where there is none."""
    folder = settings().batch_dir
    if folder is None:
        raise Off("files and batches are off: whoever runs this server sets EMBED_BATCH_DIR")
    if "batches" not in current_app.extensions:
        try:
            current_app.extensions["batches"] = Store(folder)
        except OSError as error:
            raise OSError(error.errno, f"EMBED_BATCH_DIR cannot be used: {error}") from error
    return cast(Store, current_app.extensions["batches"])


@batches.post("/v1/files")
@documented(
    "Keep a file of requests, a JSON object a line: a multipart form of `purpose`, batch, and `file`",
    responses={200: (File, "it is kept"), **batches.refusals(408, 413, 415, 422), **MISSING},
    tag=TAG,
)
def upload() -> dict[str, Any]:
    """Up to 200 MiB. Everybody who may ask this server sees all files and batches."""
    store, parts = _store(), read_form()
    for name, filename, content in parts:
        if name == "file":
            chunks = itertools.chain([content], _rest(parts))
            return store.add_file((filename or "file")[:NAME_CHARACTERS], "batch", chunks, MOST_FILE_BYTES)
        _check_part(name, content)
    raise ValidationError({"file": ["is required: a file of JSON lines"]})


def _rest(parts: Iterator[tuple[str, str | None, bytes]]) -> Iterator[bytes]:
    """What else a form's file holds; ValidationError for a part after it that does not fit."""
    for name, _, content in parts:
        if name == "file":
            yield content
        else:
            _check_part(name, content)


def _check_part(name: str, content: bytes) -> None:
    if name == "purpose" and content.strip() != b"batch":
        raise ValidationError({"purpose": ["must be batch"]})


@batches.get("/v1/files")
@documented("The files that are kept, the newest first", responses={200: (Files, "them"), **MISSING}, tag=TAG)
def files() -> dict[str, Any]:
    """`purpose`, `limit` and `after`, an id, choose among them."""
    purpose = request.args.get("purpose")
    if purpose is not None and purpose not in PURPOSES:
        raise ValidationError({"purpose": [f"must be one of {', '.join(PURPOSES)}"]})
    found = [file for file in _store().files() if purpose in (None, file["purpose"])]
    return _page(found, MOST_LISTED, MOST_LISTED)


@batches.get("/v1/files/<id>")
@documented("A file that is kept", responses={200: (File, "it"), **MISSING}, tag=TAG)
def file(id: str) -> dict[str, Any]:
    return _store().file(id)


@batches.get("/v1/files/<id>/content")
@documented(
    "What a file holds",
    responses={200: ({"type": "string"}, "its lines"), **MISSING},
    media=("application/jsonl",),
    tag=TAG,
)
def content(id: str) -> Response:
    return send_file(_store().content(id), mimetype="application/jsonl", etag=False)


@batches.delete("/v1/files/<id>")
@documented(
    "Delete a file",
    responses={
        200: (Deleted, "it is gone"),
        409: (OpenAIError, "a batch that is not finished needs it"),
        **MISSING,
    },
    tag=TAG,
)
def delete(id: str) -> dict[str, Any]:
    _store().delete_file(id)
    return {"id": id, "object": "file", "deleted": True}


@batches.post("/v1/batches")
@documented(
    "Answer every request of a file, in the low class, across restarts",
    request=BatchRequest,
    responses={200: (Batch, "it waits for its turn"), **batches.refusals(400, 408, 413, 415, 422), **MISSING},
    tag=TAG,
)
def create() -> dict[str, Any]:
    """Lines that cannot be answered end in `error_file_id`, all others in `output_file_id`, in order."""
    asked = BatchRequest.checked(read_json())
    store = _store()
    id = asked["input_file_id"]
    if store.file(id)["purpose"] != "batch":
        raise ValidationError({"input_file_id": ["must be that of a file with the purpose batch"]})
    return store.add_batch(id, asked["endpoint"], asked["completion_window"], asked["metadata"])


@batches.get("/v1/batches")
@documented("All batches, the newest first", responses={200: (Batches, "them"), **MISSING}, tag=TAG)
def list_batches() -> dict[str, Any]:
    """`limit`, up to 100, and `after`, an id, choose among them."""
    return _page(_store().batches(), 20, 100)


@batches.get("/v1/batches/<id>")
@documented("How far a batch has come", responses={200: (Batch, "it"), **MISSING}, tag=TAG)
def batch(id: str) -> dict[str, Any]:
    return _store().batch(id)


@batches.post("/v1/batches/<id>/cancel")
@documented("End a batch; what is answered stays", responses={200: (Batch, "it ends"), **MISSING}, tag=TAG)
def cancel(id: str) -> dict[str, Any]:
    return _store().cancel(id)


@batches.errorhandler(Off)
def _off(error: Off) -> Response:
    return refusal(404, str(error))


@batches.errorhandler(Unknown)
def _unknown(error: Unknown) -> Response:
    return refusal(404, str(error), {"id": [str(error)]})


@batches.errorhandler(InUse)
def _in_use(error: InUse) -> Response:
    return refusal(409, str(error), {"id": [str(error)]})


@batches.errorhandler(FileTooLarge)
def _too_large(error: FileTooLarge) -> Response:
    return refusal(413, str(error), {"file": [str(error)]})


@batches.errorhandler(OSError)
def _disk(error: OSError) -> Response:
    log.error("files and batches: %s", error)
    return refusal(503, f"the server's disk takes no files now: {error.strerror}")


def _page(found: list[dict[str, Any]], usual: int, most: int) -> dict[str, Any]:
    """What follows `after` of what was found, up to `limit`, as OpenAI lists it."""
    limit = request.args.get("limit", str(usual))
    if not limit.isdecimal() or not 1 <= int(limit) <= most:
        raise ValidationError({"limit": [f"must be a whole number from 1 to {most}"]})
    after = request.args.get("after")
    if after is not None:
        found = list(itertools.dropwhile(lambda one: one["id"] != after, found))[1:]
    shown = found[: int(limit)]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(found) > len(shown),
    }


class _Answers:
    """Answers lines of a batch's input as /v1/embeddings answers requests."""

    def __init__(self, app: Flask) -> None:
        self._app = app

    def __call__(self, lines: list[bytes], gone: Callable[[], bool]) -> list[Result]:
        """A result for each line, in order; raises what Encoder.encode does for lack of time or room."""
        # A line is a request to that path, also for what shapes its errors.
        with self._app.test_request_context(ENDPOINT, method="POST"):
            requests = [_Line(line) for line in lines]
            for _, alike in itertools.groupby(requests, key=lambda one: one.alike):
                _encode(list(alike), gone)
            return [one.result() for one in requests]


class _Line:
    """A line of the input, checked; and what becomes of it."""

    def __init__(self, line: bytes) -> None:
        sent = orjson.loads(line)
        self._custom_id = sent["custom_id"]
        self._status, self._body = 200, b""
        self.asked: dict[str, Any] = {}
        try:
            self.asked = EmbeddingsRequest.checked(sent["body"])
            served_name(self.asked["model"])
            check_width(self.asked["dimensions"])
        except (ValidationError, UnknownModel) as error:
            self.fail(error)

    @property
    def alike(self) -> Any:
        """Lines of which this is the same can be encoded in one call; None: this one has failed."""
        return (self.asked["pooling"], self.asked["truncate"]) if self._status == 200 else None

    def fail(self, error: Exception) -> None:
        """Answer as where a view raised this."""
        response = current_app.make_response(current_app.handle_user_exception(error))
        self._status, self._body = response.status_code, response.get_data()

    def answer(self, found: Embeddings) -> None:
        """Write the vectors of its texts down."""
        found = shaped(found, self.asked["dimensions"], self.asked["normalized"])
        content = written(found, served_name(self.asked["model"]), self.asked)
        self._body = b"".join(in_pieces(content, encoder().give_way))

    def result(self) -> Result:
        number = request_id("")
        told = {
            "id": f"batch_req_{number}",
            "custom_id": self._custom_id,
            "response": {
                "status_code": self._status,
                "request_id": number,
                "body": orjson.Fragment(self._body),
            },
            "error": None,
        }
        return Result(orjson.dumps(told), failed=self._status != 200)


def _encode(lines: list[_Line], gone: Callable[[], bool]) -> None:
    """Answer lines that go together, in one call; where a text of one cannot be, line by line."""
    if lines[0].alike is None:
        return
    pooling, truncate = lines[0].alike
    texts = [text for line in lines for text in line.asked["input"]]
    try:
        found = encoder().encode(texts, pooling=pooling, truncate=truncate, priority="bulk", gone=gone)
    except (TextTooLong, NotFinite) as error:
        if len(lines) == 1:
            fault = ValidationError({"input": [str(error)]}) if isinstance(error, TextTooLong) else error
            lines[0].fail(fault)
            return
        for line in lines:
            _encode([line], gone)
        return
    start = 0
    for line in lines:
        rows = slice(start, start := start + len(line.asked["input"]))
        line.answer(
            replace(
                found,
                dense=found.dense[rows],
                lengths=found.lengths[rows],
                token_counts=found.token_counts[rows],
            )
        )
