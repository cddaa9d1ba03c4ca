"""OpenAI's Batches for /v1/embeddings: a corpus as a file, worked off when nobody else asks."""

from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask
from marshmallow import Schema, ValidationError, fields

from app.api.body import read_json
from app.api.documented import documented
from app.api.fields import Choice, Text, json_name, required
from app.api.protocol import Protocol
from app.api.protocols.openai import STATUSES, OpenAIError, error
from app.api.protocols.openai.files import MISSING, TAG, List, page, register_errors, store
from app.api.protocols.openai.lines import ENDPOINT, Answers
from app.api.schema import Request
from app.api.space import EXAMPLE, EXPECTED, check_model, expected_space
from app.bulk.batches import Runner

PAIRS, KEY_CHARACTERS, VALUE_CHARACTERS = 16, 64, 512  # of metadata, OpenAI's limits


class Metadata(fields.Dict):
    """Pairs of strings; what is wrong with one names its key."""

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any
    ) -> dict[str, str]:
        if not isinstance(value, dict):
            raise ValidationError(f"must be an object of strings, not {json_name(value)}")
        if len(value) > PAIRS:
            raise ValidationError(f"has {len(value)} pairs, the limit is {PAIRS}")
        for key, text in value.items():
            if len(key) > KEY_CHARACTERS:
                raise ValidationError(
                    f"the key {key[:KEY_CHARACTERS]!r}... must have at most {KEY_CHARACTERS} characters"
                )
            if not isinstance(text, str) or len(text) > VALUE_CHARACTERS:
                raise ValidationError(
                    f"the value of {key!r} must be a string of at most {VALUE_CHARACTERS} characters"
                )
        return value


class BatchRequest(Request):
    input_file_id = Text(**required("the id of a file with `purpose` batch"))
    endpoint = Choice(ENDPOINT, **required(ENDPOINT))
    completion_window = Choice("24h", load_default="24h", metadata={"description": "Then the rest expires."})
    metadata = Metadata(
        values=fields.String(),
        load_default=None,
        allow_none=True,
        metadata={"description": "Up to 16 pairs of strings to find it again by."},
    )


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
    embedding_space = fields.String(
        metadata={
            "example": EXAMPLE,
            "description": "The space that the batch expects: its X-Embedding-Space.",
        },
    )


class Batches(List):
    data = fields.List(fields.Nested(Batch), required=True)


def _begin(app: Flask) -> Callable[[], None] | None:
    """Work batches off from here on, where a setting says where they are; what ends that."""
    if app.config["EMBED"].batch_dir is None:
        return None
    with app.app_context():
        runner = Runner(store(), Answers(app))
    runner.start()
    return runner.stop


batches = Protocol(
    "openai_batches", __name__, error=error, schema=OpenAIError, statuses=STATUSES, begin=_begin
)
register_errors(batches)


@batches.post("/v1/batches")
@documented(
    "Answer every request of a file, in the low class, across restarts",
    request=BatchRequest,
    responses={
        200: (Batch, "it waits for its turn"),
        **batches.refusals(400, 408, 409, 413, 415, 422),
        **MISSING,
    },
    tag=TAG,
    parameters=EXPECTED,
)
def create() -> dict[str, Any]:
    """Lines that cannot be answered end in `error_file_id`, all others in `output_file_id`, in order.

    The space in X-Embedding-Space holds for every line, also after a restart of the server.
    """
    asked = BatchRequest.checked(read_json())
    kept = store()
    id = asked["input_file_id"]
    if kept.file(id)["purpose"] != "batch":
        raise ValidationError({"input_file_id": ["must be that of a file with the purpose batch"]})
    check_model(None)  # each line says for itself how it is pooled
    window, metadata = asked["completion_window"], asked["metadata"]
    return kept.add_batch(id, asked["endpoint"], window, metadata, expected_space())


@batches.get("/v1/batches")
@documented("All batches, the newest first", responses={200: (Batches, "them"), **MISSING}, tag=TAG)
def list_batches() -> dict[str, Any]:
    """`limit`, up to 100, and `after`, an id, choose among them; with `order` asc the oldest come first."""
    return page("batch", store().batches, 20, 100)


@batches.get("/v1/batches/<id>")
@documented("How far a batch has come", responses={200: (Batch, "it"), **MISSING}, tag=TAG)
def batch(id: str) -> dict[str, Any]:
    return store().batch(id)


@batches.post("/v1/batches/<id>/cancel")
@documented("End a batch; what is answered stays", responses={200: (Batch, "it ends"), **MISSING}, tag=TAG)
def cancel(id: str) -> dict[str, Any]:
    return store().cancel(id)
