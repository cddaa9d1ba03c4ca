"""Cohere's protocol: /v1/embed and /v2/embed; its rerank is in rerank.py."""

from collections.abc import Mapping
from typing import Any, ClassVar, cast

from flask import Response, current_app, g
from marshmallow import Schema, ValidationError, fields, post_load

from app.api.answer import answer
from app.api.ask import encode, served_name, tokens
from app.api.body import read_json
from app.api.documented import documented
from app.api.fields import OwnField, Text, Texts, Unserved, ignored, json_name, model_name, positive, required
from app.api.protocol import Protocol
from app.api.room import until_sent
from app.api.schema import Request, TextsRequest
from app.api.space import EXPECTED, TOLD
from app.engine.embeddings import Embeddings
from app.engine.encodings import ENCODINGS

EXAMPLES = {
    "batch": {
        "summary": "Two texts",
        "value": {
            "texts": ["a text", "一段文字"],
            "input_type": "search_document",
            "embedding_types": ["float"],
        },
    }
}


class EmbeddingTypes(OwnField[list[str]]):
    """Some of the encodings, each once."""

    def openapi(self, most: int) -> dict[str, Any]:
        return {"type": "array", "items": {"type": "string", "enum": list(ENCODINGS)}, "minItems": 1}

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any
    ) -> list[str]:
        if not isinstance(value, list):
            raise ValidationError(f"must be a list, not {json_name(value)}")
        if not value or not all(isinstance(one, str) and one in ENCODINGS for one in value):
            raise ValidationError(f"must hold some of {', '.join(ENCODINGS)}")
        return list(dict.fromkeys(value))


class _EmbedRequest(TextsRequest):
    synonyms: ClassVar = {"output_dimension": "dimensions"}

    model = model_name()
    embedding_types = EmbeddingTypes(
        load_default=None,
        allow_none=True,
        metadata={"description": "Which encodings of each vector; `float` if left out."},
    )
    dimensions = positive("Cohere's `output_dimension`: so many numbers of each vector, its length 1 again.")
    input_type = ignored("BGE-M3 embeds queries and documents alike")
    max_tokens = Unserved("texts are cut at the server's limit only")
    images = Unserved("this model reads text only", [])


class Inputs(Texts):
    """A list of objects, of which each holds one text and nothing else to read."""

    def openapi(self, most: int) -> dict[str, Any]:
        part = {
            "type": "object",
            "required": ["type", "text"],
            "properties": {"type": {"type": "string", "enum": ["text"]}, "text": {"type": "string"}},
        }
        parts = {"type": "array", "items": part, "minItems": 1, "maxItems": 1}
        item = {"type": "object", "required": ["content"], "properties": {"content": parts}}
        return {"type": "array", "items": item, "maxItems": most}

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **options: Any
    ) -> list[str]:
        if isinstance(value, list):
            value = [self._text(index, item) for index, item in enumerate(value)]
        return super()._deserialize(value, attr, data, **options)

    def _text(self, index: int, item: Any) -> Any:
        parts = item.get("content") if isinstance(item, dict) else None
        if not isinstance(parts, list) or len(parts) != 1 or not isinstance(parts[0], dict):
            raise ValidationError(f'text {index} must be {{"content": [{{"type": "text", "text": "..."}}]}}')
        if parts[0].get("type") != "text":
            raise ValidationError(f"text {index} must be of the type text: this model reads text only")
        return parts[0].get("text")


class EmbedTexts(_EmbedRequest):
    texts = Texts(**required("a list of strings; at /v2/embed inputs in its place", "The texts."))


class EmbedInputs(_EmbedRequest):
    inputs = Inputs(**required("a list of objects, or texts in its place", "In place of `texts`."))

    @post_load
    def as_texts(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        return data | {"texts": data.pop("inputs")}


class V1TokenizeRequest(Request):
    text = Text(**required("a string", "One text."))
    model = model_name()


class V1TokenizeResponse(Schema):
    tokens = fields.List(fields.Integer(), required=True, metadata={"example": [35378, 8999]})
    token_strings = fields.List(fields.String(), required=True, metadata={"example": ["Hello", "world"]})


class V1EmbedResponse(Schema):
    id = fields.String(required=True, metadata={"description": "The request's, as in the log."})
    texts = fields.List(fields.String(), required=True)
    embeddings = fields.Raw(
        required=True,
        metadata={
            "example": [[0.0231, -0.0467]],
            "description": "One vector for each text; with `embedding_types` lists of them by type.",
        },
    )
    meta = fields.Dict(required=True, metadata={"description": "As Cohere counts; nothing is billed."})
    response_type = fields.String(required=True, metadata={"example": "embeddings_floats"})


class V2EmbedResponse(Schema):
    id = fields.String(required=True, metadata={"description": "The request's, as in the log."})
    texts = fields.List(fields.String(), required=True)
    embeddings = fields.Dict(
        required=True,
        metadata={"example": {"float": [[0.0231, -0.0467]]}, "description": "Lists of vectors by type."},
    )
    meta = fields.Dict(required=True, metadata={"description": "As Cohere counts; nothing is billed."})


class CohereError(Schema):
    message = fields.String(required=True, metadata={"example": "texts: is required: a list of strings"})


def _error(_status: int, sentence: str, _details: dict[str, Any]) -> dict[str, Any]:
    return {"message": sentence}


cohere = Protocol("cohere", __name__, error=_error, schema=CohereError, prefix="/v2/")


@cohere.post("/v1/embed")
@documented(
    "Turn texts into vectors, in Cohere's first protocol",
    request=EmbedTexts,
    responses={200: (V1EmbedResponse, "one vector for each text, in their order"), **cohere.refusals()},
    tag="Cohere",
    parameters=EXPECTED,
    headers=TOLD,
    examples=EXAMPLES,
)
def v1_embed() -> Response:
    asked = EmbedTexts.checked(read_json())
    served_name(asked["model"])
    found = _encode(asked)
    if asked["embedding_types"]:
        vectors, kind = _by_type(found, asked["embedding_types"]), "embeddings_by_type"
    else:
        vectors, kind = ENCODINGS["float"](found.dense), "embeddings_floats"
    return _answer(asked, found, {"embeddings": vectors, "response_type": kind}, "1")


@cohere.post("/v2/embed")
@documented(
    "Turn texts into vectors, in Cohere's protocol",
    request=(EmbedTexts, EmbedInputs),
    responses={200: (V2EmbedResponse, "vectors by type, in the order of the texts"), **cohere.refusals()},
    tag="Cohere",
    parameters=EXPECTED,
    headers=TOLD,
    examples=EXAMPLES,
)
def v2_embed() -> Response:
    body = read_json()
    if body.get("texts") is not None and body.get("inputs") is not None:
        raise ValidationError("cannot be given together with inputs", "texts")
    asked = (EmbedTexts if body.get("inputs") is None else EmbedInputs).checked(body)
    served_name(asked["model"])
    found = _encode(asked)
    vectors = _by_type(found, asked["embedding_types"] or ["float"])
    return _answer(asked, found, {"embeddings": vectors}, "2")


@cohere.post("/v1/tokenize")
@documented(
    "Cut a text into tokens, in Cohere's protocol",
    request=V1TokenizeRequest,
    responses={
        200: (V1TokenizeResponse, "their ids and strings"),
        **cohere.refusals(400, 404, 408, 413, 415, 422, 503, 504),
    },
    tag="Cohere",
    examples={"one": {"summary": "A text", "value": {"text": "Hello world"}}},
)
def tokenize() -> Response:
    """Up to 65536 tokens, without the first and the last that the model adds."""
    asked = V1TokenizeRequest.checked(read_json())
    served_name(asked["model"])
    (found,) = tokens([asked["text"]], special=False)
    content = {"tokens": [one.id for one in found], "token_strings": [one.text for one in found]}
    return until_sent(cast(Response, current_app.json.response(content)), "answers")


def _encode(asked: dict[str, Any]) -> Embeddings:
    return encode(
        asked["texts"],
        field="texts",
        dimensions=asked["dimensions"],
        pooling=asked["pooling"],
        truncate=asked["truncate"],
    )


def _by_type(found: Embeddings, types: list[str]) -> dict[str, Any]:
    return {name: ENCODINGS[name](found.dense) for name in types}


def _answer(asked: dict[str, Any], found: Embeddings, content: dict[str, Any], version: str) -> Response:
    meta = {"api_version": {"version": version}, "billed_units": {"input_tokens": found.tokens}}
    response = answer({"id": g.request_id, "texts": asked["texts"], **content, "meta": meta}, found)
    return until_sent(response, "bodies")  # its texts are the answer's
