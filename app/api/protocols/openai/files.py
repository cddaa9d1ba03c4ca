"""OpenAI's Files: what batches read and write."""

import itertools
import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

from flask import Response, current_app, request, send_file
from marshmallow import Schema, ValidationError, fields

from app.api.body import read_form
from app.api.context import settings
from app.api.documented import documented
from app.api.errors import refusal
from app.api.protocol import Protocol
from app.api.protocols.openai import STATUSES, OpenAIError, error
from app.bulk.batches import IDS, MOST_LISTED, FileTooLarge, InUse, Store, Unknown

log = logging.getLogger(__name__)

PURPOSES = ("batch", "batch_output")
MOST_FILE_BYTES = 200 << 20  # OpenAI's limit
NAME_CHARACTERS = 255  # of a file's name


class Off(Exception):
    """This server keeps no files."""


class Unusable(OSError):
    """Nothing can be kept in the folder of files and batches; the log says why."""

    def __init__(self) -> None:
        super().__init__("the server's folder for batches cannot be used")


class File(Schema):
    id = fields.String(required=True, metadata={"example": "file-18a3f0c2d7e94b5f9b1c2d3e4f5a6b7c"})
    object = fields.String(required=True, metadata={"example": "file"})
    bytes = fields.Integer(required=True)
    created_at = fields.Integer(required=True, metadata={"description": "Seconds since 1970."})
    filename = fields.String(required=True, metadata={"example": "corpus.jsonl"})
    purpose = fields.String(required=True, metadata={"example": "batch"})
    status = fields.String(required=True, metadata={"example": "processed"})


class Deleted(Schema):
    id = fields.String(required=True)
    object = fields.String(required=True, metadata={"example": "file"})
    deleted = fields.Boolean(required=True)


class List(Schema):
    """A page of what there is."""

    object = fields.String(required=True, metadata={"example": "list"})
    first_id = fields.String(allow_none=True)
    last_id = fields.String(allow_none=True)
    has_more = fields.Boolean(required=True)


class Files(List):
    data = fields.List(fields.Nested(File), required=True)


files_protocol = Protocol("openai_files", __name__, error=error, schema=OpenAIError, statuses=STATUSES)
MISSING = {404: (OpenAIError, "there is none with this id, or files and batches are off")}
TAG = "OpenAI batches"


def store() -> Store:
    """The folder of this server's files and batches; Off where there is none."""
    folder = settings().batch_dir
    if folder is None:
        raise Off("files and batches are off: whoever runs this server sets EMBED_BATCH_DIR")
    if "batches" not in current_app.extensions:
        try:
            current_app.extensions["batches"] = Store(folder)
        except OSError as error:
            log.error("EMBED_BATCH_DIR cannot be used: %s", error)
            raise Unusable from error
    return cast(Store, current_app.extensions["batches"])


@files_protocol.post("/v1/files")
@documented(
    "Keep a file of requests, a JSON object a line: a multipart form of `purpose`, batch, and `file`",
    responses={
        200: (File, "it is kept"),
        403: (OpenAIError, "a web page sends it, of an origin that EMBED_CORS_ORIGINS does not name"),
        **files_protocol.refusals(408, 413, 415, 422),
        **MISSING,
    },
    tag=TAG,
)
def upload() -> dict[str, Any]:
    """Up to 200 MiB. Everybody who may ask this server sees all files and batches."""
    kept, parts = store(), read_form()
    sent: set[str] = set()
    for name, filename, content in parts:
        if name == "file":
            chunks = itertools.chain([content], _rest(parts, sent))
            return kept.add_file((filename or "file")[:NAME_CHARACTERS], "batch", chunks, MOST_FILE_BYTES)
        _check_field(name, content, sent)
    raise ValidationError({"file": ["is required: a file of JSON lines"]})


def _rest(parts: Iterator[tuple[str, str | None, bytes]], sent: set[str]) -> Iterator[bytes]:
    """What else a form's file holds; ValidationError where the fields before and after it do not fit."""
    for name, _, content in parts:
        if name == "file":
            yield content
        else:
            _check_field(name, content, sent)
    if "purpose" not in sent:
        raise ValidationError({"purpose": ["is required: batch"]})


def _check_field(name: str, content: bytes, sent: set[str]) -> None:
    """ValidationError where it does not fit; else its name is added to `sent`."""
    if name == "purpose" and content.strip() != b"batch":
        raise ValidationError({"purpose": ["must be batch"]})
    if name.startswith("expires_after"):
        raise ValidationError({"expires_after": ["must be left out: files are kept until they are deleted"]})
    sent.add(name)


@files_protocol.get("/v1/files")
@documented("The files that are kept, the newest first", responses={200: (Files, "them"), **MISSING}, tag=TAG)
def files() -> dict[str, Any]:
    """`purpose`, `limit` and `after`, an id, choose among them; with `order` asc the oldest come first."""
    purpose = request.args.get("purpose")
    if purpose is not None and purpose not in PURPOSES:
        raise ValidationError({"purpose": [f"must be one of {', '.join(PURPOSES)}"]})
    return page("file", partial(store().files, purpose=purpose), MOST_LISTED, MOST_LISTED)


@files_protocol.get("/v1/files/<id>")
@documented("A file that is kept", responses={200: (File, "it"), **MISSING}, tag=TAG)
def file(id: str) -> dict[str, Any]:
    return store().file(id)


@files_protocol.get("/v1/files/<id>/content")
@documented(
    "What a file holds",
    responses={200: ({"type": "string"}, "its lines"), **MISSING},
    media=("application/jsonl",),
    tag=TAG,
)
def content(id: str) -> Response:
    try:
        return send_file(store().content(id), mimetype="application/jsonl", etag=False)
    except FileNotFoundError:  # deleted just now
        raise Unknown("file", id) from None


@files_protocol.delete("/v1/files/<id>")
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
    store().delete_file(id)
    return {"id": id, "object": "file", "deleted": True}


def page(
    kind: str, find: Callable[..., tuple[list[dict[str, Any]], bool]], usual: int, most: int
) -> dict[str, Any]:
    """Up to `limit` of what there is `after` an id, in their `order`, as OpenAI lists it."""
    limit = request.args.get("limit", str(usual))
    if not limit.isdecimal() or len(limit) > len(str(most)) or not 1 <= int(limit) <= most:
        raise ValidationError({"limit": [f"must be a whole number from 1 to {most}"]})
    after = request.args.get("after")
    if after is not None and not IDS[kind].fullmatch(after):
        raise ValidationError({"after": [f"must be the id of a {kind}"]})
    order = request.args.get("order", "desc")
    if order not in ("asc", "desc"):
        raise ValidationError({"order": ["must be asc or desc"]})
    shown, has_more = find(after, int(limit), ascending=order == "asc")
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": has_more,
    }


def _disk(error: OSError) -> Response:
    """The error of a disk that is full, or gone."""
    log.error("files and batches: %s", error)
    return refusal(503, f"the server's disk takes no files now: {error.strerror}")


def _unusable(error: Unusable) -> Response:
    return refusal(503, str(error))


def _unknown(error: Unknown) -> Response:
    return refusal(404, str(error), {"id": [str(error)]})


def _off(error: Off) -> Response:
    return refusal(404, str(error))


def _in_use(error: InUse) -> Response:
    return refusal(409, str(error), {"id": [str(error)]})


def _too_large(error: FileTooLarge) -> Response:
    return refusal(413, str(error), {"file": [str(error)]})


def register_errors(protocol: Protocol) -> None:
    """What can go wrong with the folder of files and batches."""
    protocol.register_error_handler(Off, _off)
    protocol.register_error_handler(Unknown, _unknown)
    protocol.register_error_handler(OSError, _disk)
    protocol.register_error_handler(Unusable, _unusable)


register_errors(files_protocol)
files_protocol.register_error_handler(InUse, _in_use)
files_protocol.register_error_handler(FileTooLarge, _too_large)
