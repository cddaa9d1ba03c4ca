"""What a view says of itself; app.api.docs makes the document of it."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

View = TypeVar("View", bound=Callable[..., Any])
Bodies = Mapping[int, tuple[Any, str]]  # status -> schema, or OpenAPI around one, and meaning


def documented(
    summary: str,
    *,
    responses: Bodies,
    tag: str,
    request: type | tuple[type, ...] | None = None,
    many: bool = False,
    media: tuple[str, ...] = ("application/json",),
    examples: dict[str, Any] | None = None,
) -> Callable[[View], View]:
    """Attach to a view what the document says of it; the docstring is its longer description.

    `request`: a schema, or several of which one must fit. `many`: a 200 is a list of what its schema
    says, `media` the types it comes in. `examples` are request bodies as OpenAPI example objects;
    Swagger UI offers and sends them.
    """

    def attach(view: View) -> View:
        operation: dict[str, Any] = {
            "summary": summary,
            "tags": [tag],
            "responses": {
                str(status): {
                    "description": meaning,
                    "content": _content(schema, many and status == 200, kinds),
                }
                for status, (schema, meaning) in responses.items()
                for kinds in [media if status == 200 else ("application/json",)]
            },
        }
        if view.__doc__:
            operation["description"] = view.__doc__.strip()
        if request:
            either = {"oneOf": list(request)} if isinstance(request, tuple) else request
            content: dict[str, Any] = {"schema": either}
            if examples:
                content["examples"] = examples
            operation["requestBody"] = {
                "required": True,
                "content": {"application/json": content},
            }
        view.__apispec_doc__ = operation  # type: ignore[attr-defined]
        return view

    return attach


def _content(schema: Any, many: bool, kinds: tuple[str, ...]) -> dict[str, Any]:
    """An answer's content in OpenAPI, in each of these types; none for an answer without a body."""
    if schema is None:
        return {}
    content = {"schema": {"type": "array", "items": schema} if many else schema}
    if isinstance(schema, dict) and "example" in schema:  # ReDoc would make one of a kind that is not there
        content["example"] = schema["example"]
    return dict.fromkeys(kinds, content)
