"""What a protocol is: its endpoints, and what its clients read of an error."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from flask import Blueprint, Flask
from marshmallow import Schema, fields

# A status, one sentence a person can act on, and what is wrong with which field -> the JSON of the answer.
Shape = Callable[[int, str, dict[str, Any]], Any]

# What each refusal of a request with texts means; how they come about is the table in app.api.errors.
MEANINGS = {
    400: "not JSON, not an object, not UTF-8, or nested absurdly deep",
    404: "another model is served here",
    408: "the body came too slowly",
    413: "the body is too large",
    415: "the body is not JSON by its content type, or compressed",
    422: "a field is missing, of the wrong type or out of range, or a text is too long to be whole",
    503: "too much is waiting already (Retry-After says for how long), or the model is not loaded",
    504: "the request waited longer than it may",
}


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
    """An error in our own shape, which is Ollama's and a little more."""
    return {"error": sentence, "details": details}


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

        Paths below `prefix` that nothing is at are its errors too. Of its views the `quick` take a body and
        cost next to nothing, and the `open` are like health checks: they need no key and no seat. `begin`
        starts what runs beside the requests, once the encoder is loaded, and returns what ends it.
        """
        super().__init__(name, module)
        self.error = error
        self.schema = schema
        self.statuses = statuses or {}
        self.prefix = prefix
        self.begin = begin
        self.quick = {f"{name}.{view}" for view in quick}
        self.open = {f"{name}.{view}" for view in open}

    def refusals(self, *statuses: int) -> dict[int, tuple[type[Schema], str]]:
        """For a view's documentation: these statuses of MEANINGS, all if none are given."""
        found: dict[int, tuple[type[Schema], str]] = {}
        for status in statuses or MEANINGS:
            told = self.statuses.get(status, status)
            before = f"{found[told][1]}; or " if told in found else ""
            found[told] = self.schema, before + MEANINGS[status]
        return found


def registered(app: Flask) -> list[Protocol]:
    """The protocols that an application speaks."""
    return [blueprint for blueprint in app.blueprints.values() if isinstance(blueprint, Protocol)]


def is_open(app: Flask, endpoint: str) -> bool:
    """Whether a view is like a health check to its protocol."""
    found = app.blueprints.get(endpoint.rpartition(".")[0])
    return isinstance(found, Protocol) and endpoint in found.open
