"""/v1/embeddings and /v1/models: what comes in and goes out, in OpenAI's shapes."""

from collections.abc import Mapping
from typing import Any, get_args

from marshmallow import Schema, ValidationError, fields

from app.api.schemas import (
    Request,
    StrictBoolean,
    Text,
    TextOrTexts,
    model_name,
    one_of,
    positive,
    required,
)
from app.engine.embeddings import Pooling


class NoTokenIds(TextOrTexts):
    """A string or a list of strings, and a way out for clients that send token ids."""

    def openapi(self, most: int) -> dict[str, Any]:
        texts = super(TextOrTexts, self).openapi(most) | {"minItems": 1}
        return {"oneOf": [{"type": "string"}, texts]}

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **options: Any
    ) -> list[str]:
        if value == []:
            raise ValidationError("must not be empty")
        if isinstance(value, list) and _are_token_ids(value):
            raise ValidationError(
                "token ids are those of another tokenizer and would give wrong vectors, send text: "
                "with langchain-openai set check_embedding_ctx_length=False"
            )
        return super()._deserialize(value, attr, data, **options)


def _are_token_ids(value: list[Any]) -> bool:
    """Whether it holds whole numbers, or lists of them, and nothing else."""
    rows = value if all(isinstance(row, list) for row in value) else [value]
    return any(rows) and all(type(item) is int for row in rows for item in row)


class AnyCase(Text):
    """One of a few words, in small or capital letters."""

    def __init__(self, *choices: str, **options: Any) -> None:
        super().__init__(**options)
        self.choices = choices

    def openapi(self, most: int) -> dict[str, Any]:
        return {"type": "string", "enum": [*self.choices, None]}

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **options: Any
    ) -> str:
        word = super()._deserialize(value, attr, data, **options).lower()
        if word not in self.choices:
            raise ValidationError(f"must be one of {', '.join(self.choices)}")
        return word


class EmbeddingsRequest(Request):
    input = NoTokenIds(
        **required("a string or a list of strings"), metadata={"description": "The text, or the texts."}
    )
    model = model_name()
    encoding_format = AnyCase(
        "float",
        "base64",
        load_default="float",
        allow_none=True,
        metadata={"description": "`float`: numbers; `base64`: little-endian float32."},
    )
    dimensions = positive("So many numbers of each vector, its length 1 again.")
    user = fields.Raw(allow_none=True, metadata={"description": "Accepted and ignored."})
    truncate = StrictBoolean(
        load_default=True,
        allow_none=True,
        metadata={"description": "Not OpenAI's: false refuses a text that is too long."},
    )
    pooling = fields.String(
        load_default=None,
        allow_none=True,
        validate=one_of(*get_args(Pooling)),
        metadata={"description": "Not OpenAI's: `mean` or `cls`; the server's own if left out."},
    )


class EmbeddingsResponse(Schema):
    object = fields.String(required=True, metadata={"example": "list"})
    data = fields.List(
        fields.Dict(),
        required=True,
        metadata={"example": [{"object": "embedding", "index": 0, "embedding": [0.0231, -0.0467]}]},
    )
    model = fields.String(required=True, metadata={"example": "bge-m3"})
    usage = fields.Dict(required=True, metadata={"example": {"prompt_tokens": 7, "total_tokens": 7}})


class Model(Schema):
    id = fields.String(required=True, metadata={"example": "bge-m3"})
    object = fields.String(required=True, metadata={"example": "model"})
    created = fields.Integer(required=True, metadata={"example": 1706745600})
    owned_by = fields.String(required=True, metadata={"example": "local"})


class Models(Schema):
    object = fields.String(required=True, metadata={"example": "list"})
    data = fields.List(fields.Nested(Model), required=True)


class OpenAIError(Schema):
    error = fields.Dict(
        required=True,
        metadata={
            "example": {
                "message": "input: must not be empty",
                "type": "invalid_request_error",
                "param": "input",
                "code": None,
            }
        },
    )
