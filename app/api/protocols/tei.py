"""text-embeddings-inference's protocol: /embed, /embed_sparse, /tokenize, /info.

/rerank is in the folder of that name, /predict in predict.py.
"""

from typing import Any, cast

from flask import Response, current_app
from marshmallow import Schema, fields

from app.api.answer import answer
from app.api.ask import encode, served_name, tokens
from app.api.body import read_json
from app.api.context import encoder, reranker, settings
from app.api.documented import documented
from app.api.fields import TextOrTexts, Unserved, positive, switch, texts
from app.api.protocol import Protocol
from app.api.room import until_sent
from app.api.schema import Request, TextsRequest
from app.api.space import EXAMPLE, EXPECTED, SPACE, TOLD
from app.engine.embeddings import CROSS_ENCODER, ModelInfo
from app.engine.encodings import as_float

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "int8": "int8", "w8a16": "w8a16"}
LABEL = "LABEL_0"
EXAMPLES = {"batch": {"summary": "Two texts", "value": {"inputs": ["a text", "一段文字"]}}}
NUMBERS = {"type": "array", "items": {"type": "number"}}
# By status, where it is another than Validation; clients only show it.
ERROR_TYPES = {401: "Unauthorized", 500: "Backend", 503: "Overloaded", 504: "Backend"}


class TEISparseRequest(TextsRequest):
    inputs = TextOrTexts(**texts())
    prompt_name = Unserved("this model has no prompts", "")


class TEIEmbedRequest(TEISparseRequest):
    normalize = switch(True, "false keeps the length the model gave a vector.")
    dimensions = positive("So many numbers of each vector, its length 1 again.")


class TokenizeRequest(Request):
    inputs = TextOrTexts(**texts())
    add_special_tokens = switch(True, "The first and the last token of each text too.")


class SparseValue(Schema):
    index = fields.Integer(required=True, metadata={"example": 43904})
    value = fields.Float(required=True, metadata={"example": 0.2107})


class TokenResponse(Schema):
    id = fields.Integer(required=True, metadata={"example": 35378})
    text = fields.String(required=True, metadata={"example": "Hello"})
    special = fields.Boolean(required=True)
    start = fields.Integer(required=True, allow_none=True, metadata={"example": 0})
    stop = fields.Integer(required=True, allow_none=True, metadata={"example": 5})


class Percentiles(Schema):
    p5 = fields.Float(required=True, metadata={"example": 0.703})
    p50 = fields.Float(required=True, metadata={"example": 0.752})
    p95 = fields.Float(required=True, metadata={"example": 0.805})


class InfoResponse(Schema):
    model_id = fields.String(required=True, metadata={"example": "bge-m3"})
    model_sha = fields.String(required=True, metadata={"description": "sha256 of the weights served."})
    model_dtype = fields.String(required=True, metadata={"example": "bfloat16"})
    model_type = fields.Dict(required=True, metadata={"example": {"embedding": {"pooling": "mean"}}})
    max_input_length = fields.Integer(required=True, metadata={"example": 8192})
    max_client_batch_size = fields.Integer(required=True, metadata={"example": 2048})
    max_batch_tokens = fields.Integer(
        required=True, metadata={"example": 262144, "description": "So many may wait."}
    )
    auto_truncate = fields.Boolean(required=True)
    outputs = fields.List(
        fields.String(),
        required=True,
        metadata={"example": ["dense", "sparse", "colbert"], "description": "Or cross-encoder."},
    )
    version = fields.String(required=True, metadata={"example": "0.1.0"})
    demo = fields.Boolean(
        metadata={
            "description": "Whether this is the small demo model, which `make run` serves without BGE-M3."
        }
    )
    embedding_space = fields.String(metadata={"example": EXAMPLE, "description": SPACE})
    unrelated_cosine = fields.Nested(
        Percentiles,
        allow_none=True,
        metadata={
            "description": "The 5th, 50th and 95th percentile of the cosine between texts about different "
            "things, with the server's pooling: compare scores, do not read them as percentages. "
            "Null until `flask model export` has measured it."
        },
    )
    reranker = fields.Dict(metadata={"description": "The same of the cross-encoder, where one is served."})


class TEIError(Schema):
    error = fields.String(required=True, metadata={"example": "inputs: is required"})
    error_type = fields.String(required=True, metadata={"example": "Validation"})


def error(status: int, sentence: str, _details: dict[str, Any]) -> dict[str, Any]:
    """An error in TEI's shape."""
    return {"error": sentence, "error_type": ERROR_TYPES.get(status, "Validation")}


tei = Protocol("tei", __name__, error=error, schema=TEIError)
REFUSALS = tei.refusals(400, 408, 413, 415, 422, 503, 504)  # it names no model


@tei.post("/")
@tei.post("/embed")
@documented(
    "Turn texts into vectors, in the protocol of text-embeddings-inference",
    request=TEIEmbedRequest,
    responses={200: (NUMBERS, "one vector for each text, in their order"), **REFUSALS, **tei.refusals(409)},
    many=True,
    tag="text-embeddings-inference",
    parameters=EXPECTED,
    headers=TOLD,
    examples=EXAMPLES,
)
def embed() -> Response:
    """At / too, where Hugging Face's clients post when they are given nothing but the host."""
    asked = TEIEmbedRequest.checked(read_json())
    found = encode(
        asked["inputs"],
        field="inputs",
        pooling=asked["pooling"],
        dimensions=asked["dimensions"],
        truncate=asked["truncate"],
        unit=asked["normalize"],
    )
    return answer(as_float(found.dense), found)


@tei.post("/embed_sparse")
@documented(
    "Turn texts into lexical weights",
    request=TEISparseRequest,
    responses={
        200: ({"type": "array", "items": SparseValue}, "a list for each text"),
        **REFUSALS,
        **tei.refusals(409),
    },
    many=True,
    tag="text-embeddings-inference",
    parameters=EXPECTED,
    headers=TOLD,
    examples=EXAMPLES,
)
def embed_sparse() -> Response:
    """Token ids and weights, for models that have them."""
    asked = TEISparseRequest.checked(read_json())
    found = encode(asked["inputs"], field="inputs", outputs=["sparse"], truncate=asked["truncate"])
    content = (
        [{"index": index, "value": value} for index, value in zip(ids.tolist(), weights, strict=True)]
        for ids, weights in found.sparse
    )
    return answer(content, found)


@tei.post("/tokenize")
@documented(
    "Cut texts into tokens",
    request=TokenizeRequest,
    responses={200: ({"type": "array", "items": TokenResponse}, "a list for each text"), **REFUSALS},
    many=True,
    tag="text-embeddings-inference",
    examples=EXAMPLES,
)
def tokenize() -> Response:
    """All tokens, up to 65536 in one answer; `start` and `stop` count a text's characters."""
    asked = TokenizeRequest.checked(read_json())
    found = tokens(asked["inputs"], asked["add_special_tokens"])
    return until_sent(cast(Response, current_app.json.response(found)), "answers")


@tei.get("/info")
@documented(
    "What is served, and its limits",
    responses={200: (InfoResponse, "model and limits")},
    tag="text-embeddings-inference",
)
def info() -> dict[str, Any]:
    """Of the encoder; where a cross-encoder is served, `reranker` is what `/reranker/info` says of it."""
    about = _of_encoder("embedding", "reranker")
    return about | {"reranker": reranker_info()} if reranker() else about


@tei.get("/reranker/info")
@documented(
    "What ranks here, for clients that rerank only where `model_type` begins with `reranker`",
    responses={200: (InfoResponse, "model and limits")},
    tag="text-embeddings-inference",
)
def reranker_info() -> dict[str, Any]:
    """Give such a client this server's URL with `/reranker` behind it."""
    model = reranker()
    if model is None:
        return _of_encoder("reranker", "embedding")
    found = model.info
    kind = {"reranker": _labels(found)}
    return _described(settings().reranker_served_name, found, kind, [CROSS_ENCODER])


def label(found: ModelInfo) -> str:
    """What a cross-encoder's score is called; without a name of its own as Transformers calls it."""
    return found.labels[0] if found.labels else LABEL


def _labels(found: ModelInfo) -> dict[str, Any]:
    return {"id2label": {"0": label(found)}, "label2id": {label(found): 0}}


def _of_encoder(*kinds: str) -> dict[str, Any]:
    found, model = encoder().info, reranker()
    about = {
        "embedding": {"pooling": found.pooling},
        "reranker": _labels(model.info) if model else {"id2label": {"0": LABEL}},
    }
    kind = {name: about[name] for name in kinds}
    return _described(served_name(None), found, kind, ["dense", *found.heads]) | {
        "embedding_space": found.space,
        "demo": found.demo,
        "unrelated_cosine": found.unrelated_cosine,
    }


def _described(name: str, found: ModelInfo, kind: dict[str, Any], outputs: list[str]) -> dict[str, Any]:
    return {
        "model_id": name,
        "model_sha": found.digest,
        "model_dtype": DTYPES[found.precision],
        "model_type": kind,
        "max_input_length": found.max_tokens,
        "max_client_batch_size": settings().max_texts,
        "max_batch_tokens": settings().queue_tokens,
        "auto_truncate": True,
        "outputs": outputs,
        "version": current_app.config["VERSION"],
    }
