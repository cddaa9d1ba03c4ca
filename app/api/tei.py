"""text-embeddings-inference's protocol: /embed, /embed_sparse, /tokenize, /info; /rerank is in rerank.py."""

from typing import Any, cast

from flask import Blueprint, Response, current_app

from app.api.answer import answer, keep_room
from app.api.body import read_json
from app.api.context import encoder, settings
from app.api.docs import documented
from app.api.embed import REFUSALS
from app.api.encode import client_gone, encode, served_name
from app.api.room import until_sent
from app.api.schemas.tei import (
    InfoResponse,
    SparseValue,
    TEIEmbedRequest,
    TEIError,
    TEISparseRequest,
    TokenizeRequest,
    TokenResponse,
)
from app.api.wire import ENCODINGS

bp = Blueprint("tei", __name__)

MOST_TOKENS = 1 << 16  # in one answer of /tokenize
TOKEN_BYTES = 340  # of one in memory, its 70 bytes of JSON included
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "int8": "int8"}
TEI_REFUSALS = {status: (TEIError, meaning) for status, meaning in REFUSALS.items() if status != 404}
EXAMPLES = {"batch": {"summary": "Two texts", "value": {"inputs": ["a text", "一段文字"]}}}
NUMBERS = {"type": "array", "items": {"type": "number"}}


@bp.post("/")
@bp.post("/embed")
@documented(
    "Turn texts into vectors, in the protocol of text-embeddings-inference",
    request=TEIEmbedRequest,
    responses={200: (NUMBERS, "one vector for each text, in their order"), **TEI_REFUSALS},
    many=True,
    tag="text-embeddings-inference",
    examples=EXAMPLES,
)
def embed() -> Response:
    """At / too, where Hugging Face's clients post when they are given nothing but the host."""
    asked = TEIEmbedRequest.checked(read_json())
    found = encode(
        asked["inputs"],
        dimensions=asked["dimensions"],
        truncate=asked["truncate"],
        unit=asked["normalize"],
    )
    return answer(ENCODINGS["float"](found.dense), found)


@bp.post("/embed_sparse")
@documented(
    "Turn texts into lexical weights",
    request=TEISparseRequest,
    responses={200: ({"type": "array", "items": SparseValue}, "a list for each text"), **TEI_REFUSALS},
    many=True,
    tag="text-embeddings-inference",
    examples=EXAMPLES,
)
def embed_sparse() -> Response:
    """Token ids and weights, for models that have them."""
    asked = TEISparseRequest.checked(read_json())
    found = encode(asked["inputs"], outputs=["sparse"], truncate=asked["truncate"])
    content = (
        [{"index": index, "value": value} for index, value in zip(ids.tolist(), weights, strict=True)]
        for ids, weights in found.sparse
    )
    return answer(content, found)


@bp.post("/tokenize")
@documented(
    "Cut texts into tokens",
    request=TokenizeRequest,
    responses={200: ({"type": "array", "items": TokenResponse}, "a list for each text"), **TEI_REFUSALS},
    many=True,
    tag="text-embeddings-inference",
    examples=EXAMPLES,
)
def tokenize() -> Response:
    """All tokens, up to 65536 in one answer; `start` and `stop` count a text's characters."""
    asked = TokenizeRequest.checked(read_json())
    texts = asked["inputs"]
    keep_room(TOKEN_BYTES * min(MOST_TOKENS, sum(map(len, texts)) + 2 * len(texts)))
    found = encoder().tokenize(texts, asked["add_special_tokens"], MOST_TOKENS, client_gone())
    return until_sent(cast(Response, current_app.json.response(found)), "answers")


@bp.get("/info")
@documented(
    "What is served, and its limits",
    responses={200: (InfoResponse, "model and limits")},
    tag="text-embeddings-inference",
)
def info() -> dict[str, Any]:
    found = encoder().info
    return {
        "model_id": served_name(None),
        "model_sha": found.digest,
        "model_dtype": DTYPES[found.precision],
        "model_type": {"embedding": {"pooling": found.pooling}},
        "max_input_length": found.max_tokens,
        "max_client_batch_size": settings().max_texts,
        "max_batch_tokens": settings().queue_tokens,
        "auto_truncate": True,
        "outputs": ["dense", *found.heads],
        "version": current_app.config["VERSION"],
    }
