"""What comes in and goes out: validation and documentation from the same classes."""

from collections.abc import Mapping
from typing import Any, get_args

from marshmallow import EXCLUDE, Schema, ValidationError, fields, pre_load, validate

from app.api.context import settings
from app.api.wire import ENCODINGS
from app.engine.embeddings import Pooling

JSON_NAMES = {bool: "a boolean", int: "a number", float: "a number", dict: "an object"}


def json_name(value: Any) -> str:
    """What a person calls this JSON value."""
    if isinstance(value, list):
        return "a list"
    return "null" if value is None else JSON_NAMES.get(type(value), "a string")


class TextOrTexts(fields.Field[list[str]]):
    """A string or a list of strings; always a list once loaded."""

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any
    ) -> list[str]:
        if isinstance(value, str):
            return [value]
        if not isinstance(value, list):
            raise ValidationError(f"must be a string or a list of strings, not {json_name(value)}")
        limit = settings().max_texts
        if len(value) > limit:
            raise ValidationError(
                f"has {len(value)} texts, the limit is {limit}: send them in several requests"
            )
        for index, text in enumerate(value):
            if not isinstance(text, str):
                raise ValidationError(f"text {index} must be a string, not {json_name(text)}")
        return value


class StrictBoolean(fields.Boolean):
    """true or false, none of the words and numbers that marshmallow takes for them."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any) -> bool:
        if not isinstance(value, bool):
            raise ValidationError(f"must be true or false, not {json_name(value)}")
        return value


def one_of(*choices: str) -> validate.OneOf:
    return validate.OneOf(choices, error=f"must be one of {', '.join(choices)}")


class Request(Schema):
    """Fields nobody declared are ignored, and null means not given: clients send plenty of both."""

    class Meta:
        unknown = EXCLUDE

    @pre_load
    def drop_nulls(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {key: value for key, value in data.items() if value is not None}


class EmbedRequest(Request):
    input = TextOrTexts(
        required=True,
        error_messages={"required": "is required: a string or a list of strings"},
        metadata={"description": "The text, or the texts."},
    )
    model = fields.String(
        load_default=None,
        allow_none=True,
        metadata={"description": "Name of the served model or an alias; may be left out."},
    )
    encoding_format = fields.String(
        load_default="float",
        allow_none=True,
        validate=one_of(*ENCODINGS),
        metadata={
            "description": "`float`: numbers. `base64`: little-endian float32. `int8`: each vector scaled "
            "so that its largest magnitude is 127. `ubinary`, `binary`: the sign of each number as a "
            "bit, eight to a byte, as uint8 or shifted by 128 to int8."
        },
    )
    dimensions = fields.Integer(
        strict=True,
        load_default=None,
        allow_none=True,
        validate=validate.Range(min=0, error="must be 0 (all) or a positive number"),
        error_messages={"invalid": "must be a whole number"},
        metadata={
            "description": "Keep this many numbers of each vector and make its length 1 again; "
            "at most the model's width. 0 keeps all."
        },
    )
    pooling = fields.String(
        load_default=None,
        allow_none=True,
        validate=one_of(*get_args(Pooling)),
        metadata={"description": "`mean` or `cls`; the server's own (EMBED_POOLING) if left out."},
    )
    truncate = StrictBoolean(
        load_default=True,
        allow_none=True,
        metadata={
            "description": "true cuts a text that is too long at its end and lists it in "
            "`truncated`; false refuses it."
        },
    )
    options = fields.Raw(
        allow_none=True, metadata={"description": "Accepted and ignored: Ollama clients send it."}
    )
    keep_alive = fields.Raw(
        allow_none=True, metadata={"description": "Accepted and ignored: Ollama clients send it."}
    )


class EmbedResponse(Schema):
    """Documents the answer; the view writes it without a dump, number by number is too slow."""

    model = fields.String(required=True, metadata={"example": "bge-m3"})
    embeddings = fields.List(
        fields.Raw(),
        required=True,
        metadata={
            "example": [[0.0231, -0.0467, 0.0105]],
            "description": "One vector for each text, in order: a list of numbers, or a string for `base64`.",
        },
    )
    total_duration = fields.Integer(
        required=True, metadata={"example": 41870332, "description": "Nanoseconds this request took."}
    )
    load_duration = fields.Integer(
        required=True,
        metadata={"example": 6356238454, "description": "Nanoseconds loading the model took, once."},
    )
    prompt_eval_count = fields.Integer(
        required=True,
        metadata={
            "example": 7,
            "description": "Tokens of all texts, special ones included, after truncation.",
        },
    )
    truncated = fields.List(
        fields.Integer(),
        metadata={"example": [0], "description": "Indices of the texts that were cut, if any."},
    )


class HealthResponse(Schema):
    status = fields.String(required=True, metadata={"example": "ok"})


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
