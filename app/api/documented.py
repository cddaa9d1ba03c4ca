"""What views say about themselves; app.api.docs builds the OpenAPI document from it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self, TypeVar

View = TypeVar("View", bound=Callable[..., Any])


class Answer(NamedTuple):
    """What a status means: `schema`, or OpenAPI around one, and examples by name.

    An example is made of the schema of the request, where there is one.
    """

    schema: Any
    meaning: str
    examples: Mapping[str, Callable[[type | None], Any]] = {}

    def joined(self, other: Self) -> Self:
        """Two refusals that a protocol sends with the same status."""
        return self._replace(
            meaning=f"{self.meaning}; or {other.meaning}", examples={**self.examples, **other.examples}
        )


Answers = Mapping[int, Answer | tuple[Any, str]]  # by status


def documented(
    summary: str,
    *,
    responses: Answers,
    tag: str,
    request: type | tuple[type, ...] | None = None,
    many: bool = False,
    media: tuple[str, ...] = ("application/json",),
    examples: dict[str, Any] | None = None,
    parameters: list[dict[str, Any]] | None = None,
    headers: dict[str, Any] | None = None,
) -> Callable[[View], View]:
    """Attach to a view what the document says of it; the docstring is its longer description.

    `request`: a schema, or several of which one must fit. `many`: a 200 is a list of what its schema
    says, `media` the types it comes in, `headers` its own. `examples` are request bodies as OpenAPI example
    objects; Swagger UI offers and sends them. `parameters` are the request's, such as a header.
    """

    first = request[0] if isinstance(request, tuple) else request

    def attach(view: View) -> View:
        operation: dict[str, Any] = {
            "summary": summary,
            "tags": [tag],
            "responses": {
                str(status): described(Answer(*answer), first, many=many, media=media)
                if status == 200
                else described(Answer(*answer), first)
                for status, answer in responses.items()
            },
        }
        if parameters:
            operation["parameters"] = parameters
        if headers:
            operation["responses"]["200"]["headers"] = headers
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


def described(
    answer: Answer,
    request: type | None = None,
    *,
    many: bool = False,
    media: tuple[str, ...] = ("application/json",),
) -> dict[str, Any]:
    """An answer in OpenAPI, its content in each of these types; no content without a body."""
    schema, meaning, examples = answer
    if schema is None:
        return {"description": meaning}
    content: dict[str, Any] = {"schema": {"type": "array", "items": schema} if many else schema}
    if examples:
        content["examples"] = {name: {"value": make(request)} for name, make in examples.items()}
    elif isinstance(schema, dict) and "example" in schema:  # else ReDoc invents one
        content["example"] = schema["example"]
    return {"description": meaning, "content": dict.fromkeys(media, content)}
