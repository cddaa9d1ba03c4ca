"""POST /predict, text-embeddings-inference's: what a cross-encoder makes of pairs, in their order."""

from collections.abc import Mapping
from typing import Any

from flask import Response
from marshmallow import Schema, ValidationError, fields
from werkzeug.exceptions import BadRequest

from app.api.answer import answer
from app.api.ask import probability, read_pairs
from app.api.body import read_json
from app.api.context import reranker
from app.api.documented import documented
from app.api.fields import required, switch
from app.api.protocol import Protocol
from app.api.protocols.score import PASSAGES, QUERY, Pairs
from app.api.protocols.tei import TEIError, error, label
from app.api.schema import TextsRequest
from app.engine.embeddings import CROSS_ENCODER

EXAMPLES = {
    "pair": {"summary": "A pair", "value": {"inputs": [QUERY, PASSAGES[1]]}},
    "batch": {"summary": "Two pairs", "value": {"inputs": [[QUERY, passage] for passage in PASSAGES]}},
}


class PairOrPairs(Pairs):
    """A pair of texts, or a list of pairs; always a list once loaded."""

    def openapi(self, most: int) -> dict[str, Any]:
        pairs = super().openapi(most)
        return {"oneOf": [pairs["items"], pairs | {"minItems": 1}]}

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **options: Any
    ) -> list[tuple[str, str]]:
        if isinstance(value, str) or value == []:
            raise ValidationError("must be a pair of texts or a list of pairs: one text has no score here")
        return super()._deserialize([value] if _is_pair(value) else value, attr, data, **options)


class PredictRequest(TextsRequest):
    class Meta(TextsRequest.Meta):
        exclude = ("pooling",)

    inputs = PairOrPairs(**required("a pair of texts, or a list of pairs", "The pair, or the pairs."))
    raw_scores = switch(False, "true leaves scores as they are, false takes their sigmoid.")


class Prediction(Schema):
    score = fields.Float(required=True, metadata={"example": 0.9948})
    label = fields.String(required=True, metadata={"example": "LABEL_0"})


PREDICTIONS = {"type": "array", "items": Prediction}
EITHER = {
    "oneOf": [PREDICTIONS, {"type": "array", "items": PREDICTIONS}],
    "example": [[{"score": 0.0003, "label": "LABEL_0"}], [{"score": 0.9948, "label": "LABEL_0"}]],
}
predict_protocol = Protocol("predict", __name__, error=error, schema=TEIError)


# At /reranker too, whose clients were given that path as a base; see /reranker/info.
@predict_protocol.post("/predict")
@predict_protocol.post("/reranker/predict")
@documented(
    "Compare pairs of texts by the cross-encoder, in the protocol of text-embeddings-inference",
    request=PredictRequest,
    responses={
        200: (EITHER, "a list of one for a pair, a list of such lists for pairs, in their order"),
        **predict_protocol.refusals(400, 408, 413, 415, 422, 503, 504),  # it names no model
    },
    tag="text-embeddings-inference",
    examples=EXAMPLES,
)
def predict() -> Response:
    """400 where no cross-encoder is served (EMBED_RERANKER_PATH)."""
    model = reranker()
    if model is None:
        raise BadRequest(
            "no cross-encoder is served here: set EMBED_RERANKER_PATH, or POST /rerank or /embed"
        )
    body = read_json()
    asked = PredictRequest.checked(body)
    found = read_pairs(model, asked["inputs"], field="inputs", truncate=asked["truncate"])
    scores, name = found.by_name[CROSS_ENCODER].tolist(), label(model.info)
    lists = [
        [{"score": score if asked["raw_scores"] else probability(score), "label": name}] for score in scores
    ]
    return answer(lists[0] if _is_pair(body["inputs"]) else lists, found)


def _is_pair(value: Any) -> bool:
    """Whether inputs are one pair, not a list of them: text-embeddings-inference tells by the first one."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], str)
