"""text-embeddings-inference's protocol: what comes in and goes out."""

from marshmallow import Schema, fields, validate

from app.api.schemas import Request, StrictBoolean, TextOrTexts, positive, required


class _Inputs(Request):
    inputs = TextOrTexts(
        **required("a string or a list of strings"), metadata={"description": "The text, or the texts."}
    )


class _TruncatedInputs(_Inputs):
    truncate = StrictBoolean(
        load_default=True,
        allow_none=True,
        metadata={"description": "false refuses a text that is too long."},
    )
    truncation_direction = fields.String(
        load_default="Right",
        allow_none=True,
        validate=validate.OneOf(["Right", "right"], error="must be Right: texts are cut at their end"),
    )
    prompt_name = fields.String(
        load_default=None,
        allow_none=True,
        validate=validate.OneOf([""], error="must be left out: this model has no prompts"),
    )


class TEIEmbedRequest(_TruncatedInputs):
    normalize = StrictBoolean(
        load_default=True,
        allow_none=True,
        metadata={"description": "false keeps the length the model gave a vector."},
    )
    dimensions = positive("So many numbers of each vector, its length 1 again.")


class TEISparseRequest(_TruncatedInputs):
    pass


class TokenizeRequest(_Inputs):
    add_special_tokens = StrictBoolean(load_default=True, allow_none=True)


class SparseValue(Schema):
    index = fields.Integer(required=True, metadata={"example": 43904})
    value = fields.Float(required=True, metadata={"example": 0.2107})


class TokenResponse(Schema):
    id = fields.Integer(required=True, metadata={"example": 35378})
    text = fields.String(required=True, metadata={"example": "Hello"})
    special = fields.Boolean(required=True)
    start = fields.Integer(required=True, allow_none=True, metadata={"example": 0})
    stop = fields.Integer(required=True, allow_none=True, metadata={"example": 5})


class InfoResponse(Schema):
    model_id = fields.String(required=True, metadata={"example": "bge-m3"})
    model_sha = fields.String(required=True, metadata={"description": "sha256 of the weights served."})
    model_dtype = fields.String(required=True, metadata={"example": "bfloat16"})
    model_type = fields.Dict(required=True, metadata={"example": {"embedding": {"pooling": "mean"}}})
    max_input_length = fields.Integer(required=True, metadata={"example": 8192})
    max_client_batch_size = fields.Integer(required=True, metadata={"example": 2048})
    max_batch_tokens = fields.Integer(
        required=True, metadata={"example": 262144, "description": "So many may wait."}
    )
    auto_truncate = fields.Boolean(required=True)
    outputs = fields.List(
        fields.String(), required=True, metadata={"example": ["dense", "sparse", "colbert"]}
    )
    version = fields.String(required=True, metadata={"example": "0.1.0"})


class TEIError(Schema):
    error = fields.String(required=True, metadata={"example": "inputs: is required"})
    error_type = fields.String(required=True, metadata={"example": "Validation"})
