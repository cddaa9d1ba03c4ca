"""The rerankers' protocols: TEI's, Jina's and Cohere's, told apart by path and fields."""

import math
from typing import Any

from flask import Response, g, request
from marshmallow import ValidationError

from app.api.answer import answer
from app.api.ask import probability, rank, ranker, ranking, read_pairs, score
from app.api.body import read_json
from app.api.context import reranker, settings
from app.api.documented import documented
from app.api.protocol import Protocol
from app.api.protocols.openai import error as openai_error
from app.api.protocols.rerank.schemas import (
    DocumentsToRank,
    Ranked,
    Ranking,
    RerankError,
    TextsToRank,
    V1RerankError,
    V2DocumentsToRank,
)
from app.api.protocols.tei import error as tei_error
from app.api.room import until_sent
from app.api.space import EXPECTED
from app.engine.embeddings import CROSS_ENCODER, Scores

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
    "stages": {
        "summary": "Two stages, where a cross-encoder is served: it reads the best one of the hybrid score",
        "value": {"query": QUERY, "documents": PASSAGES, "rerank_top": 1},
    },
}


def _error(status: int, sentence: str, details: dict[str, Any]) -> dict[str, Any]:
    return tei_error(status, sentence, details) | {"message": sentence, "detail": sentence}


def _v1_error(status: int, sentence: str, details: dict[str, Any]) -> dict[str, Any]:
    return openai_error(status, sentence, details) | {"message": sentence}


# Infinity's client takes a 422 for FastAPI's own list of faults.
STATUSES = {422: 400}
rerank_protocol = Protocol("rerank", __name__, error=_error, schema=RerankError, statuses=STATUSES)
# vLLM's clients expect errors as on its other paths under /v1.
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
    parameters=EXPECTED,
    examples=EXAMPLES,
)
def rerank() -> Response:
    """By the cross-encoder where one is served, unless `model` names the encoder.

    Else by the hybrid score; by dense vectors where the model has nothing else.
    """
    body = read_json()
    return _rank_documents(body) if _has_one(body, "documents") else _rank_texts(body)


@v1_rerank_protocol.post("/v1/rerank")
@documented(
    "Order documents by how well they answer a query, in the protocol of Jina and Cohere, or of "
    "text-embeddings-inference",
    request=(DocumentsToRank, TextsToRank),
    responses={200: (EITHER, "the best first"), **v1_rerank_protocol.refusals()},
    tag="Ranking",
    parameters=EXPECTED,
    examples=EXAMPLES,
)
def v1_rerank() -> Response:
    """By the cross-encoder where one is served, unless `model` names the encoder.

    Else by the hybrid score; by dense vectors where the model has nothing else. `model_info` says what by.
    """
    body = read_json()
    return _rank_texts(body) if _has_one(body, "texts") else _rank_documents(body)


@rerank_protocol.post("/v2/rerank")
@documented(
    "Order documents by how well they answer a query, in Cohere's protocol",
    request=V2DocumentsToRank,
    responses={200: (Ranking, "the best first"), **rerank_protocol.refusals()},
    tag="Ranking",
    parameters=EXPECTED,
    examples={name: EXAMPLES[name] for name in ("documents", "stages")},
)
def v2_rerank() -> Response:
    body = read_json()
    _has_one(body, "documents")
    return _rank_documents(body, V2DocumentsToRank)


def _has_one(body: dict[str, Any], name: str) -> bool:
    """Whether a body has its texts under this name, and under no other."""
    if body.get("texts") is not None and body.get("documents") is not None:
        raise ValidationError("cannot be given together with documents", "texts")
    return body.get(name) is not None


def _rank_texts(body: dict[str, Any]) -> Response:
    asked = TextsToRank.checked(body)
    _, found = _compare(asked, "texts")
    results = []
    for index, value, name in ranking(found):
        result: dict[str, Any] = {"index": index}
        if asked["return_text"]:
            result["text"] = asked["texts"][index]
        results.append(result | _scored("score", value, name, asked))
    response = answer(results, found)
    # Its texts are the answer's, and in memory as long.
    return until_sent(response, "bodies") if asked["return_text"] else response


def _rank_documents(body: dict[str, Any], schema: type[DocumentsToRank] = DocumentsToRank) -> Response:
    asked = schema.checked(body)
    model, found = _compare(asked, "documents")
    results = []
    for index, value, name in ranking(found)[: asked["top_n"] or asked["top_k"]]:
        result = {"index": index} | _scored("relevance_score", value, name, asked)
        if asked["return_documents"]:
            result["document"] = {"text": asked["documents"][index]}
        results.append(result)
    content: dict[str, Any] = {
        "id": g.request_id,
        "model": model,
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


def _compare(asked: dict[str, Any], field: str) -> tuple[str, Scores]:
    """The model's name to answer with, and the scores of the query and each of its texts, in that field."""
    name, crossed = ranker(asked["model"])
    query, texts, truncate = asked["query"], asked[field], asked["truncate"]
    model = reranker() if crossed else None
    if asked["rerank_top"] and model is None:
        raise ValidationError(_without_second_stage(), "rerank_top")
    if model and asked["rerank_top"]:
        return name, rank(
            model, query, texts, asked["rerank_top"], field=field, pooling=asked["pooling"], truncate=truncate
        )
    pairs = [(query, text) for text in texts]
    if model:
        return name, read_pairs(model, pairs, field=field, truncate=truncate)
    return name, score(pairs, field=field, pooling=asked["pooling"], truncate=truncate)


def _without_second_stage() -> str:
    if reranker() is None:
        return "cannot be given: no cross-encoder is served here, set EMBED_RERANKER_PATH or leave it out"
    return (
        "cannot be given with the encoder's name in model: "
        f"name {settings().reranker_served_name!r} there, or leave one of the two out"
    )


def _scored(key: str, value: float, name: str, asked: dict[str, Any]) -> dict[str, Any]:
    """A score under this key, and its name where there are two kinds.

    It is within 0 and 1, as clients of these protocols expect it, unless they ask for it as it is.
    """
    if not asked["raw_scores"]:
        value = probability(value) if name == CROSS_ENCODER else min(1.0, max(0.0, value))
    return {key: value} | ({"scored_by": name} if asked["rerank_top"] else {})
