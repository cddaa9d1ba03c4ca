"""POST /api/embed: texts to vectors."""

import time

from flask import Blueprint, Response
from marshmallow import ValidationError

from app.api.context import encoder, settings
from app.api.docs import documented
from app.api.errors import UnknownModel
from app.api.schemas import EmbedRequest, EmbedResponse, ErrorResponse
from app.api.wire import ENCODINGS, answer, cut, read_json

bp = Blueprint("embed", __name__)

# Names under which people already know the model, accepted whatever the folder is called.
ALIASES = ("bge-m3", "BAAI/bge-m3")

REFUSALS = {
    400: "not JSON, not an object, not UTF-8, or nested absurdly deep",
    404: "another model is served here",
    413: "the body is too large",
    415: "the body is not application/json, or compressed",
    422: "a field is missing, of the wrong type or out of range, or a text is too long to be whole",
    503: "too much is waiting already (Retry-After says for how long), or the model is not loaded",
    504: "the request waited longer than it may",
}


EXAMPLES = {
    "one": {"summary": "A single text", "value": {"input": "什么是机器学习？"}},
    "batch": {
        "summary": "A batch, its vectors cut to 8 numbers",
        "value": {
            "input": ["What is machine learning?", "Was ist maschinelles Lernen?", "今天天气很好"],
            "dimensions": 8,
        },
    },
    "compact": {
        "summary": "CLS pooling, base64",
        "value": {"input": ["a passage"], "pooling": "cls", "encoding_format": "base64"},
    },
    "refusal": {
        "summary": "A refusal: another model is asked for",
        "value": {"input": "a text", "model": "another-model"},
    },
}


@bp.post("/api/embed")
@documented(
    "Turn texts into vectors",
    request=EmbedRequest,
    responses={
        200: (EmbedResponse, "one vector for each text, in the order of the texts"),
        **{status: (ErrorResponse, meaning) for status, meaning in REFUSALS.items()},
    },
    tag="Embeddings",
    examples=EXAMPLES,
)
def embed() -> Response:
    start = time.perf_counter_ns()
    asked = EmbedRequest().load(read_json())
    name = served_name(asked["model"])
    dimensions = asked["dimensions"]
    if dimensions and dimensions > encoder().width:
        raise ValidationError(
            {"dimensions": [f"must be at most {encoder().width}, the width of this model's vectors"]}
        )
    found = encoder().encode(asked["input"], pooling=asked["pooling"], truncate=asked["truncate"])
    content = {
        "model": name,
        "embeddings": ENCODINGS[asked["encoding_format"]](cut(found.dense, dimensions)),
        "total_duration": time.perf_counter_ns() - start,
        "load_duration": found.timings.load,
        "prompt_eval_count": sum(found.token_counts),
    }
    if found.truncated:
        content["truncated"] = found.truncated
    return answer(content, found.timings)


def served_name(asked: str | None) -> str:
    """The name to answer with: the one that was asked for, if it means the model served here."""
    served = settings().served_name
    if asked is None:
        return served
    if asked.removesuffix(":latest") not in (served, *ALIASES, *settings().model_aliases):
        raise UnknownModel(f"model {asked!r} is not served here, {served!r} is")
    return asked
