"""The rerankers' protocols: TEI's, Jina's and Cohere's, told apart by path and fields."""

import math
from typing import Any, ClassVar

from flask import Response, g, request
from marshmallow import Schema, ValidationError, fields

from app.api.answer import answer
from app.api.ask import ranking, score, served_name
from app.api.body import read_json
from app.api.documented import documented
from app.api.fields import Text, Texts, Unserved, ignored, model_name, positive, required, switch
from app.api.protocol import Protocol
from app.api.protocols.openai import error as openai_error
from app.api.protocols.tei import error as tei_error
from app.api.room import until_sent
from app.api.schema import TextsRequest
from app.engine.embeddings import Scores

MOST = (1 << 31) - 1  # whole numbers of more than 64 bits are read as others
SEARCH_UNIT = 100  # documents; what Cohere bills by
QUERY = "What is BGE M3?"
PASSAGES = [
    "BM25 is a bag-of-words retrieval function that ranks a set of documents.",
    "BGE M3 is an embedding model supporting dense retrieval, lexical matching and multi-vector interaction.",
]
EXAMPLES = {
    "texts": {"summary": "Two texts (TEI)", "value": {"query": QUERY, "texts": PASSAGES}},
    "documents": {
        "summary": "The best of two documents (Jina, Cohere)",
        "value": {"query": QUERY, "documents": PASSAGES, "top_n": 1, "return_documents": True},
    },
}


RAW = switch(False, "true leaves scores as they are, false keeps them within 0 and 1.")


class TextsToRank(TextsRequest):
    """The request of text-embeddings-inference, known by `texts`."""

    query = Text(**required("a string"))
    texts = Texts(**required("a list of strings; or documents in its place"))
    model = model_name()
    raw_scores = RAW
    return_text = switch(False, "Each text beside its score.")


class DocumentsToRank(TextsRequest):
    """The request of Jina, Cohere, Infinity, vLLM and Xinference, known by `documents`."""

    synonyms: ClassVar = {"truncation": "truncate"}  # Voyage's

    model = model_name()
    query = Text(**required("a string"))
    documents = Texts(objects=True, **required('a list of strings, or of objects with a string under "text"'))
    top_n = positive("So many of the best; all if left out.", most=MOST)
    top_k = positive("Voyage's `top_n`: then so is the answer, `data` in place of `results`.", most=MOST)
    raw_scores = RAW
    return_documents = switch(False, "Each document beside its score.")
    property = Text(
        load_default=None,
        allow_none=True,
        metadata={"description": "Weaviate's: then documents and scores are in `scores` too."},
    )
    rank_fields = Unserved("documents are compared by their `text`", ["text"])
    max_tokens_per_doc = ignored("Cohere's; a document is read to the server's limit")


class V2DocumentsToRank(DocumentsToRank):
    return_documents = switch(True, "Each document beside its score; vLLM's clients expect them unasked.")


class Ranked(Schema):
    index = fields.Integer(required=True, metadata={"example": 1})
    score = fields.Float(required=True, metadata={"example": 0.6014})
    text = fields.String(metadata={"description": "With return_text."})


class Ranking(Schema):
    id = fields.String(required=True, metadata={"description": "The request's, as in the log."})
    model = fields.String(required=True, metadata={"example": "bge-m3"})
    object = fields.String(required=True, metadata={"example": "rerank"})
    scores = fields.List(fields.Dict(), metadata={"description": "For Weaviate's reranker."})
    data = fields.List(fields.Dict(), metadata={"description": "`results`, for Voyage's clients."})
    results = fields.List(
        fields.Dict(),
        metadata={
            "example": [{"index": 1, "relevance_score": 0.6014, "document": {"text": "a passage"}}],
            "description": "The best first; `document` with return_documents.",
        },
    )
    usage = fields.Dict(required=True, metadata={"example": {"prompt_tokens": 62, "total_tokens": 62}})
    meta = fields.Dict(
        required=True,
        metadata={
            "example": {
                "api_version": {"version": "1"},
                "billed_units": {"search_units": 1},
                "tokens": {"input_tokens": 62, "output_tokens": 0},
            },
            "description": "As Cohere counts; nothing is billed.",
        },
    )
    model_info = fields.Dict(
        required=True,
        metadata={
            "example": {"ranked_by": "colbert+sparse+dense"},
            "description": "What the order was made of: all there is, or dense alone.",
        },
    )


class RerankError(Schema):
    error = fields.String(required=True, metadata={"example": "query: is required: a string"})
    error_type = fields.String(required=True, metadata={"example": "Validation"})
    message = fields.String(required=True, metadata={"description": "The same, for Cohere's clients."})
    detail = fields.String(required=True, metadata={"description": "The same, for Jina's clients."})


class V1RerankError(Schema):
    error = fields.Dict(
        required=True,
        metadata={
            "example": {
                "message": "query: is required: a string",
                "type": "invalid_request_error",
                "param": "query",
                "code": None,
            }
        },
    )
    message = fields.String(required=True, metadata={"description": "The same, for Cohere's clients."})
    detail = fields.String(required=True, metadata={"description": "The same, for Jina's clients."})


def _error(status: int, sentence: str, details: dict[str, Any]) -> dict[str, Any]:
    return tei_error(status, sentence, details) | {"message": sentence, "detail": sentence}


def _v1_error(status: int, sentence: str, details: dict[str, Any]) -> dict[str, Any]:
    return openai_error(status, sentence, details) | {"message": sentence}


# Infinity's client takes a 422 for FastAPI's own list of faults.
STATUSES = {422: 400}
rerank_protocol = Protocol("rerank", __name__, error=_error, schema=RerankError, statuses=STATUSES)
# Clients of vLLM read errors as from its other paths under /v1.
v1_rerank_protocol = Protocol("v1_rerank", __name__, error=_v1_error, schema=V1RerankError, statuses=STATUSES)
EITHER = {
    "oneOf": [Ranking, {"type": "array", "items": Ranked}],
    "example": [{"index": 1, "score": 0.6014}, {"index": 0, "score": 0.2117}],
}


# At /api/rerank for Dify's Ollama plugin; for /reranker see /reranker/info.
@rerank_protocol.post("/rerank")
@rerank_protocol.post("/api/rerank")
@rerank_protocol.post("/reranker/rerank")
@documented(
    "Order texts by how well they answer a query, in the protocol of text-embeddings-inference, or of Jina",
    request=(TextsToRank, DocumentsToRank),
    responses={200: (EITHER, "the best first"), **rerank_protocol.refusals()},
    tag="Ranking",
    examples=EXAMPLES,
)
def rerank() -> Response:
    """By the hybrid score; by dense vectors where the model has nothing else."""
    body = read_json()
    return _rank_documents(body) if _has_one(body, "documents") else _rank_texts(body)


@v1_rerank_protocol.post("/v1/rerank")
@documented(
    "Order documents by how well they answer a query, in the protocol of Jina and Cohere, or of "
    "text-embeddings-inference",
    request=(DocumentsToRank, TextsToRank),
    responses={200: (EITHER, "the best first"), **v1_rerank_protocol.refusals()},
    tag="Ranking",
    examples=EXAMPLES,
)
def v1_rerank() -> Response:
    """By the hybrid score; by dense vectors where the model has nothing else, as `model_info` says."""
    body = read_json()
    return _rank_texts(body) if _has_one(body, "texts") else _rank_documents(body)


@rerank_protocol.post("/v2/rerank")
@documented(
    "Order documents by how well they answer a query, in Cohere's protocol",
    request=V2DocumentsToRank,
    responses={200: (Ranking, "the best first"), **rerank_protocol.refusals()},
    tag="Ranking",
    examples={"documents": EXAMPLES["documents"]},
)
def v2_rerank() -> Response:
    body = read_json()
    _has_one(body, "documents")
    return _rank_documents(body, V2DocumentsToRank)


def _has_one(body: dict[str, Any], name: str) -> bool:
    """Whether a body has texts to rank under this name, and under no other."""
    if body.get("texts") is not None and body.get("documents") is not None:
        raise ValidationError("cannot be given together with documents", "texts")
    return body.get(name) is not None


def _rank_texts(body: dict[str, Any]) -> Response:
    asked = TextsToRank.checked(body)
    served_name(asked["model"])
    found = _compare(asked, "texts")
    results = []
    for index, value in ranking(found):
        result: dict[str, Any] = {"index": index}
        if asked["return_text"]:
            result["text"] = asked["texts"][index]
        result["score"] = _shown(value, asked)
        results.append(result)
    response = answer(results, found)
    # Its texts are the answer's, and in memory as long.
    return until_sent(response, "bodies") if asked["return_text"] else response


def _rank_documents(body: dict[str, Any], schema: type[DocumentsToRank] = DocumentsToRank) -> Response:
    asked = schema.checked(body)
    name = served_name(asked["model"])
    found = _compare(asked, "documents")
    results = []
    for index, value in ranking(found)[: asked["top_n"] or asked["top_k"]]:
        result: dict[str, Any] = {"index": index, "relevance_score": _shown(value, asked)}
        if asked["return_documents"]:
            result["document"] = {"text": asked["documents"][index]}
        results.append(result)
    content: dict[str, Any] = {
        "id": g.request_id,
        "model": name,
        "object": "list" if asked["top_k"] else "rerank",
        "data" if asked["top_k"] else "results": results,
        "usage": {"prompt_tokens": found.tokens, "total_tokens": found.tokens},
        "meta": {
            "api_version": {"version": "2" if request.path.startswith("/v2/") else "1"},
            "billed_units": {"search_units": math.ceil(len(asked["documents"]) / SEARCH_UNIT)},
            "tokens": {"input_tokens": found.tokens, "output_tokens": 0},
        },
        "model_info": {"ranked_by": found.best},
    }
    if asked["property"] is not None:
        content["scores"] = [
            {"document": asked["documents"][one["index"]], "score": one["relevance_score"]} for one in results
        ]
    response = answer(content, found)
    repeats = asked["return_documents"] or asked["property"] is not None
    return until_sent(response, "bodies") if repeats else response


def _compare(asked: dict[str, Any], texts: str) -> Scores:
    """The scores of the query and each of its texts, which are in the field of that name."""
    pairs = [(asked["query"], text) for text in asked[texts]]
    return score(pairs, field=texts, pooling=asked["pooling"], truncate=asked["truncate"])


def _shown(score: float, asked: dict[str, Any]) -> float:
    """Within 0 and 1, as clients of these protocols expect it, unless they ask for it as it is."""
    return score if asked["raw_scores"] else min(1.0, max(0.0, score))
