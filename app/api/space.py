"""The embedding space of an answer: told in a header, and refused where the request expects another."""

from typing import Any, get_args

from flask import g, request
from werkzeug.wrappers import Response

from app.api.context import encoder
from app.api.errors import OtherSpace
from app.engine.embeddings import Pooling

HEADER = "X-Embedding-Space"
EXAMPLE = "f48d4534a7d8.mean.fp32.512.1"
SPACE = "The embedding space of this server's vectors, with its own pooling."

# For the documentation: the header of a request, and that of an answer.
EXPECTED: list[dict[str, Any]] = [
    {
        "name": HEADER,
        "in": "header",
        "required": False,
        "schema": {"type": "string"},
        "example": EXAMPLE,
        "description": "The embedding space that you expect, as an earlier answer named it. If the vectors "
        "would be in another one, the answer is 409 and nothing is computed.",
    }
]
TOLD: dict[str, Any] = {
    HEADER: {
        "description": "The embedding space of these vectors: weights, pooling, precision, limit of tokens, "
        "version of the numerics. Vectors whose spaces have equal names can be compared.",
        "schema": {"type": "string"},
        "example": EXAMPLE,
    }
}


def check_space(pooling: Pooling | None) -> None:
    """Note the space of the vectors that this request gets; raises OtherSpace if it expects another."""
    g.space = encoder().space(pooling)
    _expect(g.space)


def check_model(pooling: Pooling | None) -> None:
    """As `check_space`, for a request that gets no vectors: without `pooling`, any is right."""
    poolings = (pooling,) if pooling else get_args(Pooling)
    _expect(*map(encoder().space, poolings))


def expected_space() -> str:
    """The space that this request expects; "" if it does not say."""
    return request.headers.get(HEADER, "").strip()


def tell_space(response: Response) -> None:
    """Name the space in the answer's header, if the answer holds vectors."""
    if space := g.get("space"):
        response.headers[HEADER] = space


def _expect(*spaces: str) -> None:
    expected = expected_space()
    if expected and expected not in spaces:
        raise OtherSpace(expected, *spaces)
