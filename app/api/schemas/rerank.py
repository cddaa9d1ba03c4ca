"""POST /api/score, /rerank and /v1/rerank: what comes in and goes out."""

import math
from collections.abc import Mapping
from typing import Any, get_args

from marshmallow import Schema, ValidationError, fields, post_load

from app.api.context import settings
from app.api.schemas import (
    OwnField,
    Request,
    StrictBoolean,
    Text,
    Texts,
    json_name,
    model_name,
    one_of,
    positive,
    priority,
    required,
)
from app.engine.embeddings import HYBRID, Pooling

MOST = (1 << 31) - 1  # whole numbers of more than 64 bits are read as others


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


class _ScoreRequest(Request):
    weights = HybridWeights(
        load_default=list(HYBRID),
        allow_none=True,
        metadata={"description": "What dense, sparse and colbert count for in the hybrid scores."},
    )
    model = model_name()
    pooling = fields.String(
        load_default=None,
        allow_none=True,
        validate=one_of(*get_args(Pooling)),
        metadata={"description": "Of the dense vectors; what the model was trained for if left out."},
    )
    priority = priority()


class ScorePairs(_ScoreRequest):
    pairs = Pairs(
        **required("a list of [query, passage]; or query and passages in its place"),
        metadata={"description": "Pairs [query, passage] to compare."},
    )


class ScoreQuery(_ScoreRequest):
    query = Text(**required("a string, together with passages"))
    passages = Texts(
        **required("a list of strings, together with query"),
        metadata={"description": "What to compare the query with."},
    )

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


class RerankRequest(Request):
    """The request of text-embeddings-inference."""

    query = Text(**required("a string"))
    texts = Texts(**required("a list of strings"))
    raw_scores = StrictBoolean(
        load_default=False,
        allow_none=True,
        metadata={"description": "true leaves scores as they are, false keeps them within 0 and 1."},
    )
    return_text = StrictBoolean(load_default=False, allow_none=True)
    truncate = StrictBoolean(load_default=True, allow_none=True)


class Ranked(Schema):
    index = fields.Integer(required=True, metadata={"example": 1})
    score = fields.Float(required=True, metadata={"example": 0.6014})
    text = fields.String(metadata={"description": "With return_text."})


class V1RerankRequest(Request):
    """The request of Jina and Cohere."""

    model = model_name()
    query = Text(**required("a string"))
    documents = Texts(objects=True, **required('a list of strings, or of objects with a string under "text"'))
    top_n = positive("So many of the best; all if left out.", most=MOST)
    return_documents = StrictBoolean(load_default=False, allow_none=True)


class V1RerankResponse(Schema):
    model = fields.String(required=True, metadata={"example": "bge-m3"})
    results = fields.List(
        fields.Dict(),
        required=True,
        metadata={
            "example": [{"index": 1, "relevance_score": 0.6014, "document": {"text": "a passage"}}],
            "description": "The best first; `document` with return_documents.",
        },
    )
    usage = fields.Dict(required=True, metadata={"example": {"prompt_tokens": 62, "total_tokens": 62}})
    model_info = fields.Dict(
        required=True,
        metadata={
            "example": {"ranked_by": "colbert+sparse+dense"},
            "description": "What the order was made of: all there is, or dense alone.",
        },
    )
