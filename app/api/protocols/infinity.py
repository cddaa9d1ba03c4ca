"""Infinity's protocol: OpenAI's without /v1, as clients ask too that are given nothing but the host."""

from typing import Any

from flask import Response
from marshmallow import Schema, fields

from app.api.context import encoder, settings
from app.api.documented import documented
from app.api.fields import whole
from app.api.protocol import Protocol
from app.api.protocols.openai import (
    STATUSES,
    EmbeddingsRequest,
    EmbeddingsResponse,
    OpenAIError,
    embed,
    error,
)
from app.api.protocols.openai.models import Model, described, served_names
from app.api.space import EXPECTED, TOLD


class InfinityRequest(EmbeddingsRequest):
    dimensions = whole(
        0, "must be 0 (all) or a positive number", "So many numbers of each vector; 0, or left out: all."
    )


class InfinityModel(Model):
    backend = fields.String(required=True, metadata={"example": "openvino"})
    capabilities = fields.List(fields.String(), required=True, metadata={"example": ["embed", "rerank"]})
    stats = fields.Dict(
        required=True,
        metadata={
            "example": {"queue_fraction": 0.0, "queue_absolute": 0, "results_pending": 0, "batch_size": 2048},
            "description": "Tokens that wait, as a share of those that may and in number.",
        },
    )


class InfinityModels(Schema):
    object = fields.String(required=True, metadata={"example": "list"})
    data = fields.List(fields.Nested(InfinityModel), required=True)


infinity = Protocol("infinity", __name__, error=error, schema=OpenAIError, statuses=STATUSES)


@infinity.post("/embeddings")
@documented(
    "Turn texts into vectors, in Infinity's protocol",
    request=InfinityRequest,
    responses={200: (EmbeddingsResponse, "one vector for each text, in their order"), **infinity.refusals()},
    tag="Infinity",
    parameters=EXPECTED,
    headers=TOLD,
    examples={"batch": {"summary": "Two texts", "value": {"input": ["a text", "一段文字"]}}},
)
def embeddings() -> Response:
    return embed(InfinityRequest)


@infinity.get("/models")
@documented(
    "The models served here",
    responses={200: (InfinityModels, "the encoder, and the cross-encoder where one is served")},
    tag="Infinity",
)
def models() -> dict[str, Any]:
    return {"object": "list", "data": [_described(name) for name in served_names()]}


@infinity.get("/models/<path:name>")
@documented(
    "A model served here, by its name or an alias",
    responses={200: (InfinityModel, "it is served"), **infinity.refusals(404)},
    tag="Infinity",
)
def model(name: str) -> dict[str, Any]:
    return _described(name)


def _described(asked: str) -> dict[str, Any]:
    waiting = sum(encoder().load_state.waiting.values())
    about = described(asked)
    return about | {
        "owned_by": "infinity",  # its client knows no other
        "backend": encoder().info.engine,
        "capabilities": ["rerank"] if about["model_type"] == "rerank" else ["embed", "rerank"],
        "stats": {
            "queue_fraction": waiting / settings().queue_tokens,
            "queue_absolute": waiting,
            "results_pending": 0,
            "batch_size": settings().max_texts,
        },
    }
