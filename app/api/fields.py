"""Fields of requests: each says in words what is wrong, and documents what it accepts."""

from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from marshmallow import ValidationError, fields, validate

from app.api.context import settings
from app.api.errors import MODEL_CHARACTERS
from app.engine.embeddings import PRIORITIES, Side

JSON_NAMES = {bool: "a boolean", int: "a number", float: "a number", dict: "an object"}


def json_name(value: Any) -> str:
    """The name of this kind of JSON value, for messages."""
    if isinstance(value, list):
        return "a list"
    return "null" if value is None else JSON_NAMES.get(type(value), "a string")


T = TypeVar("T")


class OwnField(fields.Field[T]):
    """A field with messages and documentation of our own."""

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
    """A model's name of a sensible length, served here or not."""

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
            value = [_text_of(index, item) for index, item in enumerate(value)]
        for index, text in enumerate(value):
            if not isinstance(text, str):
                raise ValidationError(f"text {index} must be a string, not {json_name(text)}")
            if len(text) > settings().max_characters:
                raise ValidationError(
                    f"text {index} has {len(text)} characters, the limit is {settings().max_characters}"
                )
        return list(value)


def _text_of(index: int, item: Any) -> Any:
    """The text of an object that holds one and nothing else that a model could read."""
    if not isinstance(item, dict):
        return item
    if "text" not in item or "image" in item:
        raise ValidationError(f'text {index} must be a string, or an object with a "text" and no image')
    return item["text"]


class TextOrTexts(Texts):
    """A string or a list of strings; always a list once loaded."""

    kind = "a string or a list of strings"

    def openapi(self, most: int) -> dict[str, Any]:
        several = super().openapi(most)
        one = several["items"]
        return {"oneOf": [*one.get("oneOf", [one]), several]}

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **options: Any
    ) -> list[str]:
        alone = isinstance(value, str) or (self.objects and isinstance(value, dict) and "text" in value)
        return super()._deserialize([value] if alone else value, attr, data, **options)


class Choice(Text):
    """One of a few words, in upper or lower case."""

    def __init__(self, *words: str, **options: Any) -> None:
        super().__init__(allow_none=not options.get("required"), **options)
        self.words = words

    def openapi(self, most: int) -> dict[str, Any]:
        return {"type": "string", "enum": [*self.words, *([None] if self.allow_none else [])]}

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **options: Any
    ) -> str:
        word = super()._deserialize(value, attr, data, **options).lower()
        if word not in self.words:
            raise ValidationError(f"must be one of {', '.join(self.words)}")
        return word


class Boolean(OwnField[bool]):
    """true or false; also as strings, which some clients send."""

    def openapi(self, most: int) -> dict[str, Any]:
        return {"type": "boolean"}

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any) -> bool:
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if not isinstance(value, bool):
            raise ValidationError(f"must be true or false, not {json_name(value)}")
        return value


class Truncate(OwnField[Side | None]):
    """Which side of a text that is too long is cut; None refuses it. A boolean, or Cohere's words."""

    words: ClassVar[dict[str, Side | None]] = {
        "true": "right",
        "false": None,
        "end": "right",
        "start": "left",
        "none": None,
    }

    def openapi(self, most: int) -> dict[str, Any]:
        return {"oneOf": [{"type": "boolean"}, {"type": "string", "enum": ["END", "START", "NONE"]}]}

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any
    ) -> Side | None:
        word = str(value).lower() if isinstance(value, bool | str) else ""
        if word not in self.words:
            raise ValidationError("must be true or false, or one of END, START, NONE")
        return self.words[word]


class Unserved(OwnField[Any]):
    """A field of other servers that would change vectors: only values that change nothing are accepted."""

    def __init__(self, why: str, *harmless: Any) -> None:
        super().__init__(load_default=None, allow_none=True, metadata={"description": f"Not served: {why}."})
        self.why, self.harmless = why, harmless

    def openapi(self, most: int) -> dict[str, Any]:
        return {"enum": [*self.harmless, None]}

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any) -> Any:
        word = value.lower() if isinstance(value, str) else value
        if not any(word == one and type(word) is type(one) for one in self.harmless):
            raise ValidationError(f"must be left out: {self.why}")
        return value


def required(what: str, description: str = "") -> dict[str, Any]:
    """Arguments of a field that must be there."""
    about = {"metadata": {"description": description}} if description else {}
    return {"required": True, "error_messages": {"required": f"is required: {what}"}, **about}


def texts(objects: bool = False) -> dict[str, Any]:
    """Arguments of the field of a text, or of several."""
    return required("a string or a list of strings", "The text, or the texts.") | {"objects": objects}


def whole(least: int, error: str, description: str, most: int | None = None) -> fields.Integer:
    """A whole number of at least `least`, and of `most` at most, or none."""
    return fields.Integer(
        strict=True,
        load_default=None,
        allow_none=True,
        validate=validate.Range(min=least, max=most, error=error),
        error_messages={"invalid": "must be a whole number"},
        metadata={"description": description},
    )


def positive(description: str, most: int | None = None) -> fields.Integer:
    """A whole number of at least 1, and of `most` at most, or none."""
    return whole(1, "must be a positive number" + (f" up to {most}" if most else ""), description, most)


def switch(default: bool, description: str) -> Boolean:
    return Boolean(load_default=default, allow_none=True, metadata={"description": description})


def ignored(who: str) -> fields.Raw:
    """A field that changes no vector."""
    return fields.Raw(allow_none=True, metadata={"description": f"Accepted and ignored: {who}."})


def model_name(
    description: str = "Name of the served model or an alias; may be left out.",
) -> ModelName:
    """The model that a request asks for."""
    return ModelName(load_default=None, allow_none=True, metadata={"description": description})


def priority() -> Choice:
    """Whether a call goes before others or after them."""
    return Choice(
        *PRIORITIES,
        load_default=None,
        metadata={
            "description": "`interactive`: somebody waits for it, it goes first (up to 512 tokens). `bulk`: "
            "part of a corpus, it lets others go first. Left out, a `Priority` header says it (RFC 9218: "
            "`u=0`, `u=1` and `u=6`, `u=7`), else its size: up to 64 tokens are interactive."
        },
    )
