"""OpenAI's protocol: /v1/embeddings and /v1/models."""

from typing import Any

from flask import Blueprint, Response

from app.api.answer import answer
from app.api.body import read_json
from app.api.context import encoder
from app.api.docs import documented
from app.api.embed import REFUSALS
from app.api.encode import encode, served_name
from app.api.schemas.openai import EmbeddingsRequest, EmbeddingsResponse, Model, Models, OpenAIError
from app.api.wire import ENCODINGS

bp = Blueprint("openai", __name__)

# OpenAI says 400 where others say 422.
OPENAI_REFUSALS = {
    status: (OpenAIError, meaning) for status, meaning in REFUSALS.items() if status != 422
} | {400: (OpenAIError, f"{REFUSALS[400]}; or {REFUSALS[422]}")}


@bp.post("/v1/embeddings")
@documented(
    "Turn texts into vectors, in OpenAI's protocol",
    request=EmbeddingsRequest,
    responses={200: (EmbeddingsResponse, "one vector for each text, in their order"), **OPENAI_REFUSALS},
    tag="OpenAI",
    examples={
        "batch": {"summary": "Two texts", "value": {"model": "bge-m3", "input": ["a text", "一段文字"]}}
    },
)
def embeddings() -> Response:
    """Texts only: token ids are refused, they are those of another tokenizer."""
    asked = EmbeddingsRequest.checked(read_json())
    name = served_name(asked["model"])
    found = encode(
        asked["input"],
        dimensions=asked["dimensions"],
        pooling=asked["pooling"],
        truncate=asked["truncate"],
    )
    vectors = ENCODINGS[asked["encoding_format"]](found.dense)
    tokens = sum(found.token_counts)
    content = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": vector}
            for index, vector in enumerate(vectors)
        ],
        "model": name,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return answer(content, found)


@bp.get("/v1/models")
@documented("The model served here", responses={200: (Models, "a list of one")}, tag="OpenAI")
def models() -> dict[str, Any]:
    return {"object": "list", "data": [_model(served_name(None))]}


@bp.get("/v1/models/<path:name>")
@documented(
    "The model served here, by its name or an alias",
    responses={200: (Model, "it is served"), 404: (OpenAIError, REFUSALS[404])},
    tag="OpenAI",
)
def model(name: str) -> dict[str, Any]:
    return _model(served_name(name))


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": int(encoder().info.modified), "owned_by": "local"}
