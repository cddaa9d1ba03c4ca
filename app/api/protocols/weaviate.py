"""What Weaviate's text2vec-transformers asks of its inference container."""

from typing import Any

from flask import Response
from marshmallow import Schema, fields

from app.api.answer import answer
from app.api.ask import encode, served_name
from app.api.body import read_json
from app.api.context import encoder
from app.api.documented import documented
from app.api.fields import Text, ignored, required
from app.api.health import ready as check
from app.api.protocol import Protocol
from app.api.room import until_sent
from app.api.schema import TextsRequest
from app.api.space import EXAMPLE, EXPECTED, SPACE, TOLD


class VectorRequest(TextsRequest):
    text = Text(**required("a string", "One text."))
    config = ignored(
        "a `pooling_strategy` comes from a default of Weaviate's, so the server's own pooling stands"
    )


class VectorResponse(Schema):
    text = fields.String(required=True)
    vector = fields.List(fields.Float(), required=True, metadata={"example": [0.0231, -0.0467, 0.0105]})
    dim = fields.Integer(required=True, metadata={"example": 1024})
    dims = fields.Integer(required=True, metadata={"example": 1024})


class MetaResponse(Schema):
    model = fields.String(required=True, metadata={"example": "bge-m3"})
    dimensions = fields.Integer(required=True, metadata={"example": 1024})
    max_tokens = fields.Integer(required=True, metadata={"example": 8192})
    embedding_space = fields.String(required=True, metadata={"example": EXAMPLE, "description": SPACE})


weaviate = Protocol("weaviate", __name__, open={"live", "ready"})


@weaviate.post("/vectors")
@documented(
    "Turn a text into a vector, for Weaviate",
    request=VectorRequest,
    responses={200: (VectorResponse, "the vector, of length 1"), **weaviate.refusals()},
    tag="Weaviate",
    parameters=EXPECTED,
    headers=TOLD,
    examples={"one": {"summary": "A text", "value": {"text": "a text"}}},
)
def vectors() -> Response:
    asked = VectorRequest.checked(read_json())
    found = encode([asked["text"]], field="text", pooling=asked["pooling"], truncate=asked["truncate"])
    width = found.dense.shape[1]
    content = {"text": asked["text"], "vector": found.dense[0], "dim": width, "dims": width}
    return until_sent(answer(content, found), "bodies")  # its text is the answer's


@weaviate.get("/meta")
@documented("The model served here", responses={200: (MetaResponse, "its description")}, tag="Weaviate")
def meta() -> dict[str, Any]:
    info = encoder().info
    return {
        "model": served_name(None),
        "dimensions": info.width,
        "max_tokens": info.max_tokens,
        "embedding_space": info.space,
    }


@weaviate.get("/.well-known/live")
@documented("Is the process alive", responses={204: (None, "it is")}, tag="Weaviate")
def live() -> Response:
    return Response(status=204)


@weaviate.get("/.well-known/ready")
@documented(
    "Can it take requests", responses={204: (None, "it can"), **weaviate.refusals(503)}, tag="Weaviate"
)
def ready() -> Response:
    check()
    return Response(status=204)
