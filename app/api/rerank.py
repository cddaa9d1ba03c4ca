"""POST /api/score, and two rerankers' protocols over the same scores: /rerank and /v1/rerank."""

import time
from typing import Any

import numpy as np
from flask import Blueprint, Response

from app.api.answer import answer
from app.api.body import read_json
from app.api.context import encoder
from app.api.docs import documented
from app.api.embed import REFUSALS
from app.api.encode import score, served_name
from app.api.openai import OPENAI_REFUSALS
from app.api.room import until_sent
from app.api.schemas import ErrorResponse
from app.api.schemas.rerank import (
    Ranked,
    RerankRequest,
    ScorePairs,
    ScoreQuery,
    ScoreResponse,
    V1RerankRequest,
    V1RerankResponse,
    score_request,
)
from app.api.tei import TEI_REFUSALS
from app.engine.embeddings import Scores
from app.engine.errors import MissingHead

bp = Blueprint("rerank", __name__)

SCORE_REFUSALS = {status: (ErrorResponse, meaning) for status, meaning in REFUSALS.items()}
QUERY = "What is BGE M3?"
PASSAGES = [
    "BM25 is a bag-of-words retrieval function that ranks a set of documents.",
    "BGE M3 is an embedding model supporting dense retrieval, lexical matching and multi-vector interaction.",
]


@bp.post("/api/score")
@documented(
    "Compare pairs of texts by dense, lexical, multi-vector and hybrid score",
    request=(ScorePairs, ScoreQuery),
    responses={200: (ScoreResponse, "a score of each kind for every pair"), **SCORE_REFUSALS},
    tag="Ranking",
    examples={
        "pairs": {"summary": "Pairs", "value": {"pairs": [[QUERY, passage] for passage in PASSAGES]}},
        "query": {
            "summary": "A query, dense and sparse only",
            "value": {"query": QUERY, "passages": PASSAGES, "weights": [0.7, 0.3, 0]},
        },
    },
)
def compare() -> Response:
    """What FlagEmbedding's `compute_score` gives; only for models that have all three representations."""
    start = time.perf_counter_ns()
    asked = score_request(read_json())
    name = served_name(asked["model"])
    for head in ("sparse", "colbert"):
        if head not in encoder().heads:
            raise MissingHead(head)
    found = score(asked["pairs"], asked["weights"], pooling=asked["pooling"], priority=asked["priority"])
    content = {
        "model": name,
        "scores": {name: np.ascontiguousarray(scores) for name, scores in found.by_name.items()},
        "total_duration": time.perf_counter_ns() - start,
        "prompt_eval_count": found.tokens,
    }
    return answer(content, found)


@bp.post("/rerank")
@documented(
    "Order texts by how well they answer a query, in the protocol of text-embeddings-inference",
    request=RerankRequest,
    responses={200: (Ranked, "the best first"), **TEI_REFUSALS},
    many=True,
    tag="Ranking",
    examples={"ranking": {"summary": "Two texts", "value": {"query": QUERY, "texts": PASSAGES}}},
)
def rerank() -> Response:
    """By the hybrid score; by dense vectors where the model has nothing else."""
    asked = RerankRequest.checked(read_json())
    found = _compare(asked["query"], asked["texts"], asked["truncate"])
    results = []
    for index, value in _ranking(found):
        result: dict[str, Any] = {"index": index}
        if asked["return_text"]:
            result["text"] = asked["texts"][index]
        result["score"] = value if asked["raw_scores"] else _bounded(value)
        results.append(result)
    response = answer(results, found)
    # Its texts are the answer's, and in memory as long.
    return until_sent(response, "bodies") if asked["return_text"] else response


@bp.post("/v1/rerank")
@documented(
    "Order documents by how well they answer a query, in the protocol of Jina and Cohere",
    request=V1RerankRequest,
    responses={200: (V1RerankResponse, "the best first"), **OPENAI_REFUSALS},
    tag="Ranking",
    examples={
        "ranking": {
            "summary": "The best of two documents",
            "value": {"query": QUERY, "documents": PASSAGES, "top_n": 1, "return_documents": True},
        }
    },
)
def v1_rerank() -> Response:
    """By the hybrid score; by dense vectors where the model has nothing else, as `model_info` says."""
    asked = V1RerankRequest.checked(read_json())
    name = served_name(asked["model"])
    found = _compare(asked["query"], asked["documents"])
    results = []
    for index, value in _ranking(found)[: asked["top_n"]]:
        result: dict[str, Any] = {"index": index, "relevance_score": _bounded(value)}
        if asked["return_documents"]:
            result["document"] = {"text": asked["documents"][index]}
        results.append(result)
    content = {
        "model": name,
        "results": results,
        "usage": {"prompt_tokens": found.tokens, "total_tokens": found.tokens},
        "model_info": {"ranked_by": found.best},
    }
    response = answer(content, found)
    return until_sent(response, "bodies") if asked["return_documents"] else response


def _compare(query: str, texts: list[str], truncate: bool = True) -> Scores:
    return score([(query, text) for text in texts], truncate=truncate)


def _bounded(score: float) -> float:
    """Within 0 and 1, as clients of these protocols expect it."""
    return min(1.0, max(0.0, score))


def _ranking(found: Scores) -> list[tuple[int, float]]:
    """Indices and scores, the best first; equal ones keep their order."""
    scores = found.by_name[found.best]
    return [(int(index), float(scores[index])) for index in np.argsort(-scores, kind="stable")]
