"""POST /api/embed: dense vectors, lexical weights and multi-vectors of texts."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from flask import Response
from marshmallow import Schema, fields
from numpy.typing import NDArray

from app.api.answer import answer
from app.api.ask import encode, served_name
from app.api.body import read_json
from app.api.chunk import Chunk, chunks
from app.api.context import encoder
from app.api.documented import documented
from app.api.fields import Choice, TextOrTexts, ignored, model_name, priority, switch, texts, whole
from app.api.protocol import Protocol
from app.api.schema import TextsRequest
from app.api.space import EXPECTED, TOLD
from app.engine.embeddings import POOL_FACTORS, FloatArray, Output
from app.engine.encodings import ENCODINGS, matrix

OUTPUTS: dict[Output, str] = {
    "dense": "return_dense",
    "sparse": "return_sparse",
    "colbert": "return_colbert_vecs",
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
    "passages": {
        "summary": "Texts of any length, cut into passages",
        "value": {
            "input": ["First paragraph.\n\nSecond paragraph."],
            "chunk": True,
        },
    },
    "multi-vectors": {
        "summary": "Multi-vectors for an index, pooled and in bits (for models that have them)",
        "value": {
            "input": "a passage of some length",
            "return_dense": False,
            "return_colbert_vecs": True,
            "colbert_pool": 4,
            "encoding_format": "binary",
        },
    },
    "refusal": {
        "summary": "A refusal: another model is asked for",
        "value": {"input": "a text", "model": "another-model"},
    },
}


class EmbedRequest(TextsRequest):
    input = TextOrTexts(**texts())
    model = model_name()
    encoding_format = Choice(
        *ENCODINGS,
        load_default="float",
        metadata={
            "description": "`float`: numbers. `base64`: little-endian float32. `int8`: each vector scaled "
            "so that its largest magnitude is 127. `ubinary`, `binary`: the sign of each number as a "
            "bit, eight to a byte, as uint8 or shifted by 128 to int8."
        },
    )
    dimensions = whole(
        0,
        "must be 0 (all) or a positive number",
        "Truncate each dense vector to this many dimensions and renormalise it; at most the model's "
        "width. 0 keeps all.",
    )
    return_dense = switch(True, "A vector for each text, in `embeddings`; false leaves the list empty.")
    return_sparse = switch(False, "Lexical weights of each text, in `sparse`, for models that have them.")
    return_colbert_vecs = switch(
        False, "A vector for each token but the first, in `colbert_vecs`, for models that have them."
    )
    colbert_pool = whole(
        POOL_FACTORS[0],
        f"must be a whole number from {POOL_FACTORS[0]} to {POOL_FACTORS[-1]}, or left out for a vector for "
        "each token",
        "Makes multi-vectors about this many times shorter: tokens whose vectors are alike share one, their "
        "mean. For passages, not for queries. It changes nothing without `return_colbert_vecs`.",
        POOL_FACTORS[-1],
    )
    lexical_weights = Choice(
        "indices",
        "tokens",
        load_default="indices",
        metadata={
            "description": "How `sparse` is written. `indices`: token ids, ascending, and their weights, as "
            "vector databases take them. `tokens`: an object of weights by token, for people to read."
        },
    )
    chunk = Chunk(
        load_default=None,
        allow_none=True,
        metadata={
            "description": "Cut each text, of any length, into passages and embed those: true, or an object. "
            "`tokens`: of a passage at most (256), without special ones. `overlap`: how many of them the "
            "passage before ends with, at most (an eighth). `late`: average each passage's tokens out of one "
            "pass over the whole text (late chunking; mean pooling only)."
        },
    )
    priority = priority()
    strict = switch(False, "true refuses fields that nobody declared, such as misspelt ones.")
    options = ignored("Ollama's clients send it")
    keep_alive = ignored("Ollama's clients send it")


class EmbedResponse(Schema):
    """Documents the answer only: dumping it through marshmallow, number by number, is too slow."""

    model = fields.String(required=True, metadata={"example": "bge-m3"})
    embeddings = fields.List(
        fields.Raw(),
        required=True,
        metadata={
            "example": [[0.0231, -0.0467, 0.0105]],
            "description": "One vector for each text or passage, in order: a list of numbers, "
            "or a string for `base64`.",
        },
    )
    total_duration = fields.Integer(
        required=True, metadata={"example": 41870332, "description": "Nanoseconds this request took."}
    )
    load_duration = fields.Integer(
        required=True,
        metadata={"example": 6356238454, "description": "Nanoseconds loading the model took, once."},
    )
    prompt_eval_count = fields.Integer(
        required=True,
        metadata={
            "example": 7,
            "description": "Tokens of all texts, special ones included, after truncation.",
        },
    )
    sparse = fields.List(
        fields.Dict(),
        metadata={
            "example": [{"indices": [6, 43904], "values": [0.0312, 0.2107]}],
            "description": "If asked for: lexical weights of each text or passage, all above 0.",
        },
    )
    colbert_vecs = fields.List(
        fields.Raw(),
        metadata={
            "example": [[[0.0412, -0.0106, 0.0333], [-0.0521, 0.0207, 0.0148]]],
            "description": "If asked for: a matrix for each text or passage, a row of length 1 for every "
            "token but the first, or for every cluster with `colbert_pool`. For `base64` an object: `shape`, "
            "and all rows in one string, `data`.",
        },
    )
    chunks = fields.List(
        fields.Dict(),
        metadata={
            "example": [{"input": 0, "start": 0, "end": 16, "tokens": 4}],
            "description": "If `chunk` was asked for: of which text, by its index, and of which of its "
            "characters (code points) each vector is, and how many tokens they are.",
        },
    )
    late = fields.Boolean(
        metadata={"example": True, "description": "true where the passages were pooled by late chunking."}
    )
    truncated = fields.List(
        fields.Integer(),
        metadata={"example": [0], "description": "Indices of the texts that were cut, if any."},
    )


embed_protocol = Protocol("embed", __name__)


@embed_protocol.post("/api/embed")
@documented(
    "Turn texts into vectors",
    request=EmbedRequest,
    responses={
        200: (EmbedResponse, "one vector for each text, in the order of the texts"),
        **embed_protocol.refusals(),
    },
    tag="Embeddings",
    parameters=EXPECTED,
    headers=TOLD,
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
        chunk=asked["chunk"],
        colbert_pool=asked["colbert_pool"],
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
    if asked["chunk"]:
        content["chunks"] = chunks(found.passages)
    if asked["chunk"] and asked["chunk"].late:
        content["late"] = True
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
