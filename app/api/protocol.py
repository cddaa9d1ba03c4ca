"""What a protocol is: its endpoints, and what its clients read of an error."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from flask import Blueprint, Flask
from marshmallow import Schema, fields

from app.api.documented import Answer
from app.engine.errors import Overloaded, TooLate

# Makes an error's JSON of a status, a sentence a person can act on, and what is wrong with each field.
Shape = Callable[[int, str, dict[str, Any]], Any]


@dataclass(frozen=True)
class Refusal:
    """What a status means, and an example of what the server says."""

    name: str
    meaning: str
    sentence: str
    details: dict[str, Any] = field(default_factory=dict)


OTHER_SPACE = (
    "the embedding space 'f48d4534a7d8.cls.fp32.512.1' is expected, but this answer would be in "
    "'f48d4534a7d8.mean.fp32.512.1': do not mix their vectors"
)
# Refusals of a request with texts, for the documentation; app.api.errors decides which status is sent.
REFUSALS = {
    400: Refusal(
        "not JSON",
        "not JSON, not an object, not UTF-8, or nested absurdly deep",
        'the body must be a JSON object such as {"input": "a text"}',
    ),
    404: Refusal(
        "another model",
        "another model is served here",
        "model 'another' not found: 'bge-m3' is served here",
        {"model": ["model 'another' not found: 'bge-m3' is served here"]},
    ),
    408: Refusal(
        "too slow",
        "the body came too slowly",
        "the request did not come in time: its head has ten seconds, its body two minutes",
    ),
    409: Refusal(
        "another space",
        "the request expects another embedding space (X-Embedding-Space)",
        OTHER_SPACE,
        {"X-Embedding-Space": [OTHER_SPACE]},
    ),
    413: Refusal(
        "too large",
        "the body is too large",
        "the body is larger than 33554432 bytes: send fewer texts in one request",
    ),
    415: Refusal(
        "another type",
        "the body is not JSON by its content type, or compressed",
        "the content type must be application/json, not 'text/plain'",
    ),
    # Its sentence depends on the request's fields.
    422: Refusal(
        "a wrong field",
        "a field is missing, of the wrong type or out of range, or a text is too long to be whole",
        "",
    ),
    503: Refusal(
        "busy",
        "too much is waiting already (Retry-After says for how long), or the model is not loaded",
        str(Overloaded(262200, 262144, 30)),
    ),
    504: Refusal("too late", "the request waited longer than EMBED_REQUEST_TIMEOUT", str(TooLate())),
}
UNAUTHORIZED = Refusal(
    "no key",
    "no API key, or none of this server's",
    "API key missing or invalid: send it as Authorization: Bearer <key>",
)


class ErrorResponse(Schema):
    error = fields.String(
        required=True,
        metadata={
            "example": "input: text 1 must be a string, not a number",
            "description": "One sentence a person can act on.",
        },
    )
    details = fields.Dict(
        required=True,
        metadata={
            "example": {"input": ["text 1 must be a string, not a number"]},
            "description": "What is wrong with which field, where it is one.",
        },
    )


def plain(_status: int, sentence: str, details: dict[str, Any]) -> dict[str, Any]:
    """An error in our own shape: Ollama's with `details`."""
    return {"error": sentence, "details": details}


def first_fault(details: dict[str, Any]) -> str:
    """One sentence out of marshmallow's nest of lists and mappings: "field: what is wrong with it"."""
    name, messages = next(iter(details.items()))
    while not isinstance(messages, str):
        messages = next(iter(messages.values() if isinstance(messages, dict) else messages))
    return f"{name}: {messages}"


def told(status: int, refusal: Refusal, shape: Shape = plain, schema: type[Schema] = ErrorResponse) -> Answer:
    """A refusal for the documentation, with an example in a protocol's shape."""

    def example(request: type[Schema] | None) -> Any:
        if refusal.sentence or request is None:
            return shape(status, refusal.sentence, refusal.details)
        schema = request()
        # What it says of an empty object, or, where no field is required, of one field that is no text.
        details = schema.validate({}) or schema.validate({next(iter(schema.fields)): 7})
        return shape(status, first_fault(details), details)

    return Answer(schema, refusal.meaning, {refusal.name: example})


class Protocol(Blueprint):
    """A protocol's endpoints; every module of app.api.protocols that has one is served."""

    def __init__(
        self,
        name: str,
        module: str,
        *,
        error: Shape = plain,
        schema: type[Schema] = ErrorResponse,
        statuses: Mapping[int, int] | None = None,
        prefix: str = "",
        quick: Collection[str] = (),
        open: Collection[str] = (),
        begin: Callable[[Flask], Callable[[], None] | None] | None = None,
    ) -> None:
        """`error` makes an error's body, `schema` documents it, `statuses` replaces some statuses.

        Unknown paths below `prefix` get errors in its shape too. Its `quick` views take a body and cost next
        to nothing; its `open` views are like health checks and need no key and no thread of their own.
        `begin` starts background work once the encoder is loaded, and returns a function that ends it.
        """
        super().__init__(name, module)
        self.error = error
        self.schema = schema
        self.statuses = statuses or {}
        self.prefix = prefix
        self.begin = begin
        self.quick = {f"{name}.{view}" for view in quick}
        self.open = {f"{name}.{view}" for view in open}

    def refusals(self, *statuses: int) -> dict[int, Answer]:
        """For a view's documentation: these statuses of REFUSALS, all if none are given."""
        found: dict[int, Answer] = {}
        for status in statuses or REFUSALS:
            sent = self.statuses.get(status, status)
            answer = told(sent, REFUSALS[status], self.error, self.schema)
            found[sent] = found[sent].joined(answer) if sent in found else answer
        return found


def registered(app: Flask) -> list[Protocol]:
    """The protocols that an application speaks."""
    return [blueprint for blueprint in app.blueprints.values() if isinstance(blueprint, Protocol)]


def is_open(app: Flask, endpoint: str) -> bool:
    """Whether a view needs no key and no thread of its own, like a health check."""
    found = app.blueprints.get(endpoint.rpartition(".")[0])
    return isinstance(found, Protocol) and endpoint in found.open
