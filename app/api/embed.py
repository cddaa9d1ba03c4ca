"""POST /api/embed: texts to vectors."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from flask import Blueprint, Response
from numpy.typing import NDArray

from app.api.answer import answer
from app.api.body import read_json
from app.api.context import encoder
from app.api.docs import documented
from app.api.encode import encode, served_name
from app.api.schemas import ErrorResponse
from app.api.schemas.embed import EmbedRequest, EmbedResponse
from app.api.wire import ENCODINGS, matrix
from app.engine.embeddings import FloatArray, Output

bp = Blueprint("embed", __name__)

OUTPUTS: dict[Output, str] = {
    "dense": "return_dense",
    "sparse": "return_sparse",
    "colbert": "return_colbert_vecs",
}

REFUSALS = {
    400: "not JSON, not an object, not UTF-8, or nested absurdly deep",
    404: "another model is served here",
    408: "the body came too slowly",
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
    "lexical": {
        "summary": "Lexical weights beside the dense vector, readable (for models that have them)",
        "value": {"input": "What is BGE M3?", "return_sparse": True, "lexical_weights": "tokens"},
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
    asked = EmbedRequest.checked(read_json())
    name = served_name(asked["model"])
    outputs = [output for output, field in OUTPUTS.items() if asked[field]]
    found = encode(
        asked["input"],
        dimensions=asked["dimensions"],
        pooling=asked["pooling"],
        outputs=outputs,
        truncate=asked["truncate"],
        priority=asked["priority"],
    )
    content = {
        "model": name,
        "embeddings": ENCODINGS[asked["encoding_format"]](found.dense),
        "total_duration": time.perf_counter_ns() - start,
        "load_duration": found.timings.load,
        "prompt_eval_count": sum(found.token_counts),
    }
    if "sparse" in outputs:
        strings = encoder().token_strings if asked["lexical_weights"] == "tokens" else None
        content["sparse"] = (_lexical(*weights, strings) for weights in found.sparse)
    if "colbert" in outputs:
        content["colbert_vecs"] = (matrix(rows, asked["encoding_format"]) for rows in found.multi_vector)
    if found.truncated:
        content["truncated"] = found.truncated
    return answer(content, found)


def _lexical(
    ids: NDArray[np.int32], weights: FloatArray, strings: Callable[[NDArray[np.int32]], list[str]] | None
) -> dict[str, Any]:
    """Weights by token id; with `strings` by token, the larger one of two tokens that read the same."""
    if strings is None:
        return {"indices": ids, "values": weights}
    found: dict[str, float] = {}
    for token, weight in zip(strings(ids), weights.tolist(), strict=True):
        found[token] = max(weight, found.get(token, 0.0))
    return found
