"""Gives every request an id, a line in the log, a place in the metrics, and headers for its answer."""

import logging
import re
import time
import uuid
from collections.abc import Mapping

from flask import Flask, Response, current_app, g, request

from app.api import metrics, tracing
from app.api.context import encoder
from app.api.protocol import is_open
from app.engine.embeddings import Priority

log = logging.getLogger(__name__)

REQUEST_ID = re.compile(r"[\w.:/+=@-]{1,128}", re.ASCII)
# Machines ask for these every few seconds, browsers for dozens at once: logged at debug level only.
QUIET = {"health.alive", "health.ready", "health.health", "metrics.metrics", "page.static"}
METHODS = {"GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE", "PATCH"}  # a client can invent others
LINE = "%(method)s %(route)s %(status)d, %(texts)d texts, %(tokens)d tokens, %(ms).1f ms, %(request_id)s"
MISSPELT = "unknown field %r is ignored, did you mean %r?"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def init_app(app: Flask) -> None:
    app.before_request(_begin)
    app.after_request(_end)


def request_id(sent: str) -> str:
    """The client's request id if it is well formed, else a new one."""
    return sent if REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex


def record(
    method: str,
    route: str,
    status: int,
    seconds: float,
    request_id: str,
    waiting: Mapping[Priority, int],
    done: tuple[int, int] = (0, 0),
    level: int = logging.INFO,
    **more: str,
) -> None:
    """The count and the line of a request that was answered.

    `waiting`: tokens that wait then; `done`: texts and tokens of this one; `more` is logged where it is not
    empty.
    """
    metrics.count_request(method, route, status, seconds, waiting)
    fields = {
        "method": method,
        "route": route,
        "status": status,
        "texts": done[0],
        "tokens": done[1],
        "ms": round(1e3 * seconds, 1),
        "request_id": request_id,
    }
    more = {name: value for name, value in more.items() if value}
    line = "".join([LINE, *(f", {name} %({name})s" for name in more)])
    log.log(level, line, fields | more, extra=fields | more)


def _begin() -> None:
    g.start = time.perf_counter()
    g.request_id = request_id(request.headers.get("X-Request-ID", ""))
    g.trace = tracing.begin(request.environ, f"{request.method} {_route()}")


def _end(response: Response) -> Response:
    seconds = time.perf_counter() - g.start
    route = _route()
    response.headers["X-Request-ID"] = g.request_id
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    misspelt: dict[str, str] = g.get("misspelt", {})
    if misspelt:
        told = "; ".join(MISSPELT % pair for pair in misspelt.items())
        response.headers["Warning"] = f'199 - "{told}"'
    method = request.method if request.method in METHODS else "other"
    endpoint = request.endpoint or ""
    quiet = endpoint in QUIET or is_open(current_app, endpoint)
    level = logging.DEBUG if quiet else logging.INFO
    done, waiting = g.get("done", (0, 0)), encoder().load_state.waiting
    more = {"trace_id": g.trace, "misspelt": ", ".join(misspelt)}
    record(method, route, response.status_code, seconds, g.request_id, waiting, done, level, **more)
    tracing.end(response, {"http.response.status_code": response.status_code, "http.route": route})
    return response


def _route() -> str:
    """The route and never the path, which the client chooses."""
    return request.url_rule.rule if request.url_rule else "none"
