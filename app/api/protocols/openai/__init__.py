"""OpenAI's protocol: /v1/embeddings, with what Jina, NVIDIA and others add to it."""

from collections.abc import Mapping
from typing import Any, ClassVar

from flask import Response
from marshmallow import Schema, ValidationError, fields
from werkzeug.exceptions import BadRequest

from app.api.answer import answer
from app.api.ask import encode, served_name
from app.api.body import read_json
from app.api.documented import documented
from app.api.fields import (
    Choice,
    TextOrTexts,
    Unserved,
    ignored,
    model_name,
    positive,
    switch,
    texts,
)
from app.api.protocol import Protocol
from app.api.schema import TextsRequest
from app.api.space import EXPECTED, TOLD
from app.engine.embeddings import Chunking, Embeddings
from app.engine.encodings import ENCODINGS

# OpenAI's name for each kind of error; its clients choose an exception by status.
ERROR_TYPES = {401: "authentication_error", 404: "not_found_error", 503: "overloaded_error"}
TOGETHER = Chunking(tokens=None, overlap=0, late=True)
# Jina's models have weights for each of these; BGE-M3 has one vector of a text for all of them.
TASKS = (
    "retrieval",
    "retrieval.query",
    "retrieval.passage",
    "text-matching",
    "classification",
    "clustering",
    "separation",
    "code",
    "code.query",
    "code.passage",
)


class Input(TextOrTexts):
    """Strings, or NVIDIA's and Jina's objects, and a way out for clients that send token ids."""

    def openapi(self, most: int) -> dict[str, Any]:
        *one, several = super().openapi(most)["oneOf"]
        return {"oneOf": [*one, several | {"minItems": 1}]}

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


class EmbeddingsRequest(TextsRequest):
    # Voyage's, what LlamaIndex calls Jina's field, and vLLM's.
    synonyms: ClassVar = {
        "output_dimension": "dimensions",
        "truncation": "truncate",
        "encoding_type": "embedding_type",
        "normalize": "normalized",
    }

    input = Input(**texts(objects=True))
    model = model_name()
    encoding_format = Choice(
        *ENCODINGS,
        load_default="float",
        metadata={
            "description": "`float`: numbers; `base64`: little-endian float32; the rest as at /api/embed."
        },
    )
    embedding_type = Choice(
        *ENCODINGS,
        load_default=None,
        metadata={"description": "Jina's name of `encoding_format`; where both are given, this."},
    )
    dimensions = positive("So many numbers of each vector, its length 1 again.")
    normalized = switch(True, "Jina's: false keeps the length the model gave a vector.")
    task = Choice(
        *TASKS,
        load_default=None,
        metadata={"description": "Jina's: BGE-M3's vectors are the same for every task."},
    )
    user = ignored("who asks")
    input_type = ignored("NVIDIA's and Voyage's: BGE-M3 embeds queries and passages alike")
    late_chunking = switch(
        False,
        "Jina's: the texts are passages of one document, in its order, and their vectors are pooled out of "
        "one pass over it (mean pooling only).",
    )
    chunk = Unserved("passages are at /api/embed", False)
    return_multivector = Unserved("multi-vectors are at /api/embed, `return_colbert_vecs`", False)
    prompt = Unserved("this model has no prompts", "")
    prompt_name = Unserved("this model has no prompts", "")
    add_special_tokens = Unserved("the model was trained with them", True)
    truncate_prompt_tokens = Unserved("texts are cut at the server's limit only", -1)
    output_dtype = Unserved("`encoding_format` names the kinds of numbers", "float")
    modality = Unserved("this model reads text only", "text")


class EmbeddingsResponse(Schema):
    object = fields.String(required=True, metadata={"example": "list"})
    data = fields.List(
        fields.Dict(),
        required=True,
        metadata={"example": [{"object": "embedding", "index": 0, "embedding": [0.0231, -0.0467]}]},
    )
    model = fields.String(required=True, metadata={"example": "bge-m3"})
    usage = fields.Dict(required=True, metadata={"example": {"prompt_tokens": 7, "total_tokens": 7}})


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
    detail = fields.String(
        required=True,
        metadata={
            "example": "input: must not be empty",
            "description": "The same sentence, where Jina's and Xinference's clients look for it.",
        },
    )


def error(status: int, sentence: str, details: dict[str, Any]) -> dict[str, Any]:
    """An error in OpenAI's shape."""
    about = {
        "message": sentence,
        "type": ERROR_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error"),
        "param": next(iter(details), None),
        "code": "model_not_found" if status == 404 and "model" in details else None,
    }
    return {"error": about, "detail": sentence}


STATUSES = {422: 400}  # where others say 422
openai = Protocol(
    "openai",
    __name__,
    error=error,
    schema=OpenAIError,
    statuses=STATUSES,
    prefix="/v1/",
    quick={"generate"},
)


@openai.post("/v1/embeddings")
@documented(
    "Turn texts into vectors, in OpenAI's protocol",
    request=EmbeddingsRequest,
    responses={200: (EmbeddingsResponse, "one vector for each text, in their order"), **openai.refusals()},
    tag="OpenAI",
    parameters=EXPECTED,
    headers=TOLD,
    examples={"batch": {"summary": "Two texts", "value": {"input": ["a text", "一段文字"]}}},
)
def embeddings() -> Response:
    """Texts only: token ids are refused, they are those of another tokenizer."""
    return embed(EmbeddingsRequest)


def embed(schema: type[EmbeddingsRequest]) -> Response:
    """The answer to a request as `schema` has it."""
    asked = schema.checked(read_json())
    name = served_name(asked["model"])
    found = encode(
        asked["input"],
        dimensions=asked["dimensions"],
        pooling=asked["pooling"],
        truncate=asked["truncate"],
        unit=asked["normalized"],
        chunk=together(asked),
    )
    return answer(written(found, name, asked), found)


def together(asked: dict[str, Any]) -> Chunking | None:
    """How a request that was checked has its texts embedded, if not one by one."""
    return TOGETHER if asked["late_chunking"] else None


def written(found: Embeddings, name: str, asked: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request that was checked."""
    vectors = ENCODINGS[asked["embedding_type"] or asked["encoding_format"]](found.dense)
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": vector}
            for index, vector in enumerate(vectors)
        ],
        "model": name,
        "usage": {"prompt_tokens": found.tokens, "total_tokens": found.tokens},
    }


@openai.post("/v1/chat/completions")
@openai.post("/v1/completions")
def generate() -> Response:
    raise BadRequest(f"{served_name(None)!r} does not generate text, it only embeds: POST /v1/embeddings")
