"""OpenAI's models: what is served here, as Xinference's clients ask for it too."""

from typing import Any

from marshmallow import Schema, fields

from app.api.ask import either_name, served_name
from app.api.context import encoder, reranker, settings
from app.api.documented import documented
from app.api.protocol import Protocol
from app.api.protocols.openai import STATUSES, OpenAIError, error
from app.api.space import EXAMPLE, SPACE


class Model(Schema):
    id = fields.String(required=True, metadata={"example": "bge-m3"})
    object = fields.String(required=True, metadata={"example": "model"})
    created = fields.Integer(required=True, metadata={"example": 1706745600})
    owned_by = fields.String(required=True, metadata={"example": "local"})
    model_type = fields.String(
        required=True,
        metadata={"example": "embedding", "description": "Or rerank: Xinference's clients ask for it."},
    )
    dimensions = fields.Integer(metadata={"example": 1024, "description": "Of the encoder's vectors."})
    max_tokens = fields.Integer(required=True, metadata={"example": 8192})
    embedding_space = fields.String(metadata={"example": EXAMPLE, "description": SPACE})


class Models(Schema):
    object = fields.String(required=True, metadata={"example": "list"})
    data = fields.List(fields.Nested(Model), required=True)


models_protocol = Protocol("models", __name__, error=error, schema=OpenAIError, statuses=STATUSES)


@models_protocol.get("/v1/models")
@documented(
    "The models served here",
    responses={200: (Models, "the encoder, and the cross-encoder where one is served")},
    tag="OpenAI",
)
def models() -> dict[str, Any]:
    return {"object": "list", "data": [described(name) for name in served_names()]}


@models_protocol.get("/v1/models/<path:name>")
@documented(
    "A model served here, by its name or an alias",
    responses={200: (Model, "it is served"), **models_protocol.refusals(404)},
    tag="OpenAI",
)
def model(name: str) -> dict[str, Any]:
    return described(name)


def served_names() -> list[str]:
    """The encoder's first: some clients take the first model of a list, to embed with it."""
    return [served_name(None), *([settings().reranker_served_name] if reranker() else [])]


def described(asked: str) -> dict[str, Any]:
    """A model served here, under this name; UnknownModel."""
    name, is_reranker = either_name(asked)
    found = reranker() if is_reranker else None
    info = found.info if found else encoder().info
    about = {
        "id": name,
        "object": "model",
        "created": int(info.modified),
        "owned_by": "local",
        "model_type": "rerank" if found else "embedding",
    }
    vectors = {} if found else {"dimensions": info.width, "embedding_space": info.space}
    return about | vectors | {"max_tokens": info.max_tokens}
