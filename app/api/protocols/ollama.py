"""Ollama's protocol, except /api/embed."""

from datetime import UTC, datetime
from typing import Any, ClassVar

import orjson
from flask import Response, current_app
from marshmallow import Schema, fields
from werkzeug.exceptions import BadRequest

from app.api.answer import answer
from app.api.ask import encode, served_name
from app.api.body import read_json
from app.api.context import encoder, settings
from app.api.documented import documented
from app.api.fields import Text, ignored, model_name, switch
from app.api.protocol import Protocol
from app.api.schema import Request, TextsRequest
from app.api.space import EXPECTED, TOLD

# Clients read "<architecture>.context_length" and the like; this is Ollama's architecture name for BGE-M3.
ARCHITECTURE = "bert"
POOLING_TYPES = {"mean": 1, "cls": 2}  # llama.cpp's numbers
LOADED_FOR_GOOD = "9999-12-31T23:59:59Z"


class NamedRequest(Request):
    """A request that names a model; older clients say `name`."""

    synonyms: ClassVar = {"name": "model"}
    model = model_name()


class LegacyRequest(NamedRequest, TextsRequest):
    prompt = Text(load_default="", allow_none=True, metadata={"description": "One text."})
    options = ignored("clients send it")
    keep_alive = ignored("clients send it")


class PullRequest(NamedRequest):
    stream = switch(True, "The answer line by line.")


class LegacyResponse(Schema):
    embedding = fields.List(
        fields.Float(),
        required=True,
        metadata={"example": [0.0231, -0.0467, 0.0105], "description": "Empty for an empty prompt."},
    )


class VersionResponse(Schema):
    version = fields.String(required=True, metadata={"example": "0.1.0"})


class ListResponse(Schema):
    models = fields.List(fields.Dict(), required=True, metadata={"description": "The one served here."})


class ShowResponse(Schema):
    details = fields.Dict(required=True)
    model_info = fields.Dict(required=True)
    capabilities = fields.List(fields.String(), required=True, metadata={"example": ["embedding"]})
    modified_at = fields.String(required=True)


class PullResponse(Schema):
    status = fields.String(required=True, metadata={"example": "success"})


ollama = Protocol("ollama", __name__, quick={"show", "pull", "generate"})
BODY = ollama.refusals(400, 404, 408, 413, 415, 422, 503)


@ollama.get("/api/version")
@documented("This server's version", responses={200: (VersionResponse, "its version")}, tag="Ollama")
def version() -> dict[str, Any]:
    return {"version": current_app.config["VERSION"]}


@ollama.get("/api/tags")
@documented(
    "The model served here, under its name and the aliases that were set",
    responses={200: (ListResponse, "a list of one for each name")},
    tag="Ollama",
)
def tags() -> dict[str, Any]:
    return {"models": [_model(name) for name in (served_name(None), *settings().model_aliases)]}


@ollama.get("/api/ps")
@documented(
    "The model in memory, which is the one served here",
    responses={200: (ListResponse, "a list of one")},
    tag="Ollama",
)
def running() -> dict[str, Any]:
    loaded = {
        "expires_at": LOADED_FOR_GOOD,
        "size_vram": 0,
        "context_length": encoder().info.max_tokens,
    }
    return {"models": [_model(served_name(None)) | loaded]}


@ollama.post("/api/show")
@documented(
    "What the model is: length, width, pooling",
    request=NamedRequest,
    responses={200: (ShowResponse, "its description"), **BODY},
    tag="Ollama",
    examples={"served": {"summary": "The served model", "value": {}}},
)
def show() -> dict[str, Any]:
    served_name(NamedRequest.checked(read_json())["model"])
    info = encoder().info
    return {
        "details": _details(),
        "model_info": {
            "general.architecture": ARCHITECTURE,
            "general.parameter_count": info.parameters,
            f"{ARCHITECTURE}.block_count": info.layers,
            f"{ARCHITECTURE}.context_length": info.max_tokens,
            f"{ARCHITECTURE}.embedding_length": info.width,
            f"{ARCHITECTURE}.pooling_type": POOLING_TYPES[info.pooling],
            f"{ARCHITECTURE}.vocab_size": info.vocabulary,
            "pooling": info.pooling,
            "outputs": ["dense", *info.heads],
            "engine": info.engine,
            "precision": info.precision,
            "embedding_space": info.space,
            "int8": info.int8,
            "demo": info.demo,
            "unrelated_cosine": info.unrelated_cosine,
        },
        "capabilities": ["embedding"],
        "modified_at": _modified(),
    }


@ollama.post("/api/embeddings")
@documented(
    "Turn one text into a vector (the older form of /api/embed)",
    request=LegacyRequest,
    responses={200: (LegacyResponse, "the vector, of length 1"), **BODY, **ollama.refusals(409, 504)},
    tag="Ollama",
    parameters=EXPECTED,
    headers=TOLD,
    examples={"one": {"summary": "A text", "value": {"prompt": "a text"}}},
)
def embeddings() -> Response:
    asked = LegacyRequest.checked(read_json())
    served_name(asked["model"])
    texts = [asked["prompt"]] if asked["prompt"] else []
    found = encode(texts, field="prompt", pooling=asked["pooling"], truncate=asked["truncate"])
    return answer({"embedding": found.dense[0] if len(found.dense) else []}, found)


@ollama.post("/api/pull")
@documented(
    "Fetch a model: the one served here is there already, no other is fetched",
    request=PullRequest,
    responses={200: (PullResponse, "it is there; JSON line by line unless `stream` is false"), **BODY},
    media=("application/json", "application/x-ndjson"),
    tag="Ollama",
    examples={"served": {"summary": "The served model", "value": {"stream": False}}},
)
def pull() -> Response | dict[str, Any]:
    asked = PullRequest.checked(read_json())
    served_name(asked["model"])
    if not asked["stream"]:
        return {"status": "success"}
    steps = [{"status": "pulling manifest"}, {"status": "success"}]
    lines = b"".join(orjson.dumps(step) + b"\n" for step in steps)
    return Response(lines, mimetype="application/x-ndjson")


@ollama.post("/api/generate")
@ollama.post("/api/chat")
def generate() -> Response:
    raise BadRequest(f"{served_name(None)!r} does not generate text, it only embeds: POST /api/embed")


def _model(name: str) -> dict[str, Any]:
    tagged = name if ":" in name else f"{name}:latest"
    info = encoder().info
    return {
        "name": tagged,
        "model": tagged,
        "modified_at": _modified(),
        "size": info.size,
        "digest": info.digest,
        "details": _details(),
    }


def _details() -> dict[str, Any]:
    info = encoder().info
    return {
        "parent_model": "",
        "format": info.engine,
        "family": ARCHITECTURE,
        "families": [ARCHITECTURE],
        "parameter_size": f"{info.parameters / 1e6:.2f}M",
        "quantization_level": info.precision.upper(),
    }


def _modified() -> str:
    return datetime.fromtimestamp(encoder().info.modified, UTC).isoformat()
