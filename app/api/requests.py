"""Every request: its id, its line in the log, its count in the metrics, the headers of its answer."""

import logging
import re
import time
import uuid

from flask import Flask, Response, g, request

from app.api import metrics
from app.api.context import encoder

log = logging.getLogger(__name__)

REQUEST_ID = re.compile(r"[\w.:/+=@-]{1,128}", re.ASCII)
# Asked every few seconds by machines, dozens at once by browsers: only logged where somebody looks closely.
QUIET = {"health.alive", "health.ready", "health.health", "metrics.metrics", "page.static"}
METHODS = {"GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE", "PATCH"}  # a client can make up others
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def init_app(app: Flask) -> None:
    app.before_request(_begin)
    app.after_request(_end)


def _begin() -> None:
    g.start = time.perf_counter()
    sent = request.headers.get("X-Request-ID", "")
    g.request_id = sent if REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex


def _end(response: Response) -> Response:
    seconds = time.perf_counter() - g.start
    route = request.url_rule.rule if request.url_rule else "none"  # never the path: it is the client's
    response.headers["X-Request-ID"] = g.request_id
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    method = request.method if request.method in METHODS else "other"
    metrics.count_request(method, route, response.status_code, seconds, encoder().waiting)
    done = g.get("done")
    fields = {
        "method": method,
        "route": route,
        "status": response.status_code,
        "texts": len(done.token_counts) if done else 0,
        "tokens": done.tokens if done else 0,
        "ms": round(1e3 * seconds, 1),
        "request_id": g.request_id,
    }
    line = "%(method)s %(route)s %(status)d, %(texts)d texts, %(tokens)d tokens, %(ms).1f ms, %(request_id)s"
    log.log(logging.DEBUG if request.endpoint in QUIET else logging.INFO, line, fields, extra=fields)
    return response
