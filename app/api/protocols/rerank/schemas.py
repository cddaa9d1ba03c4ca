"""What rerankers' clients send, and what they are answered."""

from typing import ClassVar

from marshmallow import Schema, fields

from app.api.fields import Text, Texts, Unserved, ignored, model_name, positive, required, switch
from app.api.schema import TextsRequest

MOST = (1 << 31) - 1  # whole numbers of more than 64 bits are read as others

MODEL = model_name(
    "Which model ranks, by its name or an alias: the cross-encoder, or the encoder by its hybrid score. Left "
    "out, it is the cross-encoder where one is served (EMBED_RERANKER_PATH)."
)
RAW = switch(
    False,
    "true leaves scores as they are; false keeps them within 0 and 1, the cross-encoder's by a sigmoid.",
)
RERANK_TOP = positive(
    "Two stages: the hybrid score orders all, the cross-encoder so many of the best.", most=MOST
)


class TextsToRank(TextsRequest):
    """The request of text-embeddings-inference, known by `texts`."""

    query = Text(**required("a string"))
    texts = Texts(**required("a list of strings; or documents in its place"))
    model = MODEL
    raw_scores = RAW
    rerank_top = RERANK_TOP
    return_text = switch(False, "Each text beside its score.")


class DocumentsToRank(TextsRequest):
    """The request of Jina, Cohere, Infinity, vLLM and Xinference, known by `documents`."""

    synonyms: ClassVar = {"truncation": "truncate"}  # Voyage's

    model = MODEL
    query = Text(**required("a string"))
    documents = Texts(objects=True, **required('a list of strings, or of objects with a string under "text"'))
    top_n = positive("So many of the best; all if left out.", most=MOST)
    top_k = positive("Voyage's `top_n`: then so is the answer, `data` in place of `results`.", most=MOST)
    raw_scores = RAW
    rerank_top = RERANK_TOP
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
    scored_by = fields.String(
        metadata={"example": "cross-encoder", "description": "With rerank_top: which score it is."}
    )


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
            "description": "The best first; `document` with return_documents, `scored_by` with rerank_top.",
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
            "description": "What the order was made of: the cross-encoder, or all there is, or dense alone.",
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
