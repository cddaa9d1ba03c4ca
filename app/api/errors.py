"""The one table from an exception to a status and a body."""

import logging
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, json, request
from marshmallow import ValidationError
from werkzeug.exceptions import HTTPException

from app.api.schemas import MODEL_CHARACTERS
from app.engine.errors import (
    Abandoned,
    MissingHead,
    NotFinite,
    NotLoaded,
    Overloaded,
    TextTooLong,
    TooLate,
    TooMuchOutput,
)

log = logging.getLogger(__name__)

# What a client sees for statuses that Flask raises by itself.
SENTENCES = {
    404: "there is nothing at this path, /apidocs/ lists what there is",
    405: "this path does not answer this method, see the Allow header",
    408: "the request did not come in time: its head has ten seconds, its body two minutes",
    500: "the server failed on this request, its log says why",
}


# OpenAI's name for each kind of error; its clients choose an exception by status.
OPENAI_TYPES = {401: "authentication_error", 404: "not_found_error", 503: "overloaded_error"}
# text-embeddings-inference's; its clients only show it.
TEI_TYPES = {401: "Unauthorized", 500: "Backend", 503: "Overloaded", 504: "Backend"}
TEI_PATHS = ("/", "/embed", "/embed_sparse", "/rerank", "/tokenize", "/info")


class Busy(Exception):
    """There is no thread for a request, or no room for it; `seconds` until there should be."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"there is no room for this request, wait and try again in {seconds} s")
        self.seconds = seconds


class Stuck(Exception):
    """A forward has taken longer than any does."""


class UnknownModel(Exception):
    """A request names a model that is not served here."""

    def __init__(self, asked: str, served: str) -> None:
        shown = asked if len(asked) <= MODEL_CHARACTERS else f"{asked[:MODEL_CHARACTERS]}..."
        super().__init__(f"model {shown!r} not found: {served!r} is served here")


def init_app(app: Flask) -> None:
    app.register_error_handler(ValidationError, _validation)
    app.register_error_handler(TextTooLong, _too_long)
    app.register_error_handler(MissingHead, _missing_head)
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
    body: dict[str, Any]
    details = details or {}
    if request.path.startswith("/v1/"):
        status = 400 if status == 422 else status
        about: dict[str, Any] = {"type": OPENAI_TYPES.get(status, _openai_type(status))}
        about["param"] = next(iter(details), None)
        about["code"] = "model_not_found" if status == 404 and "model" in details else None
        body = {"error": {"message": sentence, **about}}
    elif request.path in TEI_PATHS:
        body = {"error": sentence, "error_type": TEI_TYPES.get(status, "Validation")}
    else:
        body = {"error": sentence, "details": details}
    return Response(json.dumps(body), status=status, mimetype="application/json")


def _openai_type(status: int) -> str:
    return "server_error" if status >= 500 else "invalid_request_error"


def _validation(error: ValidationError) -> Response:
    details: dict[str, Any] = error.normalized_messages()  # type: ignore[no-untyped-call]
    field, messages = next(iter(details.items()))
    return refusal(422, f"{field}: {_first(messages)}", details)


def _first(messages: Any) -> str:
    """The first sentence in marshmallow's nest of lists and mappings."""
    while not isinstance(messages, str):
        messages = next(iter(messages.values() if isinstance(messages, dict) else messages))
    return messages


def _too_long(error: TextTooLong) -> Response:
    sentence = str(error)
    return refusal(422, f"input: {sentence}", {"input": [sentence]})


def _missing_head(error: MissingHead) -> Response:
    return refusal(422, str(error), {error.head: [str(error)]})


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
