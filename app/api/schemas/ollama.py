"""Ollama's side endpoints and its older /api/embeddings: what comes in and goes out."""

from typing import Any

from marshmallow import Schema, fields, pre_load

from app.api.schemas import Request, StrictBoolean, Text, model_name


class NamedRequest(Request):
    """A request that names a model; older clients say `name`."""

    model = model_name()

    @pre_load
    def old_name(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {"model": data.get("name")} | data


class LegacyRequest(NamedRequest):
    prompt = Text(load_default="", allow_none=True, metadata={"description": "One text."})
    options = fields.Raw(allow_none=True, metadata={"description": "Accepted and ignored."})
    keep_alive = fields.Raw(allow_none=True, metadata={"description": "Accepted and ignored."})


class PullRequest(NamedRequest):
    stream = StrictBoolean(load_default=True, allow_none=True)


class LegacyResponse(Schema):
    embedding = fields.List(
        fields.Float(),
        required=True,
        metadata={"example": [0.0231, -0.0467, 0.0105], "description": "Empty for an empty prompt."},
    )


class VersionResponse(Schema):
    version = fields.String(required=True, metadata={"example": "0.1.0"})


class ListResponse(Schema):
    models = fields.List(fields.Dict(), required=True, metadata={"description": "The one served here."})


class ShowResponse(Schema):
    details = fields.Dict(required=True)
    model_info = fields.Dict(required=True)
    capabilities = fields.List(fields.String(), required=True, metadata={"example": ["embedding"]})
    modified_at = fields.String(required=True)


class PullResponse(Schema):
    status = fields.String(required=True, metadata={"example": "success"})
