"""The table that maps an exception to a status and a body."""

import logging
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, current_app, json, request
from marshmallow import ValidationError
from werkzeug.exceptions import HTTPException

from app.api.protocol import REFUSALS, Protocol, first_fault, plain, registered
from app.engine.errors import (
    Abandoned,
    LateNeedsMean,
    MissingHead,
    NotFinite,
    NotLoaded,
    Overloaded,
    TooLate,
    TooMuchOutput,
)

log = logging.getLogger(__name__)

# Sentences for statuses that Flask raises itself.
SENTENCES = {
    404: "there is nothing at this path, /apidocs/ lists what there is",
    405: "this path does not answer this method, see the Allow header",
    408: REFUSALS[408].sentence,
    500: "the server failed on this request, its log says why",
}
MODEL_CHARACTERS = 256  # how much of the name of a model or a space an answer repeats


class Busy(Exception):
    """No thread or no memory is left for a request; `seconds` until there should be."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"there is no room for this request, wait and try again in {seconds} s")
        self.seconds = seconds


class Stuck(Exception):
    """A forward pass takes so long that it must be hanging."""


class UnknownModel(Exception):
    """A request names a model that is not one of those `served`."""

    def __init__(self, asked: str, *served: str) -> None:
        verb = "is" if len(served) == 1 else "are"
        super().__init__(
            f"model {_short(asked)!r} not found: {' and '.join(map(repr, served))} {verb} served here"
        )


class OtherSpace(Exception):
    """A request expects another embedding space than those that its answer could be in."""

    def __init__(self, expected: str, *here: str) -> None:
        super().__init__(
            f"the embedding space {_short(expected)!r} is expected, but this answer would be in "
            f"{' or '.join(map(repr, here))}: do not mix their vectors"
        )


def _short(name: str) -> str:
    return name if len(name) <= MODEL_CHARACTERS else f"{name[:MODEL_CHARACTERS]}..."


def init_app(app: Flask) -> None:
    app.register_error_handler(ValidationError, _validation)
    app.register_error_handler(MissingHead, _missing_head)
    app.register_error_handler(LateNeedsMean, _late_needs_mean)
    app.register_error_handler(TooMuchOutput, _too_much_output)
    app.register_error_handler(UnknownModel, _unknown_model)
    app.register_error_handler(OtherSpace, _other_space)
    app.register_error_handler(NotLoaded, _unavailable)
    app.register_error_handler(Overloaded, overloaded)
    app.register_error_handler(Busy, overloaded)
    app.register_error_handler(TooLate, _too_late)
    app.register_error_handler(Abandoned, _abandoned)
    app.register_error_handler(Stuck, _unavailable)
    app.register_error_handler(NotFinite, _not_finite)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, _unexpected)


def refusal(status: int, sentence: str, details: dict[str, Any] | None = None) -> Response:
    """An error as clients of this path parse it: a sentence a person can act on, and the wrong fields."""
    protocol = _protocol()
    shape = protocol.error if protocol else plain
    status = protocol.statuses.get(status, status) if protocol else status
    body = shape(status, sentence, details or {})
    return Response(json.dumps(body), status=status, mimetype="application/json")


def _protocol() -> Protocol | None:
    """The protocol of this request's path, even if no view takes this method."""
    name = request.blueprint
    if name is None:
        adapter = current_app.create_url_adapter(request)
        methods = adapter.allowed_methods() if adapter else ()
        method = "POST" if "POST" in methods else next(iter(methods), None)
        if adapter and method:
            name = adapter.match(method=method)[0].rpartition(".")[0]
    found = current_app.blueprints.get(name or "")
    if found is None:
        spoken = (one for one in registered(current_app) if one.prefix)
        found = next((one for one in spoken if request.path.startswith(one.prefix)), None)
    return found if isinstance(found, Protocol) else None


def _validation(error: ValidationError) -> Response:
    details: dict[str, Any] = error.normalized_messages()  # type: ignore[no-untyped-call]
    return refusal(422, first_fault(details), details)


def _missing_head(error: MissingHead) -> Response:
    return refusal(422, str(error), {error.head: [str(error)]})


def _late_needs_mean(error: LateNeedsMean) -> Response:
    return refusal(422, str(error), {"pooling": [str(error)]})


def _too_much_output(error: TooMuchOutput) -> Response:
    setting = " (EMBED_MAX_OUTPUT_NUMBERS)" if error.what == "numbers" else ""
    return refusal(422, f"{error}{setting}", {"input": [str(error)]})


def _unknown_model(error: UnknownModel) -> Response:
    return refusal(404, str(error), {"model": [str(error)]})


def _other_space(error: OtherSpace) -> Response:
    response = refusal(409, str(error), {"X-Embedding-Space": [str(error)]})
    response.headers["X-Should-Retry"] = "false"  # else OpenAI's clients retry a 409
    return response


def _unavailable(error: NotLoaded | Stuck) -> Response:
    return refusal(503, str(error))


def overloaded(error: Overloaded | Busy) -> Response:
    """503, with Retry-After."""
    response = refusal(503, str(error))
    response.headers["Retry-After"] = str(error.seconds)
    return response


def unread(status: int) -> Response:
    """For a request whose head was invalid or late, or that failed outside Flask."""
    phrase = HTTPStatus(status).phrase
    return refusal(status, SENTENCES.get(status) or f"the head of the request is not valid HTTP: {phrase}")


def _too_late(error: TooLate) -> Response:
    return refusal(504, str(error))


def _abandoned(error: Abandoned) -> Response:
    return refusal(499, str(error))  # nginx's number; only the log shows it


def _not_finite(error: NotFinite) -> Response:
    log.error("%s", error)
    return refusal(500, str(error))


def _http(error: HTTPException) -> Response:
    # Keep the headers that belong to the status, such as Allow.
    response = Response(headers=error.get_headers(), status=error.code)
    sentence = SENTENCES.get(response.status_code) or error.description or error.name
    response.data = refusal(response.status_code, sentence).data
    response.mimetype = "application/json"
    return response


def _unexpected(error: Exception) -> Response:
    log.exception("unexpected %s", type(error).__name__)
    return refusal(500, SENTENCES[500])
