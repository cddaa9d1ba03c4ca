"""POST /api/score: how near texts are, by each of BGE-M3's representations and by all of them."""

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from flask import Response
from marshmallow import Schema, ValidationError, fields, post_load

from app.api.answer import answer
from app.api.ask import score, served_name
from app.api.body import read_json
from app.api.context import encoder, settings
from app.api.documented import documented
from app.api.fields import OwnField, Text, Texts, json_name, model_name, priority, required, switch
from app.api.protocol import Protocol
from app.api.schema import TextsRequest
from app.api.space import EXPECTED
from app.engine.embeddings import HYBRID
from app.engine.errors import MissingHead

QUERY = "What is BGE M3?"
PASSAGES = [
    "BM25 is a bag-of-words retrieval function that ranks a set of documents.",
    "BGE M3 is an embedding model supporting dense retrieval, lexical matching and multi-vector interaction.",
]
EXAMPLES = {
    "pairs": {"summary": "Pairs", "value": {"pairs": [[QUERY, passage] for passage in PASSAGES]}},
    "query": {
        "summary": "A query, dense and sparse only",
        "value": {"query": QUERY, "passages": PASSAGES, "weights": [0.7, 0.3, 0]},
    },
}


class Pairs(OwnField[list[tuple[str, str]]]):
    """A list of [query, passage]."""

    def openapi(self, most: int) -> dict[str, Any]:
        pair = {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2}
        return {"type": "array", "items": pair, "maxItems": most}

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any
    ) -> list[tuple[str, str]]:
        if not isinstance(value, list):
            raise ValidationError(f"must be a list of [query, passage], not {json_name(value)}")
        if len(value) > settings().max_texts:
            raise ValidationError(f"has {len(value)} pairs, the limit is {settings().max_texts}")
        for index, pair in enumerate(value):
            if not (
                isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)
            ):
                raise ValidationError(f"pair {index} must be a list of two strings, [query, passage]")
            if (longest := max(map(len, pair))) > (limit := settings().max_characters):
                raise ValidationError(f"pair {index} has {longest} characters, the limit is {limit}")
        return [(query, passage) for query, passage in value]


class HybridWeights(OwnField[tuple[float, float, float]]):
    """What dense, sparse and colbert count for in a hybrid score."""

    def openapi(self, most: int) -> dict[str, Any]:
        number = {"type": "number", "minimum": 0}
        return {"type": "array", "items": number, "minItems": 3, "maxItems": 3}

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any
    ) -> tuple[float, float, float]:
        numbers = value if isinstance(value, list) else []
        if len(numbers) != 3 or not all(
            type(number) in (int, float) and 0 <= number < math.inf for number in numbers
        ):
            raise ValidationError("must be three finite numbers, 0 or more: of dense, sparse and colbert")
        dense, sparse, colbert = numbers
        return dense, sparse, colbert


class _ScoreRequest(TextsRequest):
    weights = HybridWeights(
        load_default=list(HYBRID),
        allow_none=True,
        metadata={"description": "What dense, sparse and colbert count for in the hybrid scores."},
    )
    model = model_name()
    priority = priority()
    strict = switch(False, "true refuses fields that nobody declared, such as misspelt ones.")


class ScorePairs(_ScoreRequest):
    pairs = Pairs(
        **required(
            "a list of [query, passage]; or query and passages in its place",
            "Pairs [query, passage] to compare.",
        )
    )


class ScoreQuery(_ScoreRequest):
    query = Text(**required("a string, together with passages"))
    passages = Texts(**required("a list of strings, together with query", "What to compare the query with."))

    @post_load
    def as_pairs(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        query, passages = data.pop("query"), data.pop("passages")
        return data | {"pairs": [(query, passage) for passage in passages]}


def score_request(body: dict[str, Any]) -> dict[str, Any]:
    """A body of either shape, with `pairs`."""
    one_query = any(body.get(name) is not None for name in ("query", "passages"))
    if one_query and body.get("pairs") is not None:
        raise ValidationError("cannot be given together with query and passages", "pairs")
    return (ScoreQuery if one_query else ScorePairs).checked(body)


class ScoreResponse(Schema):
    model = fields.String(required=True, metadata={"example": "bge-m3"})
    scores = fields.Dict(
        keys=fields.String(),
        values=fields.List(fields.Float()),
        required=True,
        metadata={
            "example": {
                "dense": [0.626],
                "sparse": [0.1955],
                "colbert": [0.7797],
                "sparse+dense": [0.4825],
                "colbert+sparse+dense": [0.6014],
            },
            "description": "A score for each pair, in their order, by what it is made of.",
        },
    )
    total_duration = fields.Integer(required=True, metadata={"example": 41870332})
    prompt_eval_count = fields.Integer(required=True, metadata={"example": 62})


score_protocol = Protocol("score", __name__)


@score_protocol.post("/api/score")
@documented(
    "Compare pairs of texts by dense, lexical, multi-vector and hybrid score",
    request=(ScorePairs, ScoreQuery),
    responses={200: (ScoreResponse, "a score of each kind for every pair"), **score_protocol.refusals()},
    tag="Ranking",
    parameters=EXPECTED,
    examples=EXAMPLES,
)
def compare() -> Response:
    """What FlagEmbedding's `compute_score` gives; only for models that have all three representations."""
    start = time.perf_counter_ns()
    asked = score_request(read_json())
    name = served_name(asked["model"])
    for head in ("sparse", "colbert"):
        if head not in encoder().heads:
            raise MissingHead(head)
    found = score(
        asked["pairs"],
        asked["weights"],
        pooling=asked["pooling"],
        truncate=asked["truncate"],
        priority=asked["priority"],
    )
    content = {
        "model": name,
        "scores": {name: np.ascontiguousarray(scores) for name, scores in found.by_name.items()},
        "total_duration": time.perf_counter_ns() - start,
        "prompt_eval_count": found.tokens,
    }
    return answer(content, found)
