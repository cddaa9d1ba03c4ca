"""What comes in and goes out: validation and documentation from the same classes.

Here is what every protocol's requests are made of; each protocol has a file of its own.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, Self, TypeVar

from marshmallow import EXCLUDE, Schema, ValidationError, fields, pre_load, validate

from app.api.context import settings
from app.engine.embeddings import PRIORITIES

MODEL_CHARACTERS = 256  # of a model's name: it comes back in answers
JSON_NAMES = {bool: "a boolean", int: "a number", float: "a number", dict: "an object"}


def json_name(value: Any) -> str:
    """What a person calls this JSON value."""
    if isinstance(value, list):
        return "a list"
    return "null" if value is None else JSON_NAMES.get(type(value), "a string")


T = TypeVar("T")


class OwnField(fields.Field[T]):
    """A field whose messages are ours, and so is what the document says of it."""

    def openapi(self, most: int) -> dict[str, Any]:
        """Its type as an OpenAPI schema, where a list may have `most` items."""
        raise NotImplementedError


class Text(OwnField[str]):
    """A string."""

    def openapi(self, most: int) -> dict[str, Any]:
        return {"type": "string"}

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any) -> str:
        if not isinstance(value, str):
            raise ValidationError(f"must be a string, not {json_name(value)}")
        if len(value) > settings().max_characters:
            raise ValidationError(f"has {len(value)} characters, the limit is {settings().max_characters}")
        return value


class ModelName(Text):
    """A model's name, which may be that of another model, but is no longer than one can be."""

    def openapi(self, most: int) -> dict[str, Any]:
        return {"type": "string", "maxLength": MODEL_CHARACTERS}

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **options: Any
    ) -> str:
        name = super()._deserialize(value, attr, data, **options)
        if len(name) > MODEL_CHARACTERS:
            raise ValidationError(f"has {len(name)} characters, the limit is {MODEL_CHARACTERS}")
        return name


class Texts(OwnField[list[str]]):
    """A list of strings; with `objects`, also of objects that hold one under "text"."""

    kind = "a list of strings"

    def __init__(self, *, objects: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.objects = objects

    def openapi(self, most: int) -> dict[str, Any]:
        text: dict[str, Any] = {"type": "string"}
        if self.objects:
            holder = {"type": "object", "required": ["text"], "properties": {"text": text}}
            text = {"oneOf": [text, holder]}
        return {"type": "array", "items": text, "maxItems": most}

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any
    ) -> list[str]:
        if not isinstance(value, list):
            raise ValidationError(f"must be {self.kind}, not {json_name(value)}")
        limit = settings().max_texts
        if len(value) > limit:
            raise ValidationError(
                f"has {len(value)} texts, the limit is {limit}: send them in several requests"
            )
        if self.objects:
            value = [text.get("text") if isinstance(text, dict) else text for text in value]
        for index, text in enumerate(value):
            if not isinstance(text, str):
                raise ValidationError(f"text {index} must be a string, not {json_name(text)}")
            if len(text) > settings().max_characters:
                raise ValidationError(
                    f"text {index} has {len(text)} characters, the limit is {settings().max_characters}"
                )
        return list(value)


class TextOrTexts(Texts):
    """A string or a list of strings; always a list once loaded."""

    kind = "a string or a list of strings"

    def openapi(self, most: int) -> dict[str, Any]:
        return {"oneOf": [{"type": "string"}, super().openapi(most)]}

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **options: Any
    ) -> list[str]:
        return super()._deserialize([value] if isinstance(value, str) else value, attr, data, **options)


def required(what: str) -> dict[str, Any]:
    """Arguments of a field that must be there."""
    return {"required": True, "error_messages": {"required": f"is required: {what}"}}


def positive(description: str, most: int | None = None) -> fields.Integer:
    """A whole number of at least 1, and of `most` at most, or none."""
    return fields.Integer(
        strict=True,
        load_default=None,
        allow_none=True,
        validate=validate.Range(
            min=1, max=most, error="must be a positive number" + (f" up to {most}" if most else "")
        ),
        error_messages={"invalid": "must be a whole number"},
        metadata={"description": description},
    )


class StrictBoolean(fields.Boolean):
    """true or false, none of the words and numbers that marshmallow takes for them."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any) -> bool:
        if not isinstance(value, bool):
            raise ValidationError(f"must be true or false, not {json_name(value)}")
        return value


def one_of(*choices: str) -> validate.OneOf:
    return validate.OneOf(choices, error=f"must be one of {', '.join(choices)}")


def model_name() -> ModelName:
    """The model that a request asks for."""
    return ModelName(
        load_default=None,
        allow_none=True,
        metadata={"description": "Name of the served model or an alias; may be left out."},
    )


def priority() -> fields.String:
    """Whether a call goes before others or after them."""
    return fields.String(
        load_default=None,
        allow_none=True,
        validate=one_of(*PRIORITIES),
        metadata={
            "description": "`interactive`: somebody waits for it, it goes first (up to 512 tokens). `bulk`: "
            "part of a corpus, it lets others go first. Left out, a `Priority` header says it (RFC 9218: "
            "`u=0`, `u=1` and `u=6`, `u=7`), else its size: up to 64 tokens are interactive."
        },
    )


class Request(Schema):
    """Fields nobody declared are ignored, and null means not given: clients send plenty of both."""

    class Meta:
        unknown = EXCLUDE

    @pre_load
    def drop_nulls(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {key: value for key, value in data.items() if value is not None}

    @classmethod
    def checked(cls, body: dict[str, Any]) -> dict[str, Any]:
        """What a body holds, checked; ValidationError."""
        found: dict[str, Any] = cls._instance().load(body)
        return found

    @classmethod
    @cache  # to make one copies all of its fields
    def _instance(cls) -> Self:
        return cls()


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
