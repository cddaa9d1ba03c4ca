"""POST /api/embed: what comes in and goes out."""

from typing import get_args

from marshmallow import Schema, fields, validate

from app.api.schemas import Request, StrictBoolean, TextOrTexts, model_name, one_of, priority, required
from app.api.wire import ENCODINGS
from app.engine.embeddings import Pooling


class EmbedRequest(Request):
    input = TextOrTexts(
        **required("a string or a list of strings"), metadata={"description": "The text, or the texts."}
    )
    model = model_name()
    encoding_format = fields.String(
        load_default="float",
        allow_none=True,
        validate=one_of(*ENCODINGS),
        metadata={
            "description": "`float`: numbers. `base64`: little-endian float32. `int8`: each vector scaled "
            "so that its largest magnitude is 127. `ubinary`, `binary`: the sign of each number as a "
            "bit, eight to a byte, as uint8 or shifted by 128 to int8."
        },
    )
    dimensions = fields.Integer(
        strict=True,
        load_default=None,
        allow_none=True,
        validate=validate.Range(min=0, error="must be 0 (all) or a positive number"),
        error_messages={"invalid": "must be a whole number"},
        metadata={
            "description": "Keep this many numbers of each dense vector and make its length 1 again; "
            "at most the model's width. 0 keeps all."
        },
    )
    pooling = fields.String(
        load_default=None,
        allow_none=True,
        validate=one_of(*get_args(Pooling)),
        metadata={"description": "`mean` or `cls`; the server's own (EMBED_POOLING) if left out."},
    )
    truncate = StrictBoolean(
        load_default=True,
        allow_none=True,
        metadata={
            "description": "true cuts a text that is too long at its end and lists it in "
            "`truncated`; false refuses it."
        },
    )
    return_dense = StrictBoolean(
        load_default=True,
        allow_none=True,
        metadata={"description": "A vector for each text, in `embeddings`; false leaves the list empty."},
    )
    return_sparse = StrictBoolean(
        load_default=False,
        allow_none=True,
        metadata={"description": "Lexical weights of each text, in `sparse`, for models that have them."},
    )
    return_colbert_vecs = StrictBoolean(
        load_default=False,
        allow_none=True,
        metadata={
            "description": "A vector for each token but the first, in `colbert_vecs`, "
            "for models that have them."
        },
    )
    lexical_weights = fields.String(
        load_default="indices",
        allow_none=True,
        validate=one_of("indices", "tokens"),
        metadata={
            "description": "How `sparse` is written. `indices`: token ids, ascending, and their weights, as "
            "vector databases take them. `tokens`: an object of weights by token, for people to read."
        },
    )
    priority = priority()
    options = fields.Raw(
        allow_none=True, metadata={"description": "Accepted and ignored: Ollama clients send it."}
    )
    keep_alive = fields.Raw(
        allow_none=True, metadata={"description": "Accepted and ignored: Ollama clients send it."}
    )


class EmbedResponse(Schema):
    """Documents the answer; the view writes it without a dump, number by number is too slow."""

    model = fields.String(required=True, metadata={"example": "bge-m3"})
    embeddings = fields.List(
        fields.Raw(),
        required=True,
        metadata={
            "example": [[0.0231, -0.0467, 0.0105]],
            "description": "One vector for each text, in order: a list of numbers, or a string for `base64`.",
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
            "description": "If asked for: lexical weights of each text, all above 0.",
        },
    )
    colbert_vecs = fields.List(
        fields.Raw(),
        metadata={
            "example": [[[0.0412, -0.0106, 0.0333], [-0.0521, 0.0207, 0.0148]]],
            "description": "If asked for: a matrix for each text, a row of length 1 for every token but the "
            "first. For `base64` an object: `shape`, and all rows in one string, `data`.",
        },
    )
    truncated = fields.List(
        fields.Integer(),
        metadata={"example": [0], "description": "Indices of the texts that were cut, if any."},
    )
