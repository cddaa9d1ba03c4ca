"""The one table from an exception to a status and a body."""

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

# What a client sees for statuses that Flask raises by itself.
SENTENCES = {
    404: "there is nothing at this path, /apidocs/ lists what there is",
    405: "this path does not answer this method, see the Allow header",
    408: REFUSALS[408].sentence,
    500: "the server failed on this request, its log says why",
}
MODEL_CHARACTERS = 256  # of a model's name: it comes back in answers


class Busy(Exception):
    """There is no thread for a request, or no room for it; `seconds` until there should be."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"there is no room for this request, wait and try again in {seconds} s")
        self.seconds = seconds


class Stuck(Exception):
    """A forward has taken longer than any does."""


class UnknownModel(Exception):
    """A request names a model that is not `served` here, to which it could go."""

    def __init__(self, asked: str, *served: str) -> None:
        shown = asked if len(asked) <= MODEL_CHARACTERS else f"{asked[:MODEL_CHARACTERS]}..."
        verb = "is" if len(served) == 1 else "are"
        super().__init__(f"model {shown!r} not found: {' and '.join(map(repr, served))} {verb} served here")


def init_app(app: Flask) -> None:
    app.register_error_handler(ValidationError, _validation)
    app.register_error_handler(MissingHead, _missing_head)
    app.register_error_handler(LateNeedsMean, _late_needs_mean)
    app.register_error_handler(TooMuchOutput, _too_much_output)
    app.register_error_handler(UnknownModel, _unknown_model)
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
    """An error as the clients of this path parse it: one sentence a person can act on, and its fields."""
    protocol = _protocol()
    shape = protocol.error if protocol else plain
    status = protocol.statuses.get(status, status) if protocol else status
    body = shape(status, sentence, details or {})
    return Response(json.dumps(body), status=status, mimetype="application/json")


def _protocol() -> Protocol | None:
    """That of this request's path, though no view may take it by its method."""
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


def _unavailable(error: NotLoaded | Stuck) -> Response:
    return refusal(503, str(error))


def overloaded(error: Overloaded | Busy) -> Response:
    """503, and when to come again."""
    response = refusal(503, str(error))
    response.headers["Retry-After"] = str(error.seconds)
    return response


def unread(status: int) -> Response:
    """For a request whose head could not be read, did not come in time, or that failed outside of Flask."""
    phrase = HTTPStatus(status).phrase
    return refusal(status, SENTENCES.get(status) or f"the head of the request is not valid HTTP: {phrase}")


def _too_late(error: TooLate) -> Response:
    return refusal(504, str(error))


def _abandoned(error: Abandoned) -> Response:
    return refusal(499, str(error))  # nginx's number; nobody reads it but the log


def _not_finite(error: NotFinite) -> Response:
    log.error("%s", error)
    return refusal(500, str(error))


def _http(error: HTTPException) -> Response:
    # Its own response carries headers that belong to the status, such as Allow.
    response = Response(headers=error.get_headers(), status=error.code)
    sentence = SENTENCES.get(response.status_code) or error.description or error.name
    response.data = refusal(response.status_code, sentence).data
    response.mimetype = "application/json"
    return response


def _unexpected(error: Exception) -> Response:
    log.exception("unexpected %s", type(error).__name__)
    return refusal(500, SENTENCES[500])
